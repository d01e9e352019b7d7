//! Rollouts: completions sampled from the policy, and what they are worth.
//!
//! A rollout batch is `B` groups of `G` completions, the completions of a group neighbours and all of one prompt. Which
//! prompts it has follows from a cursor into the endless shuffled row of prompts, and every completion has a seed of its
//! own from the run's seed, its place in that row and its number: a rollout that was killed comes out the same again.

use crate::Error;
use crate::prompts::{Prompt, Prompts};
use crate::settings::Settings;
use crate::verifiers::Verifiers;
use remit_corpus::{Shuffle, Tokenizer};
use remit_engine::{Engine, LEARNER};
use remit_judge::Verdict;
use remit_model::generate::{self, Completion, Finish, Request, Watch};
use remit_objective::{advantages, informative_groups, overlong_penalty};

/// One sampled completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Which prompt it answers, by its place among all.
    pub prompt: usize,
    /// What was sampled.
    pub completion: Completion,
    /// Its text up to the end token or the first stop text.
    pub text: String,
    /// What the verifier says.
    pub verdict: Verdict,
    /// What that earns, and the penalty for its length.
    pub reward: f64,
}

/// A rollout batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutBatch {
    /// `[B * G]`.
    pub rollouts: Vec<Rollout>,
    /// `[B * G]`: see [`remit_objective::advantage`].
    pub advantages: Vec<f64>,
    /// Prompts taken from the row, those of dropped groups included.
    pub prompts_taken: u64,
    /// Completions sampled, those of dropped groups included.
    pub num_sampled: usize,
    /// Their mean reward.
    pub mean_reward: f64,
    /// Share of sampled groups with equal rewards.
    pub equal_groups: f64,
}

/// Everything that sampling needs beside the policy.
#[derive(Debug)]
pub struct Sampler {
    settings: Settings,
    prompts: Prompts,
    verifiers: Verifiers,
    tokenizer: std::sync::Arc<Tokenizer>,
    order: Shuffle,
}

impl Sampler {
    /// A sampler of completions to `prompts`.
    pub fn new(
        settings: &Settings,
        prompts: Prompts,
        verifiers: Verifiers,
        tokenizer: std::sync::Arc<Tokenizer>,
    ) -> Sampler {
        let order = Shuffle::new(prompts.prompts.len() as u64, settings.common.seed, "prompts");
        Sampler { settings: settings.clone(), prompts, verifiers, tokenizer, order }
    }

    /// A prompt by its place among all.
    pub fn prompt(&self, index: usize) -> &Prompt {
        &self.prompts.prompts[index]
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// Tokens that the tokenizer does not know.
    pub fn text(&self, tokens: &[u32]) -> Result<String, Error> {
        Ok(self.tokenizer.decode(tokens)?)
    }

    /// Samples the rollout batch whose first prompt stands at `cursor`. With dynamic sampling, groups of equal rewards
    /// make room for others, as long as there are rounds left; a batch may then be smaller, and empty.
    ///
    /// # Errors
    /// Logits that are not finite.
    pub fn sample(&self, engine: &mut dyn Engine, cursor: u64) -> Result<RolloutBatch, Error> {
        let (wanted, group) = (self.settings.rollout.prompts, self.settings.grpo.num_generations);
        let mut batch = RolloutBatch::default();
        let (mut rewards, mut num_equal, mut num_groups) = (0.0, 0, 0);
        let rounds = if self.settings.grpo.dynamic_sampling { self.settings.rollout.max_rounds } else { 1 };
        for _ in 0..rounds {
            let missing = wanted - batch.rollouts.len() / group;
            if missing == 0 {
                break;
            }
            let first = cursor + batch.prompts_taken;
            let rollouts = self.round(engine, first..first + missing as u64)?;
            batch.prompts_taken += missing as u64;
            batch.num_sampled += rollouts.len();
            let round: Vec<f64> = rollouts.iter().map(|rollout| rollout.reward).collect();
            rewards += round.iter().sum::<f64>();
            let informative = informative_groups(&round, group);
            num_groups += informative.len();
            num_equal += informative.iter().filter(|informative| !**informative).count();
            let mut rollouts = rollouts.into_iter();
            for informative in informative {
                let rollouts = rollouts.by_ref().take(group);
                if informative || !self.settings.grpo.dynamic_sampling {
                    batch.rollouts.extend(rollouts);
                } else {
                    rollouts.for_each(drop);
                }
            }
        }
        batch.mean_reward = rewards / batch.num_sampled as f64;
        batch.equal_groups = num_equal as f64 / num_groups as f64;
        let rewards: Vec<f64> = batch.rollouts.iter().map(|rollout| rollout.reward).collect();
        batch.advantages = advantages(&rewards, group, self.settings.grpo.scale_rewards);
        Ok(batch)
    }

    /// A group for each prompt at `positions` of the row.
    fn round(&self, engine: &mut dyn Engine, positions: std::ops::Range<u64>) -> Result<Vec<Rollout>, Error> {
        let Settings { common, rollout, grpo, .. } = &self.settings;
        let (mut prompts, mut requests) = (Vec::new(), Vec::new());
        for position in positions {
            let prompt = self.order.at(position) as usize;
            for sample in 0..grpo.num_generations {
                prompts.push(prompt);
                requests.push(Request {
                    prompt: self.prompt(prompt).tokens.clone(),
                    seed: sample_seed(common.seed, position, sample),
                    max_new_tokens: grpo.max_completion_length,
                });
            }
        }
        let settings = generate::Settings {
            batch_size: rollout.batch_size,
            log_prob_temperature: rollout.temperature as f32,
            ..generate::Settings::new(self.settings.sampling())
        };
        let mut stop = Stop { tokenizer: &self.tokenizer, texts: &rollout.stop };
        let completions = engine.generate(LEARNER, &requests, &settings, &mut stop)?;
        prompts
            .into_iter()
            .zip(completions)
            .map(|(prompt, completion)| self.judge(prompt, completion))
            .collect()
    }

    /// What a completion is worth.
    fn judge(&self, prompt: usize, completion: Completion) -> Result<Rollout, Error> {
        let Settings { rollout, grpo, .. } = &self.settings;
        let tokens = match (completion.finish, completion.tokens.split_last()) {
            (Finish::End, Some((_, before))) => before,
            _ => &completion.tokens[..],
        };
        let text = self.tokenizer.decode_before(tokens, &rollout.stop)?;
        let Prompt { answer, verifier, .. } = self.prompt(prompt);
        let verdict = self.verifiers.judge(verifier, &text, answer);
        let mut reward = verdict.outcome.reward();
        if grpo.soft_punish_cache > 0 {
            let length = completion.tokens.len();
            reward += overlong_penalty(length, grpo.max_completion_length, grpo.soft_punish_cache);
        }
        Ok(Rollout { prompt, completion, text, verdict, reward })
    }
}

/// The seed of a completion's draws.
fn sample_seed(seed: u64, position: u64, sample: usize) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"remit rollout 1 ");
    for number in [seed, position, sample as u64] {
        hasher.update(&number.to_le_bytes());
    }
    let hash = hasher.finalize();
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

/// Ends completions at stop texts.
struct Stop<'a> {
    tokenizer: &'a Tokenizer,
    texts: &'a [String],
}

impl Watch for Stop<'_> {
    fn stop(&mut self, _: usize, tokens: &[u32]) -> bool {
        self.tokenizer.has_reached(tokens, self.texts)
    }
}
