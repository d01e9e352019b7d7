//! `remit settings`: the keys of a recipe's tables.

use super::stage::defaults;
use crate::args::{SECTIONS, Shared};
use crate::render::error::Failure;
use crate::settings::list;
use clap::Args;
use serde_json::json;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Table of a recipe, such as `sft`; all of them by default
    #[arg(value_name = "TABLE", value_parser = clap::builder::PossibleValuesParser::new(SECTIONS))]
    pub table: Option<String>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { table } = arguments;
    let tables = SECTIONS.into_iter().filter(|section| table.as_ref().is_none_or(|table| table == section));
    let text: Vec<String> = tables.map(keys).collect();
    let text = text.join("\n");
    shared.print(|| text.clone(), &json!({ "keys": text }))
}

/// The keys of a table, with their defaults.
fn keys(section: &str) -> String {
    let defaults = defaults(section);
    match section {
        "engine" => list::<remit_engine::TorchSettings>(section, &defaults).replacen(
            "[engine]",
            "[engine]\n# kind  # cpu, torch; the others are of torch",
            1,
        ),
        "flywheel" => list::<remit_flywheel::Settings>(section, &defaults),
        "tokenizer" => list::<remit_corpus::TrainTokenizer>(section, &defaults),
        "prepare" => list::<remit_corpus::Prepare>(section, &defaults),
        "pretrain" | "midtrain" | "sft" => list::<remit_train::Settings>(section, &defaults),
        "score" => list::<remit_train::ScoreSettings>(section, &defaults),
        "dpo" => list::<remit_train::dpo::Settings>(section, &defaults),
        "rl" => list::<remit_rl::Settings>(section, &defaults),
        "eval" => list::<remit_eval::Settings>(section, &defaults),
        "dynamics" => list::<remit_eval::dynamics::Settings>(section, &defaults),
        "weights" => list::<remit_objective::Weighting>(section, &defaults),
        other => unreachable!("no settings are known for `[{other}]`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_with_defaults_and_choices() {
        let has = |section: &str, lines: &[&str]| {
            let text = keys(section);
            for line in lines {
                assert!(text.lines().any(|one| one == *line), "no `{line}` in:\n{text}");
            }
        };
        has(
            "sft",
            &[
                "[sft]",
                "# epochs",
                "# steps",
                "moments = \"reset\"  # auto, keep, reset",
                "optimizer.learning_rate = 0.0003",
                "schedule.warmup_fraction = 0.03",
                "# schedule.warmup_steps",
                "data.batch_windows = 8",
                "# data.examples.template",
                "# reference.checkpoint",
            ],
        );
        has(
            "dpo",
            &[
                "optimizer.weight_decay = 0.0",
                "schedule.kind = \"linear\"  # constant, linear, cosine, 1-sqrt, inverse-sqrt, wsd",
            ],
        );
        has("prepare", &["# sources", "# holdout"]);
        for section in SECTIONS {
            assert!(keys(section).lines().count() > 1, "{section}");
        }
    }
}
