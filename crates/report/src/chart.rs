//! Charts as SVG, in the colours of the page: lines with bands, and dots with whiskers.

use crate::html::escape;
use std::fmt::Write as _;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;
/// Colours of the page beside the baseline's.
const COLOURS: usize = 7;
/// About how many points of a curve have a mark.
const MARKS: usize = 6;

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
    /// Its place among the arms, 0 for the baseline: decides colour and marks.
    pub place: usize,
    /// The iteration: decides the dashes.
    pub iteration: u32,
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

/// The colour of an arm; after seven they come again.
fn class(place: usize) -> String {
    match place {
        0 => "s0".to_owned(),
        _ => format!("s{}", (place - 1) % COLOURS + 1),
    }
}

impl Series {
    /// Colour and dashes of its line.
    fn class(&self) -> String {
        let dashes = match (self.place, self.iteration) {
            (0, _) => " base",
            (_, 0 | 1) => "",
            (_, 2) => " second",
            _ => " later",
        };
        class(self.place) + dashes
    }
}

/// A mark around a point, of a shape by the arm's place, for colours that look alike to some.
fn mark(place: usize, x: f64, y: f64) -> String {
    let class = class(place);
    let shape = match place {
        // The baseline has its dashes.
        0 => return String::new(),
        1 => "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0z",
        2 => "M-3.2,-3.2h6.4v6.4h-6.4z",
        3 => "M0,-4.4L4,3H-4z",
        4 => "M0,-4.6L4.6,0L0,4.6L-4.6,0z",
        5 => "M0,4.4L4,-3H-4z",
        6 => "M-4.5,-1.2h3.3v-3.3h2.4v3.3h3.3v2.4h-3.3v3.3h-2.4v-3.3h-3.3z",
        7 => "M-4.4,-2.2h8.8v4.4h-8.8z",
        _ => "M-2.2,-4.4h4.4v8.8h-4.4z",
    };
    format!("<path class=\"{class}\" transform=\"translate({x:.1},{y:.1})\" d=\"{shape}\"/>\n")
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

    /// Round numbers within, 1, 2 or 5 times a power of ten apart but no less than `least`, with the digits that tell
    /// them apart.
    fn ticks(&self, least: f64) -> (Vec<f64>, usize) {
        let rough = ((self.high - self.low) / 5.0).max(least);
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
        // A band of few seeds would leave no room for the curves: it is cut half their spread away from them.
        let means = Scale::new(all().map(|point| point.1), 0.0, 1.0);
        let half = (means.high - means.low) / 2.0;
        let cut = |value: f64| value.clamp(means.low - half, means.high + half);
        let y = Scale::new(all().flat_map(ends).map(cut), HEIGHT - BOTTOM, TOP);
        let mut html = begin(&self.caption, HEIGHT);
        let (ticks, digits) = y.ticks(0.0);
        // Between two iterations there is none.
        let is_whole = all().all(|point| point.0.fract() == 0.0);
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
        below(&mut html, &x, HEIGHT - BOTTOM, &self.x, (HEIGHT, if is_whole { 1.0 } else { 0.0 }));
        for series in &self.series {
            let class = series.class();
            if series.points.len() > 1 && series.points.iter().all(|point| point.2.is_some()) {
                let high =
                    series.points.iter().map(|(at, _, ends)| (*at, cut(ends.map_or(0.0, |ends| ends.1))));
                let low = series
                    .points
                    .iter()
                    .rev()
                    .map(|(at, _, ends)| (*at, cut(ends.map_or(0.0, |ends| ends.0))));
                let path = points(high.chain(low), &x, &y);
                let _ = writeln!(html, "<polygon class=\"band {class}\" points=\"{path}\"/>");
            }
            let path = points(series.points.iter().map(|point| (point.0, point.1)), &x, &y);
            let name = escape(&series.name);
            let _ = writeln!(
                html,
                "<polyline class=\"curve {class}\" points=\"{path}\"><title>{name}</title></polyline>"
            );
            if let (1, 0, Some(point)) = (series.points.len(), series.place, series.points.first()) {
                let _ = writeln!(
                    html,
                    "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>",
                    x.at(point.0),
                    y.at(point.1)
                );
            }
            let apart = series.points.len().div_ceil(MARKS).max(1);
            // The last point has one.
            for point in series.points.iter().rev().step_by(apart) {
                html += &mark(series.place, x.at(point.0), y.at(point.1));
            }
        }
        html += "</svg>\n<div class=\"key\">";
        for series in &self.series {
            let _ = write!(
                html,
                "<span><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><line class=\"curve {}\" x1=\"0\" y1=\"5\" x2=\"26\" y2=\"5\"/>{}</svg>{}</span>",
                series.class(),
                mark(series.place, 13.0, 5.0).trim_end(),
                escape(&series.name)
            );
        }
        html + "</div>\n</figure>\n"
    }
}

impl Whiskers {
    /// How far from nothing is shown: twice the largest difference, or twice what is usual of intervals. One of few
    /// seeds would leave no room for the others.
    fn most(&self) -> f64 {
        let mut far: Vec<f64> =
            self.rows.iter().filter_map(|row| row.3).map(|(low, high)| low.abs().max(high.abs())).collect();
        far.sort_by(f64::total_cmp);
        let usual = far.get(far.len() / 2).copied().unwrap_or(0.0);
        let largest = self.rows.iter().map(|row| row.2.abs()).fold(0.0, f64::max);
        2.0 * largest.max(usual)
    }

    fn to_html(&self) -> String {
        const ROW: f64 = 24.0;
        let longest = self.rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0);
        let names = (longest as f64 * 7.6 + 14.0).clamp(80.0, WIDTH / 2.0);
        let height = TOP + ROW * self.rows.len() as f64 + BOTTOM;
        let ends = |row: &Whisker| {
            let (low, high) = row.3.unwrap_or((row.2, row.2));
            [0.0, row.2, low, high]
        };
        let most = self.most();
        let x = Scale::new(
            self.rows.iter().flat_map(ends).map(|value| value.clamp(-most, most)),
            names,
            WIDTH - RIGHT,
        );
        let mut html = begin(&self.caption, height);
        below(&mut html, &x, height - BOTTOM, &self.x, (height, 0.0));
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
                names - 10.0,
                at + 4.0,
                escape(name)
            );
            if let Some((low, high)) = interval {
                let [from, to] = [low, high].map(|end| x.at(end.clamp(x.low, x.high)));
                let _ = writeln!(
                    html,
                    "<line class=\"curve {class}\" x1=\"{from:.1}\" y1=\"{at:.1}\" x2=\"{to:.1}\" y2=\"{at:.1}\"/>"
                );
                // An arrow where it goes on.
                for (tip, back) in
                    [(*low < x.low).then_some((from, 7.0)), (*high > x.high).then_some((to, -7.0))]
                        .into_iter()
                        .flatten()
                {
                    let _ = writeln!(html, "<path class=\"{class}\" d=\"M{tip:.1},{at:.1}l{back},-5v10z\"/>");
                }
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

/// The horizontal axis, with its name; the height of the whole, and how far ticks are apart at the least.
fn below(html: &mut String, x: &Scale, at: f64, name: &str, (height, least): (f64, f64)) {
    let (ticks, digits) = x.ticks(least);
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
        let (ticks, digits) = scale.ticks(0.0);
        let text: Vec<String> = ticks.iter().map(|tick| number(*tick, digits)).collect();
        assert_eq!(text, ["0.55", "0.60"]);
        assert_eq!(scale.at(0.53), 0.0);
        assert_eq!(number(800_000.0, 0), "800k");
    }

    #[test]
    fn between_iterations_there_is_none() {
        let scale = Scale::new([0.0, 2.0].into_iter(), 0.0, 1.0);
        assert_eq!(scale.ticks(1.0), (vec![0.0, 1.0, 2.0], 0));
        assert_eq!(scale.ticks(0.0), (vec![0.0, 0.5, 1.0, 1.5, 2.0], 1));
    }

    #[test]
    fn a_wide_interval_is_cut_and_has_an_arrow() {
        let row = |value: f64, half: f64| ("arm".to_owned(), 1, value, Some((value - half, value + half)));
        let whiskers = |rows| Whiskers { caption: String::new(), x: String::new(), rows };
        let narrow = whiskers(vec![row(1.0, 0.5), row(-1.0, 0.5)]);
        assert_eq!((narrow.most(), narrow.to_html().matches("v10z").count()), (3.0, 0));
        let wide = whiskers(vec![row(1.0, 0.5), row(-1.0, 0.5), row(1.0, 40.0)]);
        assert_eq!((wide.most(), wide.to_html().matches("v10z").count()), (3.0, 2));
    }

    #[test]
    fn an_arm_has_its_colour_and_an_iteration_its_dashes() {
        let series =
            |place, iteration| Series { name: String::new(), place, iteration, points: Vec::new() }.class();
        assert_eq!(
            [series(0, 0), series(2, 1), series(2, 2), series(9, 1)],
            ["s0 base", "s2", "s2 second", "s2"]
        );
        assert_ne!(mark(2, 0.0, 0.0), mark(9, 0.0, 0.0));
    }
}
