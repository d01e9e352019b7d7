//! `remit engine`: what an engine finds, and whether it computes what this process computes.

use crate::args::Shared;
use crate::render::error::{Failure, warn};
use crate::render::table::Table;
use crate::render::{print, units};
use clap::Args;
use remit_engine::check::{self, Report};
use remit_engine::cpu::speed;
use remit_engine::{Instructions, Precision, Settings, Torch, TorchSettings};
use remit_model::families::Family;
use serde_json::{Value, json};

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Hold the engine to the one of this process: small models of every family, call by call
    #[arg(long)]
    pub check: bool,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.engine_settings()?;
    if shared.dry_run {
        return shared.print(|| settings.toml.clone(), &settings.value);
    }
    if let Settings::Torch(TorchSettings { launcher: Some(_), .. }) = &settings.value
        && arguments.check
    {
        return Err(Failure::usage(
            "`--check` starts the engine more than once, and a launcher starts it once",
        )
        .hint("use `processes` in place of `launcher`: one machine is checked at a time"));
    }
    let facts = facts(&settings.value)?;
    if !shared.json {
        print(&describe(&facts))?;
    }
    if !arguments.check {
        return if shared.json {
            shared.print(String::new, &json!({"engine": as_json(&facts)}))
        } else {
            Ok(())
        };
    }
    let quiet = shared.quiet || shared.json;
    let report = check::run(&settings.value, warn, &mut |what| {
        if !quiet {
            eprintln!("{what}");
        }
    })?;
    let value = json!({"engine": as_json(&facts), "check": report.rows, "good": report.is_good()});
    shared.print(|| "\n".to_owned() + &table(&report), &value)?;
    match report.rows.iter().filter(|row| !row.is_good()).count() {
        0 => Ok(()),
        bad => {
            Err(Failure::new(format!("{bad} of {} figures are beyond their tolerance", report.rows.len()))
                .hint(
                    "do not train with this engine on this machine; another version of PyTorch may do better",
                ))
        }
    }
}

type Facts = Vec<(&'static str, Value)>;

/// What there is. Starts the engine.
fn facts(settings: &Settings) -> Result<Facts, Failure> {
    let mut facts: Facts = vec![];
    match settings {
        Settings::Cpu => {
            facts.push(("engine", json!("cpu: this process")));
            facts.push(("threads", json!(rayon::current_num_threads())));
            let there: Vec<&str> = Instructions::all().map(Instructions::name).collect();
            let name = Instructions::current().name();
            facts.push(("instructions", json!(format!("{name}, of {}", there.join(", ")))));
            for precision in [Precision::F32, Precision::Bf16] {
                let rate = units::rate(speed(precision)) + "FLOP/s";
                facts.push((if precision.is_default() { "f32" } else { "bf16" }, json!(rate)));
            }
        }
        Settings::Torch(settings) => {
            let torch = Torch::start(settings, warn)?;
            let hello = torch.hello();
            facts.push(("engine", json!("torch: a worker process")));
            facts.push(("python", json!(format!("{} ({})", hello.python, torch.python().display()))));
            facts.push(("torch", json!(hello.torch)));
            facts.push(("transformers", json!(hello.transformers)));
            for device in &hello.devices {
                let memory = units::bytes(device.memory_bytes);
                let text = format!("{}, {memory}, capability {}", device.name, device.capability);
                facts.push(("accelerator", json!(text)));
            }
            facts.push(("device", json!(hello.device)));
            let asked = if settings.dtype.is_some() { "as set" } else { "follows from the device" };
            facts.push(("dtype", json!(format!("{}, {asked}", torch.dtype().name()))));
            facts.push(("attention", json!(hello.attention)));
            facts.push(("nccl", json!(hello.nccl.as_deref().unwrap_or("none"))));
            facts.push(("processes", json!(hello.world_size)));
        }
    }
    Ok(facts)
}

fn describe(facts: &Facts) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    facts.iter().map(|(name, value)| format!("{name:width$}  {}\n", text(value))).collect()
}

/// One entry a name; a list where a name comes more than once.
fn as_json(facts: &Facts) -> Value {
    let mut object = serde_json::Map::new();
    for (name, value) in facts {
        match *name {
            "accelerator" => {
                let list = object.entry("accelerators").or_insert_with(|| json!([]));
                list.as_array_mut().expect("it is a list").push(value.clone());
            }
            _ => drop(object.insert((*name).to_owned(), value.clone())),
        }
    }
    Value::Object(object)
}

/// A row a figure: its tolerance, and how far each family is apart.
fn table(report: &Report) -> String {
    let families = Family::ALL.map(Family::name);
    let mut table = Table::new(&[&["figure", "dtype", "at most"], &families[..], &[""]].concat());
    for row in &report.rows {
        let mut cells = vec![row.figure.label().to_owned(), row.dtype.name().to_owned()];
        cells.push(format!("{:.0e}", row.tolerance));
        cells.extend(row.values.iter().map(|value| format!("{value:.1e}")));
        cells.push(if row.is_good() { "" } else { "BEYOND" }.to_owned());
        table.row(cells);
    }
    table.to_plain()
}
