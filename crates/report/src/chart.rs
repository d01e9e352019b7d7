//! Charts as SVG, in the colours of the page: lines with bands, and dots with whiskers.

use crate::html::escape;
use std::fmt::Write as _;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// `x`, `y`, and the ends of the interval of `y`.
pub(crate) type Point = (f64, f64, Option<(f64, f64)>);
/// Name, place, difference, interval.
pub(crate) type Whisker = (String, usize, f64, Option<(f64, f64)>);

/// A figure of the page.
#[derive(Clone, Debug)]
pub(crate) enum Chart {
    Lines(Lines),
    Whiskers(Whiskers),
}

/// Series over a common axis.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub caption: String,
    pub x: String,
    pub series: Vec<Series>,
}

#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub name: String,
    /// Its place among the arms, 0 for the baseline: decides the colour.
    pub place: usize,
    /// `x`, `y`, and the ends of the interval of `y`.
    pub points: Vec<Point>,
}

/// Differences from nothing, one a row.
#[derive(Clone, Debug)]
pub(crate) struct Whiskers {
    pub caption: String,
    pub x: String,
    /// Name, place, difference, interval.
    pub rows: Vec<Whisker>,
}

impl Chart {
    pub fn to_html(&self) -> String {
        match self {
            Chart::Lines(lines) => lines.to_html(),
            Chart::Whiskers(whiskers) => whiskers.to_html(),
        }
    }
}

fn class(place: usize) -> String {
    match place {
        0 => "s0 base".to_owned(),
        1..=7 => format!("s{place}"),
        _ => format!("s{} again", (place - 1) % 7 + 1),
    }
}

/// Where a value of an axis lies on the page.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Scale {
        let finite = values.filter(|value| value.is_finite());
        let (mut low, mut high) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low < 1e-9 {
            let half = (low.abs() * 0.05).max(1e-3);
            (low, high) = (low - half, high + half);
        }
        Scale { low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Round numbers within, 1, 2 or 5 times a power of ten apart, with the digits that tell them apart.
    fn ticks(&self) -> (Vec<f64>, usize) {
        let rough = (self.high - self.low) / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().find(|nice| nice * power >= rough).unwrap_or(10.0) * power;
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        ((first..=last).map(|n| n as f64 * step).collect(), digits)
    }
}

fn number(value: f64, digits: usize) -> String {
    if value.abs() >= 1000.0 {
        let text = crate::numbers::count(value.abs());
        let number = text.trim_end_matches(|c: char| c.is_alphabetic());
        let unit = &text[number.len()..];
        let short =
            if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
        return format!("{}{short}{unit}", if value < 0.0 { "-" } else { "" });
    }
    format!("{:.digits$}", value + 0.0)
}

impl Lines {
    fn to_html(&self) -> String {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let x = Scale::new(all().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let ends = |point: &Point| {
            let (low, high) = point.2.unwrap_or((point.1, point.1));
            [point.1, low, high]
        };
        let y = Scale::new(all().flat_map(ends), HEIGHT - BOTTOM, TOP);
        let mut html = begin(&self.caption, HEIGHT);
        let (ticks, digits) = y.ticks();
        for tick in ticks {
            let at = y.at(tick);
            let _ = writeln!(
                html,
                "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(tick, digits)
            );
        }
        below(&mut html, &x, HEIGHT - BOTTOM, &self.x, HEIGHT);
        for series in &self.series {
            let class = class(series.place);
            if series.points.len() > 1 && series.points.iter().all(|point| point.2.is_some()) {
                let high = series.points.iter().map(|(at, _, ends)| (*at, ends.map_or(0.0, |ends| ends.1)));
                let low =
                    series.points.iter().rev().map(|(at, _, ends)| (*at, ends.map_or(0.0, |ends| ends.0)));
                let path = points(high.chain(low), &x, &y);
                let _ = writeln!(html, "<polygon class=\"band {class}\" points=\"{path}\"/>");
            }
            let path = points(series.points.iter().map(|point| (point.0, point.1)), &x, &y);
            let name = escape(&series.name);
            let _ = writeln!(
                html,
                "<polyline class=\"curve {class}\" points=\"{path}\"><title>{name}</title></polyline>"
            );
            if let (1, Some(point)) = (series.points.len(), series.points.first()) {
                let _ = writeln!(
                    html,
                    "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>",
                    x.at(point.0),
                    y.at(point.1)
                );
            }
        }
        html += "</svg>\n<div class=\"key\">";
        for series in &self.series {
            let _ = write!(
                html,
                "<span><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><line class=\"curve {}\" x1=\"0\" y1=\"5\" x2=\"26\" y2=\"5\"/></svg>{}</span>",
                class(series.place),
                escape(&series.name)
            );
        }
        html + "</div>\n</figure>\n"
    }
}

impl Whiskers {
    fn to_html(&self) -> String {
        const ROW: f64 = 24.0;
        const NAMES: f64 = 170.0;
        let height = TOP + ROW * self.rows.len() as f64 + BOTTOM;
        let ends = |row: &Whisker| {
            let (low, high) = row.3.unwrap_or((row.2, row.2));
            [0.0, row.2, low, high]
        };
        let x = Scale::new(self.rows.iter().flat_map(ends), NAMES, WIDTH - RIGHT);
        let mut html = begin(&self.caption, height);
        below(&mut html, &x, height - BOTTOM, &self.x, height);
        let zero = x.at(0.0);
        let _ = writeln!(
            html,
            "<line class=\"zero\" x1=\"{zero:.1}\" y1=\"{TOP}\" x2=\"{zero:.1}\" y2=\"{:.1}\"/>",
            height - BOTTOM
        );
        for (index, (name, place, value, interval)) in self.rows.iter().enumerate() {
            let at = TOP + ROW * (index as f64 + 0.5);
            let class = class(*place);
            let _ = writeln!(
                html,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                NAMES - 10.0,
                at + 4.0,
                escape(name)
            );
            if let Some((low, high)) = interval {
                let _ = writeln!(
                    html,
                    "<line class=\"curve {class}\" x1=\"{:.1}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/>",
                    x.at(*low),
                    x.at(*high)
                );
            }
            let _ = writeln!(
                html,
                "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{at:.1}\" r=\"4\"/>",
                x.at(*value)
            );
        }
        html + "</svg>\n</figure>\n"
    }
}

fn begin(caption: &str, height: f64) -> String {
    let caption = escape(caption);
    format!(
        "<figure><figcaption>{caption}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{caption}\">\n"
    )
}

/// The horizontal axis, with its name.
fn below(html: &mut String, x: &Scale, at: f64, name: &str, height: f64) {
    let (ticks, digits) = x.ticks();
    let _ = writeln!(
        html,
        "<line class=\"axis\" x1=\"{:.1}\" y1=\"{at}\" x2=\"{:.1}\" y2=\"{at}\"/>",
        x.from, x.to
    );
    for tick in ticks {
        let _ = writeln!(
            html,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x.at(tick),
            at + 16.0,
            number(tick, digits)
        );
    }
    let middle = (x.from + x.to) / 2.0;
    let _ = writeln!(
        html,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        height - 6.0,
        escape(name)
    );
}

fn points(points: impl Iterator<Item = (f64, f64)>, x: &Scale, y: &Scale) -> String {
    let points: Vec<String> = points.map(|(a, b)| format!("{:.1},{:.1}", x.at(a), y.at(b))).collect();
    points.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::new([0.53, 0.64].into_iter(), 0.0, 1.0);
        let (ticks, digits) = scale.ticks();
        let text: Vec<String> = ticks.iter().map(|tick| number(*tick, digits)).collect();
        assert_eq!(text, ["0.55", "0.60"]);
        assert_eq!(scale.at(0.53), 0.0);
        assert_eq!(number(800_000.0, 0), "800k");
    }
}
