//! Continuing prompts, many at a time: each step is one pass over a row for every sequence in the batch, a finished
//! sequence leaves at once and the next request enters.
//!
//! What becomes of a request depends on its prompt, its seed and the settings only. The batch around it, the order of
//! requests and the number of threads change no bit: rows are computed as if each were alone
//! (`Decoder::advance`), and each request draws from a stream of its own.

mod sampling;

use crate::decoder::{Cache, Decoder, Rows, Storage, WithRounded};
use crate::workspace::{Keep, Workspace};
use crate::{Architecture, Error};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use remit_fault::fault;
use remit_kernels::Precision;
pub use sampling::Sampling;
use sampling::{Buffers, Choice, choose, refuse};

/// Prompt positions that a pass reads at most, beside the sequences that already go on.
const PROMPT_ROWS: usize = 256;

/// A prompt to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// Seed of its stream of draws, from which each token takes one.
    pub seed: u64,
    /// Tokens to add at most.
    pub max_new_tokens: usize,
}

/// What holds for all requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Sequences at work at the same time. Changes speed and memory, never a result.
    pub batch_size: usize,
    /// Divisor of the logits of the distribution that [`Completion::log_probs`] are of. At 1 they are the model's own, as
    /// [`remit_kernels::head::Head::log_probs`] gives them, whatever was sampled from; a trainer that scores its tokens at
    /// the temperature they were sampled at sets that one. Nothing is cut off: all tokens count.
    pub log_prob_temperature: f32,
    /// A sequence ends when its new tokens end with one of these.
    pub stop_sequences: Vec<Vec<u32>>,
}

impl Settings {
    /// With the model's own log-probabilities and no stop sequences, 64 at a time.
    pub fn new(sampling: Sampling) -> Settings {
        Settings { sampling, batch_size: 64, log_prob_temperature: 1.0, stop_sequences: Vec::new() }
    }

    /// Checks the settings.
    pub fn validate(&self) -> Result<(), Error> {
        self.sampling.validate()?;
        if self.batch_size == 0 {
            return refuse("batch-size", 0.0, "at least 1");
        }
        let temperature = self.log_prob_temperature;
        if !(temperature > 0.0 && temperature.is_finite()) {
            return refuse("log-prob-temperature", temperature, "above 0");
        }
        if self.stop_sequences.iter().any(Vec::is_empty) {
            return refuse("length of a stop sequence", 0.0, "at least 1");
        }
        Ok(())
    }

    /// Whether a request ends with the last of its new `tokens`, and why; `stopped` is what [`Watch::stop`] said.
    pub fn finish(
        &self,
        architecture: &Architecture,
        request: &Request,
        tokens: &[u32],
        stopped: bool,
    ) -> Option<Finish> {
        let last = tokens.last()?;
        if architecture.end_tokens.contains(last) {
            Some(Finish::End)
        } else if stopped || self.stop_sequences.iter().any(|stop| tokens.ends_with(stop)) {
            Some(Finish::Stop)
        } else {
            (tokens.len() == request.max_new_tokens).then_some(Finish::Length)
        }
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// With an end token of the model.
    End,
    /// With a stop sequence, or because [`Watch::stop`] said so.
    Stop,
    /// With as many tokens as were asked for.
    Length,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The new tokens, with the end token or stop sequence that ended them.
    pub tokens: Vec<u32>,
    /// Log-probability of each at [`Settings::log_prob_temperature`].
    pub log_probs: Vec<f32>,
    /// Why there are no more.
    pub finish: Finish,
}

/// Someone who looks on. `()` does not.
pub trait Watch {
    /// Whether a request ends here; called after each of its tokens, with all of its new ones. Must depend on its
    /// arguments only.
    fn stop(&mut self, _request: usize, _tokens: &[u32]) -> bool {
        false
    }

    /// A step has added so many tokens to the batch.
    fn advance(&mut self, _tokens: usize) {}

    /// A request is finished.
    fn finish(&mut self, _request: usize, _completion: &Completion) {}
}

impl Watch for () {}

/// Continues every request; completions come in the order of the requests.
///
/// Memory is that of the caches of `batch_size` requests, each made for its prompt and all of its new tokens, and of a
/// workspace for one pass.
pub fn generate<P: Storage>(
    decoder: &mut Decoder<P>,
    requests: &[Request],
    settings: &Settings,
    watch: &mut dyn Watch,
) -> Result<Vec<Completion>, Error> {
    settings.validate()?;
    let longest = check(decoder.architecture(), requests)?;
    decoder.allow_length(longest)?;
    match decoder.parameters.values().filter(|_| decoder.precision == Precision::Bf16) {
        // Many passes read them: they are rounded once.
        Some(values) => run(&decoder.with_parameters(WithRounded::new(values)), requests, settings, watch),
        None => run(decoder, requests, settings, watch),
    }
}

fn run<P: Storage>(
    decoder: &Decoder<P>,
    requests: &[Request],
    settings: &Settings,
    watch: &mut dyn Watch,
) -> Result<Vec<Completion>, Error> {
    let mut batch = Batch::new(decoder, requests, settings);
    loop {
        batch.enter(watch);
        if batch.live.iter().all(Option::is_none) {
            break;
        }
        batch.step(watch)?;
    }
    let done = batch.completions.into_iter();
    Ok(done.map(|completion| completion.expect("nothing is left to do")).collect())
}

/// Checks every request before any work: its prompt, its ids, and that the model allows its length. Returns the
/// positions of the longest.
///
/// # Errors
/// The first request that the model does not allow.
pub fn check(architecture: &Architecture, requests: &[Request]) -> Result<usize, Error> {
    let mut longest = 0;
    for (index, request) in requests.iter().enumerate() {
        let Request { prompt, max_new_tokens, .. } = request;
        let length = prompt.len().saturating_add(*max_new_tokens);
        let checked = if prompt.is_empty() { Err(empty_prompt()) } else { architecture.check_ids(prompt) };
        checked
            .and_then(|()| architecture.check_length(length))
            .map_err(|error| of_request(error, index, requests.len()))?;
        longest = longest.max(length);
    }
    Ok(longest)
}

/// Nothing to continue.
pub fn empty_prompt() -> Error {
    fault!("the prompt is empty").with_hint("begin with the end-of-text token to generate from nothing")
}

/// The error of one request, which is named unless it is the only one.
fn of_request(error: Error, index: usize, count: usize) -> Error {
    if count == 1 { error } else { error.within(format_args!("request {} of {count}", index + 1)) }
}

/// A request at work.
struct Live {
    request: usize,
    random: ChaCha8Rng,
    /// Positions that the cache holds.
    read: usize,
    /// The place that reads the same prompt, whose cache is copied once it has.
    follows: Option<usize>,
    tokens: Vec<u32>,
    log_probs: Vec<f32>,
}

/// Everything that changes.
struct Batch<'a, P> {
    decoder: &'a Decoder<P>,
    requests: &'a [Request],
    settings: &'a Settings,
    /// The request that enters next.
    next: usize,
    /// Places of the batch; where `live` has none, the cache is empty.
    live: Vec<Option<Live>>,
    caches: Vec<Cache>,
    completions: Vec<Option<Completion>>,
    rows: Rows,
    rows_max: usize,
    workspace: Workspace,
    /// Places whose next token this step chooses, and the row that it follows from.
    last: Vec<(usize, usize)>,
    /// Those rows, `[last, D]`.
    hidden: Vec<f32>,
    /// `[last, V]`.
    logits: Vec<f32>,
}

impl<'a, P: Storage> Batch<'a, P> {
    fn new(decoder: &'a Decoder<P>, requests: &'a [Request], settings: &'a Settings) -> Batch<'a, P> {
        let places = settings.batch_size.min(requests.len());
        let prompts = requests.iter().fold(0usize, |sum, request| sum.saturating_add(request.prompt.len()));
        let rows_max = places + PROMPT_ROWS.min(prompts);
        Batch {
            decoder,
            requests,
            settings,
            next: 0,
            live: (0..places).map(|_| None).collect(),
            caches: (0..places).map(|_| Cache::default()).collect(),
            completions: vec![None; requests.len()],
            rows: Rows::default(),
            rows_max,
            workspace: Workspace::new(decoder.architecture(), rows_max, Keep::Nothing),
            last: Vec::new(),
            hidden: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Gives free places to the next requests.
    fn enter(&mut self, watch: &mut dyn Watch) {
        for place in 0..self.live.len() {
            while self.live[place].is_none() && self.next < self.requests.len() {
                let Request { prompt, seed, max_new_tokens } = &self.requests[self.next];
                let live = Live {
                    request: self.next,
                    random: ChaCha8Rng::seed_from_u64(*seed),
                    read: 0,
                    follows: None,
                    tokens: Vec::new(),
                    log_probs: Vec::new(),
                };
                self.next += 1;
                if *max_new_tokens == 0 {
                    self.complete(live, Finish::Length, watch);
                    continue;
                }
                // The last token is never read.
                let positions = prompt.len() + max_new_tokens - 1;
                self.caches[place] = Cache::new(self.decoder.architecture(), positions);
                let follows = self.leader(place, live.request);
                self.live[place] = Some(Live { follows, ..live });
            }
        }
    }

    /// A place at work on the prompt of a request that has just entered at `place`, with a cache of the same size.
    fn leader(&self, place: usize, request: usize) -> Option<usize> {
        let prompt = &self.requests[request].prompt;
        let numbers = |place: usize| self.caches[place].layers.first().map_or(0, Vec::len);
        let same = |live: &Live| self.requests[live.request].prompt == *prompt;
        (0..self.live.len()).find(|&other| {
            prompt.len() > 1
                && self.live[other].as_ref().is_some_and(same)
                && numbers(other) == numbers(place)
        })
    }

    /// Copies the caches of prompts that have been read to those who wait for them. Rows are computed as if alone, so
    /// reading the prompt again would give the same bits. The last token of a prompt everyone reads: its row makes the
    /// first logits.
    fn follow(&mut self) {
        for place in 0..self.live.len() {
            let Some(Live { request, follows: Some(leader), .. }) = self.live[place] else { continue };
            let shared = self.requests[request].prompt.len() - 1;
            if self.live[leader].as_ref().is_some_and(|leader| leader.read >= shared) {
                let [from, to] = self.caches.get_disjoint_mut([leader, place]).expect("two places");
                for (from, to) in from.layers.iter().zip(&mut to.layers) {
                    to.copy_from_slice(from);
                }
                let live = self.live[place].as_mut().expect("it has just been there");
                (live.follows, live.read) = (None, shared);
            }
        }
    }

    /// One pass, and a token for every sequence that has been read to its end.
    fn step(&mut self, watch: &mut dyn Watch) -> Result<(), Error> {
        self.follow();
        self.collect_rows();
        self.pass();
        // Now, for whoever they follow may leave with this step.
        self.follow();
        let choices = self.choose()?;
        for (index, choice) in choices.iter().enumerate() {
            let place = self.last[index].0;
            let live = self.live[place].as_mut().expect("a place with rows is taken");
            live.tokens.push(choice.token);
            live.log_probs.push(choice.log_prob);
            let request = &self.requests[live.request];
            // Asked of every token, for it may keep what it has seen.
            let stopped = watch.stop(live.request, &live.tokens);
            if let Some(finish) =
                self.settings.finish(self.decoder.architecture(), request, &live.tokens, stopped)
            {
                self.caches[place] = Cache::default();
                let live = self.live[place].take().expect("it has just been there");
                self.complete(live, finish, watch);
            }
        }
        watch.advance(choices.len());
        Ok(())
    }

    /// The next row of every sequence that goes on, then rows of prompts, as many as there is room for.
    fn collect_rows(&mut self) {
        let Batch { requests, live, rows, rows_max, last, .. } = self;
        rows.clear();
        last.clear();
        for prompts in [false, true] {
            for (place, live) in live.iter_mut().enumerate() {
                let Some(live) = live else { continue };
                let prompt = &requests[live.request].prompt;
                let length = prompt.len() + live.tokens.len();
                let left = length - live.read;
                if live.tokens.is_empty() != prompts || live.follows.is_some() {
                    continue;
                }
                for _ in 0..left.min(*rows_max - rows.ids.len()) {
                    let position = live.read;
                    let id = if position < prompt.len() {
                        prompt[position]
                    } else {
                        live.tokens[position - prompt.len()]
                    };
                    rows.push(id, place, position);
                    live.read += 1;
                }
                if live.read == length {
                    last.push((place, rows.ids.len() - 1));
                }
            }
        }
    }

    /// Logits of the rows that a token follows from.
    fn pass(&mut self) {
        let Batch { decoder, rows, caches, workspace, last, hidden, logits, .. } = self;
        let (width, vocab) = (decoder.architecture().width, decoder.architecture().vocab_size);
        // From within the pool, small products are not handed from thread to thread.
        rayon::scope(|_| {
            let all = decoder.advance(rows, caches, workspace);
            hidden.clear();
            for &(_, row) in last.iter() {
                hidden.extend_from_slice(&all[row * width..][..width]);
            }
            logits.resize(last.len() * vocab, 0.0);
            decoder.head().logits_alone(hidden, decoder.head_weights(), logits);
        });
    }

    fn choose(&mut self) -> Result<Vec<Choice>, Error> {
        let Batch { decoder, requests, settings, live, last, logits, .. } = self;
        let vocab = decoder.architecture().vocab_size;
        let mut at_last: Vec<Option<&mut Live>> = live.iter_mut().map(Option::as_mut).collect();
        let mut sequences: Vec<&mut Live> =
            last.iter().map(|&(place, _)| at_last[place].take().expect("one row a place")).collect();
        let rows = sequences.par_iter_mut().zip(logits.par_chunks(vocab));
        let choose = |buffers: &mut Buffers, (live, logits): (&mut &mut Live, &[f32])| {
            if !logits.iter().all(|logit| logit.is_finite()) {
                let position = live.read - 1;
                let error = fault!("the model's logits behind position {position} are not finite").with_hint(
                    "its parameters are damaged, or its training has diverged: use another checkpoint",
                );
                return Err(of_request(error, live.request, requests.len()));
            }
            let Settings { sampling, log_prob_temperature, .. } = **settings;
            Ok(choose(logits, sampling, log_prob_temperature, &mut live.random, buffers))
        };
        rows.map_init(Buffers::default, choose).collect()
    }

    fn complete(&mut self, live: Live, finish: Finish, watch: &mut dyn Watch) {
        let Live { request, tokens, log_probs, .. } = live;
        let completion = Completion { tokens, log_probs, finish };
        watch.finish(request, &completion);
        self.completions[request] = Some(completion);
    }
}
