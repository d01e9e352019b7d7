//! What a checkpoint holds beyond the model: all that is needed to go on as if nothing had happened.
//!
//! `state/progress.json` counts; `state/optimizer.safetensors` has the moments, `exp_avg.<name>` and
//! `exp_avg_sq.<name>` as PyTorch calls them; where the model itself is written rounded,
//! `state/parameters.safetensors` has it exactly. There is no random state: what is drawn is a function of the seed
//! and of how many windows have been used.

use crate::Error;
use crate::settings::{Checkpoints, Dtype};
use crate::trainer::{Moments, Trainer};
use remit_model::{Decoder, SaveOptions};
use remit_store::atomic;
use remit_store::tensors::{FileDtype, TensorDirectory, TensorOut, write_tensors};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
const FIRST: &str = "exp_avg.";
const SECOND: &str = "exp_avg_sq.";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    version: u32,
    /// Steps taken by this run.
    pub step: u64,
    /// Updates that the moments have seen, those before this run included.
    pub updates: u64,
    /// Windows, pairs or prompts used by this run: the data cursor.
    pub windows: u64,
    /// Unmasked predictions trained on by this run.
    pub tokens: u64,
    /// Steps in a row, up to here, that had nothing to learn from.
    #[serde(default)]
    pub idle: u64,
}

/// What goes into a checkpoint beside the model.
#[derive(Clone, Debug, Default)]
pub struct Companions {
    /// The directory whose tokenizer files come along.
    pub tokenizer: Option<PathBuf>,
    /// The chat template that the learner was trained with; otherwise one that lies beside the tokenizer comes along.
    pub chat_template: Option<String>,
}

impl Progress {
    pub(crate) fn start(updates: u64) -> Progress {
        Progress { version: VERSION, step: 0, updates, windows: 0, tokens: 0, idle: 0 }
    }
}

/// Fills the directory of a checkpoint.
pub(crate) fn save(
    trainer: &Trainer,
    progress: &Progress,
    settings: &Checkpoints,
    companions: &Companions,
    directory: &Path,
) -> Result<(), Error> {
    let max_shard_bytes = (settings.max_shard_bytes > 0).then_some(settings.max_shard_bytes);
    trainer.learner.save(directory, SaveOptions { dtype: settings.dtype.into(), max_shard_bytes })?;
    companions.write(directory)?;
    let state = directory.join("state");
    std::fs::create_dir(&state).map_err(|error| remit_store::Error::io("create", &state, error))?;
    let layout = trainer.learner.layout();
    let moments = [(FIRST, &trainer.moments.first), (SECOND, &trainer.moments.second)];
    let names: Vec<(String, &remit_model::Entry, &[f32])> = moments
        .into_iter()
        .flat_map(|(prefix, values)| {
            layout
                .entries()
                .iter()
                .map(move |entry| (format!("{prefix}{}", entry.name), entry, &values[entry.range.clone()]))
        })
        .collect();
    let tensors: Vec<TensorOut> =
        names.iter().map(|(name, entry, data)| TensorOut { name, shape: &entry.shape, data }).collect();
    write_tensors(&state, "optimizer", &tensors, FileDtype::F32, None)?;
    if settings.dtype != Dtype::F32 {
        let data = &trainer.learner.parameters;
        let tensors: Vec<TensorOut> = layout
            .entries()
            .iter()
            .map(|entry| TensorOut {
                name: &entry.name,
                shape: &entry.shape,
                data: &data[entry.range.clone()],
            })
            .collect();
        write_tensors(&state, "parameters", &tensors, FileDtype::F32, None)?;
    }
    Ok(atomic::write_json(&state.join("progress.json"), progress)?)
}

impl Companions {
    fn write(&self, directory: &Path) -> Result<(), Error> {
        let template = directory.join(CHAT_TEMPLATE);
        if let Some(source) = &self.tokenizer {
            for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", CHAT_TEMPLATE]
            {
                let path = source.join(name);
                match std::fs::read(&path) {
                    Ok(bytes) => atomic::write(&directory.join(name), &bytes)?,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(remit_store::Error::io("read", &path, error).into()),
                }
            }
        }
        match &self.chat_template {
            Some(text) => Ok(atomic::write(&template, text.as_bytes())?),
            None => Ok(()),
        }
    }
}

/// Learner, moments and progress exactly as [`save`] found them.
pub(crate) fn load(directory: &Path) -> Result<(Decoder, Moments, Progress), Error> {
    let state = directory.join("state");
    let path = state.join("progress.json");
    let wrong = |problem: String| Error::State { path: path.clone(), problem };
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    let progress: Progress = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if progress.version != VERSION {
        return Err(wrong(format!("it has version {}, this program writes {VERSION}", progress.version)));
    }
    let mut learner = Decoder::open(directory)?;
    if state.join("parameters.safetensors").is_file() {
        let files = TensorDirectory::open_stem(&state, "parameters")?;
        read(&files, "", &learner.layout().clone(), &mut learner.parameters)?;
    }
    let moments = load_moments(directory, &learner, progress.updates)?;
    Ok((learner, moments, progress))
}

/// Whether a checkpoint has moments.
pub(crate) fn has_moments(directory: &Path) -> bool {
    directory.join("state/optimizer.safetensors").is_file()
}

/// The moments of a checkpoint, and how many updates made them.
pub(crate) fn moments_of(directory: &Path, learner: &Decoder) -> Result<Moments, Error> {
    let path = directory.join("state/progress.json");
    let wrong = |problem: String| Error::State { path: path.clone(), problem };
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    let progress: Progress = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    load_moments(directory, learner, progress.updates)
}

fn load_moments(directory: &Path, learner: &Decoder, updates: u64) -> Result<Moments, Error> {
    let files = TensorDirectory::open_stem(&directory.join("state"), "optimizer")?;
    let mut moments = Moments::zero(learner.parameters.len());
    moments.updates = updates;
    read(&files, FIRST, learner.layout(), &mut moments.first)?;
    read(&files, SECOND, learner.layout(), &mut moments.second)?;
    Ok(moments)
}

fn read(
    files: &TensorDirectory,
    prefix: &str,
    layout: &remit_model::Layout,
    values: &mut [f32],
) -> Result<(), Error> {
    for entry in layout.entries() {
        let name = format!("{prefix}{}", entry.name);
        let found = files.info(&name)?.shape;
        if found != entry.shape.as_slice() {
            let problem = format!("tensor `{name}` has shape {found:?}, the model has {:?}", entry.shape);
            return Err(Error::State { path: files.path().to_owned(), problem });
        }
        files.read_f32(&name, &mut values[entry.range.clone()])?;
    }
    Ok(())
}
