//! The weights of a text's tokens, for a person to look at: JSON, a terminal, a page.
//!
//! Everything per token is indexed by prediction, so it is one shorter than the tokens: prediction `t` is about token
//! `t + 1`, and a sequence's first token has no weight.

mod html;
mod ranking;
mod shade;
mod terminal;

#[cfg(test)]
mod tests;

pub(crate) use ranking::lightest_first;

use serde::Serialize;

use super::table::Table;
use remit_objective::WeightFigures;

/// What `remit weights` shows.
#[derive(Clone, Debug, Serialize)]
pub struct WeightsView {
    /// In the order given.
    pub sequences: Vec<SequenceView>,
    /// Over all sequences.
    pub summary: Overall,
    /// What the view is about; not part of the JSON.
    #[serde(skip)]
    pub about: About,
}

/// One sequence of `n + 1` tokens with `n` predictions.
#[derive(Clone, Debug, Serialize)]
pub struct SequenceView {
    /// `n + 1` token ids.
    pub ids: Vec<u32>,
    /// The text of each of the `n + 1` tokens, where there is a tokenizer; not part of the JSON.
    #[serde(skip)]
    pub tokens: Option<Vec<String>>,
    /// `[n]`: the learner's log-probability of each token but the first, in nats.
    pub logp_learner: Vec<f32>,
    /// `[n]`: the reference's.
    pub logp_reference: Vec<f32>,
    /// `[n]`: reference minus learner.
    pub delta: Vec<f32>,
    /// `[n]`
    pub weights: Vec<f32>,
}

/// Figures over all predictions of all sequences; losses in nats a prediction.
#[derive(Clone, Debug, Serialize)]
pub struct Overall {
    /// Predictions.
    pub num_tokens: u64,
    /// Of their weights.
    #[serde(flatten)]
    pub weights: WeightFigures,
    /// Plain next-token loss.
    pub ntp_loss: f64,
    /// The loss with the weights.
    pub remit_loss: f64,
}

/// What a view is about.
#[derive(Clone, Debug)]
pub struct About {
    /// The learner, as it was given.
    pub learner: String,
    /// The reference, as it was given.
    pub reference: String,
    /// The least weight there can be, `1 - epsilon_low`.
    pub lowest_weight: f32,
    /// The greatest, `1 + epsilon_high`.
    pub highest_weight: f32,
}

impl WeightsView {
    /// One JSON object with `sequences` and `summary`, and a final newline. Every number reads back as the same `f32`
    /// or `f64`.
    pub fn to_json(&self) -> String {
        self.check();
        serde_json::to_string(self).expect("numbers and lists are always JSON") + "\n"
    }

    /// Whoever fills a view keeps its lists in step; a shifted list would show every weight at the wrong token.
    fn check(&self) {
        for sequence in &self.sequences {
            let SequenceView { ids, tokens, logp_learner, logp_reference, delta, weights } = sequence;
            let num_predictions = ids.len().saturating_sub(1);
            for list in [logp_learner, logp_reference, delta, weights] {
                assert_eq!(list.len(), num_predictions, "a list has one entry a prediction");
            }
            if let Some(tokens) = tokens {
                assert_eq!(tokens.len(), ids.len(), "a text has one piece a token");
            }
        }
    }

    /// The predictions of all sequences, in order.
    fn predictions(&self) -> impl Iterator<Item = Prediction<'_>> {
        self.sequences.iter().enumerate().flat_map(|(index, sequence)| {
            (0..sequence.weights.len()).map(move |position| Prediction { index, sequence, position })
        })
    }
}

impl Overall {
    /// What each figure is called, and the figure.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let Overall { num_tokens, weights, ntp_loss, remit_loss } = self;
        let share = |share: f64| format!("{:.1}%", share * 100.0);
        vec![
            ("predictions", num_tokens.to_string()),
            ("mean weight", format!("{:.4}", weights.mean_weight)),
            ("standard deviation", format!("{:.4}", weights.std_weight)),
            ("clipped low", share(weights.clipped_low)),
            ("clipped high", share(weights.clipped_high)),
            ("weighted up", share(weights.weighted_up)),
            ("effective sample size", share(weights.effective_sample_share)),
            ("mean delta", format!("{:+.4}", weights.mean_delta.unwrap_or(0.0))),
            ("NTP loss", format!("{ntp_loss:.4}")),
            ("ReMiT loss", format!("{remit_loss:.4}")),
        ]
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["summary", ""]);
        for (name, figure) in self.rows() {
            table.row([name.to_string(), figure]);
        }
        table
    }
}

/// One prediction of a view: the token it is about, and its numbers.
#[derive(Clone, Copy)]
struct Prediction<'a> {
    /// Of the sequence in the view.
    index: usize,
    sequence: &'a SequenceView,
    /// `t`; the token is `t + 1`.
    position: usize,
}

impl<'a> Prediction<'a> {
    fn weight(&self) -> f32 {
        self.sequence.weights[self.position]
    }

    fn delta(&self) -> f32 {
        self.sequence.delta[self.position]
    }

    fn logp_learner(&self) -> f32 {
        self.sequence.logp_learner[self.position]
    }

    fn logp_reference(&self) -> f32 {
        self.sequence.logp_reference[self.position]
    }

    fn id(&self) -> u32 {
        self.sequence.ids[self.position + 1]
    }

    /// The token as a short name: its text in one line, or its id.
    fn name(&self) -> String {
        token_name(self.sequence, self.position + 1)
    }

    /// The end of the text, or of the ids, in front of the token.
    fn context(&self) -> String {
        const NUM_CHARS: usize = 32;
        let separator = if self.sequence.tokens.is_some() { "" } else { " " };
        // No token is shorter than a byte, and one of no text at all may stand between others.
        let first = (self.position + 1).saturating_sub(2 * NUM_CHARS);
        let names: Vec<String> = (first..=self.position).map(|at| token_name(self.sequence, at)).collect();
        let text = names.join(separator);
        let num_chars = text.chars().count();
        let end: String = text.chars().skip(num_chars.saturating_sub(NUM_CHARS)).collect();
        if first > 0 || num_chars > NUM_CHARS { format!("…{end}") } else { end }
    }
}

fn token_name(sequence: &SequenceView, at: usize) -> String {
    match &sequence.tokens {
        Some(tokens) => in_one_line(&tokens[at]),
        None => sequence.ids[at].to_string(),
    }
}

/// Line breaks and other control characters as pictures, so that they can neither break a line nor speak to a
/// terminal.
fn in_one_line(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn visible(character: char) -> char {
    match character {
        '\n' => '⏎',
        '\t' => '⇥',
        '\u{7f}' => '␡',
        control @ '\0'..='\u{1f}' => char::from_u32(0x2400 + control as u32).expect("the pictures are there"),
        // C1 controls and marks that reorder the text around them.
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        other => other,
    }
}
