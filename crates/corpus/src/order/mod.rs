//! Which window comes when: shuffled, mixed, and found by its position alone.

mod interleave;
mod permutation;

use std::collections::BTreeMap;

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use crate::error::{list, nearest};
use crate::{Error, Windows};
use interleave::Interleave;
use permutation::{Key, Permutation};

/// How sources are mixed, where that differs from what the token store says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixture {
    /// By the names of sources.
    #[serde(default)]
    pub sources: BTreeMap<String, Share>,
}

/// The part of one source in a mixture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Its share of the windows, relative to the other sources' weights; 0 leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Without weights: how often one epoch passes through it, 1 by default, fractions allowed. With weights: how
    /// often it may be passed through in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<f64>,
}

/// An endless row of `0..len`, shuffled anew on each pass through it. The cursor into it is a position, nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Shuffle {
    len: u64,
    seed: u64,
    purpose: &'static str,
}

impl Shuffle {
    /// The row of a seed; rows for different purposes are independent of one another.
    ///
    /// # Panics
    /// When there is nothing to shuffle.
    pub fn new(len: u64, seed: u64, purpose: &'static str) -> Shuffle {
        assert!(len > 0, "a row of nothing");
        Shuffle { len, seed, purpose }
    }

    /// What stands at `position`.
    pub fn at(&self, position: u64) -> u64 {
        let Shuffle { len, seed, purpose } = *self;
        let pass = position / len;
        Permutation::new(len, Key { seed, purpose, index: 0, pass }).at(position % len)
    }
}

/// An endless order of windows. The cursor into it is the number of windows taken so far, nothing else.
///
/// Without weights, an epoch holds every window of each source as often as its `repeat` says (of a fraction, always
/// the same windows, chosen by the seed), shuffled anew each epoch. With weights, the sources' shares follow the
/// weights in every block of 256 windows to within a window or two, and each source is shuffled anew on each pass
/// through it.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    sources: Vec<Part>,
    rule: Rule,
}

/// A source's windows.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    first: u64,
    num_windows: u64,
}

#[derive(Clone, Debug)]
enum Rule {
    /// The end of each source's slots in an epoch.
    Epochs {
        ends: Vec<u64>,
    },
    Weighted {
        interleave: Interleave,
    },
}

/// What an order takes from one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceSummary {
    /// The source.
    pub name: String,
    /// Windows it has.
    pub num_windows: u64,
    /// Windows taken.
    pub num_taken: u64,
    /// How often that passes through it.
    pub passes: f64,
}

/// Windows of a weighted order in a block, within which positions are shuffled. Without the shuffle the sources would
/// alternate in a fixed pattern, and whoever takes every other window might see one source only.
const BLOCK: u64 = 256;

/// The longest part of an epoch that a summary counts window by window.
const MAX_COUNTED: u64 = 1 << 22;

impl Order {
    /// The order of `windows` under `mixture`, by `seed`. `total` is the number of windows wanted, if known.
    ///
    /// # Errors
    /// When the mixture names an unknown source, weights are given for some sources only, a weight or repeat is
    /// negative or not finite, there is nothing to draw, or a source must be passed through more often than its
    /// repeat allows to give its share of `total`.
    pub fn new(windows: &Windows, mixture: &Mixture, seed: u64, total: Option<u64>) -> Result<Order, Error> {
        let entries = &windows.store().manifest().sources;
        for (name, share) in &mixture.sources {
            if !entries.iter().any(|entry| entry.name == *name) {
                let available: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
                let error =
                    fault!("the mixture names a source `{name}`; the token store has {}", list(&available));
                return Err(match nearest(name, &available) {
                    Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                    None => error,
                });
            }
            share.weight.map_or(Ok(()), |weight| check_weight(name, weight))?;
            share.repeat.map_or(Ok(()), |repeat| check_repeat(name, repeat))?;
        }
        let shares: Vec<Share> = entries
            .iter()
            .map(|entry| {
                let share = mixture.sources.get(&entry.name).copied().unwrap_or_default();
                Share { weight: share.weight.or(entry.weight), repeat: share.repeat.or(entry.repeat) }
            })
            .collect();
        let sources: Vec<Part> = entries
            .iter()
            .enumerate()
            .map(|(i, entry)| {
                let of_source = windows.of_source(i);
                Part {
                    name: entry.name.clone(),
                    first: of_source.start,
                    num_windows: of_source.end - of_source.start,
                }
            })
            .collect();
        let none = |why: String| {
            fault!("there are no windows of length {}: {why}", windows.length())
                .with_hint("choose a shorter window or a larger corpus")
        };
        if windows.is_empty() {
            return Err(none(format!("the token store has {} tokens", windows.store().num_tokens())));
        }

        if shares.iter().all(|share| share.weight.is_none()) {
            let mut end = 0;
            let ends: Vec<u64> = sources
                .iter()
                .zip(&shares)
                .map(|(source, share)| {
                    end += (share.repeat.unwrap_or(1.0) * source.num_windows as f64).round() as u64;
                    end
                })
                .collect();
            if end == 0 {
                return Err(none("every source has a repeat of (almost) 0".into()));
            }
            return Ok(Order { seed, sources, rule: Rule::Epochs { ends } });
        }

        let mut weights = Vec::with_capacity(shares.len());
        for (source, share) in sources.iter().zip(&shares) {
            let Some(weight) = share.weight else {
                let with = shares.iter().position(|share| share.weight.is_some());
                let with = with.map_or("", |with| &sources[with].name);
                return Err(fault!("source `{}` has no weight, but `{with}` has one", source.name)
                    .with_hint("give every source a weight, or none"));
            };
            if weight > 0.0 && source.num_windows == 0 {
                return Err(none(format!(
                    "source `{}` has a weight, but fewer than two tokens",
                    source.name
                )));
            }
            weights.push(weight);
        }
        let Some(interleave) = Interleave::new(&weights) else {
            return Err(none("every source has a weight of 0".into()));
        };
        let order = Order { seed, sources, rule: Rule::Weighted { interleave } };
        let capped = shares.iter().map(|share| share.repeat).collect::<Vec<_>>();
        order.check_caps(&capped, &weights, total)?;
        Ok(order)
    }

    /// Checks that no weighted source is passed through more often than it may be.
    fn check_caps(&self, caps: &[Option<f64>], weights: &[f64], total: Option<u64>) -> Result<(), Error> {
        let has_cap = |i: &usize| caps[*i].is_some() && weights[*i] > 0.0;
        let Some(first) = (0..caps.len()).find(has_cap) else { return Ok(()) };
        let Some(total) = total else {
            return Err(fault!(
                "source `{}` has a weight and a repeat, which can only be checked against a total number of windows",
                self.sources[first].name
            )
            .with_hint("remove the repeat, or say how many windows are wanted"));
        };
        for (summary, cap) in self.summary(total).into_iter().zip(caps) {
            // A fraction of a window counts as one, and so do the last bits of the product.
            let allowed = |cap: f64| (cap * summary.num_windows as f64 - 1e-6).ceil();
            if let Some(cap) = *cap
                && summary.num_taken as f64 > allowed(cap)
            {
                let SourceSummary { name, passes, .. } = summary;
                return Err(fault!(
                    "source `{name}` would be passed through {passes:.2} times to give its share of {total} windows; \
                     its repeat allows {cap}"
                )
                .with_hint("lower its weight, raise its repeat, or train on fewer windows"));
            }
        }
        Ok(())
    }

    /// The window at `position`, counted from 0 over all epochs. Takes the same short time everywhere.
    pub fn window_index(&self, position: u64) -> u64 {
        let (source, within) = match &self.rule {
            Rule::Epochs { ends } => {
                let (source, slot) = self.slot(ends, position);
                let num_windows = self.sources[source].num_windows;
                let num_slots = ends[source] - if source == 0 { 0 } else { ends[source - 1] };
                let is_fraction = slot >= num_slots / num_windows * num_windows;
                let within = slot % num_windows;
                let key = Key { seed: self.seed, purpose: "fraction", index: source as u64, pass: 0 };
                (source, if is_fraction { Permutation::new(num_windows, key).at(within) } else { within })
            }
            Rule::Weighted { interleave } => {
                let (source, count) = interleave.locate(self.shuffled_in_block(position));
                let num_windows = self.sources[source].num_windows;
                let pass = count / num_windows;
                let key = Key { seed: self.seed, purpose: "pass", index: source as u64, pass };
                (source, Permutation::new(num_windows, key).at(count % num_windows))
            }
        };
        self.sources[source].first + within
    }

    /// The source at `position` and which of its slots in the epoch.
    fn slot(&self, ends: &[u64], position: u64) -> (usize, u64) {
        let epoch_len = ends[ends.len() - 1];
        let key = Key { seed: self.seed, purpose: "epoch", index: 0, pass: position / epoch_len };
        let slot = Permutation::new(epoch_len, key).at(position % epoch_len);
        let source = ends.partition_point(|&end| end <= slot);
        (source, slot - if source == 0 { 0 } else { ends[source - 1] })
    }

    fn shuffled_in_block(&self, position: u64) -> u64 {
        let block = position / BLOCK;
        let key = Key { seed: self.seed, purpose: "block", index: 0, pass: block };
        block * BLOCK + Permutation::new(BLOCK, key).at(position % BLOCK)
    }

    /// Windows of an epoch. With weights, when there are no epochs proper, the windows of all sources that have a
    /// weight above 0.
    pub fn epoch_len(&self) -> u64 {
        match &self.rule {
            Rule::Epochs { ends } => ends[ends.len() - 1],
            Rule::Weighted { interleave } => {
                let drawn =
                    |(i, part): (usize, &Part)| if interleave.draws(i) { part.num_windows } else { 0 };
                self.sources.iter().enumerate().map(drawn).sum()
            }
        }
    }

    /// What the first `total` windows take from each source. Exact, except that more than four million windows of an
    /// unfinished epoch are counted in proportion.
    pub fn summary(&self, total: u64) -> Vec<SourceSummary> {
        let mut taken = vec![0; self.sources.len()];
        match &self.rule {
            Rule::Epochs { ends } => {
                let epoch_len = self.epoch_len();
                let (num_epochs, rest) = (total / epoch_len, total % epoch_len);
                let mut before = 0;
                for (taken, &end) in taken.iter_mut().zip(ends) {
                    *taken = num_epochs * (end - before);
                    if rest > MAX_COUNTED {
                        *taken += ((end - before) as f64 * rest as f64 / epoch_len as f64).round() as u64;
                    }
                    before = end;
                }
                if rest <= MAX_COUNTED {
                    (total - rest..total).for_each(|position| taken[self.slot(ends, position).0] += 1);
                }
            }
            Rule::Weighted { interleave } => {
                let whole = total / BLOCK * BLOCK;
                taken = interleave.counts(whole);
                for position in whole..total {
                    taken[interleave.locate(self.shuffled_in_block(position)).0] += 1;
                }
            }
        }
        let summarize = |(source, num_taken): (&Part, u64)| SourceSummary {
            name: source.name.clone(),
            num_windows: source.num_windows,
            num_taken,
            passes: if num_taken == 0 { 0.0 } else { num_taken as f64 / source.num_windows as f64 },
        };
        self.sources.iter().zip(taken).map(summarize).collect()
    }
}

/// Weights are finite and not negative.
pub(crate) fn check_weight(name: &str, weight: f64) -> Result<(), Error> {
    check_number(name, "weight", weight)
}

/// Repeats are finite and not negative.
pub(crate) fn check_repeat(name: &str, repeat: f64) -> Result<(), Error> {
    check_number(name, "repeat", repeat)
}

fn check_number(name: &str, what: &str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(fault!("source `{name}`: {what} must be a number not below 0, not {value}"))
}
