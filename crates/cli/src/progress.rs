//! How far a long stage has come, on stderr.
//!
//! On a terminal a stage that takes longer than two seconds gets a bar; elsewhere it writes a plain line every few
//! seconds; either way it ends with one line that stays. The time left comes from a trimmed average over the recent
//! past, so one slow evaluation or checkpoint does not throw it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::render::units;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// A bar that is redrawn in place.
    Bar,
    /// A line every few seconds.
    Lines,
    /// Nothing.
    Quiet,
}

impl Display {
    /// A bar if stderr is a terminal, lines if not, nothing if `quiet`.
    pub fn detect(quiet: bool) -> Display {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Display::Quiet,
            (false, true) => Display::Bar,
            (false, false) => Display::Lines,
        }
    }
}

/// Progress of a training run.
#[derive(Debug)]
pub struct Steps(Meter);

/// What one training step has to show.
#[derive(Clone, Copy, Debug)]
pub struct StepProgress {
    /// Counted from 1.
    pub step: u64,
    /// In nats a prediction.
    pub loss: f64,
    /// Mean reward, which is shown in place of the loss where there is one.
    pub reward: Option<f64>,
    /// Of this step.
    pub learning_rate: f64,
    /// Predictions this step trained on.
    pub predictions: u64,
}

impl Steps {
    /// A run of `total` steps that goes on after step `done`, which is 0 for a new one.
    pub fn start(display: Display, label: &str, done: u64, total: u64) -> Steps {
        Steps(Meter::start(display, label, done, total, Unit::Steps))
    }

    /// Shows that a step is done.
    pub fn update(&self, progress: &StepProgress) {
        let StepProgress { step, loss, reward, learning_rate, predictions } = *progress;
        let figure = match reward {
            Some(reward) => format!("reward {reward:.3}"),
            None => format!("loss {loss:.4}"),
        };
        let detail = format!("  {figure}  lr {learning_rate:.2e}");
        self.0.update(self.0.seconds(), |state| {
            state.position = step;
            state.predictions += predictions;
            state.detail = detail;
        });
    }

    /// Writes a line that stays, such as a held-out loss, above the bar.
    pub fn note(&self, line: &str) {
        self.0.note(line);
    }

    /// Ends with a line that stays.
    pub fn finish(self) {
        self.0.finish(self.0.seconds());
    }
}

/// Progress through input files. Can be shared between threads.
#[derive(Debug)]
pub struct Bytes(Meter);

impl Bytes {
    /// Reading `total` bytes, `done` of which an earlier run has read.
    pub fn start(display: Display, label: &str, done: u64, total: u64) -> Bytes {
        Bytes(Meter::start(display, label, done, total, Unit::Bytes))
    }

    /// Shows that so many more bytes are done.
    pub fn add(&self, bytes: u64) {
        self.0.update(self.0.seconds(), |state| state.position += bytes);
    }

    /// Writes a line that stays above the bar.
    pub fn note(&self, line: &str) {
        self.0.note(line);
    }

    /// Ends with a line that stays.
    pub fn finish(self) {
        self.0.finish(self.0.seconds());
    }
}

/// Progress through the windows of a token store. Can be shared between threads.
#[derive(Debug)]
pub struct Windows(Meter);

impl Windows {
    /// `total` windows, `done` of which an earlier run has done.
    pub fn start(display: Display, label: &str, done: u64, total: u64) -> Windows {
        Windows(Meter::start(display, label, done, total, Unit::Windows))
    }

    /// Shows that so many more windows with so many predictions are done.
    pub fn add(&self, windows: u64, predictions: u64) {
        self.0.update(self.0.seconds(), |state| {
            state.position += windows;
            state.predictions += predictions;
        });
    }

    /// Writes a line that stays above the bar.
    pub fn note(&self, line: &str) {
        self.0.note(line);
    }

    /// Ends with a line that stays.
    pub fn finish(self) {
        self.0.finish(self.0.seconds());
    }
}

/// Progress of generation. Nothing at all is shown of a short one, whose result is what everyone waits for.
#[derive(Debug)]
pub struct Sequences(Meter);

impl Sequences {
    /// `total` sequences to come.
    pub fn start(display: Display, label: &str, total: u64) -> Sequences {
        Sequences(Meter::start(display, label, 0, total, Unit::Sequences))
    }

    /// Shows that so many more sequences are finished and so many more tokens made.
    pub fn add(&self, sequences: u64, tokens: u64) {
        self.0.update(self.0.seconds(), |state| {
            state.position += sequences;
            state.predictions += tokens;
        });
    }

    /// Ends with a line that stays, if it took long enough to have one.
    pub fn finish(self) {
        let seconds = self.0.seconds();
        if seconds >= SECONDS_BEFORE_FIRST {
            self.0.finish(seconds);
        }
    }
}

/// Nothing is shown before this; most stages of small runs are over by then.
const SECONDS_BEFORE_FIRST: f64 = 2.0;
/// The least time between two plain lines.
const SECONDS_BETWEEN_LINES: f64 = 5.0;

#[derive(Clone, Copy, Debug)]
enum Unit {
    Steps,
    Bytes,
    Windows,
    Sequences,
}

#[derive(Debug)]
struct Meter {
    display: Display,
    label: String,
    unit: Unit,
    done_before: u64,
    total: u64,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    position: u64,
    predictions: u64,
    detail: String,
    pace: Pace,
    predictions_pace: Pace,
    /// Hidden until there is something to show.
    bar: ProgressBar,
    last_shown: Option<f64>,
    out: Box<dyn Write + Send>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Meter {
    fn start(display: Display, label: &str, done: u64, total: u64, unit: Unit) -> Meter {
        Meter::with_output(display, label, done, total, unit, Box::new(io::stderr()))
    }

    fn with_output(
        display: Display,
        label: &str,
        done: u64,
        total: u64,
        unit: Unit,
        out: Box<dyn Write + Send>,
    ) -> Meter {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{prefix} [{bar:20}] {msg}").expect("the template is valid");
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(label.to_string());
        let state = State {
            position: done,
            predictions: 0,
            detail: String::new(),
            pace: Pace::default(),
            predictions_pace: Pace::default(),
            bar,
            last_shown: None,
            out,
        };
        Meter {
            display,
            label: label.to_string(),
            unit,
            done_before: done,
            total,
            started: Instant::now(),
            state: Mutex::new(state),
        }
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while showing progress leaves nothing here that could do harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and shows it, if it is time to.
    fn update(&self, now: f64, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let (position, predictions) = (state.position, state.predictions);
        state.pace.reach((position.saturating_sub(self.done_before)) as f64, now);
        state.predictions_pace.reach(predictions as f64, now);
        if now < SECONDS_BEFORE_FIRST {
            return;
        }
        match self.display {
            Display::Quiet => {}
            Display::Bar => {
                state.bar.set_message(self.line(&state));
                if state.last_shown.is_none() {
                    state.bar.set_draw_target(ProgressDrawTarget::stderr());
                }
                state.last_shown = Some(now);
                state.bar.set_position(position);
            }
            Display::Lines => {
                if state.last_shown.is_none_or(|last| now - last >= SECONDS_BETWEEN_LINES) {
                    state.last_shown = Some(now);
                    let line = format!("{}  {}\n", self.label, self.line(&state));
                    state.write(&line);
                }
            }
        }
    }

    fn note(&self, line: &str) {
        let mut state = self.state();
        match self.display {
            Display::Quiet => {}
            // A hidden bar would swallow the line.
            Display::Bar if state.last_shown.is_some() => state.bar.println(line),
            Display::Bar | Display::Lines => state.write(&format!("{line}\n")),
        }
    }

    fn finish(&self, now: f64) {
        let mut state = self.state();
        state.bar.finish_and_clear();
        if self.display == Display::Quiet {
            return;
        }
        let done = state.position.saturating_sub(self.done_before);
        let mut line = format!("{}  {} in {}", self.label, self.amount(done, None), units::duration(now));
        let seconds = now.max(1e-9);
        if let Unit::Bytes = self.unit {
            let _ = write!(line, "  {}/s", units::bytes((done as f64 / seconds) as u64));
        } else if state.predictions > 0 {
            let _ = write!(line, "  {} tokens/s", units::rate(state.predictions as f64 / seconds));
        }
        let line = format!("{line}{}\n", state.detail);
        state.write(&line);
    }

    /// `6%  120/2000 steps  loss 3.2140  lr 1.00e-3  5.20k tokens/s  3 m 12 s left`
    fn line(&self, state: &State) -> String {
        let percent = 100.0 * state.position as f64 / self.total.max(1) as f64;
        let amount = self.amount(state.position, Some(self.total));
        let mut line = format!("{:.0}%  {amount}{}", percent.floor().min(100.0), state.detail);
        match (self.unit, state.pace.per_second(), state.predictions_pace.per_second()) {
            (Unit::Bytes, Some(rate), _) => {
                let _ = write!(line, "  {}/s", units::bytes(rate as u64));
            }
            (_, _, Some(rate)) => {
                let _ = write!(line, "  {} tokens/s", units::rate(rate));
            }
            _ => {}
        }
        if let Some(rate) = state.pace.per_second() {
            let left = self.total.saturating_sub(state.position) as f64 / rate;
            let _ = write!(line, "  {} left", units::duration(left));
        }
        line
    }

    fn amount(&self, amount: u64, of: Option<u64>) -> String {
        let (show, name): (fn(u64) -> String, _) = match self.unit {
            Unit::Steps => (|count| count.to_string(), " steps"),
            Unit::Windows => (|count| count.to_string(), " windows"),
            Unit::Sequences => (|count| count.to_string(), " sequences"),
            Unit::Bytes => (units::bytes, ""),
        };
        match of {
            Some(total) => format!("{}/{}{name}", show(amount), show(total)),
            None => format!("{}{name}", show(amount)),
        }
    }
}

impl State {
    fn write(&mut self, line: &str) {
        // Progress that cannot be shown must not end the work it is about.
        let _ = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// How fast something grows: a trimmed mean over slices of the recent past.
#[derive(Debug, Default)]
struct Pace {
    /// `(growth, seconds)` of the last [`Pace::SLICES`] slices.
    slices: VecDeque<(f64, f64)>,
    /// `(amount, time)` where the open slice began.
    since: (f64, f64),
}

impl Pace {
    const SLICES: usize = 40;
    /// Shorter slices would be noise.
    const SLICE_SECONDS: f64 = 0.5;

    fn reach(&mut self, amount: f64, now: f64) {
        let (since, start) = self.since;
        if now - start < Pace::SLICE_SECONDS {
            return;
        }
        self.slices.push_back((amount - since, now - start));
        if self.slices.len() > Pace::SLICES {
            self.slices.pop_front();
        }
        self.since = (amount, now);
    }

    /// `None` while nothing has grown.
    fn per_second(&self) -> Option<f64> {
        let mut slices: Vec<(f64, f64)> = self.slices.iter().copied().collect();
        slices.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        // The slowest and the fastest tenth are evaluations, checkpoints, a machine that slept.
        let trim = slices.len() / 10;
        let kept = &slices[trim..slices.len() - trim];
        let (growth, seconds) = kept.iter().fold((0.0, 0.0), |sum, slice| (sum.0 + slice.0, sum.1 + slice.1));
        (growth > 0.0).then(|| growth / seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn meter(display: Display, done: u64, total: u64, unit: Unit) -> (Meter, Sink) {
        let sink = Sink::default();
        (Meter::with_output(display, "stage", done, total, unit, Box::new(sink.clone())), sink)
    }

    #[test]
    fn steps_write_a_line_every_few_seconds_and_one_at_the_end() {
        let (meter, sink) = meter(Display::Lines, 100, 200, Unit::Steps);
        for second in 1..=9 {
            meter.update(f64::from(second), |state| {
                state.position += 2;
                state.predictions += 2000;
                state.detail = "  loss 3.2500  lr 1.00e-3".to_string();
            });
        }
        meter.note("held-out text 3.1");
        meter.finish(10.0);
        assert_eq!(
            sink.text(),
            "\
stage  52%  104/200 steps  loss 3.2500  lr 1.00e-3  2.00k tokens/s  48 s left
stage  57%  114/200 steps  loss 3.2500  lr 1.00e-3  2.00k tokens/s  43 s left
held-out text 3.1
stage  18 steps in 10 s  1.80k tokens/s  loss 3.2500  lr 1.00e-3
"
        );
    }

    #[test]
    fn bytes_and_windows_have_their_own_words() {
        let (meter, sink) = meter(Display::Lines, 0, 1 << 30, Unit::Bytes);
        meter.update(4.0, |state| state.position = 1 << 28);
        meter.finish(4.0);
        let (windows, lines) = self::meter(Display::Lines, 0, 80, Unit::Windows);
        windows.update(2.0, |state| (state.position, state.predictions) = (20, 5120));
        assert_eq!(
            sink.text(),
            "stage  25%  256 MiB/1.00 GiB  64.0 MiB/s  12 s left\nstage  256 MiB in 4.0 s  64.0 MiB/s\n"
        );
        assert_eq!(lines.text(), "stage  25%  20/80 windows  2.56k tokens/s  6.0 s left\n");
    }

    #[test]
    fn quiet_is_quiet_and_short_is_one_line() {
        let (quiet, nothing) = meter(Display::Quiet, 0, 10, Unit::Steps);
        quiet.update(9.0, |state| state.position = 5);
        quiet.note("a note");
        quiet.finish(10.0);
        assert_eq!(nothing.text(), "");
        let (short, sink) = meter(Display::Lines, 0, 10, Unit::Windows);
        short.update(1.0, |state| state.position = 10);
        short.finish(1.5);
        assert_eq!(sink.text(), "stage  10 windows in 1.5 s\n");
    }

    #[test]
    fn one_long_pause_does_not_change_the_pace() {
        let mut pace = Pace::default();
        assert_eq!(pace.per_second(), None);
        let mut now = 0.0;
        for step in 1..=40 {
            now += if step == 20 { 60.0 } else { 1.0 };
            pace.reach(f64::from(step) * 10.0, now);
        }
        assert_eq!(pace.per_second(), Some(10.0));
    }

    #[test]
    fn the_pace_follows_a_lasting_change() {
        let mut pace = Pace::default();
        let mut amount = 0.0;
        for second in 1..=100 {
            amount += if second <= 50 { 10.0 } else { 20.0 };
            pace.reach(amount, f64::from(second));
        }
        assert_eq!(pace.per_second(), Some(20.0));
    }

    #[test]
    fn many_quick_updates_share_a_slice() {
        let mut pace = Pace::default();
        for update in 1..=1000 {
            pace.reach(f64::from(update), f64::from(update) * 0.01);
        }
        assert!(pace.slices.len() <= 20);
        assert!((pace.per_second().unwrap() - 100.0).abs() < 1e-9);
    }
}
