//! `remit weights`: what the method does to given tokens.

use super::generate::begin_with;
use super::read_ids;
use crate::args::{Flags, Shared};
use crate::render::error::Failure;
use crate::render::style::Colours;
use crate::render::weights::{About, Overall, SequenceView, WeightsView};
use crate::render::{print, units};
use clap::Args;
use remit_corpus::{Bos, Tokenizer};
use remit_engine::Usage;
use remit_model::Architecture;
use remit_objective::{Objective, WeightFigures, Weighting};
use remit_store::atomic;
use remit_train::{locate_checkpoint, weigh};
use std::path::{Path, PathBuf};

/// Flags of the verb. How tokens are weighed is set as `[weights]` in a recipe or by `--weights.epsilon_low=1.0` and
/// the like.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Learner: a checkpoint or a run
    #[arg(long, value_name = "DIR")]
    pub learner: PathBuf,
    /// Reference: a checkpoint or a run
    #[arg(long, value_name = "DIR")]
    pub reference: PathBuf,
    /// Text file to weigh
    #[arg(long, value_name = "FILE", required_unless_present = "ids", conflicts_with = "ids")]
    pub text: Option<PathBuf>,
    /// What stands in front of the text: own (what the tokenizer's post-processor puts there), none or a token
    #[arg(long, value_name = "TOKEN", default_value_t, conflicts_with = "ids")]
    pub bos: Bos,
    /// JSON array of arrays of token ids to weigh; needs no tokenizer
    #[arg(long, value_name = "FILE")]
    pub ids: Option<PathBuf>,
    /// Write a self-contained page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { learner, reference, text, bos, ids, html } = arguments;
    let settings = shared.resolve::<Weighting>("weights", Flags::default())?;
    let objective = Objective::Weighted(settings.value.clone());
    objective.validate(true)?;
    let [learner_path, reference_path] = [locate_checkpoint(&learner)?, locate_checkpoint(&reference)?];
    let tokenizer = open_tokenizer(&learner_path, &reference_path)?;
    let models = [Architecture::open(&learner_path)?, Architecture::open(&reference_path)?];
    let prefix = match &tokenizer {
        Some(tokenizer) => tokenizer.prefix(&bos)?,
        None => Vec::new(),
    };
    let sequences = match (&ids, &text) {
        (Some(path), _) => read_ids(path)?,
        (None, Some(path)) => {
            let tokenizer = tokenizer.as_ref().ok_or_else(|| no_tokenizer(&learner_path))?;
            tokenize(tokenizer, &prefix, path, models[0].max_length.min(models[1].max_length))?
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    if shared.dry_run {
        return print(&format!(
            "{}\nlearner      {} ({} parameters)\nreference    {} ({} parameters)\ntokens       {} in {} sequences{}\n",
            settings.toml,
            learner_path.display(),
            units::count(models[0].num_parameters()),
            reference_path.display(),
            units::count(models[1].num_parameters()),
            units::count(sequences.iter().map(|ids| ids.len() as u64).sum()),
            sequences.len(),
            begin_with(tokenizer.as_ref().filter(|_| ids.is_none()), &prefix)
        ));
    }
    let mut engine = shared.engine()?;
    let [learner_model, reference_model] =
        [engine.open(&learner_path, &Usage::default())?, engine.open(&reference_path, &Usage::default())?];
    let (weighed, summary) = weigh(&mut *engine, learner_model, reference_model, &objective, &sequences)?;
    let sequences = weighed.into_iter().map(|sequence| SequenceView {
        tokens: tokenizer
            .as_ref()
            .map(|tokenizer| sequence.ids.iter().map(|&id| token_text(tokenizer, id)).collect()),
        ids: sequence.ids,
        logp_learner: sequence.learner,
        logp_reference: sequence.reference,
        delta: sequence.delta,
        weights: sequence.weights,
    });
    let view = WeightsView {
        sequences: sequences.collect(),
        summary: Overall {
            num_tokens: summary.tokens,
            // Without a prediction there is no gap, and what is shown is 0.
            weights: WeightFigures {
                mean_delta: Some(summary.weights.mean_delta.unwrap_or(0.0)),
                ..summary.weights
            },
            ntp_loss: summary.ntp_loss,
            remit_loss: summary.weighted_loss,
        },
        about: About {
            learner: learner.display().to_string(),
            reference: reference.display().to_string(),
            lowest_weight: (1.0 - settings.value.epsilon_low) as f32,
            highest_weight: (1.0 + settings.value.epsilon_high) as f32,
        },
    };
    if let Some(path) = &html {
        atomic::write(path, view.to_html().as_bytes())?;
    }
    if shared.json {
        return print(&view.to_json());
    }
    print(&view.to_text(Colours::of_stdout()))?;
    match html {
        Some(path) => print(&format!("{}\n", path.display())),
        None => Ok(()),
    }
}

/// The tokenizer of the two models; none where neither has one.
pub(super) fn open_tokenizer(learner: &Path, reference: &Path) -> Result<Option<Tokenizer>, Failure> {
    match (Tokenizer::of_checkpoint(learner)?, Tokenizer::of_checkpoint(reference)?) {
        (Some(of_learner), Some(of_reference)) if of_learner.hash() != of_reference.hash() => Err(Failure::new(format!(
            "the reference `{}` has another tokenizer than the learner `{}`: {:.12} instead of {:.12}",
            reference.display(), learner.display(), of_reference.hash(), of_learner.hash()
        ))
        .hint("log-probabilities can be compared token by token only where both models have the same tokenizer")),
        (Some(tokenizer), _) | (None, Some(tokenizer)) => Ok(Some(tokenizer)),
        (None, None) => Ok(None),
    }
}

pub(crate) fn no_tokenizer(directory: &Path) -> Failure {
    Failure::new(format!("`{}` has no `tokenizer.json`", directory.display()))
        .hint("give token ids with `--ids FILE.json` instead")
}

/// A text behind `prefix`; cut where the models allow no more.
fn tokenize(
    tokenizer: &Tokenizer,
    prefix: &[u32],
    path: &Path,
    max_length: usize,
) -> Result<Vec<Vec<u32>>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display())))?;
    let ids = tokenizer.encode_document(prefix, &text)?;
    if ids.len() < 2 {
        return Err(Failure::new(format!("`{}` has no text to weigh", path.display())));
    }
    // Neighbours share a token, so that each but the first is weighed once.
    Ok((0..ids.len() - 1)
        .step_by(max_length)
        .map(|first| ids[first..ids.len().min(first + max_length + 1)].to_vec())
        .collect())
}

/// A token as it is shown.
pub(super) fn token_text(tokenizer: &Tokenizer, id: u32) -> String {
    match tokenizer.decode(&[id]) {
        Ok(text) if !text.is_empty() && !text.contains('\u{fffd}') => text,
        _ => tokenizer.token(id).unwrap_or_else(|| format!("<{id}>")),
    }
}
