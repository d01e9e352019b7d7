//! Which engine, and how it computes: the table `[engine]` of a recipe.

use crate::{Available, Cpu, Engine, Error, Torch};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which engine runs the models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Settings {
    /// The engine of this process.
    #[default]
    Cpu,
    /// PyTorch in a worker process.
    Torch(TorchSettings),
}

/// How PyTorch is found and computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TorchSettings {
    /// The Python that has the packages; that of the active environment, or the first on the path, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<PathBuf>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Type of the numbers that models compute with; bf16 on CUDA and f32 elsewhere when absent. Parameters, gradients
    /// and moments are float32 in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// Whether blocks are compiled. The first steps take minutes, the others less time.
    pub compile: bool,
    /// How packed documents are attended to.
    pub attention: Attention,
    /// How long an answer may take before the worker is given up.
    pub timeout_seconds: f64,
    /// Processes that work together, each on a device of its own. All are started on this machine, unless there is a
    /// `launcher`, which says how many there are.
    pub processes: usize,
    /// What each of several processes has of the learner.
    pub sharding: Sharding,
    /// What has started this program once for each device, on one machine or several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launcher: Option<Launcher>,
}

/// What each of several processes has of the learner. Models that are only read are whole in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharding {
    /// Its part of the parameters, gradients and moments; blocks are gathered when they compute.
    #[default]
    Full,
    /// All of them.
    None,
}

/// What has started several processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// `torchrun`, or whatever else sets `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`.
    Torchrun,
    /// `srun`.
    Slurm,
}

/// Type of the numbers that models compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// bfloat16.
    Bf16,
    /// float32, without TF32.
    F32,
}

/// How packed documents are attended to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// The kernel of variable lengths where there is one, scaled dot products elsewhere.
    #[default]
    Auto,
    /// The kernel of variable lengths.
    Varlen,
    /// Scaled dot products, one document after another.
    Sdpa,
}

impl Settings {
    /// Whether models run as they do where nothing is said of an engine.
    pub fn is_default(&self) -> bool {
        *self == Settings::default()
    }

    /// The memory that there is for models, where it is known without starting the engine.
    pub fn available_memory(&self) -> Option<Available> {
        match self {
            Settings::Cpu => Available::now(),
            Settings::Torch(_) => None,
        }
    }

    /// How this process joins others, where it is one of several that a launcher has started, and not the first: it only
    /// [serves](crate::torch::serve) then.
    pub fn led(&self) -> Option<&TorchSettings> {
        match self {
            Settings::Torch(settings) => {
                let rank = std::env::var(settings.launcher?.rank()).ok()?;
                rank.parse().is_ok_and(|rank: u64| rank > 0).then_some(settings)
            }
            Settings::Cpu => None,
        }
    }

    /// What the results of models are known by, beside all else that they depend on: nothing with the engine of this
    /// process, and otherwise which engine it is and what it computes with. Known without starting it.
    pub fn identity(&self) -> Option<String> {
        match self {
            Settings::Cpu => None,
            Settings::Torch(TorchSettings { dtype: Some(dtype), .. }) => {
                Some(format!("torch {}", dtype.name()))
            }
            Settings::Torch(_) => Some("torch".into()),
        }
    }
}

impl Default for TorchSettings {
    fn default() -> TorchSettings {
        TorchSettings {
            python: None,
            device: "auto".into(),
            dtype: None,
            compile: false,
            attention: Attention::Auto,
            timeout_seconds: 600.0,
            processes: 1,
            sharding: Sharding::Full,
            launcher: None,
        }
    }
}

impl Dtype {
    /// The worker's word.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
        }
    }
}

impl Attention {
    /// The worker's word.
    pub fn name(self) -> &'static str {
        match self {
            Attention::Auto => "auto",
            Attention::Varlen => "varlen",
            Attention::Sdpa => "sdpa",
        }
    }
}

impl Sharding {
    /// The worker's word.
    pub fn name(self) -> &'static str {
        match self {
            Sharding::Full => "full",
            Sharding::None => "none",
        }
    }
}

impl Launcher {
    /// The worker's word.
    pub fn name(self) -> &'static str {
        match self {
            Launcher::Torchrun => "torchrun",
            Launcher::Slurm => "slurm",
        }
    }

    /// The variable with the number of a process.
    fn rank(self) -> &'static str {
        match self {
            Launcher::Torchrun => "RANK",
            Launcher::Slurm => "SLURM_PROCID",
        }
    }
}

impl TorchSettings {
    /// Most processes that are started on one machine.
    const PROCESSES_MAX: usize = 64;

    /// Checks the numbers.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn validate(&self) -> Result<(), Error> {
        let seconds = self.timeout_seconds;
        // A year; beyond that a duration may not be representable.
        if !(seconds > 0.0 && seconds <= 3.2e7) {
            return Err(Error::Setting {
                key: "timeout_seconds",
                value: seconds,
                expected: "above 0, at most 3.2e7",
            });
        }
        let most = if self.launcher.is_some() { 1 } else { TorchSettings::PROCESSES_MAX };
        if !(1..=most).contains(&self.processes) {
            let expected = match self.launcher {
                Some(_) => "1 where there is a `launcher`, which says how many there are",
                None => "1 to 64",
            };
            return Err(Error::Setting { key: "processes", value: self.processes as f64, expected });
        }
        Ok(())
    }
}

/// Starts an engine. `warn` is told what works in another way than was to be expected.
///
/// # Errors
/// Settings that make no sense; no Python, or one without the packages that are needed.
pub fn start(settings: &Settings, warn: fn(&str)) -> Result<Box<dyn Engine>, Error> {
    Ok(match settings {
        Settings::Cpu => Box::new(Cpu::new()),
        Settings::Torch(settings) => Box::new(Torch::start(settings, warn)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_engine_is_part_of_an_identity() {
        let torch = |dtype| Settings::Torch(TorchSettings { dtype, ..Default::default() }).identity();
        assert_eq!(Settings::default().identity(), None);
        assert_eq!(torch(None).as_deref(), Some("torch"));
        assert_eq!(torch(Some(Dtype::Bf16)).as_deref(), Some("torch bf16"));
        assert_eq!(torch(Some(Dtype::F32)).as_deref(), Some("torch f32"));
    }
}
