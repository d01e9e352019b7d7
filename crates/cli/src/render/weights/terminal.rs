//! The terminal view. Where there are no colours, tokens at a bound carry their weight as `token[1.20]`.

use std::fmt::Write as _;

use super::shade::{Bound, NUM_SHADES, Shade};
use super::{Prediction, SequenceView, WeightsView, in_one_line, ranking};
use crate::render::style::{Colours, Ink};
use crate::render::table::Table;

/// Rows in the tables of the highest and lowest tokens.
const NUM_RANKED: usize = 10;

impl WeightsView {
    /// Every token in the colour of its weight, a legend, the heaviest and lightest tokens, the summary.
    pub fn to_text(&self, colours: Colours) -> String {
        self.check();
        let mut text = String::new();
        for (index, sequence) in self.sequences.iter().enumerate() {
            let heading = format!(
                "Sequence {} of {}, {} predictions",
                index + 1,
                self.sequences.len(),
                sequence.weights.len()
            );
            let _ = writeln!(text, "{}", colours.paint(Ink::Heading, &heading));
            text += &self.sequence_text(sequence, colours);
            text += "\n\n";
        }
        let _ = writeln!(text, "{}\n", self.legend(colours));
        for (heading, predictions) in [
            ("Highest weights", ranking::highest(self, NUM_RANKED)),
            ("Lowest weights", ranking::lowest(self, NUM_RANKED)),
        ] {
            if predictions.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{}", colours.paint(Ink::Heading, heading));
            let _ = writeln!(text, "{}", ranked_table(&predictions).to_plain());
        }
        text + &self.summary.table().to_plain()
    }

    fn sequence_text(&self, sequence: &SequenceView, colours: Colours) -> String {
        let mut text = String::new();
        for at in 0..sequence.ids.len() {
            let (token, separator) = match &sequence.tokens {
                Some(tokens) => (tokens[at].clone(), ""),
                None => (sequence.ids[at].to_string(), if at == 0 { "" } else { " " }),
            };
            text += separator;
            // A line break is shown, and made after the token.
            let break_after = if token.contains('\n') { "\n" } else { "" };
            let token = in_one_line(&token);
            match at.checked_sub(1).map(|t| sequence.weights[t]) {
                None => text += &colours.paint(Ink::Quiet, &token),
                Some(weight) => match paint(self.about.shade(weight), &token, colours) {
                    Some(painted) => text += &painted,
                    None => {
                        text += &token;
                        if self.about.bound(weight).is_some() && colours < Colours::Indexed {
                            let _ = write!(text, "[{weight:.2}]");
                        }
                    }
                },
            }
            text += break_after;
        }
        text
    }

    fn legend(&self, colours: Colours) -> String {
        let (lowest, highest) = (self.about.lowest_weight, self.about.highest_weight);
        if colours < Colours::Indexed {
            return format!(
                "Marked are the tokens whose weight is at a bound: token[{lowest:.2}] or token[{highest:.2}]"
            );
        }
        let block = |shade| paint(shade, "   ", colours).unwrap_or_else(|| "   ".to_string());
        let below: String = (1..=NUM_SHADES).rev().map(|shade| block(Shade::Below(shade))).collect();
        let above: String = (1..=NUM_SHADES).map(|shade| block(Shade::Above(shade))).collect();
        format!("weight {lowest:.2} {below} 1 {above} {highest:.2}")
    }
}

fn ranked_table(predictions: &[Prediction]) -> Table {
    let mut table = Table::new(&[
        "weight",
        "delta",
        "log p learner",
        "log p reference",
        "place",
        "token",
        "in front of it",
    ]);
    for prediction in predictions {
        table.row([
            format!("{:.4}", prediction.weight()),
            format!("{:+.4}", prediction.delta()),
            format!("{:.4}", prediction.logp_learner()),
            format!("{:.4}", prediction.logp_reference()),
            format!("{}:{}", prediction.index + 1, prediction.position + 1),
            format!("`{}`", prediction.name()),
            format!("`{}`", prediction.context()),
        ]);
    }
    table
}

/// White on a background that goes from grey to blue below 1, from grey to orange above. All are about equally
/// dark, so that they are readable on light and dark terminals, and the two ends differ for every kind of sight.
fn paint(shade: Shade, text: &str, colours: Colours) -> Option<String> {
    const BELOW: [(u8, [u8; 3]); NUM_SHADES as usize] =
        [(60, [95, 108, 122]), (61, [72, 108, 148]), (25, [38, 103, 172]), (26, [0, 95, 200])];
    const ABOVE: [(u8, [u8; 3]); NUM_SHADES as usize] =
        [(95, [122, 103, 88]), (94, [145, 97, 58]), (130, [168, 88, 25]), (166, [188, 80, 0])];
    let (indexed, [red, green, blue]) = match shade {
        Shade::Below(shade) => BELOW[usize::from(shade) - 1],
        Shade::Even => return None,
        Shade::Above(shade) => ABOVE[usize::from(shade) - 1],
    };
    let background = match colours {
        Colours::None | Colours::Named => return None,
        Colours::Indexed => format!("48;5;{indexed}"),
        Colours::True => format!("48;2;{red};{green};{blue}"),
    };
    Some(format!("\x1b[97;{background}m{text}\x1b[0m"))
}

impl Bound {
    /// What a person is told.
    pub(super) fn words(self) -> &'static str {
        match self {
            Bound::Lowest => "at the lower bound",
            Bound::Highest => "at the upper bound",
        }
    }
}
