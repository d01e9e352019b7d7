//! The page: one HTML file that asks nothing of a network, for light and dark, wide and narrow.

use std::fmt::Write as _;

use remit_report::{escape, head};

use super::shade::{Bound, NUM_SHADES, Shade};
use super::{Prediction, SequenceView, WeightsView, ranking, visible};

/// Rows in each table of tokens.
const NUM_RANKED: usize = 20;
/// A token's mean weight says something from here on.
const LEAST_COUNT: usize = 3;
const NUM_BINS: usize = 40;

impl WeightsView {
    /// A self-contained HTML page.
    pub fn to_html(&self) -> String {
        self.check();
        let mut page = head("Token weights", include_str!("page.css")) + "\n";
        let _ = writeln!(
            page,
            "<p class=\"quiet\">Learner <code>{}</code>, reference <code>{}</code></p>",
            escape(&self.about.learner),
            escape(&self.about.reference)
        );
        page += &self.legend_html();
        for (index, sequence) in self.sequences.iter().enumerate() {
            page += &self.sequence_html(index, sequence);
        }
        page += &self.charts();
        page += &self.summary_table();
        for (heading, predictions) in [
            ("Highest weights", ranking::highest(self, NUM_RANKED)),
            ("Lowest weights", ranking::lowest(self, NUM_RANKED)),
        ] {
            page += &ranked_table(heading, &predictions);
        }
        page += &self.token_means();
        page += "<div id=\"chosen\" role=\"status\"></div>\n<script>\n";
        page += include_str!("page.js");
        page + "</script>\n</body>\n</html>\n"
    }

    fn legend_html(&self) -> String {
        let blocks = |shades: &mut dyn Iterator<Item = Shade>| -> String {
            shades.map(|shade| format!("<span class=\"{}\"></span>", class(shade).unwrap_or(""))).collect()
        };
        let below = blocks(&mut (1..=NUM_SHADES).rev().map(Shade::Below));
        let above = blocks(&mut (1..=NUM_SHADES).map(Shade::Above));
        format!(
            "<div class=\"legend\"><span class=\"scale\">weight {:.2}&nbsp;{below}&nbsp;1&nbsp;{above}&nbsp;{:.2}</span>\
             <span class=\"low\">at the lower bound</span><span class=\"high\">at the upper bound</span>\
             <span class=\"quiet\">point at or tap a token for its numbers</span></div>\n",
            self.about.lowest_weight, self.about.highest_weight
        )
    }

    fn sequence_html(&self, index: usize, sequence: &SequenceView) -> String {
        let num_predictions = sequence.weights.len();
        let mut html = format!("<h2>Sequence {}, {num_predictions} predictions</h2>\n", index + 1);
        html += match sequence.tokens {
            Some(_) => "<div class=\"text\">",
            None => "<div class=\"text ids\">",
        };
        for at in 0..sequence.ids.len() {
            let token = match &sequence.tokens {
                Some(tokens) => escape(&with_breaks(&tokens[at])),
                None => sequence.ids[at].to_string(),
            };
            let Some(position) = at.checked_sub(1) else {
                let _ = write!(html, "<b title=\"the first token is not predicted\">{token}</b>");
                continue;
            };
            let prediction = Prediction { index, sequence, position };
            let bound = self.about.bound(prediction.weight());
            let shade = class(self.about.shade(prediction.weight()));
            let classes: Vec<&str> = shade.into_iter().chain(bound.map(bound_class)).collect();
            let classes = match classes.is_empty() {
                true => String::new(),
                false => format!(" class=\"{}\"", classes.join(" ")),
            };
            let _ =
                write!(html, "<i{classes} title=\"{}\">{token}</i>", escape(&tooltip(&prediction, bound)));
            if sequence.tokens.is_none() {
                html.push(' '); // where lines may break
            }
        }
        html + "</div>\n"
    }

    fn charts(&self) -> String {
        let weights: Vec<f32> = self.predictions().map(|prediction| prediction.weight()).collect();
        let deltas: Vec<f32> = self.predictions().map(|prediction| prediction.delta()).collect();
        if weights.is_empty() {
            return String::new();
        }
        format!(
            "<h2>Distribution</h2>\n<div class=\"charts\">\n{}{}</div>\n",
            histogram("Weight", &weights, 1.0),
            histogram("Delta: log p reference − log p learner, in nats", &deltas, 0.0)
        )
    }

    fn summary_table(&self) -> String {
        let mut html = "<h2>Summary</h2>\n<div class=\"scroll\"><table><tbody>\n".to_string();
        for (name, figure) in self.summary.rows() {
            let _ =
                writeln!(html, "<tr><th scope=\"row\">{name}</th><td class=\"number\">{figure}</td></tr>");
        }
        html + "</tbody></table></div>\n"
    }

    fn token_means(&self) -> String {
        let means = ranking::token_means(self, LEAST_COUNT);
        if means.is_empty() {
            return String::new();
        }
        let mut html = format!(
            "<h2>Mean weight of tokens that occur {LEAST_COUNT} times or more</h2>\n<div class=\"scroll\"><table>\
             <thead><tr><th class=\"number\">mean weight</th><th class=\"number\">mean delta</th>\
             <th class=\"number\">times</th><th>token</th></tr></thead><tbody>\n"
        );
        let mut row = |mean: &ranking::TokenMean| {
            let _ = writeln!(
                html,
                "<tr><td class=\"number\">{:.4}</td><td class=\"number\">{:+.4}</td><td class=\"number\">{}</td>\
                 <td><code>{}</code></td></tr>",
                mean.mean_weight,
                mean.mean_delta,
                mean.count,
                escape(&mean.name)
            );
        };
        if means.len() <= 2 * NUM_RANKED {
            means.iter().for_each(&mut row);
        } else {
            means[..NUM_RANKED].iter().for_each(&mut row);
            let left_out = means.len() - 2 * NUM_RANKED;
            means[means.len() - NUM_RANKED..].iter().for_each(&mut row);
            let note = format!("<p class=\"quiet\">{left_out} tokens between these are left out</p>\n");
            return html + "</tbody></table></div>\n" + &note;
        }
        html + "</tbody></table></div>\n"
    }
}

fn ranked_table(heading: &str, predictions: &[Prediction]) -> String {
    if predictions.is_empty() {
        return String::new();
    }
    let mut html = format!(
        "<h2>{heading}</h2>\n<div class=\"scroll\"><table><thead><tr><th class=\"number\">weight</th>\
         <th class=\"number\">delta</th><th class=\"number\">log p learner</th>\
         <th class=\"number\">log p reference</th><th>token</th><th>in front of it</th></tr></thead><tbody>\n"
    );
    for prediction in predictions {
        let _ = writeln!(
            html,
            "<tr><td class=\"number\">{:.4}</td><td class=\"number\">{:+.4}</td><td class=\"number\">{:.4}</td>\
             <td class=\"number\">{:.4}</td><td><code>{}</code></td><td class=\"quiet\"><code>{}</code></td></tr>",
            prediction.weight(),
            prediction.delta(),
            prediction.logp_learner(),
            prediction.logp_reference(),
            escape(&prediction.name()),
            escape(&prediction.context())
        );
    }
    html + "</tbody></table></div>\n"
}

fn tooltip(prediction: &Prediction, bound: Option<Bound>) -> String {
    let name = match prediction.sequence.tokens {
        Some(_) => format!("“{}” (id {})", prediction.name(), prediction.id()),
        None => format!("id {}", prediction.id()),
    };
    format!(
        "{name}\nweight {:.4}{}\ndelta {:+.4}\nlog p learner {:.4}\nlog p reference {:.4}",
        prediction.weight(),
        bound.map(|bound| format!(", {}", bound.words())).unwrap_or_default(),
        prediction.delta(),
        prediction.logp_learner(),
        prediction.logp_reference()
    )
}

/// Bars of one colour below `middle`, of another above.
fn histogram(caption: &str, values: &[f32], middle: f32) -> String {
    const WIDTH: f32 = 480.0;
    const HEIGHT: f32 = 150.0;
    const TOP: f32 = 16.0;
    const AXIS: f32 = 128.0;
    let (mut low, mut high) =
        values.iter().fold((middle, middle), |(low, high), value| (low.min(*value), high.max(*value)));
    if high - low < 1e-6 {
        (low, high) = (middle - 0.5, middle + 0.5);
    }
    // Whole bins on either side of the middle, so that no bar has both and the outermost end where the values do.
    let share_below = (middle - low) / (high - low);
    let bins_below = match share_below {
        0.0 => 0,
        1.0 => NUM_BINS,
        share => ((share * NUM_BINS as f32).round() as usize).clamp(1, NUM_BINS - 1),
    };
    let bins_above = NUM_BINS - bins_below;
    let edge = |bin: usize| match bin.checked_sub(bins_below) {
        None => middle - (middle - low) * (bins_below - bin) as f32 / bins_below as f32,
        Some(0) => middle,
        Some(bin) => middle + (high - middle) * bin as f32 / bins_above as f32,
    };
    let mut counts = [0_u64; NUM_BINS];
    for &value in values {
        let bin = (0..NUM_BINS).rfind(|&bin| edge(bin) <= value).unwrap_or(0);
        counts[bin] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let bar_width = WIDTH / NUM_BINS as f32;
    let mut svg = format!(
        "<figure><figcaption>{caption}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"Histogram: {caption}\">\n<line x1=\"0\" y1=\"{AXIS}\" x2=\"{WIDTH}\" y2=\"{AXIS}\"/>\n\
         <text x=\"0\" y=\"11\">highest bar: {most}</text>\n"
    );
    for (bin, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        // A single token among thousands is still to be seen.
        let height = (count as f32 / most as f32 * (AXIS - TOP)).max(1.5);
        let side = if bin < bins_below { "below" } else { "above" };
        let _ = writeln!(
            svg,
            "<rect class=\"bar {side}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
             <title>{:.3} to {:.3}: {count}</title></rect>",
            bin as f32 * bar_width + 0.5,
            AXIS - height,
            bar_width - 1.0,
            edge(bin),
            edge(bin + 1)
        );
    }
    // The ends and the middle, unless the middle would run into an end.
    let mut ticks = vec![(0.0, "start", low), (WIDTH, "end", high)];
    let middle_at = bins_below as f32 * bar_width;
    if (60.0..=WIDTH - 60.0).contains(&middle_at) {
        ticks.push((middle_at, "middle", middle));
    }
    for (x, anchor, value) in ticks {
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"145\" text-anchor=\"{anchor}\">{value:.2}</text>");
    }
    svg + "</svg></figure>\n"
}

fn class(shade: Shade) -> Option<&'static str> {
    const BELOW: [&str; NUM_SHADES as usize] = ["l1", "l2", "l3", "l4"];
    const ABOVE: [&str; NUM_SHADES as usize] = ["h1", "h2", "h3", "h4"];
    match shade {
        Shade::Below(shade) => Some(BELOW[usize::from(shade) - 1]),
        Shade::Even => None,
        Shade::Above(shade) => Some(ABOVE[usize::from(shade) - 1]),
    }
}

fn bound_class(bound: Bound) -> &'static str {
    match bound {
        Bound::Lowest => "low",
        Bound::Highest => "high",
    }
}

/// Line breaks as a sign and a break, other control characters as pictures.
fn with_breaks(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        shown.push(visible(character));
        if character == '\n' {
            shown.push('\n');
        }
    }
    shown
}
