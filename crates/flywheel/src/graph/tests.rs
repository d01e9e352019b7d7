use super::*;
use crate::Tables;
use serde::de::DeserializeOwned;

const TABLES: &str = r#"
[flywheel]
run = "runs/wheel"
iterations = 2
seeds = [1, 2]
data.problems = { kind = "problems", count = 10 }
data.rows = { kind = "rows", count = 10 }
data.tests = { kind = "problems", count = 10, split = "test" }

[[flywheel.arms]]
name = "remit"
objective = { kind = "remit" }

[[flywheel.arms]]
name = "guided"
objective = { kind = "remit" }
reference = "sft"
iterations = 1

[tokenizer]
vocab_size = 300
sources = [{ name = "problems", path = "@problems" }]

[prepare]
sources = [{ name = "problems", path = "@problems" }]

[pretrain]
steps = 10
model = { kind = "llama", hidden_size = 32, num_hidden_layers = 2, num_attention_heads = 4, intermediate_size = 64, max_position_embeddings = 64 }

[score]

[midtrain]
steps = 5
held_out = { stores = { tests = "@tests" } }

[sft]
epochs = 1
data.examples.files = ["@rows"]

[rl]
steps = 4
prompts.files = ["@rows"]

[eval]
"#;

/// The recipe with `change` made to its tables.
fn recipe(change: impl FnOnce(&mut toml::Table)) -> Recipe {
    recipe_of(TABLES, change)
}

fn recipe_of(text: &str, change: impl FnOnce(&mut toml::Table)) -> Recipe {
    let mut tables: toml::Table = toml::from_str(text).expect("TOML");
    change(&mut tables);
    Recipe::read(&mut tables, "").unwrap_or_else(|error| panic!("{error}"))
}

impl Tables for toml::Table {
    type Error = String;

    fn table<T: DeserializeOwned + Serialize>(&mut self, name: &str) -> Result<Option<T>, String> {
        let table = self.get(name).cloned().map(toml::Value::try_into).transpose();
        table.map_err(|error| format!("[{name}]: {error}"))
    }
}

fn graph(change: impl FnOnce(&mut toml::Table)) -> Graph {
    Graph::new(&recipe(change)).unwrap_or_else(|error| panic!("{error}"))
}

/// Puts a setting at a dotted path.
fn set(tables: &mut toml::Table, path: &str, value: impl Into<toml::Value>) {
    let (parents, last) = path.rsplit_once('.').expect("a table and a key");
    let table = parents.split('.').fold(tables, |table, key| {
        let entry = table.entry(key).or_insert_with(|| toml::Table::new().into());
        entry.as_table_mut().expect("a table")
    });
    table.insert(last.into(), value.into());
}

fn ids(graph: &Graph) -> BTreeSet<String> {
    graph.nodes.iter().map(|node| node.id.clone()).collect()
}

/// The stages of the nodes that `changed` has and the unchanged graph does not.
fn new_stages(changed: &Graph) -> BTreeSet<Stage> {
    let known = ids(&graph(|_| {}));
    changed.nodes.iter().filter(|node| !known.contains(&node.id)).map(|node| node.stage).collect()
}

fn chain<'a>(graph: &'a Graph, arm: &str, iteration: u32, seed: u64) -> &'a Chain {
    let owner = Owner { arm: arm.into(), iteration, seed };
    graph.chains.iter().find(|chain| chain.owner == owner).unwrap_or_else(|| panic!("{owner:?}"))
}

fn count(graph: &Graph, stage: Stage) -> usize {
    graph.nodes.iter().filter(|node| node.stage == stage).count()
}

#[test]
fn what_arms_have_in_common_is_one_node() {
    let graph = graph(|_| {});
    // Turns: ntp 0, remit 1 and 2, guided 1; two seeds of each.
    assert_eq!(graph.chains.len(), 8);
    assert_eq!((count(&graph, Stage::Pretrain), count(&graph, Stage::Tokenizer)), (1, 1));
    assert_eq!((count(&graph, Stage::Midtrain), count(&graph, Stage::Score)), (8, 6));
    assert_eq!((count(&graph, Stage::Sft), count(&graph, Stage::Rl), count(&graph, Stage::Eval)), (8, 8, 24));
    // The corpus and the held-out problems.
    assert_eq!(count(&graph, Stage::Prepare), 2);
    for (index, node) in graph.nodes.iter().enumerate() {
        assert!(node.parents().into_iter().all(|parent| parent < index), "{} comes too early", node.name());
    }
}

#[test]
fn each_turn_looks_up_to_the_one_before() {
    let graph = graph(|_| {});
    let reference = |arm: &str, iteration: u32| {
        let (_, midtrain, _) = chain(&graph, arm, iteration, 2).points[0];
        match &graph.nodes[midtrain].inputs["reference"] {
            Input::Node(index, _) => *index,
            other => panic!("{other:?}"),
        }
    };
    let node = |arm: &str, iteration: u32, at: usize| chain(&graph, arm, iteration, 2).points[at].1;
    assert_eq!(reference("remit", 1), node("ntp", 0, 2));
    assert_eq!(reference("remit", 2), node("remit", 1, 2), "its own model of reinforcement learning");
    assert_eq!(reference("guided", 1), node("ntp", 0, 1));
    // Every turn begins with the pre-mid checkpoint.
    let pretrain = graph.nodes.iter().position(|node| node.stage == Stage::Pretrain).expect("one");
    for chain in &graph.chains {
        assert_eq!(graph.nodes[chain.points[0].1].inputs["from"], Input::Node(pretrain, String::new()));
    }
}

#[test]
fn a_change_concerns_what_depends_on_it() {
    use Stage::{Data, Eval, Midtrain, Prepare, Pretrain, Rl, Score, Sft, Tokenizer};
    let new = |path: &str, value: toml::Value| new_stages(&graph(|tables| set(tables, path, value)));
    assert_eq!(new("eval.samples", 4.into()), BTreeSet::from([Eval]));
    assert_eq!(new("score.dtype", "f32".into()), BTreeSet::from([Score, Midtrain, Sft, Rl, Eval]));
    // The reference of the next turn is a model of reinforcement learning.
    assert_eq!(new("rl.steps", 5.into()), BTreeSet::from([Score, Midtrain, Sft, Rl, Eval]));
    let once = |tables: &mut toml::Table| {
        set(tables, "flywheel.arms", Vec::<toml::Value>::new());
        set(tables, "rl.steps", 5);
    };
    assert_eq!(new_stages(&graph(once)), BTreeSet::from([Rl, Eval]));
    assert_eq!(new("pretrain.seed", 2.into()), BTreeSet::from([Pretrain, Score, Midtrain, Sft, Rl, Eval]));
    assert_eq!(
        new("tokenizer.vocab_size", 301.into()),
        BTreeSet::from([Tokenizer, Prepare, Pretrain, Score, Midtrain, Sft, Rl, Eval])
    );
    assert!(new("flywheel.data.problems.count", 11.into()).contains(&Data));
    assert_eq!(new("flywheel.seeds", vec![1, 2, 3].into()), BTreeSet::from([Score, Midtrain, Sft, Rl, Eval]));
    let added = graph(|tables| set(tables, "flywheel.seeds", vec![1, 2, 3]));
    assert!(ids(&added).is_superset(&ids(&graph(|_| {}))), "a further seed changes nothing of the others");
}

#[test]
fn what_changes_no_result_changes_no_id() {
    let before = ids(&graph(|_| {}));
    let same = |what: &str, change: fn(&mut toml::Table)| assert_eq!(ids(&graph(change)), before, "{what}");
    same("the run directory", |tables| set(tables, "flywheel.run", "elsewhere"));
    same("how often it saves", |tables| set(tables, "midtrain.checkpoints.ephemeral_every", 7));
    same("rules of health", |tables| {
        for stage in ["midtrain", "sft", "rl"] {
            set(tables, &format!("{stage}.health.forgetting.action"), "stop");
        }
    });
    same("sequences at work", |tables| set(tables, "rl.rollout.batch_size", 7));
    same("a default that is written down", |tables| set(tables, "midtrain.schedule.kind", "linear"));
    same("the order of arms and their names", |tables| {
        let arms = tables["flywheel"]["arms"].as_array_mut().expect("arms");
        arms.reverse();
        arms[0]["name"] = "supervised".into();
    });
    same("the order of seeds", |tables| set(tables, "flywheel.seeds", vec![2, 1]));
    let per_seed = graph(|tables| set(tables, "flywheel.pretrain_per_seed", true));
    assert_eq!(count(&per_seed, Stage::Pretrain), 2);
}

#[test]
fn another_engine_makes_other_nodes_of_all_that_models_have_a_part_in() {
    let with = |engine: &str| {
        let recipe = Recipe { engine: Some(engine.into()), ..recipe(|_| {}) };
        Graph::new(&recipe).unwrap_or_else(|error| panic!("{error}"))
    };
    let (torch, rounded) = (with("torch f32"), with("torch bf16"));
    let stages: BTreeSet<Stage> = graph(|_| {}).nodes.iter().map(|node| node.stage).collect();
    let without = BTreeSet::from([Stage::Data, Stage::Tokenizer, Stage::Prepare]);
    assert_eq!(new_stages(&torch), &stages - &without);
    assert_eq!(ids(&torch).len(), ids(&rounded).len());
    let shared: Vec<Stage> =
        torch.nodes.iter().filter(|node| ids(&rounded).contains(&node.id)).map(|node| node.stage).collect();
    assert!(shared.iter().all(|stage| without.contains(stage)), "{shared:?}");
}

#[test]
fn an_arm_has_settings_of_its_own() {
    let longer = |arms: &mut Vec<toml::Value>| {
        let arm = "name = 'longer'\nobjective = { kind = 'ntp' }\nsettings.rl.steps = 9";
        arms.push(toml::from_str::<toml::Table>(arm).expect("an arm").into());
    };
    let graph = graph(|tables| longer(tables["flywheel"]["arms"].as_array_mut().expect("arms")));
    let (ntp, longer) = (chain(&graph, "ntp", 0, 1), chain(&graph, "longer", 1, 1));
    assert_eq!(ntp.points[..2], longer.points[..2], "the same up to fine-tuning");
    let steps = |chain: &Chain| match &graph.nodes[chain.points[2].1].work {
        Work::Train(Training::Rl(settings)) => settings.steps(),
        other => panic!("{other:?}"),
    };
    assert_eq!((steps(ntp), steps(longer)), (4, 9));
    assert!(
        graph
            .chains
            .iter()
            .filter(|chain| chain.owner.arm == "longer")
            .all(|chain| chain.owner.iteration == 1)
    );
}

#[test]
fn references_at_a_step() {
    let at = |reference: &str, every: u64| {
        let recipe = recipe(|tables| {
            set(tables, "rl.checkpoints.permanent_every", every as i64);
            let arm = tables["flywheel"]["arms"][0].as_table_mut().expect("an arm");
            arm.insert("reference".into(), reference.into());
        });
        Graph::new(&recipe).map_err(|error| error.to_string())
    };
    let graph = at("rl@2", 2).expect("it is kept");
    let (_, midtrain, _) = chain(&graph, "remit", 1, 1).points[0];
    let Work::Train(Training::Text(_, settings)) = &graph.nodes[midtrain].work else { panic!("a run") };
    let checkpoint = &settings.reference.as_ref().expect("one").checkpoint;
    assert!(checkpoint.ends_with("checkpoints/step-00000002"), "{}", checkpoint.display());
    let whole = at("rl", 2).expect("the end");
    assert_ne!(graph.nodes[midtrain].id, whole.nodes[chain(&whole, "remit", 1, 1).points[0].1].id);
    assert!(at("rl@4", 0).is_ok(), "the last is always kept");
    let error = |reference, every| at(reference, every).expect_err("refused");
    assert!(error("rl@2", 0).contains("reference `rl@2` of arm `remit` is not kept"));
    assert!(error("rl@3", 2).contains("that stage keeps every 2th step"));
    assert!(error("rl@5", 1).contains("is beyond the 4 steps"));
}

#[test]
fn what_is_filled_in_cannot_be_set() {
    for (path, value) in [
        ("midtrain.run", toml::Value::from("x")),
        ("midtrain.from", "x".into()),
        ("midtrain.seed", 2.into()),
        ("sft.from", "x".into()),
        ("rl.seed", 3.into()),
        ("score.out", "x".into()),
        ("prepare.tokenizer", "x".into()),
        ("eval.model", "x".into()),
    ] {
        let error = Graph::new(&recipe(|tables| set(tables, path, value))).expect_err(path);
        assert!(
            error.to_string().starts_with(&format!("`{path}` is set, but the flywheel fills it in")),
            "{error}"
        );
    }
    for table in ["prepare", "pretrain", "midtrain", "sft", "rl"] {
        let without = recipe(|tables| {
            tables.remove(table);
        });
        let error = Graph::new(&without).expect_err(table).to_string();
        assert!(error.starts_with(&format!("the recipe has no table `[{table}]`")), "{error}");
    }
}

#[test]
fn preferences_between_fine_tuning_and_rewards() {
    let with = |tables: &mut toml::Table| {
        set(tables, "flywheel.after", vec!["sft", "dpo", "rl"]);
        set(tables, "dpo.examples.files", vec!["@rows"]);
        set(tables, "dpo.steps", 3);
        set(tables, "dpo.window", 32);
    };
    let graph = graph(with);
    let points = &chain(&graph, "remit", 1, 2).points;
    let names: Vec<&str> = points.iter().map(|(point, ..)| point.name()).collect();
    assert_eq!(names, ["midtrain", "sft", "dpo", "rl"]);
    for pair in points.windows(2) {
        assert_eq!(graph.nodes[pair[1].1].inputs["from"], Input::Node(pair[0].1, String::new()));
    }
    let missing = Graph::new(&recipe(|tables| set(tables, "flywheel.after", vec!["sft", "dpo", "rl"])));
    assert!(missing.expect_err("no table").to_string().starts_with("the recipe has no table `[dpo]`"));
}

#[test]
fn an_arm_ends_where_it_says_and_shares_what_it_has() {
    let whole = graph(|_| {});
    let short = graph(|tables| {
        let arms = tables["flywheel"]["arms"].as_array_mut().expect("an array");
        arms[1].as_table_mut().expect("a table").insert("until".into(), "sft".into());
    });
    let guided = |graph: &Graph| {
        let chain = graph.chains.iter().find(|chain| chain.owner.arm == "guided").expect("there");
        chain
            .points
            .iter()
            .map(|(point, node, _)| (*point, graph.nodes[*node].id.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(guided(&whole).len(), 3);
    assert_eq!(guided(&short), guided(&whole)[..2]);
}

#[test]
fn a_turn_stands_beside_what_the_ordinary_pipeline_ends_with() {
    let without = graph(|_| {});
    let graph = graph(|tables| {
        set(tables, "dynamics.window", 32);
        set(tables, "dynamics.stores.tests", "@tests");
    });
    let stages = |chain: &Chain| -> Vec<Stage> {
        let node = &graph.nodes[chain.dynamics.expect("there")];
        let runs = node.inputs.iter().filter(|(role, _)| role.starts_with("run."));
        let of = |input: &Input| match input {
            Input::Node(index, _) => graph.nodes[*index].stage,
            Input::Content(_) => panic!("a run is a node"),
        };
        runs.map(|(_, input)| of(input)).collect()
    };
    let ordinary = chain(&graph, "ntp", 0, 2);
    assert_eq!(stages(ordinary), [Stage::Pretrain, Stage::Midtrain, Stage::Sft, Stage::Rl]);
    for iteration in [1, 2] {
        let turn = chain(&graph, "remit", iteration, 2);
        assert_eq!(stages(turn), [Stage::Midtrain, Stage::Sft, Stage::Rl]);
        let node = &graph.nodes[turn.dynamics.expect("there")];
        assert_eq!(node.inputs["reference"], Input::Node(ordinary.last(), String::new()));
    }
    // Nothing depends on it: all that was made before stays.
    let others: BTreeSet<&String> =
        graph.nodes.iter().filter(|node| node.stage != Stage::Dynamics).map(|node| &node.id).collect();
    assert_eq!(others, without.nodes.iter().map(|node| &node.id).collect());
}

/// Nodes of before must be nodes of now: these are hashes of all ids, in order, of recipes that people have run.
/// They changed with what text begins with, and with what verifiers and evaluations make of text.
#[test]
fn ids_stay_what_they_were() {
    let preferences = |tables: &mut toml::Table| {
        set(tables, "flywheel.after", vec!["sft", "dpo", "rl"]);
        set(tables, "dpo.examples.files", vec!["@rows"]);
        set(tables, "dpo.epochs", 1.5);
        set(tables, "dynamics.stores.tests", "@tests");
        set(tables, "dynamics.eval.samples", 2);
        set(tables, "rl.grpo.beta", 0.1);
    };
    let unchanged = |_: &mut toml::Table| {};
    let all = |recipe: Recipe| {
        let graph = Graph::new(&recipe).unwrap_or_else(|error| panic!("{error}"));
        let ids: Vec<String> =
            graph.nodes.iter().map(|node| format!("{}-{}", node.stage.name(), node.id)).collect();
        (ids.len(), remit_store::hash::hash_bytes(ids.join("\n").as_bytes())[..16].to_owned())
    };
    let quickstart = include_str!("../../../../recipes/quickstart.toml");
    let flywheel = include_str!("../../../../recipes/flywheel.toml");
    assert_eq!(all(recipe_of(quickstart, unchanged)), (26, "ee0a444f2f1cba93".to_owned()));
    assert_eq!(all(recipe_of(flywheel, unchanged)), (245, "401c9e2bdf6413e7".to_owned()));
    assert_eq!(all(recipe(preferences)), (85, "44050a430e307792".to_owned()));
}
