//! Whether a run fits into memory, and how much of a step is worked on at once so that it does.
//!
//! A result depends on the micro-batch by rounding alone, but it does by that. So a run that takes less than all of a
//! step at once has the number in its settings, and goes on with it.

use crate::settings::StageSettings as _;
use crate::{Error, Planned};
use remit_engine::Available;
use remit_results::files;

/// How much of a step is in a forward pass.
#[derive(Debug)]
pub struct MicroBatch<'a> {
    /// The setting.
    pub key: &'static str,
    /// Its value; 0 for as much as fits.
    pub size: &'a mut usize,
    /// All of a step.
    pub batch: usize,
}

/// Makes a plan fit: where its micro-batch is left open it is the largest that takes no more than there is, which is
/// returned if that is less than the whole step.
///
/// # Errors
/// A plan that needs more.
pub fn fit<P: Planned>(plan: &mut P, available: Option<Available>) -> Result<Option<usize>, Error> {
    let is_open = go_on(plan);
    let Some(available) = available else { return Ok(None) };
    let needed = plan.memory().total();
    if needed <= available.bytes {
        return Ok(None);
    }
    let MicroBatch { key, size, batch } = plan.micro_batch();
    let (before, most) = (*size, if *size == 0 { batch } else { (*size).min(batch) });
    let with = |plan: &mut P, size| {
        *plan.micro_batch().size = size;
        plan.memory().total()
    };
    let fitting = (1..most).rev().find(|&size| with(plan, size) <= available.bytes);
    if let (Some(size), true) = (fitting, is_open) {
        with(plan, size);
        return Ok(Some(size));
    }
    let least = with(plan, fitting.unwrap_or(1));
    with(plan, before);
    Err(Error::TooMuchMemory { key, needed, available, fitting, least })
}

/// Takes the micro-batch that the run was begun with, where the settings leave it open; whether it still is.
pub fn go_on<P: Planned>(plan: &mut P) -> bool {
    let path = plan.settings().common().run.join(files::SETTINGS);
    let MicroBatch { key, size, .. } = plan.micro_batch();
    if *size != 0 {
        return false;
    }
    let Some(begun) = std::fs::read_to_string(path).ok().and_then(|text| text.parse::<toml::Table>().ok())
    else {
        return true;
    };
    let table = toml::Value::Table(begun);
    let begun =
        key.split('.').try_fold(&table, |table, key| table.get(key)).and_then(toml::Value::as_integer);
    *size = begun.and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    *size == 0
}
