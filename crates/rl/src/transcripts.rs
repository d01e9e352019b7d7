//! Rollouts to read: a few groups of a step as plain text, under `transcripts/` of the run.

use crate::Error;
use crate::rollout::{RolloutBatch, Sampler};
use remit_model::generate::Finish;
use remit_store::atomic;
use std::fmt::Write;
use std::path::Path;

/// Groups of a transcript.
const GROUPS: usize = 4;

/// Writes the first groups of a step's batch. A step that is done again writes the same.
pub(crate) fn write(run: &Path, step: u64, batch: &RolloutBatch, sampler: &Sampler) -> Result<(), Error> {
    let directory = run.join("transcripts");
    std::fs::create_dir_all(&directory)
        .map_err(|cause| remit_store::Error::io("create", &directory, cause))?;
    let text = transcript(step, batch, sampler)?;
    Ok(atomic::write(&directory.join(format!("step-{step:08}.txt")), text.as_bytes())?)
}

fn transcript(step: u64, batch: &RolloutBatch, sampler: &Sampler) -> Result<String, Error> {
    let mut text = format!(
        "step {step}: mean reward {:.3}, {:.0}% of groups with equal rewards\n",
        batch.mean_reward,
        100.0 * batch.equal_groups
    );
    let (mut group, mut before) = (0, None);
    for (rollout, advantage) in batch.rollouts.iter().zip(&batch.advantages) {
        if before != Some(rollout.prompt) {
            group += 1;
            if group > GROUPS {
                break;
            }
            before = Some(rollout.prompt);
            let prompt = sampler.prompt(rollout.prompt);
            let asked = sampler.text(&prompt.tokens)?;
            write!(
                text,
                "\n==== {}\n{asked}\n---- answer ({}): {}\n",
                prompt.place, prompt.verifier, prompt.answer
            )
            .expect("a string takes everything");
        }
        let finish = match rollout.completion.finish {
            Finish::Length => ", cut off",
            Finish::End | Finish::Stop => "",
        };
        write!(
            text,
            "---- reward {:.3}, advantage {advantage:+.3}, {} tokens{finish}; {}\n{}\n",
            rollout.reward,
            rollout.completion.tokens.len(),
            rollout.verdict.why.replace('\n', " "),
            rollout.text.trim_end_matches('\n')
        )
        .expect("a string takes everything");
    }
    Ok(text)
}
