//! The questions of an evaluation, put to a model.
//!
//! A prompt begins with what the tokenizer's post-processor puts in front of a text, or what `bos` says. Prompt and solution
//! have the ids of the whole text; where a token would reach from one into the other, they are encoded apart, as
//! generation would see them. What becomes of a question depends on its prompt, its task's settings and its own seeds
//! only: not on the questions beside it, nor on `batch_size`.

use remit_corpus::Tokenizer;
use remit_engine::{Engine, ModelId};
use remit_model::generate::{Completion, Finish, Request, Sampling, Watch};

use crate::likelihood::{Sequence, log_probs};
use crate::tasks::{Question, Task, tasks};
use crate::{Error, Settings};

/// Questions with their tokens.
#[derive(Debug)]
pub struct Suite {
    /// How they are asked.
    pub settings: Settings,
    /// The questions.
    pub tasks: Vec<Task>,
    /// What prompts begin with, in words.
    pub begin: String,
    /// Their tokens, in the order of tasks and their questions.
    encoded: Vec<Encoded>,
}

/// One question as tokens.
#[derive(Debug)]
struct Encoded {
    task: usize,
    question: usize,
    prompt: Vec<u32>,
    /// Empty without a solution.
    solution: Vec<u32>,
}

/// What a model made of one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// The text after the prompt when the likeliest token is taken always, cut before a stop text or end token.
    pub greedy: String,
    /// The texts of the samples.
    pub samples: Vec<String>,
    /// The log-probability of each token of the reference solution; empty where there is none or it was not asked for.
    pub solution: Vec<f32>,
}

/// Someone who looks on. `()` does not.
pub trait Observer {
    /// So many sequences are to come: greedy answers, samples and solutions.
    fn begin(&mut self, _sequences: u64) {}

    /// So many more sequences are done, and so many more tokens.
    fn advance(&mut self, _sequences: u64, _tokens: u64) {}
}

impl Observer for () {}

impl Suite {
    /// Reads and encodes the questions that the settings name.
    ///
    /// # Errors
    /// Settings that make no sense; files of questions that are missing or cannot be used.
    pub fn new(settings: &Settings, tokenizer: &Tokenizer) -> Result<Suite, Error> {
        settings.validate()?;
        let tasks = tasks(settings)?;
        let prefix = tokenizer.prefix(&settings.bos)?;
        let mut encoded = Vec::new();
        for (index, task) in tasks.iter().enumerate() {
            for (question, Question { prompt, solution, .. }) in task.questions.iter().enumerate() {
                let solution = solution.as_ref().filter(|_| settings.nll);
                let text = solution.map_or("", |solution| &solution.text);
                let (mut prompt, ends) = tokenizer.encode_document_parts(&prefix, &[prompt, text])?;
                let mut ids = prompt.split_off(ends[0]);
                ids.extend(tokenizer.eos().filter(|_| solution.is_some_and(|solution| solution.ends)));
                encoded.push(Encoded { task: index, question, prompt, solution: ids });
            }
        }
        let begin = tokenizer.describe_prefix(&prefix);
        Ok(Suite { settings: settings.clone(), tasks, begin, encoded })
    }

    /// Questions in all.
    pub fn num_questions(&self) -> usize {
        self.encoded.len()
    }

    /// Tokens of the longest prompt.
    pub fn longest_prompt(&self) -> usize {
        self.encoded.iter().map(|encoded| encoded.prompt.len()).max().unwrap_or(0)
    }

    /// Sequences that will be made or read.
    pub fn num_sequences(&self) -> usize {
        let solutions = self.encoded.iter().filter(|encoded| !encoded.solution.is_empty()).count();
        self.num_questions() * (1 + self.settings.samples) + solutions
    }

    /// Whether every question leaves a model of `max_length` positions room for an answer and for its solution.
    ///
    /// # Errors
    /// [`Error::TooLong`] for the first that does not.
    pub fn check_length(&self, max_length: usize) -> Result<(), Error> {
        for Encoded { task, question, prompt, solution } in &self.encoded {
            let task = &self.tasks[*task];
            // The last token of a solution is asked for, not read.
            let solution = solution.len().saturating_sub(1);
            for (more, what) in [(task.max_new_tokens, "an answer"), (solution, "its solution")] {
                if prompt.len() + more > max_length {
                    let (task, id) = (task.name.clone(), task.questions[*question].id);
                    return Err(Error::TooLong { task, id, prompt: prompt.len(), more, what, max_length });
                }
            }
        }
        Ok(())
    }

    /// Puts all questions to a model; answers by task and question.
    ///
    /// # Errors
    /// [`Suite::check_length`], ids beyond the model's vocabulary, numbers that are not finite.
    pub fn ask(
        &self,
        engine: &mut dyn Engine,
        model: ModelId,
        tokenizer: &Tokenizer,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<Answers>>, Error> {
        self.check_length(engine.architecture(model).max_length)?;
        observer.begin(self.num_sequences() as u64);
        let samples = self.settings.samples;
        let solutions = self.solutions(engine, model, observer)?;
        let greedy = self.continuations((engine, model), tokenizer, Sampling::Greedy, 1, observer)?;
        let sampled =
            self.continuations((engine, model), tokenizer, self.settings.sampling(), samples, observer)?;
        let mut answers: Vec<Vec<Answers>> = self.tasks.iter().map(|_| Vec::new()).collect();
        let mut sampled = sampled.into_iter();
        for ((encoded, greedy), solution) in self.encoded.iter().zip(greedy).zip(solutions) {
            let samples = sampled.by_ref().take(samples).collect();
            answers[encoded.task].push(Answers { greedy, samples, solution });
        }
        Ok(answers)
    }

    /// The log-probabilities of the solutions, question by question.
    fn solutions(
        &self,
        engine: &mut dyn Engine,
        model: ModelId,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let sequences: Vec<Sequence> = self
            .encoded
            .iter()
            .map(|encoded| Sequence { prompt: &encoded.prompt, completion: &encoded.solution })
            .collect();
        let advance = &mut |sequences, tokens| observer.advance(sequences, tokens);
        let solutions = log_probs(engine, model, &sequences, advance)?;
        let bad = solutions.iter().position(|solution| solution.iter().any(|log_prob| !log_prob.is_finite()));
        if let Some(Encoded { task, question, .. }) = bad.map(|index| &self.encoded[index]) {
            let task = &self.tasks[*task];
            return Err(Error::NotFinite { task: task.name.clone(), id: task.questions[*question].id });
        }
        Ok(solutions)
    }

    /// The texts of `count` continuations of every prompt, those of one prompt together.
    fn continuations(
        &self,
        (engine, model): (&mut dyn Engine, ModelId),
        tokenizer: &Tokenizer,
        sampling: Sampling,
        count: usize,
        observer: &mut dyn Observer,
    ) -> Result<Vec<String>, Error> {
        let requests: Vec<Request> = self
            .encoded
            .iter()
            .flat_map(|encoded| (0..count).map(move |sample| (encoded, sample)))
            .map(|(encoded, sample)| Request {
                prompt: encoded.prompt.clone(),
                seed: self.sample_seed(encoded, sample),
                max_new_tokens: self.tasks[encoded.task].max_new_tokens,
            })
            .collect();
        let stop = |request: usize| self.tasks[self.encoded[request / count].task].stop;
        let settings = remit_model::generate::Settings {
            batch_size: self.settings.batch_size,
            ..remit_model::generate::Settings::new(sampling)
        };
        let mut onlooker = Onlooker { tokenizer, stop: &stop, observer };
        let completions = engine.generate(model, &requests, &settings, &mut onlooker)?;
        let texts = completions.iter().enumerate();
        texts.map(|(request, completion)| text(completion, tokenizer, stop(request))).collect()
    }

    /// The seed of one sample of one question.
    fn sample_seed(&self, encoded: &Encoded, sample: usize) -> u64 {
        let task = &self.tasks[encoded.task];
        let id = task.questions[encoded.question].id;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.settings.seed.to_le_bytes());
        hasher.update(&(id as u64).to_le_bytes());
        hasher.update(&(sample as u64).to_le_bytes());
        hasher.update(task.name.as_bytes());
        let hash = hasher.finalize();
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
    }
}

/// The text of a completion, without its end token and what begins with a stop text.
fn text(completion: &Completion, tokenizer: &Tokenizer, stop: &[&str]) -> Result<String, Error> {
    let tokens = &completion.tokens[..];
    let ended = completion.finish == Finish::End || tokens.last().copied() == tokenizer.eos();
    Ok(tokenizer.decode_before(&tokens[..tokens.len() - usize::from(ended)], stop)?)
}

/// Ends answers, and passes on how far they are.
struct Onlooker<'a> {
    tokenizer: &'a Tokenizer,
    /// The stop texts of a request.
    stop: &'a dyn Fn(usize) -> &'static [&'static str],
    observer: &'a mut dyn Observer,
}

impl Watch for Onlooker<'_> {
    fn stop(&mut self, request: usize, tokens: &[u32]) -> bool {
        tokens.last().copied() == self.tokenizer.eos()
            || self.tokenizer.has_reached(tokens, (self.stop)(request))
    }

    fn advance(&mut self, tokens: usize) {
        self.observer.advance(0, tokens as u64);
    }

    fn finish(&mut self, _: usize, _: &Completion) {
        self.observer.advance(1, 0);
    }
}

#[cfg(test)]
mod tests {
    use remit_model::generate::Request;

    use super::*;
    use crate::{Micro10, examples};

    fn settings() -> Settings {
        Settings {
            tasks: vec!["micro10_clock".to_owned(), "micro10_list".to_owned()],
            samples: 3,
            max_new_tokens: Some(12),
            micro10: Micro10 { problems: 4, ..Micro10::default() },
            ..Settings::default()
        }
    }

    fn ask(tokenizer: &Tokenizer, settings: &Settings) -> Vec<Vec<Answers>> {
        let suite = Suite::new(settings, tokenizer).expect("good settings");
        let (mut engine, model) = examples::engine(tokenizer, 512);
        suite.ask(&mut engine, model, tokenizer, &mut ()).expect("answers")
    }

    #[test]
    fn an_answer_depends_on_its_question_and_its_seeds_only() {
        let tokenizer = examples::tokenizer();
        let settings = settings();
        let all = ask(&tokenizer, &settings);
        for batch_size in [1, 5, 100] {
            assert_eq!(ask(&tokenizer, &Settings { batch_size, ..settings.clone() }), all);
        }
        let texts = |answers: &[Answers]| -> Vec<(String, Vec<String>)> {
            answers.iter().map(|answers| (answers.greedy.clone(), answers.samples.clone())).collect()
        };
        let micro10 = Micro10 { problems: 2, skip: 2, ..settings.micro10.clone() };
        let part = Settings { tasks: vec!["micro10_list".to_owned()], micro10, ..settings.clone() };
        assert_eq!(texts(&ask(&tokenizer, &part)[0]), texts(&all[1][2..]), "the same two questions");
        let fewer = ask(&tokenizer, &Settings { samples: 2, ..settings.clone() });
        for (few, many) in fewer.iter().flatten().zip(all.iter().flatten()) {
            assert_eq!(few.samples, many.samples[..2]);
            assert_ne!(many.samples[0], many.samples[1]);
        }
        let other = ask(&tokenizer, &Settings { seed: 1, ..settings });
        assert_eq!(other[0][0].greedy, all[0][0].greedy);
        assert_ne!(other[0][0].samples, all[0][0].samples);
    }

    /// Against the parts put together by hand.
    #[test]
    fn a_question_is_asked_as_a_document_begins() {
        let tokenizer = examples::tokenizer();
        let settings = Settings { samples: 0, ..settings() };
        let suite = Suite::new(&settings, &tokenizer).expect("good settings");
        let (mut engine, model) = examples::engine(&tokenizer, 512);
        let answers = suite.ask(&mut engine, model, &tokenizer, &mut ()).expect("answers");
        let Question { prompt, solution, .. } = &suite.tasks[0].questions[1];
        let eos = tokenizer.eos().expect("it has one");
        let prompt = [vec![eos], tokenizer.encode(prompt).expect("encoded")].concat();
        let mut solution = tokenizer.encode(&solution.as_ref().expect("it has one").text).expect("encoded");
        solution.push(eos);

        let sequence = Sequence { prompt: &prompt, completion: &solution };
        let expected = log_probs(&mut engine, model, &[sequence], &mut |_, _| ()).expect("read");
        assert_eq!(answers[0][1].solution.len(), solution.len());
        for (a, b) in answers[0][1].solution.iter().zip(&expected[0]) {
            assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a} is not {b}");
        }

        let request = Request { prompt, seed: 0, max_new_tokens: 12 };
        let settings = remit_model::generate::Settings::new(Sampling::Greedy);
        let completions = engine.generate(model, &[request], &settings, &mut ()).expect("a completion");
        let text = tokenizer.decode(&completions[0].tokens).expect("text");
        assert!(text.starts_with(&answers[0][1].greedy), "{text:?} {answers:?}");
    }

    /// As Llama 2's tokenizer does, ids and all: a blank in front of every text, and a token before it.
    #[test]
    fn prompt_and_solution_have_the_ids_of_the_whole_text() {
        let alphabet: Vec<String> = ["<unk>", "<s>", "</s>", "▁="].into_iter().map(str::to_owned).collect();
        let characters = (' '..='~').map(|c| if c == ' ' { '▁' } else { c }).chain(['\n']).map(String::from);
        let vocab: serde_json::Map<_, _> = alphabet
            .into_iter()
            .chain(characters)
            .enumerate()
            .map(|(id, token)| (token, id.into()))
            .collect();
        let special = |id: usize, token: &str| {
            serde_json::json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                               "normalized": false, "special": true})
        };
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null, "decoder": null,
            "post_processor": {"type": "TemplateProcessing", "pair": [],
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "model": {"type": "BPE", "unk_token": "<unk>", "vocab": vocab, "merges": ["▁ ="]},
        });
        let json = serde_json::to_vec(&json).expect("JSON");
        let tokenizer =
            Tokenizer::from_bytes(&json, Some(b"{\"eos_token\": \"</s>\"}")).expect("a tokenizer");
        let whole = |bos: &str, front: &[u32]| {
            let settings = Settings { bos: bos.to_owned().into(), ..settings() };
            let suite = Suite::new(&settings, &tokenizer).expect("good settings");
            for Encoded { task, question, prompt, solution } in &suite.encoded {
                let asked = &suite.tasks[*task].questions[*question];
                let text = format!("{}{}", asked.prompt, asked.solution.as_ref().expect("solved").text);
                let ids = tokenizer.encode(&text).expect("encoded");
                assert_eq!([&prompt[..], solution].concat(), [front, &ids, &[2]].concat());
                assert_eq!(prompt[..], [front, &tokenizer.encode(&asked.prompt).expect("encoded")].concat());
            }
        };
        whole("own", &[1]);
        whole("none", &[]);
        whole("<unk>", &[0]);
    }

    #[test]
    fn answers_end_before_a_stop_text_or_an_end_token() {
        let tokenizer = examples::tokenizer();
        let eos = tokenizer.eos().expect("it has one");
        let check = |written: &str, ended: bool, finish: Finish, stop: &[&str], expected: &str| {
            let mut tokens = tokenizer.encode(written).expect("encoded");
            tokens.extend(ended.then_some(eos));
            let completion = Completion { log_probs: vec![0.0; tokens.len()], tokens, finish };
            assert_eq!(text(&completion, &tokenizer, stop).expect("text"), expected);
        };
        check(" 1+1=2 => 2\n", false, Finish::Stop, &["\n"], " 1+1=2 => 2");
        check(" 2", true, Finish::End, &["\n"], " 2");
        check(" 2", true, Finish::Stop, &["\n"], " 2");
        check(" 2", false, Finish::Length, &["\n"], " 2");
        check(" 2 b a", false, Finish::Stop, &["a", "b"], " 2 ");

        let (stop, mut observer) = (|_: usize| &["\n", "Q:"][..], ());
        let mut onlooker = Onlooker { tokenizer: &tokenizer, stop: &stop, observer: &mut observer };
        let mut stops = |written: &str| onlooker.stop(0, &tokenizer.encode(written).expect("encoded"));
        assert!(stops("2\n") && stops("2 Q:"));
        assert!(!stops("2") && !stops("2 Q"));
        assert!(onlooker.stop(0, &[5, eos]));
    }

    #[test]
    fn a_question_without_room_is_named() {
        let tokenizer = examples::tokenizer();
        let suite = Suite::new(&settings(), &tokenizer).expect("good settings");
        let most = |of: &dyn Fn(&Encoded) -> usize| suite.encoded.iter().map(of).max().expect("questions");
        let needed = most(&|encoded| encoded.prompt.len() + encoded.solution.len().saturating_sub(1).max(12));
        suite.check_length(needed).expect("just enough");
        let error = suite.check_length(needed - 1).expect_err("one too few").to_string();
        assert!(error.contains(&format!("more than the {} positions", needed - 1)), "{error}");
        let unsolved = Suite::new(&Settings { nll: false, ..settings() }, &tokenizer).expect("good settings");
        assert_eq!(unsolved.num_sequences(), 8 * 4);
        assert_eq!(suite.num_sequences(), 8 * 5);
    }
}
