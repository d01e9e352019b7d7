//! The tokens that the arms of a flywheel weight most and least, for its report.

use super::weights::{open_tokenizer, token_text};
use crate::render::error::Failure;
use crate::render::weights::lightest_first;
use remit_batch::Window;
use remit_corpus::{TokenStore, Tokenizer, Windows};
use remit_engine::{Engine, Usage};
use remit_objective::Objective;
use remit_report::{Excerpt, Excerpts, Run};
use remit_results::files::NODES;
use remit_train::{Weighed, locate_checkpoint, weigh_windows};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Windows that are weighed, spread over the store.
const WINDOWS: u64 = 64;
/// Tokens shown at either end.
const SHOWN: usize = 12;
/// Characters at either side of a token.
const CONTEXT: usize = 40;
/// The held-out store that comes first.
const STORE: &str = "solutions";

/// What is needed of a mid-training's settings.
#[derive(Deserialize)]
struct Midtraining {
    run: PathBuf,
    from: PathBuf,
    data: Data,
    objective: Objective,
    #[serde(default)]
    reference: Reference,
    #[serde(default)]
    held_out: HeldOut,
}

#[derive(Deserialize)]
struct Data {
    tokens: PathBuf,
    window: usize,
    mask_documents: bool,
}

#[derive(Default, Deserialize)]
struct Reference {
    checkpoint: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HeldOut {
    stores: BTreeMap<String, PathBuf>,
}

/// A prediction that counts.
struct Found {
    /// Its document in the store.
    document: u64,
    weight: f32,
    delta: f32,
    /// Its window, and its place there.
    at: (usize, usize),
}

/// The excerpts of every arm that weighs tokens, in the order of their names. `directory` is where the run lies now.
pub(super) fn of_run(run: &Run, directory: &Path, engine: &mut dyn Engine) -> Result<Vec<Excerpts>, Failure> {
    let mut all = Vec::new();
    for (arm, node, settings) in run.first_midtrainings() {
        let settings: Midtraining = settings
            .clone()
            .try_into()
            .map_err(|error| Failure::new(format!("the settings of `{node}` cannot be read: {error}")))?;
        if matches!(settings.objective, Objective::Weighted(_) | Objective::Selection(_)) {
            all.push(of_arm(arm, &settings, directory, engine)?);
        }
    }
    Ok(all)
}

fn of_arm(
    arm: &str,
    settings: &Midtraining,
    directory: &Path,
    engine: &mut dyn Engine,
) -> Result<Excerpts, Failure> {
    let mut excerpts = Excerpts { arm: arm.to_owned(), most: Vec::new(), least: Vec::new(), skipped: None };
    let Some(reference) = &settings.reference.checkpoint else {
        excerpts.skipped = Some("Its weights have no reference.".to_owned());
        return Ok(excerpts);
    };
    let store = settings.held_out.stores.get(STORE).unwrap_or(&settings.data.tokens);
    let mut places = Vec::new();
    for (what, path) in [("learner", &settings.from), ("reference", reference), ("text", store)] {
        let (place, name) = settings.moved(path, directory);
        let is_there = if what == "text" { place.is_dir() } else { locate_checkpoint(&place).is_ok() };
        if !is_there {
            excerpts.skipped = Some(format!("Its {what}, {name}, is not there."));
            return Ok(excerpts);
        }
        places.push(place);
    }
    let [learner, reference] = [locate_checkpoint(&places[0])?, locate_checkpoint(&places[1])?];
    let Some(tokenizer) = open_tokenizer(&learner, &reference)? else {
        excerpts.skipped = Some("Its models have no tokenizer.".to_owned());
        return Ok(excerpts);
    };
    let windows = Windows::cut(&TokenStore::open(&places[2])?, settings.data.window)?;
    let chosen = spread(&windows);
    if chosen.is_empty() {
        excerpts.skipped = Some("Its text has no window.".to_owned());
        return Ok(excerpts);
    }
    let [learner, reference] =
        [engine.open(&learner, &Usage::default())?, engine.open(&reference, &Usage::default())?];
    let masked = settings.data.mask_documents;
    let (weighed, _) = weigh_windows(engine, learner, reference, &settings.objective, &chosen, masked)?;
    engine.clear();
    let mut found = found(&windows, &chosen, &weighed);
    // Of equal weights and gaps the first stays in front: sorting is stable.
    let order = |a: &Found, b: &Found| lightest_first([a.weight, a.delta], [b.weight, b.delta]);
    found.sort_by(|a, b| order(b, a));
    excerpts.most = shown(found.iter(), &chosen, &tokenizer);
    found.sort_by(order);
    excerpts.least = shown(found.iter(), &chosen, &tokenizer);
    Ok(excerpts)
}

impl Midtraining {
    /// Where what lay beside this node lies now, and its name in the report: nodes move with their run.
    fn moved(&self, path: &Path, directory: &Path) -> (PathBuf, String) {
        let nodes = self.run.parent().unwrap_or(Path::new(""));
        match path.strip_prefix(nodes) {
            Ok(inside) if self.run.parent().is_some() => {
                let name = inside.components().collect::<PathBuf>().display().to_string();
                (directory.join(NODES).join(inside), name)
            }
            _ => (path.to_owned(), path.display().to_string()),
        }
    }
}

/// Windows at equal distances.
fn spread(windows: &Windows) -> Vec<Window> {
    let count = windows.len().min(WINDOWS);
    (0..count).map(|n| windows.window(n * windows.len() / count)).collect()
}

/// The predictions that count, in order.
fn found(windows: &Windows, chosen: &[Window], weighed: &[Weighed]) -> Vec<Found> {
    let mut found = Vec::new();
    for (index, (window, weighed)) in chosen.iter().zip(weighed).enumerate() {
        let source = windows.source_of(window.index);
        let first = windows.store().manifest().sources[source].first_token;
        let start = first + (window.index - windows.of_source(source).start) * windows.length() as u64;
        let document = windows.store().document_of(start + 1);
        for t in (0..window.mask.len()).filter(|&t| window.mask[t]) {
            found.push(Found {
                document: document + u64::from(window.documents[t]),
                weight: weighed.weights[t],
                delta: weighed.delta[t],
                at: (index, t),
            });
        }
    }
    found
}

/// The first of each document.
fn shown<'a>(
    found: impl Iterator<Item = &'a Found>,
    chosen: &[Window],
    tokenizer: &Tokenizer,
) -> Vec<Excerpt> {
    let mut seen = BTreeSet::new();
    let first = found.filter(|found| seen.insert(found.document)).take(SHOWN);
    first.map(|found| excerpt(found, &chosen[found.at.0], tokenizer)).collect()
}

/// A token within its document; the one in front of which the end of another document stands has nothing before it.
fn excerpt(found: &Found, window: &Window, tokenizer: &Tokenizer) -> Excerpt {
    let (_, t) = found.at;
    let is_same = |other: &usize| window.documents[*other] == window.documents[t] && window.mask[*other];
    // A prediction's token is the one behind it.
    let front: Vec<u32> =
        (0..t).rev().take(CONTEXT).take_while(is_same).map(|t| window.tokens[t + 1]).collect();
    let front: Vec<u32> = front.into_iter().rev().collect();
    let behind: Vec<u32> =
        (t + 1..window.mask.len()).take(CONTEXT).take_while(is_same).map(|t| window.tokens[t + 1]).collect();
    // Where a character begins before the first token or ends behind the last it is left out.
    let text = |ids: &[u32]| tokenizer.decode(ids).unwrap_or_default();
    let (before, after) = (text(&front), text(&behind));
    let num_before = before.chars().count();
    Excerpt {
        before: before
            .chars()
            .skip(num_before.saturating_sub(CONTEXT))
            .collect::<String>()
            .trim_start_matches('\u{fffd}')
            .to_owned(),
        token: token_text(tokenizer, window.tokens[t + 1]),
        after: after.chars().take(CONTEXT).collect::<String>().trim_end_matches('\u{fffd}').to_owned(),
        weight: f64::from(found.weight),
    }
}
