//! Verifiable problems with worked solutions.
//!
//! Document `i` of a seed is a function of the seed, `i` and the settings alone; changing the noise changes neither
//! the problems nor the other kind of noise. Train and test are disjoint by construction: a hash of the problem,
//! whatever its phrasing and level, decides the split, for every seed.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::error::Error;
use crate::families::Family;
use crate::level::Level;
use crate::noise::Noise;
use crate::program::{self, Check};

/// Between the working and the answer.
const ARROW: &str = "=>";

/// A corpus of problems to generate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problems {
    /// The families drawn from, each equally often.
    pub families: BTreeSet<Family>,
    /// How hard they are.
    #[serde(default)]
    pub level: Level,
    /// Decides every choice.
    pub seed: u64,
    /// Documents.
    pub count: usize,
    /// Noise planted in the solutions.
    #[serde(default)]
    pub noise: Noise,
    /// Train problems may repeat; test problems are distinct, at most [`Level::test_problems`] a family.
    pub split: Split,
}

/// The half of the problem space that a problem belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Seven eighths of all problems.
    Train,
    /// One eighth.
    Test,
}

/// A problem and its worked solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind of problem.
    pub family: Family,
    /// How hard it is.
    pub level: Level,
    /// The problem apart from its phrasing; unique within its family. The split is decided by it.
    pub key: String,
    /// The question as asked.
    pub question: String,
    /// The steps of the working, in order.
    pub working: Vec<String>,
    /// The answer alone.
    pub answer: String,
    /// What the answer must make of a program; empty where the answer is the one right text.
    pub checks: Vec<Check>,
}

/// One generated document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document {
    /// Question, working and answer, ending in a line feed.
    pub text: String,
    /// The kind of problem.
    pub family: Family,
    /// Whether the document is free of planted noise of either kind.
    pub clean: bool,
    /// The problem behind the document, always with its right solution.
    #[serde(skip)]
    pub problem: Problem,
}

impl Problems {
    /// The documents, in order.
    ///
    /// # Errors
    /// No families, a rate of noise outside 0 to 1, or more test problems than [`Level::test_problems`] a family.
    pub fn documents(&self) -> Result<impl Iterator<Item = Document> + use<>, Error> {
        let Self { families, level, seed, count, noise, split } = self.clone();
        noise.check()?;
        if families.is_empty() {
            return Err(Error::NoFamilies);
        }
        let families: Vec<Family> = families.into_iter().collect();
        let most = families.len() * level.test_problems();
        if split == Split::Test && count > most {
            return Err(Error::TooManyTestProblems { count, families: families.len(), level, most });
        }
        let mut seen = HashSet::new();
        Ok((0..count as u64).map(move |index| {
            let mut dice = Dice::new(seed, "problem", index);
            let family = match split {
                Split::Train => families[dice.between(0, families.len() as i64 - 1) as usize],
                Split::Test => families[index as usize % families.len()],
            };
            let problem = loop {
                let problem = family.draw(&mut dice, level);
                let fits = problem.split() == split;
                if fits && (split == Split::Train || seen.insert((family, problem.key.clone()))) {
                    break problem;
                }
            };
            let (text, clean) = noise.document(&problem, seed, index);
            Document { text, family, clean, problem }
        }))
    }

    /// The documents cut in two, as post-training reads them.
    ///
    /// # Errors
    /// As [`Problems::documents`].
    pub fn rows(&self) -> Result<impl Iterator<Item = Row> + use<>, Error> {
        Ok(self.documents()?.map(Document::row))
    }

    /// Pairs to prefer one of, as preference optimisation reads them. Where noise makes both the same, there is no pair.
    ///
    /// # Errors
    /// As [`Problems::documents`].
    pub fn pairs(&self) -> Result<impl Iterator<Item = Pair> + use<>, Error> {
        let seed = self.seed;
        let pairs = self.documents()?.enumerate().map(move |(index, document)| {
            let (rejected, _) = Noise::REJECTED.document(&document.problem, seed, index as u64);
            document.pair(&rejected)
        });
        Ok(pairs.filter(|pair| pair.chosen != pair.rejected))
    }
}

/// One problem as post-training reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// [`Problem::prompt`].
    pub prompt: String,
    /// What follows it in the document, with its noise.
    pub completion: String,
    /// [`Problem::ground_truth`].
    pub solution: String,
    /// Which verifier judges: `micro10`, or `micro10_complete` where the answer completes programs.
    pub dataset: &'static str,
    /// The kind of problem.
    pub family: Family,
}

/// One problem as preference optimisation reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// [`Problem::prompt`].
    pub prompt: String,
    /// What follows it in the document, with its noise.
    pub chosen: String,
    /// The right solution with characters of working and answer replaced by others of their kind, one at least.
    pub rejected: String,
    /// The kind of problem.
    pub family: Family,
}

impl Document {
    fn row(self) -> Row {
        let Document { text, family, clean: _, problem } = self;
        let prompt = problem.prompt();
        let completion = completion(&text, &prompt);
        let dataset = if problem.checks.is_empty() { "micro10" } else { "micro10_complete" };
        Row { prompt, completion, solution: problem.ground_truth(), dataset, family }
    }

    fn pair(self, rejected: &str) -> Pair {
        let prompt = self.problem.prompt();
        let (chosen, rejected) = (completion(&self.text, &prompt), completion(rejected, &prompt));
        Pair { prompt, chosen, rejected, family: self.family }
    }
}

fn completion(text: &str, prompt: &str) -> String {
    text.strip_prefix(prompt).expect("a document begins with its prompt").to_owned()
}

impl Problem {
    /// The split of the problem, the same for every seed and phrasing.
    pub fn split(&self) -> Split {
        let hash = blake3::hash(format!("{} {}", self.family, self.key).as_bytes());
        if hash.as_bytes()[0] < 32 { Split::Test } else { Split::Train }
    }

    /// What a model is given to answer: the document up to and including `A:`.
    pub fn prompt(&self) -> String {
        format!("Q: {}\nA:", self.question)
    }

    /// Whether `answer`, as [`final_answer`] finds it, is right: the very text, or where there are programs to
    /// complete, whatever makes them print what they must.
    pub fn accepts(&self, answer: &str) -> bool {
        if self.checks.is_empty() {
            answer.trim() == self.answer
        } else {
            program::satisfies(answer, &self.checks)
        }
    }

    /// What a verifier is given to judge by: the answer, or the programs and their output, one a line.
    pub fn ground_truth(&self) -> String {
        if self.checks.is_empty() {
            return self.answer.clone();
        }
        self.checks.iter().map(Check::to_string).collect::<Vec<_>>().join("\n")
    }

    /// The document without noise.
    pub fn document(&self) -> String {
        Noise::NONE.document(self, 0, 0).0
    }
}

/// The answer in what a model wrote after a prompt: in its first line, what follows the last `=>`.
pub fn final_answer(completion: &str) -> Option<&str> {
    let line = completion.lines().next()?;
    let (_, answer) = line.rsplit_once(ARROW)?;
    Some(answer.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(count: usize, noise: Noise, split: Split) -> Problems {
        let families = BTreeSet::from(Family::ALL);
        Problems { families, level: Level::default(), seed: 3, count, noise, split }
    }

    fn documents(settings: &Problems) -> Vec<Document> {
        settings.documents().expect("good settings").collect()
    }

    /// What JSON lines hold of them.
    fn lines(records: impl Iterator<Item = impl Serialize>) -> Vec<serde_json::Value> {
        records.map(|record| serde_json::to_value(record).expect("JSON")).collect()
    }

    #[test]
    fn a_document_reads_question_working_answer() {
        let problem = Problem {
            family: Family::Modulo,
            level: Level::Two,
            key: "137 mod 9".to_owned(),
            question: "137 mod 9=?".to_owned(),
            working: vec!["9*15=135".to_owned(), "137-135=2".to_owned()],
            answer: "2".to_owned(),
            checks: Vec::new(),
        };
        assert_eq!(problem.document(), "Q: 137 mod 9=?\nA: 9*15=135; 137-135=2 => 2\n");
        assert_eq!(problem.prompt(), "Q: 137 mod 9=?\nA:");
    }

    /// Whatever the seed, the noise and the level of either: neither the problem nor its question is seen.
    #[test]
    fn no_test_problem_is_ever_in_a_training_corpus() {
        let question = |text: &str| text.lines().next().expect("a document has lines").to_owned();
        let (mut keys, mut questions) = (HashSet::new(), HashSet::new());
        for level in Level::ALL {
            let count = Family::ALL.len() * level.test_problems();
            let test = documents(&Problems { level, ..settings(count, Noise::NONE, Split::Test) });
            assert_eq!(test.len(), count);
            questions.extend(test.iter().map(|document| question(&document.text)));
            keys.extend(test.into_iter().map(|document| (document.family, document.problem.key)));
        }
        for (seed, level) in [3, 4].into_iter().flat_map(|seed| Level::ALL.map(|level| (seed, level))) {
            let noise = Noise { corrupted: 0.3, filler: 0.3 };
            for document in documents(&Problems { seed, level, ..settings(15_000, noise, Split::Train) }) {
                assert!(!questions.contains(&question(&document.text)), "{}", document.text);
                assert!(!keys.contains(&(document.family, document.problem.key)));
            }
        }
    }

    #[test]
    fn the_answer_follows_the_last_arrow_of_the_first_line() {
        assert_eq!(
            final_answer(
                " 9*15=135; 137-135=2 => 2
Q: 1+1=?
A: => 7"
            ),
            Some("2")
        );
        assert_eq!(final_answer(" 1 => 2 => 3 "), Some("3"));
        assert_eq!(final_answer("=>"), Some(""));
        assert_eq!(
            final_answer(
                "no answer
=> 3"
            ),
            None
        );
        assert_eq!(final_answer(""), None);
    }

    #[test]
    fn documents_depend_on_the_seed_and_not_on_the_count() {
        let long = documents(&settings(200, Noise { corrupted: 0.3, filler: 0.3 }, Split::Train));
        let short = documents(&settings(50, Noise { corrupted: 0.3, filler: 0.3 }, Split::Train));
        assert_eq!(long[..50], short[..]);
        let other = Problems { seed: 4, ..settings(50, Noise { corrupted: 0.3, filler: 0.3 }, Split::Train) };
        assert_ne!(documents(&other), short);
    }

    /// Any change to these bytes changes every corpus, and with them every figure that was measured on one.
    #[test]
    fn the_corpus_of_a_seed_is_fixed() {
        let hash = |families: &[Family], level| {
            let noise = Noise { corrupted: 0.2, filler: 0.5 };
            let families = families.iter().copied().collect();
            let all = documents(&Problems { families, level, ..settings(1000, noise, Split::Train) });
            let text: String = all.iter().map(|document| document.text.as_str()).collect();
            blake3::hash(text.as_bytes()).to_hex().to_string()
        };
        let hashes = Level::ALL.map(|level| hash(&Family::MICRO10, level));
        assert_eq!(
            hash(&Family::ALL[..7], Level::Two),
            "6e3464dfb8b3607259cbed60fcec4b45cc33abe776dd360189d6c88e288ff41e"
        );
        let expected = [
            "bcc5e095cae9239ceeb71fde56974421a45f96e66e248a20b215b77ce7755109",
            "d5559dee1f13994e993efae708610bba0e1b5d9a08827f9f6651df80f72b40f9",
            "3a315f2221caa6238b14bdb54def5c551fdf300d19b0d30071d27f4cca20e4ed",
        ];
        assert_eq!(hashes, expected);
    }

    #[test]
    fn noise_falls_at_its_rate_and_leaves_the_problems_alone() {
        let count = 4000;
        let noise = Noise { corrupted: 0.15, filler: 0.6 };
        let clean = documents(&settings(count, Noise::NONE, Split::Train));
        let noisy = documents(&settings(count, noise, Split::Train));
        let filled = documents(&settings(count, Noise { corrupted: 0.0, ..noise }, Split::Train));
        assert!(clean.iter().all(|document| document.clean && document.text == document.problem.document()));
        let share = |num: usize| num as f64 / count as f64;
        let num_corrupted = noisy.iter().zip(&filled).filter(|(a, b)| a.text != b.text).count();
        let num_filled = filled.iter().zip(&clean).filter(|(a, b)| a.text != b.text).count();
        let num_clean = noisy.iter().filter(|document| document.clean).count();
        assert!((share(num_corrupted) - 0.15).abs() < 0.02, "{num_corrupted}");
        assert!((share(num_filled) - 0.6).abs() < 0.025, "{num_filled}");
        assert!((share(num_clean) - 0.85 * 0.4).abs() < 0.025, "{num_clean}");
        for (noisy, clean) in noisy.iter().zip(&clean) {
            assert_eq!(noisy.problem, clean.problem);
            assert_eq!(noisy.clean, noisy.text == clean.text);
            assert!(noisy.text.starts_with(&clean.problem.prompt()), "a question is never touched");
        }
    }

    #[test]
    fn corruption_replaces_about_a_fifth_of_the_characters_by_their_kind() {
        let clean = documents(&settings(500, Noise::NONE, Split::Train));
        let corrupted = documents(&settings(500, Noise { corrupted: 1.0, filler: 0.0 }, Split::Train));
        let (mut num_characters, mut num_replaced) = (0, 0);
        for (clean, corrupted) in clean.iter().zip(&corrupted) {
            assert_ne!(clean.text, corrupted.text);
            assert_eq!(clean.text.len(), corrupted.text.len());
            let kind = |c: u8| (c.is_ascii_digit(), c.is_ascii_lowercase(), c.is_ascii_uppercase());
            for (a, b) in clean.text.bytes().zip(corrupted.text.bytes()).skip(clean.problem.prompt().len()) {
                assert!(a == b || a.is_ascii_alphanumeric() && kind(a) == kind(b), "{}", corrupted.text);
                num_characters += usize::from(a.is_ascii_alphanumeric());
                num_replaced += usize::from(a != b);
            }
        }
        let share = num_replaced as f64 / num_characters as f64;
        assert!((0.2..0.3).contains(&share), "{share}");
    }

    #[test]
    fn lines_are_json_with_text_family_and_clean() {
        let settings = settings(100, Noise { corrupted: 0.5, filler: 0.5 }, Split::Train);
        let written = lines(settings.documents().expect("good settings"));
        assert_eq!(written.len(), 100);
        for (value, document) in written.into_iter().zip(documents(&settings)) {
            let expected = serde_json::json!({
                "text": document.text, "family": document.family.name(), "clean": document.clean,
            });
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn the_worse_one_of_a_pair_differs_in_characters_alone() {
        let settings = settings(200, Noise::NONE, Split::Train);
        let pairs = lines(settings.pairs().expect("good settings"));
        assert_eq!(pairs.len(), 200);
        for (pair, document) in pairs.iter().zip(documents(&settings)) {
            let text = |field: &str| pair[field].as_str().expect("text");
            assert_eq!(format!("{}{}", text("prompt"), text("chosen")), document.text);
            assert_eq!(text("family"), document.family.name());
            assert_eq!(text("chosen").chars().count(), text("rejected").chars().count());
            let differing = text("chosen").chars().zip(text("rejected").chars()).filter(|(a, b)| a != b);
            let kinds: Vec<bool> = differing.map(|(a, b)| a.is_ascii_digit() == b.is_ascii_digit()).collect();
            assert!(!kinds.is_empty() && kinds.iter().all(|same| *same), "{pair}");
        }
    }

    #[test]
    fn rows_are_the_documents_cut_behind_the_prompt() {
        for split in [Split::Train, Split::Test] {
            let settings = settings(200, Noise { corrupted: 0.3, filler: 0.3 }, split);
            let rows = lines(settings.rows().expect("good settings"));
            assert_eq!(rows.len(), 200);
            let mut num_programs = 0;
            for (row, document) in rows.iter().zip(documents(&settings)) {
                let problem = &document.problem;
                let text = |field: &str| row[field].as_str().expect("text");
                assert_eq!(format!("{}{}", text("prompt"), text("completion")), document.text);
                assert_eq!(text("prompt"), problem.prompt());
                assert!(text("completion").starts_with(' ') && text("completion").ends_with('\n'));
                assert_eq!(text("family"), problem.family.name());
                assert_eq!(problem.split(), split);
                if problem.checks.is_empty() {
                    assert_eq!((text("dataset"), text("solution")), ("micro10", problem.answer.as_str()));
                } else {
                    num_programs += 1;
                    assert_eq!(text("dataset"), "micro10_complete");
                    assert_eq!(text("solution").lines().count(), problem.checks.len());
                }
                if document.clean {
                    let answer = final_answer(text("completion")).expect("a document has an answer");
                    assert!(problem.accepts(answer));
                }
            }
            assert!((1..100).contains(&num_programs), "{num_programs}");
        }
    }

    #[test]
    fn settings_that_cannot_be_met_say_why() {
        let message = |settings: Problems| {
            let error = settings.documents().map(drop).expect_err("bad settings");
            assert!(error.hint().is_some());
            error.to_string()
        };
        let none = Problems { families: BTreeSet::new(), ..settings(1, Noise::NONE, Split::Train) };
        assert_eq!(message(none), "no problem families are named");
        let rate = Noise { corrupted: 1.5, filler: 0.0 };
        assert_eq!(
            message(settings(1, rate, Split::Train)),
            "noise rate `corrupted` is 1.5, not a number from 0 to 1"
        );
        let rate = Noise { corrupted: 0.0, filler: f64::NAN };
        assert_eq!(
            message(settings(1, rate, Split::Train)),
            "noise rate `filler` is NaN, not a number from 0 to 1"
        );
        assert_eq!(
            message(settings(11_001, Noise::NONE, Split::Test)),
            "11001 test problems of level 2 asked of 11 families, at most 11000 are certain to be distinct"
        );
    }

    #[test]
    fn settings_are_written_as_people_write_them() {
        let text = "families = [\"modulo\", \"text\"]\nseed = 1\ncount = 5\nsplit = \"test\"\n\n[noise]\ncorrupted = 0.2\n";
        let settings: Problems = toml::from_str(text).expect("good settings");
        assert_eq!(settings.noise, Noise { corrupted: 0.2, filler: 0.0 });
        assert_eq!(settings.families, BTreeSet::from([Family::Modulo, Family::Text]));
        assert_eq!(settings.level, Level::Two);
        let harder: Problems = toml::from_str(&format!("level = 3\n{text}")).expect("good settings");
        assert_eq!(harder.level, Level::Three);
        let error = toml::from_str::<Problems>(&format!("level = 4\n{text}")).expect_err("no such level");
        assert!(error.to_string().contains("level 4 is none of 1, 2 and 3"), "{error}");
        let error = toml::from_str::<Problems>(&text.replace("corrupted", "corupted")).expect_err("a typo");
        assert!(error.to_string().contains("unknown field `corupted`"), "{error}");
    }
}
