//! The graph: which stages there are for which arms, iterations and seeds, and what each depends on.
//!
//! Nodes are in an order in which each comes after what it depends on. What two arms have in common is one node: the
//! ordinary text, the pre-training, the whole of iteration 0.

use crate::identity::{id_of, identity};
use crate::recipe::Templates;
use crate::settings::{Arm, BASELINE, Point, Reference};
use crate::state::latest_record;
use crate::training::Training;
use crate::{Error, Generated, Recipe, files};
use remit_corpus::{Prepare, Source, TrainTokenizer};
use remit_objective::Objective;
use remit_results::files::{DYNAMICS, NODES};
use remit_results::flywheel::Owner;
use remit_train::settings::{Common, ReferenceSettings};
use remit_train::{ScoreSettings, Text, locate_checkpoint};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Generates a corpus.
    Data,
    /// Trains a tokenizer.
    Tokenizer,
    /// Makes a token store.
    Prepare,
    /// Pre-trains.
    Pretrain,
    /// Writes a reference's scores down.
    Score,
    /// Mid-trains.
    Midtrain,
    /// Fine-tunes.
    Sft,
    /// Optimises preferences.
    Dpo,
    /// Reinforces.
    Rl,
    /// Evaluates.
    Eval,
    /// Puts the models of a turn beside the one that its pipeline ends with.
    Dynamics,
}

impl Stage {
    /// Whether its result depends on where models run.
    fn runs_models(self) -> bool {
        !matches!(self, Stage::Data | Stage::Tokenizer | Stage::Prepare)
    }

    /// The name in directories and tables.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Data => "data",
            Stage::Tokenizer => "tokenizer",
            Stage::Prepare => "prepare",
            Stage::Pretrain => "pretrain",
            Stage::Score => "score",
            Stage::Midtrain => "midtrain",
            Stage::Sft => "sft",
            Stage::Dpo => "dpo",
            Stage::Rl => "rl",
            Stage::Eval => "eval",
            Stage::Dynamics => "dynamics",
        }
    }

    /// The version of what the stage makes of its settings and inputs. To be raised with every change of a stage that
    /// changes its results, so that no node of before passes for one of now.
    pub fn version(self) -> u32 {
        match self {
            // Its post-processor puts the end token in front of a text.
            Stage::Tokenizer => 2,
            // The verifier of last numbers refuses what it cannot read.
            Stage::Rl => 2,
            // No question is among its own solved examples.
            Stage::Eval => 2,
            _ => 1,
        }
    }

    /// Whether it is a run with checkpoints.
    pub fn has_checkpoints(self) -> bool {
        matches!(self, Stage::Pretrain | Stage::Midtrain | Stage::Sft | Stage::Dpo | Stage::Rl)
    }
}

/// A stage with its settings, places filled in.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// The corpus goes to `NAME.jsonl` in the node's directory.
    Data(String, Generated),
    /// `tokenizer.json` goes to the node's directory.
    Tokenizer(TrainTokenizer),
    /// The store goes to `store` in the node's directory.
    Prepare(Prepare),
    /// The run directory is the node's.
    Train(Training),
    /// The scores go to `scores` in the node's directory.
    Score(ScoreSettings),
    /// The results go to the node's directory.
    Eval(Box<remit_eval::Settings>),
    /// `dynamics.json` goes to the node's directory.
    Dynamics(Box<remit_eval::dynamics::Settings>),
}

/// What a node depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Another node, or a part of what it makes.
    Node(usize, String),
    /// Something of the user's, by the hash of its content.
    Content(String),
}

/// One stage to run once.
#[derive(Clone, Debug)]
pub struct Node {
    /// The hash of everything that its result depends on.
    pub id: String,
    /// Which stage.
    pub stage: Stage,
    /// What it does.
    pub work: Work,
    /// What it depends on, by role.
    pub inputs: BTreeMap<String, Input>,
    /// Whom it is made for; nobody in particular where all need it.
    pub owners: BTreeSet<Owner>,
    /// For an evaluation, what is evaluated; for data and stores, what is in them.
    pub subject: Option<String>,
    /// Where it is made.
    pub directory: PathBuf,
    /// What the id is the hash of.
    pub identity: Value,
}

impl Node {
    /// `midtrain-3f2a...`: the name of its directory.
    pub fn name(&self) -> String {
        format!("{}-{}", self.stage.name(), &self.id[..ID_DIGITS])
    }

    /// The nodes that it depends on, each once.
    pub fn parents(&self) -> BTreeSet<usize> {
        let parents = self.inputs.values().filter_map(|input| match input {
            Input::Node(index, _) => Some(*index),
            Input::Content(_) => None,
        });
        parents.collect()
    }

    /// What it is, in words: `midtrain of remit, iteration 1, seed 2`.
    pub fn label(&self) -> String {
        let what = match &self.subject {
            Some(subject) => format!("{} of {subject}", self.stage.name()),
            None => self.stage.name().to_owned(),
        };
        match &self.owners.iter().collect::<Vec<_>>()[..] {
            [] => what,
            [Owner { arm, iteration, seed }] => {
                format!("{what}, arm {arm}, iteration {iteration}, seed {seed}")
            }
            [Owner { arm, iteration, seed }, rest @ ..] => {
                format!("{what}, arm {arm}, iteration {iteration}, seed {seed} (and {} more)", rest.len())
            }
        }
    }
}

/// The stages of one arm, turn and seed, from mid-training on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Whose.
    pub owner: Owner,
    /// Each point with the node of its model and the node of its evaluation.
    pub points: Vec<(Point, usize, Option<usize>)>,
    /// The node of its dynamics.
    pub dynamics: Option<usize>,
}

impl Chain {
    /// The node of the model that it ends with.
    fn last(&self) -> usize {
        self.points.last().expect("mid-training at least").1
    }

    fn node(&self, point: Point) -> usize {
        let found = self.points.iter().find(|(other, ..)| *other == point);
        found.expect("`Settings::validate` has checked the reference").1
    }
}

/// All nodes.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The run directory.
    pub run: PathBuf,
    /// In an order in which they can be made.
    pub nodes: Vec<Node>,
    /// What is compared, the ordinary pipeline first.
    pub chains: Vec<Chain>,
    /// The `Cargo.lock` of generated text.
    pub(crate) lockfile: String,
}

/// Digits of an id in names: no two of a run's nodes agree in so many.
const ID_DIGITS: usize = 12;

/// A path with what it is the content of.
#[derive(Clone, Debug)]
struct Given {
    path: PathBuf,
    input: Input,
}

impl Graph {
    /// The graph of a recipe. Files that a user names are read for their hashes.
    ///
    /// # Errors
    /// Whatever is wrong with the recipe; files that are missing.
    pub fn new(recipe: &Recipe) -> Result<Graph, Error> {
        recipe.validate()?;
        let mut builder =
            Builder { recipe, nodes: Vec::new(), by_id: HashMap::new(), corpus: None, tokenizer: None };
        builder.corpus()?;
        let mut chains: Vec<Chain> = Vec::new();
        let settings = &recipe.flywheel;
        for &seed in &settings.seeds {
            let owner = Owner { arm: BASELINE.into(), iteration: 0, seed };
            let mut chain = builder.chain(&Arm::baseline(), owner, None)?;
            chain.dynamics = builder.dynamics(&chain, chain.last())?;
            chains.push(chain);
        }
        for arm in &settings.arms {
            for &seed in &settings.seeds {
                let mut before = chains
                    .iter()
                    .find(|chain| chain.owner.arm == BASELINE && chain.owner.seed == seed)
                    .expect("every seed has a baseline")
                    .clone();
                let reference = before.last();
                for iteration in 1..=arm.turns(settings.iterations) {
                    let owner = Owner { arm: arm.name.clone(), iteration, seed };
                    before = builder.chain(arm, owner, Some(&before))?;
                    before.dynamics = builder.dynamics(&before, reference)?;
                    chains.push(before.clone());
                }
            }
        }
        Ok(Graph {
            run: settings.run.clone(),
            nodes: builder.nodes,
            chains,
            lockfile: recipe.lockfile.clone(),
        })
    }

    /// A node and everything that it depends on.
    pub fn closure(&self, index: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([index]);
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            open.extend(self.nodes[index].parents().into_iter().filter(|&parent| found.insert(parent)));
        }
        found
    }

    /// The node in a directory of this name.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name() == name)
    }
}

struct Builder<'a> {
    recipe: &'a Recipe,
    nodes: Vec<Node>,
    by_id: HashMap<String, usize>,
    corpus: Option<usize>,
    tokenizer: Option<Given>,
}

type Inputs = BTreeMap<String, Input>;

impl Builder<'_> {
    /// Adds a node, or finds the same one. `work` is given its directory.
    fn add(
        &mut self,
        stage: Stage,
        settings: &impl Serialize,
        left_out: &[&str],
        inputs: Inputs,
        work: impl FnOnce(&Path) -> Work,
    ) -> usize {
        let of = |input: &Input| match input {
            Input::Node(index, part) => format!("{}{part}", self.nodes[*index].id),
            Input::Content(hash) => hash.clone(),
        };
        let mut by_role: BTreeMap<String, String> =
            inputs.iter().map(|(role, input)| (role.clone(), of(input))).collect();
        if stage.runs_models() {
            let engine = self.recipe.engine.iter();
            by_role.extend(engine.map(|engine| ("engine".to_owned(), engine.clone())));
        }
        let identity = identity(stage.name(), stage.version(), settings, left_out, &by_role);
        let id = id_of(&identity);
        if let Some(&index) = self.by_id.get(&id) {
            return index;
        }
        let name = format!("{}-{}", stage.name(), &id[..ID_DIGITS]);
        let directory = self.recipe.flywheel.run.join(NODES).join(name);
        let work = work(&directory);
        let node = Node {
            id: id.clone(),
            stage,
            work,
            inputs,
            owners: BTreeSet::new(),
            subject: None,
            directory,
            identity,
        };
        self.nodes.push(node);
        self.by_id.insert(id, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// What a node makes, or a part of it.
    fn given(&self, index: usize, place: &str, part: &str) -> Given {
        Given { path: self.nodes[index].directory.join(place), input: Input::Node(index, part.to_owned()) }
    }

    /// The name in a path `@NAME`.
    fn data_name<'p>(&self, key: &str, path: &'p Path) -> Result<Option<&'p str>, Error> {
        let Some(name) = path.to_str().and_then(|path| path.strip_prefix('@')) else { return Ok(None) };
        let known = &self.recipe.flywheel.data;
        if !known.contains_key(name) {
            let (key, known) = (key.to_owned(), known.keys().cloned().collect());
            return Err(Error::UnknownData { key, name: name.to_owned(), known });
        }
        Ok(Some(name))
    }

    /// The node of a generated corpus.
    fn data(&mut self, name: &str) -> Result<Given, Error> {
        let generated = self.recipe.flywheel.data[name].clone();
        let pins = generated.pins(&self.recipe.lockfile);
        let mut inputs = Inputs::new();
        if !pins.is_empty() {
            let text = pins.join("\n");
            inputs.insert("versions".into(), Input::Content(remit_store::hash::hash_bytes(text.as_bytes())));
        }
        let index = self
            .add(Stage::Data, &generated, &[], inputs, |_| Work::Data(name.to_owned(), generated.clone()));
        // Two names for the same corpus share a node, whose file has the first, or that which it was made with.
        let made = latest_record(&self.nodes[index].directory)?;
        let made = made.and_then(|made| Some(made.files.keys().next()?.strip_suffix(".jsonl")?.to_owned()));
        let Work::Data(first, _) = &mut self.nodes[index].work else { unreachable!("it was added as one") };
        if let Some(made) = made {
            *first = made;
        }
        let file = format!("{first}.jsonl");
        self.nodes[index].subject.get_or_insert_with(|| name.to_owned());
        Ok(self.given(index, &file, ""))
    }

    /// A file of the user's, or a generated corpus.
    fn file(&mut self, key: &str, path: &Path) -> Result<Given, Error> {
        match self.data_name(key, path)?.map(str::to_owned) {
            Some(name) => self.data(&name),
            None => Ok(Given { path: path.to_owned(), input: Input::Content(files::hash_files(key, path)?) }),
        }
    }

    /// Fills in the paths of files.
    fn files(&mut self, key: &str, paths: &mut [PathBuf], inputs: &mut Inputs) -> Result<(), Error> {
        for (index, path) in paths.iter_mut().enumerate() {
            let given = self.file(key, path)?;
            *path = given.path;
            inputs.insert(format!("{key}.{index}"), given.input);
        }
        Ok(())
    }

    /// Fills in the paths of sources.
    fn sources(&mut self, key: &str, sources: &mut [Source], inputs: &mut Inputs) -> Result<(), Error> {
        for source in sources {
            let key = format!("{key}.{}", source.name);
            let given = self.file(&key, &source.path)?;
            source.path = given.path;
            inputs.insert(key, given.input);
        }
        Ok(())
    }

    /// The tokenizer and the token store that all share.
    fn corpus(&mut self) -> Result<(), Error> {
        let recipe = self.recipe;
        let mut prepare = recipe.prepare.clone().expect("`validate` asks for it");
        let (made, base) = (&recipe.tokenizer, &recipe.flywheel.base);
        self.tokenizer = match (made, base, &prepare.tokenizer) {
            (Some(settings), ..) => {
                let (mut settings, mut inputs) = (settings.clone(), Inputs::new());
                self.sources("tokenizer", &mut settings.sources, &mut inputs)?;
                let work = settings.clone();
                let index = self
                    .add(Stage::Tokenizer, &settings, &["sources.path"], inputs, |_| Work::Tokenizer(work));
                Some(self.given(index, "tokenizer.json", ""))
            }
            (None, Some(base), _) => {
                let checkpoint = locate_checkpoint(base)?;
                let input = Input::Content(files::hash_tokenizer(&checkpoint)?);
                Some(Given { path: checkpoint, input })
            }
            (None, None, Some(path)) => {
                Some(Given { path: path.clone(), input: Input::Content(files::hash_tokenizer(path)?) })
            }
            (None, None, None) => None,
        };
        prepare.overwrite = false;
        let index = self.prepare(prepare)?;
        self.nodes[index].subject = Some("corpus".into());
        self.corpus = Some(index);
        Ok(())
    }

    fn prepare(&mut self, mut settings: Prepare) -> Result<usize, Error> {
        let mut inputs = Inputs::new();
        self.sources("prepare", &mut settings.sources, &mut inputs)?;
        if let Some(tokenizer) = self.tokenizer.clone() {
            settings.tokenizer = Some(tokenizer.path);
            inputs.insert("tokenizer".into(), tokenizer.input);
        }
        let left_out = ["tokenizer", "threads", "overwrite", "sources.path"];
        let work = settings.clone();
        Ok(self.add(Stage::Prepare, &settings, &left_out, inputs, |_| Work::Prepare(work)))
    }

    /// Fills in held-out stores: `@NAME` is a generated corpus on its own, `@corpus/heldout` what `[prepare]` keeps
    /// apart.
    fn stores(
        &mut self,
        key: &str,
        role: &str,
        stores: &mut BTreeMap<String, PathBuf>,
        inputs: &mut Inputs,
    ) -> Result<(), Error> {
        for (name, path) in stores {
            let key = format!("{key}.{name}");
            let corpus = self.corpus.expect("it is the first");
            let given = if path.as_os_str() == "@corpus/heldout" {
                self.given(corpus, "store/heldout", "/heldout")
            } else if path.as_os_str() == "@corpus" {
                self.given(corpus, "store", "")
            } else if let Some(data) = self.data_name(&key, path)?.map(str::to_owned) {
                let Work::Prepare(whole) = &self.nodes[corpus].work else { unreachable!("it is one") };
                let source = Source::new(&data, format!("@{data}"));
                let settings = Prepare { sources: vec![source], holdout: 0.0, ..whole.clone() };
                let index = self.prepare(settings)?;
                self.nodes[index].subject = Some(data);
                self.given(index, "store", "")
            } else {
                Given { path: path.clone(), input: Input::Content(files::hash_store(path)?) }
            };
            *path = given.path;
            inputs.insert(format!("{role}.{name}"), given.input);
        }
        Ok(())
    }

    /// The checkpoint that mid-training starts from.
    fn pre_mid(&mut self, seed: u64) -> Result<Given, Error> {
        if let Some(base) = &self.recipe.flywheel.base {
            return checkpoint(base);
        }
        let mut settings = self.recipe.pretrain.clone().expect("`validate` asks for it");
        if self.recipe.flywheel.pretrain_per_seed {
            settings.common.seed = seed;
        }
        let from = settings.common.from.as_deref().map(checkpoint).transpose()?;
        let index = self.train(Training::Text(Text::Pretrain, Box::new(settings)), from, Inputs::new())?;
        Ok(self.given(index, "", ""))
    }

    /// A run of a stage that trains. `inputs` are those that are settled already.
    fn train(
        &mut self,
        mut training: Training,
        from: Option<Given>,
        mut inputs: Inputs,
    ) -> Result<usize, Error> {
        if let Some(from) = from {
            training.common_mut().from = Some(from.path);
            inputs.insert("from".into(), from.input);
        }
        if let Some(tokens) = training.tokens_mut() {
            let corpus = self.given(self.corpus.expect("it is the first"), "store", "");
            *tokens = corpus.path;
            inputs.insert("tokens".into(), corpus.input);
        }
        if let Some(reference) = training.reference_mut() {
            let given = checkpoint(reference)?;
            *reference = given.path;
            inputs.insert("reference".into(), given.input);
        }
        if let Some((key, examples)) = training.examples_mut() {
            self.files(key, &mut examples.files, &mut inputs)?;
            self.template(examples.template.as_deref(), &mut inputs)?;
        }
        if let Training::Dpo(settings) = &mut training {
            // All runs share it: seeds that start from the same model have the same reference.
            settings.cache = Some(self.recipe.flywheel.run.join("reference-log-probs"));
        }
        let key = format!("{}.held_out.stores", training.name());
        self.stores(&key, "held_out", &mut training.common_mut().held_out.stores, &mut inputs)?;
        training.common_mut().run = PathBuf::from("run");
        training.validate()?;
        let (identified, left_out) = training.identified();
        Ok(self.add(training.stage(), &identified, &left_out, inputs, |directory| {
            training.common_mut().run = directory.to_owned();
            Work::Train(training)
        }))
    }

    /// The content of a chat template that is a file.
    fn template(&mut self, template: Option<&str>, inputs: &mut Inputs) -> Result<(), Error> {
        if let Some(path) = template.map(Path::new).filter(|path| path.is_file()) {
            inputs.insert("template".into(), Input::Content(files::hash_files("template", path)?));
        }
        Ok(())
    }

    fn score(
        &mut self,
        mut settings: ScoreSettings,
        midtrain: &remit_train::Settings,
        reference: Given,
    ) -> Given {
        let corpus = self.given(self.corpus.expect("it is the first"), "store", "");
        settings.window = midtrain.data.window;
        settings.mask_documents = midtrain.data.mask_documents;
        settings.precision = midtrain.common.precision;
        settings.tokens = corpus.path;
        settings.reference = reference.path;
        let inputs =
            Inputs::from([("tokens".to_owned(), corpus.input), ("reference".to_owned(), reference.input)]);
        let identified = settings.clone();
        let index =
            self.add(Stage::Score, &identified, &["reference", "tokens", "out"], inputs, |directory| {
                settings.out = directory.join("scores");
                Work::Score(settings)
            });
        self.given(index, "scores", "")
    }

    fn eval(&mut self, point: Point, model: usize, owner: &Owner) -> Result<Option<usize>, Error> {
        let Some(mut settings) = self.recipe.eval.clone() else { return Ok(None) };
        settings.validate()?;
        let model = self.given(model, "", "");
        let mut inputs = Inputs::from([("model".to_owned(), model.input)]);
        settings.model = model.path;
        settings.overwrite = false;
        questions("eval", &settings, &mut inputs)?;
        let identified = settings.clone();
        let index = self.add(
            Stage::Eval,
            &identified,
            &remit_eval::Settings::NO_PART_OF_RESULT,
            inputs,
            |directory| {
                settings.out = Some(directory.to_owned());
                Work::Eval(Box::new(settings))
            },
        );
        self.nodes[index].subject = Some(point.name().into());
        self.nodes[index].owners.insert(owner.clone());
        Ok(Some(index))
    }

    /// The models of a turn, and for the ordinary pipeline those of its pre-training, beside what the ordinary pipeline
    /// ends with.
    fn dynamics(&mut self, chain: &Chain, reference: usize) -> Result<Option<usize>, Error> {
        let Some(mut settings) = self.recipe.dynamics.clone() else { return Ok(None) };
        let reference = self.given(reference, "", "");
        let mut inputs = Inputs::from([("reference".to_owned(), reference.input)]);
        settings.reference = reference.path;
        settings.start = false;
        let pretrain = match &self.nodes[chain.points[0].1].inputs["from"] {
            Input::Node(index, _) if chain.owner.iteration == 0 => Some(*index),
            _ => None,
        };
        let models = pretrain.into_iter().chain(chain.points.iter().map(|(_, model, _)| *model));
        for (at, model) in models.enumerate() {
            let given = self.given(model, "", "");
            settings.runs.push(given.path);
            inputs.insert(format!("run.{at}"), given.input);
        }
        self.stores("dynamics.stores", "store", &mut settings.stores, &mut inputs)?;
        settings.validate()?;
        if let Some(eval) = &settings.eval {
            questions("dynamics.eval", eval, &mut inputs)?;
        }
        let identified = settings.clone();
        let index = self.add(
            Stage::Dynamics,
            &identified,
            &remit_eval::dynamics::Settings::NO_PART_OF_RESULT,
            inputs,
            |directory| {
                settings.out = Some(directory.join(DYNAMICS));
                Work::Dynamics(Box::new(settings))
            },
        );
        self.nodes[index].owners.insert(chain.owner.clone());
        Ok(Some(index))
    }

    /// All stages of an arm's turn. `before` is the turn before.
    fn chain(&mut self, arm: &Arm, owner: Owner, before: Option<&Chain>) -> Result<Chain, Error> {
        let templates = self.recipe.templates(arm)?;
        let pre_mid = self.pre_mid(owner.seed)?;
        let reference = match before.filter(|_| arm.objective.needs_reference()) {
            Some(before) => Some(self.reference(arm, &templates, &owner, before)?),
            None => None,
        };
        let Templates { mut midtrain, after, .. } = templates;
        midtrain.objective = arm.objective.clone();
        midtrain.common.seed = owner.seed;
        let mut inputs = Inputs::new();
        if let Some((checkpoint, scores)) = reference {
            midtrain.reference = Some(ReferenceSettings {
                checkpoint: checkpoint.path,
                scores: scores.as_ref().map(|scores| scores.path.clone()),
            });
            inputs.insert("reference".into(), checkpoint.input);
            inputs.extend(scores.map(|scores| ("scores".into(), scores.input)));
        }
        let mut model =
            self.train(Training::Text(Text::Midtrain, Box::new(midtrain)), Some(pre_mid), inputs)?;
        self.nodes[model].owners.insert(owner.clone());
        let mut points = vec![(Point::Midtrain, model, self.eval(Point::Midtrain, model, &owner)?)];
        for stage in arm.after(&self.recipe.flywheel.after) {
            let mut training = after[stage].clone();
            training.common_mut().seed = owner.seed;
            model = self.train(training, Some(self.given(model, "", "")), Inputs::new())?;
            self.nodes[model].owners.insert(owner.clone());
            points.push((stage.point(), model, self.eval(stage.point(), model, &owner)?));
        }
        Ok(Chain { owner, points, dynamics: None })
    }

    /// The reference of an arm's turn, and its scores where they are written down first.
    fn reference(
        &mut self,
        arm: &Arm,
        templates: &Templates,
        owner: &Owner,
        before: &Chain,
    ) -> Result<(Given, Option<Given>), Error> {
        let reference = match arm.parse_reference() {
            Reference::Path(path) => checkpoint(&path)?,
            Reference::Stage(point, None) => self.given(before.node(point), "", ""),
            Reference::Stage(point, Some(step)) => {
                let index = before.node(point);
                check_step(arm, step, &self.nodes[index].work)?;
                let place = format!("checkpoints/step-{step:08}");
                self.given(index, &place, &format!("@{step}"))
            }
        };
        let wanted = arm.scored.unwrap_or(templates.score.is_some() && can_use_scores(&arm.objective));
        if !wanted {
            return Ok((reference, None));
        }
        let settings = templates.score.clone().unwrap_or_default();
        let scores = self.score(settings, &templates.midtrain, reference.clone());
        if let Input::Node(index, _) = scores.input {
            self.nodes[index].owners.insert(owner.clone());
        }
        Ok((reference, Some(scores)))
    }
}

/// A model of the user's.
fn checkpoint(path: &Path) -> Result<Given, Error> {
    let path = locate_checkpoint(path)?;
    Ok(Given { input: Input::Content(files::hash_model(&path)?), path })
}

/// The content of the files that questions come from.
fn questions(key: &str, settings: &remit_eval::Settings, inputs: &mut Inputs) -> Result<(), Error> {
    let remit_eval::Settings { paths, shots, .. } = settings;
    let shots = [("shots.gsm8k", &shots.gsm8k), ("shots.svamp", &shots.svamp)];
    let paths = [("paths.gsm8k", paths.gsm8k.as_ref()), ("paths.svamp", paths.svamp.as_ref())]
        .into_iter()
        .chain(shots.map(|(key, shots)| (key, shots.as_ref().map(|shots| &shots.path))));
    for (name, path) in paths {
        if let Some(path) = path {
            let key = format!("{key}.{name}");
            inputs.insert(key.clone(), Input::Content(files::hash_files(&key, path)?));
        }
    }
    Ok(())
}

/// Whether stored log-probabilities of the corpus's own tokens are all that an objective reads of its reference.
/// Distillation over the vocabulary reads more.
fn can_use_scores(objective: &Objective) -> bool {
    !objective.needs_logits()
}

/// Whether a run keeps the checkpoint of a step.
fn check_step(arm: &Arm, step: u64, work: &Work) -> Result<(), Error> {
    let Work::Train(training) = work else { unreachable!("points are runs") };
    let Common { checkpoints, steps, .. } = training.common();
    let (every, steps) = (checkpoints.permanent_every, *steps);
    let problem = match (every, steps) {
        (_, Some(steps)) if step > steps => format!("is beyond the {steps} steps of that run"),
        (_, Some(steps)) if step == steps => return Ok(()),
        (every, _) if every > 0 && step > 0 && step.is_multiple_of(every) => return Ok(()),
        (0, _) => "is not kept: set `checkpoints.permanent_every` of that stage".to_owned(),
        (every, _) => format!("is not kept: that stage keeps every {every}th step"),
    };
    Err(Error::Reference { arm: arm.name.clone(), reference: arm.reference.clone(), problem })
}

#[cfg(test)]
mod tests;
