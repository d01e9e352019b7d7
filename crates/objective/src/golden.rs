//! The golden token-weighting cases, made with PyTorch in float64, for the tests of every rule.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Signals;

/// One option set and what it gives.
#[derive(Deserialize)]
pub struct Case {
    pub options: Map<String, Value>,
    pub weights: Vec<Vec<f64>>,
    pub loss: f64,
    #[serde(default)]
    pub grad: Vec<Vec<f64>>,
}

/// The inputs, flat, and the cases.
pub struct Golden {
    pub length: usize,
    pub mask: Vec<bool>,
    pub documents: Vec<u32>,
    pub learner: Vec<f32>,
    pub reference: Vec<f32>,
    /// The same in full precision.
    pub learner_f64: Vec<f64>,
    pub reference_f64: Vec<f64>,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
struct File {
    token_weighting: Section,
}

#[derive(Deserialize)]
struct Section {
    logp_learner: Vec<Vec<f64>>,
    logp_reference: Vec<Vec<f64>>,
    loss_mask: Vec<Vec<f64>>,
    document_ids: Vec<Vec<u32>>,
    cases: Vec<Case>,
}

impl Golden {
    pub fn load() -> Golden {
        let file: File =
            serde_json::from_str(include_str!("../golden/losses.json")).expect("the golden file parses");
        let section = file.token_weighting;
        let (learner, reference) = (section.logp_learner.concat(), section.logp_reference.concat());
        Golden {
            length: section.logp_learner[0].len(),
            mask: section.loss_mask.concat().iter().map(|&counts| counts == 1.0).collect(),
            documents: section.document_ids.concat(),
            learner: learner.iter().map(|&logp| logp as f32).collect(),
            reference: reference.iter().map(|&logp| logp as f32).collect(),
            learner_f64: learner,
            reference_f64: reference,
            cases: section.cases,
        }
    }

    pub fn signals(&self) -> Signals<'_> {
        Signals {
            length: self.length,
            mask: &self.mask,
            documents: &self.documents,
            learner: &self.learner,
            reference: Some(&self.reference),
        }
    }
}
