//! Figures as they are written, one way everywhere.

use remit_results::flywheel::HELD_OUT;
use remit_results::statistics::Interval;

/// What a figure is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A share: percent, and points for differences.
    Share,
    /// Nats.
    Loss,
}

impl Unit {
    /// Of a task's metric.
    pub fn of(task: &str, metric: &str) -> Unit {
        let is_share = task != HELD_OUT && (metric.starts_with("exact_match") || metric.starts_with("pass@"));
        if is_share { Unit::Share } else { Unit::Loss }
    }

    pub fn plain(self, value: f64) -> String {
        match self {
            Unit::Share => format!("{:.1}", value * 100.0),
            Unit::Loss => format!("{value:.4}"),
        }
    }

    pub fn signed(self, value: f64) -> String {
        let text = self.with_side(value);
        // What rounds to nothing has no sign.
        if text.chars().all(|c| "+-.0".contains(c)) { text.replace('-', "+") } else { text }
    }

    /// On which side of zero it is can be seen of what rounds to nothing as well.
    fn with_side(self, value: f64) -> String {
        let value = value + 0.0;
        match self {
            Unit::Share => format!("{:+.1}", value * 100.0),
            Unit::Loss => format!("{value:+.4}"),
        }
    }

    pub fn interval(self, interval: Interval) -> String {
        format!("[{}, {}]", self.with_side(interval.low), self.with_side(interval.high))
    }

    /// Difference and interval.
    pub fn difference(self, mean: f64, interval: Option<Interval>) -> String {
        match interval {
            Some(interval) => format!("{} {}", self.signed(mean), self.interval(interval)),
            None => self.signed(mean),
        }
    }

    /// What differences are in.
    pub fn word(self) -> &'static str {
        match self {
            Unit::Share => "points",
            Unit::Loss => "nats",
        }
    }
}

/// `950`, `12.3k`, `4.56M`.
pub(crate) fn count(value: f64) -> String {
    let mut value = value;
    if value < 1000.0 {
        return format!("{value:.0}");
    }
    let mut suffix = "";
    for next in ["k", "M", "B", "T"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        suffix = next;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$}{suffix}")
}

/// `0.4 s`, `42 s`, `3 m 12 s`, `2 h 05 m`.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(Unit::of("micro10", "exact_match,none"), Unit::Share);
        assert_eq!(Unit::of("held-out", "exact_match"), Unit::Loss);
        assert_eq!(Unit::Share.plain(0.1234), "12.3");
        assert_eq!(
            Unit::Share.difference(-0.012, Some(Interval { low: -0.03, high: 0.006 })),
            "-1.2 [-3.0, +0.6]"
        );
        assert_eq!(Unit::Loss.signed(-0.00001), "+0.0000");
        assert_eq!([999.0, 1000.0, 819_200.0].map(count), ["999", "1.00k", "819k"]);
        assert_eq!([9.0, 61.0, 7510.0].map(duration), ["9.0 s", "1 m 01 s", "2 h 05 m"]);
    }
}
