//! Why evaluations cannot be compared, with the facts; the advice is in [`Error::hint`].

use std::path::PathBuf;

/// An error of a comparison.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of reading results.
    #[error(transparent)]
    Eval(#[from] crate::Error),
    /// One arm or none.
    #[error("a comparison takes two arms, here {}", match count { 0 => "is none", _ => "is one" })]
    FewArms {
        /// How many there are.
        count: usize,
    },
    /// Two arms of one name.
    #[error("two arms are called `{name}`")]
    SameName {
        /// The name.
        name: String,
    },
    /// An arm without evaluations.
    #[error("arm `{name}` has no evaluation")]
    NoEvaluation {
        /// The arm.
        name: String,
    },
    /// Arms that cannot be paired seed by seed.
    #[error("arm `{first}` has {num_first} evaluations, arm `{other}` has {num_other}")]
    OtherCount {
        /// The first arm.
        first: String,
        /// Its evaluations.
        num_first: usize,
        /// Another arm.
        other: String,
        /// Its evaluations.
        num_other: usize,
    },
    /// A baseline that is no arm.
    #[error("there is no arm `{name}` to compare with")]
    UnknownBaseline {
        /// The name as given.
        name: String,
        /// The arms.
        arms: Vec<String>,
    },
    /// A metric that the evaluations do not have.
    #[error("the evaluations have no metric `{name}`")]
    UnknownMetric {
        /// The name as given.
        name: String,
        /// What they have.
        metrics: Vec<String>,
    },
    /// A confidence outside (0, 1).
    #[error("a confidence of {confidence} is not between 0 and 1")]
    Confidence {
        /// As given.
        confidence: f64,
    },
    /// A directory without results.
    #[error("`{}` is no evaluation: it has no `results.json`", path.display())]
    NoResults {
        /// The directory.
        path: PathBuf,
        /// An evaluation below it.
        below: Option<PathBuf>,
    },
    /// One model twice in an arm: its two evaluations are not two seeds.
    #[error("`{}` and `{}` of arm `{arm}` are evaluations of the same model", first.display(), second.display())]
    SameModel {
        /// The arm.
        arm: String,
        /// An evaluation.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// Evaluations with other settings.
    #[error("`{}` and `{}` were evaluated differently: {}", first.display(), other.display(), differences.join(", "))]
    OtherSettings {
        /// The first evaluation.
        first: PathBuf,
        /// One that differs.
        other: PathBuf,
        /// What differs, `key: first -> other`.
        differences: Vec<String>,
    },
    /// Evaluations with other questions.
    #[error("`{}` and `{}` have different questions in {}", first.display(), other.display(), listed(tasks))]
    OtherQuestions {
        /// The first evaluation.
        first: PathBuf,
        /// One that differs.
        other: PathBuf,
        /// The tasks where they differ.
        tasks: Vec<String>,
    },
    /// Likelihoods over other tokens.
    #[error("`{}` and `{}` count the tokens of `{task}`'s solutions differently", first.display(), other.display())]
    OtherTokens {
        /// The first evaluation.
        first: PathBuf,
        /// One that differs.
        other: PathBuf,
        /// The task.
        task: String,
    },
    /// A task without its log of answers.
    #[error("`{}` is not there", path.display())]
    NoLog {
        /// The log.
        path: PathBuf,
    },
    /// A log that does not belong to its results.
    #[error("`{}` does not go with its results: {problem}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Error::Eval(error) => return error.hint(),
            Error::FewArms { .. } | Error::NoEvaluation { .. } => {
                "name each arm with its evaluations, one a seed: `remit compare sft=DIR,DIR rl=DIR,DIR`"
                    .to_owned()
            }
            Error::SameName { .. } => "give each arm a name of its own".to_owned(),
            Error::OtherCount { .. } => {
                "give every arm the same seeds in the same order: they are compared pair by pair".to_owned()
            }
            Error::UnknownBaseline { name, arms } => choice("the arms are", name, arms),
            Error::UnknownMetric { name, metrics } => choice("there are", name, metrics),
            Error::Confidence { .. } => "0.95 is usual".to_owned(),
            Error::NoResults { below: Some(below), .. } => format!("did you mean `{}`?", below.display()),
            Error::NoResults { .. } => {
                "give the directory that `remit eval` left, such as RUN/eval/CHECKPOINT/TASKS".to_owned()
            }
            Error::SameModel { .. } => "give each arm one evaluation a seed".to_owned(),
            Error::OtherSettings { .. } => {
                "evaluate all with the same settings, or choose with `--metric` what does not depend on these"
                    .to_owned()
            }
            Error::OtherQuestions { .. } => "evaluate all on the same questions".to_owned(),
            Error::OtherTokens { .. } => {
                "nats a token can be compared between models of one tokenizer only; leave them out with \
                 `--metric exact_match`"
                    .to_owned()
            }
            Error::NoLog { .. } | Error::Log { .. } => {
                "evaluate again with `remit eval --overwrite`: the answers to each question are needed"
                    .to_owned()
            }
        };
        Some(text)
    }
}

/// The name most like `name`, then all.
fn choice(what: &str, name: &str, known: &[String]) -> String {
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let question = near.map_or(String::new(), |(_, near)| format!("did you mean `{near}`? "));
    format!("{question}{what} {}", listed(known))
}

/// In backticks, with commas.
fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
