use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::*;

const SECTIONS: &[&str] = &["prepare", "pretrain", "score", "midtrain"];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Midtrain {
    out: PathBuf,
    #[serde(default = "thousand")]
    steps: u64,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    optimizer: Optimizer,
    #[serde(default)]
    objective: Objective,
    #[serde(default)]
    sources: Vec<Source>,
    #[serde(default)]
    schedule: Schedule,
}

fn thousand() -> u64 {
    1000
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Optimizer {
    learning_rate: f32,
    betas: [f32; 2],
    keep_moments: bool,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer { learning_rate: 3e-4, betas: [0.9, 0.95], keep_moments: false }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Objective {
    Ntp,
    Remit {
        #[serde(default = "fifth")]
        epsilon_low: f64,
        #[serde(default)]
        center: Center,
        #[serde(default)]
        extra: Extra,
    },
    Rho1 {
        keep: f64,
    },
}

fn fifth() -> f64 {
    0.2
}

impl Default for Objective {
    fn default() -> Self {
        Objective::Remit { epsilon_low: 0.2, center: Center::Sequence, extra: Extra::default() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Center {
    #[default]
    Sequence,
    Document,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Extra {
    depth: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    path: PathBuf,
    #[serde(default)]
    repeat: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Schedule {
    #[default]
    Linear,
    OneMinusSqrt,
}

fn resolve_text(text: &str, overrides: &[&str]) -> Result<Resolved<Midtrain>, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    resolve(Some(&path), "midtrain", SECTIONS, &toml::Table::new(), &overrides)
}

/// Checks the message, with the folder left out of its paths, and the hint.
#[track_caller]
fn check_error(text: &str, overrides: &[&str], message: &str, hint: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    let error =
        resolve::<Midtrain>(Some(&path), "midtrain", SECTIONS, &toml::Table::new(), &overrides).unwrap_err();
    let folder = format!("{}/", folder.path().display());
    assert_eq!(error.to_string().replace(&folder, ""), message);
    assert_eq!(error.hint().unwrap_or_default().replace(&folder, ""), hint);
}

#[test]
fn defaults_then_file_then_overrides() {
    let text =
        "[midtrain]\nout = 'run'\nsteps = 20\noptimizer = { learning_rate = 1 }\n[pretrain]\nany = 1\n";
    let resolved = resolve_text(text, &["midtrain.steps=30", "optimizer.betas=[0.8, 0.9]"]).unwrap();
    let expected = Midtrain {
        out: "run".into(),
        steps: 30,
        name: None,
        optimizer: Optimizer { learning_rate: 1.0, betas: [0.8, 0.9], keep_moments: false },
        objective: Objective::default(),
        sources: vec![],
        schedule: Schedule::Linear,
    };
    assert_eq!(resolved.value, expected);
    assert!(resolved.warnings.is_empty());
}

#[test]
fn the_resolved_tree_is_complete_and_a_recipe_itself() {
    let resolved = resolve_text("[midtrain]\nout = 'run'\n", &[]).unwrap();
    let expected = r#"[midtrain]
out = "run"
steps = 1000
sources = []
schedule = "linear"

[midtrain.optimizer]
learning_rate = 0.0003
betas = [0.9, 0.95]
keep_moments = false

[midtrain.objective]
kind = "remit"
epsilon_low = 0.2
center = "sequence"

[midtrain.objective.extra]
depth = 0
"#;
    assert_eq!(resolved.toml, expected);
    let again = resolve_text(&resolved.toml, &[]).unwrap();
    assert_eq!((again.value, again.toml), (resolved.value, resolved.toml));
}

#[test]
fn without_a_file_overrides_alone_do() {
    let overrides = ["--midtrain.out=a=b".to_string(), "midtrain.name=2024".to_string()];
    let resolved: Resolved<Midtrain> =
        resolve(None, "midtrain", SECTIONS, &toml::Table::new(), &overrides).unwrap();
    assert_eq!(resolved.value.out, PathBuf::from("a=b"));
    // A number where text is wanted is text, as typed.
    assert_eq!(resolved.value.name.as_deref(), Some("2024"));
}

#[test]
fn override_values_are_toml_or_plain_text() {
    let table = "[midtrain]\nout = 'run'\n";
    let value = |arg: &str| resolve_text(table, &[arg]).unwrap().value;
    assert_eq!(value("midtrain.name=two words").name.as_deref(), Some("two words"));
    assert_eq!(value("midtrain.name=\"quoted\"").name.as_deref(), Some("quoted"));
    assert_eq!(value("midtrain.name=").name.as_deref(), Some(""));
    assert_eq!(value("midtrain.name=007").name.as_deref(), Some("007"));
    assert_eq!(value("midtrain.steps=1_000").steps, 1000);
    assert_eq!(value("optimizer.learning_rate=-1e-3").optimizer.learning_rate, -1e-3);
    assert!(value("optimizer.keep_moments=true").optimizer.keep_moments);
    assert_eq!(value("midtrain.schedule=one-minus-sqrt").schedule, Schedule::OneMinusSqrt);
    let sources = value("midtrain.sources=[{ path = 'a', repeat = 2 }]").sources;
    assert_eq!(sources, [Source { path: "a".into(), repeat: 2 }]);
}

#[test]
fn array_elements_are_reached_by_index() {
    let text =
        "[midtrain]\nout = 'run'\n[[midtrain.sources]]\npath = 'a'\n[[midtrain.sources]]\npath = 'b'\n";
    let resolved =
        resolve_text(text, &["sources.1.repeat=3", "optimizer.betas=[1, 2]", "optimizer.betas.0=5"]);
    let value = resolved.unwrap().value;
    assert_eq!(value.sources[1], Source { path: "b".into(), repeat: 3 });
    assert_eq!(value.optimizer.betas, [5.0, 2.0]);
    check_error(
        text,
        &["sources.2.repeat=3"],
        "`midtrain.sources` has no element `2`, on the command line (`sources.2.repeat=3`)",
        "elements count from 0 to 1",
    );
}

#[test]
fn another_kind_drops_the_settings_of_the_former_one() {
    let text = "[midtrain]\nout = 'run'\nobjective = { kind = 'remit', epsilon_low = 0.5 }\n";
    let resolved = resolve_text(text, &["objective.kind=ntp"]).unwrap();
    assert_eq!(resolved.value.objective, Objective::Ntp);
    assert_eq!(
        resolved.warnings,
        ["`midtrain.objective.epsilon_low` of the recipe has no effect: the command line chose another \
          `midtrain.objective.kind`"]
    );
    // What the command line itself says is never dropped.
    check_error(
        text,
        &["objective.kind=rho1", "objective.keep=0.5", "objective.epsilon=1"],
        "unknown key `midtrain.objective.epsilon` on the command line (`--objective.epsilon=1`)",
        "the keys of `midtrain.objective` are `keep`",
    );
}

#[test]
fn a_kind_without_settings_takes_none() {
    check_error(
        "[midtrain]\nout = 'run'\nobjective = { kind = 'ntp', keep = 1 }\n",
        &[],
        "unknown key `midtrain.objective.keep` at recipe.toml:3:29\n  \
         3 | objective = { kind = 'ntp', keep = 1 }\n    \
           |                             ^^^^",
        "the keys of `midtrain.objective` are `kind`",
    );
}

#[test]
fn a_table_without_kind_has_the_default_kind() {
    let expected = Objective::Remit { epsilon_low: 0.7, center: Center::Sequence, extra: Extra::default() };
    let resolved = resolve_text("[midtrain]\nout = 'run'\n", &["objective.epsilon_low=0.7"]).unwrap();
    assert_eq!(resolved.value.objective, expected);
    let text = "[midtrain]\nout = 'run'\n[midtrain.objective]\nepsilon_low = 0.7\n";
    assert_eq!(resolve_text(text, &[]).unwrap().value.objective, expected);
}

#[test]
fn a_missing_table_and_a_foreign_override_are_warned_of() {
    let resolved = resolve_text("", &["midtrain.out=x", "pretrain.steps=3"]).unwrap();
    let [foreign, missing] = [&resolved.warnings[1], &resolved.warnings[0]];
    assert_eq!(
        foreign,
        "`pretrain.steps` on the command line has no effect: this command reads `[midtrain]`"
    );
    assert!(
        missing.ends_with("has no table `[midtrain]`: only defaults and the command line set this stage")
    );
}

#[test]
fn unknown_keys_are_named_with_place_and_nearest_name() {
    check_error(
        "[midtrain]\nout = 'run'\n\n[midtrain.optimizer]\n  lerning_rate = 1e-3 # fast\n",
        &[],
        "unknown key `midtrain.optimizer.lerning_rate` at recipe.toml:5:3\n  \
         5 |   lerning_rate = 1e-3 # fast\n    \
           |   ^^^^^^^^^^^^",
        "did you mean `learning_rate`? the keys of `midtrain.optimizer` are `learning_rate`, `betas`, \
         `keep_moments`",
    );
    check_error(
        "[midtrain]\nout = 'run'\n",
        &["optimizer.lerning_rate=1e-3"],
        "unknown key `midtrain.optimizer.lerning_rate` on the command line (`--optimizer.lerning_rate=1e-3`)",
        "did you mean `learning_rate`? the keys of `midtrain.optimizer` are `learning_rate`, `betas`, \
         `keep_moments`",
    );
    // The misspelt word may be the stage.
    check_error(
        "[midtrain]\nout = 'run'\n",
        &["midtrian.steps=3"],
        "unknown key `midtrain.midtrian` on the command line (`--midtrian.steps=3`)",
        "did you mean `midtrain`? the keys of `midtrain` are `out`, `steps`, `name`, `optimizer`, `objective`, \
         `sources`, `schedule`",
    );
}

#[test]
fn unknown_keys_are_found_in_arrays_of_tables_and_in_tagged_enums() {
    check_error(
        "[midtrain]\nout = 'run'\n[[midtrain.sources]]\npath = 'a'\n[[midtrain.sources]]\npath = 'b'\nrepeats = 2\n",
        &[],
        "unknown key `midtrain.sources[1].repeats` at recipe.toml:7:1\n  7 | repeats = 2\n    | ^^^^^^^",
        "did you mean `repeat`? the keys of `midtrain.sources[1]` are `path`, `repeat`",
    );
    check_error(
        "[midtrain]\nout = 'run'\nobjective = { kind = 'remit', epsilonlow = 1 }\n",
        &[],
        "unknown key `midtrain.objective.epsilonlow` at recipe.toml:3:31\n  \
         3 | objective = { kind = 'remit', epsilonlow = 1 }\n    \
           |                               ^^^^^^^^^^",
        "did you mean `epsilon_low`? the keys of `midtrain.objective` are `epsilon_low`, `center`, `extra`",
    );
    check_error(
        "[midtrain]\nout = 'run'\nobjective.kind = 'remit'\nobjective.extra.deep = 1\n",
        &[],
        "unknown key `midtrain.objective.extra.deep` at recipe.toml:4:17\n  \
         4 | objective.extra.deep = 1\n    \
           |                 ^^^^",
        "the keys of `midtrain.objective.extra` are `depth`",
    );
}

#[test]
fn wrong_types_say_what_was_expected_and_found() {
    check_error(
        "[midtrain]\nout = 'run'\nsteps = 1e4\n",
        &[],
        "`midtrain.steps` must be a whole number from 0 to 18446744073709551615, not the number `10000.0` \
         at recipe.toml:3:9\n  3 | steps = 1e4\n    |         ^^^",
        "write whole numbers without a fraction or exponent, such as 1_000_000",
    );
    check_error(
        "[midtrain]\nout = 7\n",
        &[],
        "`midtrain.out` must be a string with a path, not the number `7` at recipe.toml:2:7\n  \
         2 | out = 7\n    |       ^",
        "put it in quotes",
    );
    check_error(
        "[midtrain]\nout = 'run'\n",
        &["optimizer.keep_moments=yes"],
        "`midtrain.optimizer.keep_moments` must be `true` or `false`, not the string `yes` on the command line \
         (`--optimizer.keep_moments=yes`)",
        "",
    );
    // Inside a tagged enum serde loses the path; the value is searched.
    check_error(
        "[midtrain]\nout = 'run'\n[midtrain.objective]\nkind = 'remit'\nepsilon_low = 'small'\n",
        &[],
        "`midtrain.objective.epsilon_low` must be a number, not the string `small` at recipe.toml:5:15\n  \
         5 | epsilon_low = 'small'\n    |               ^^^^^^^",
        "",
    );
    check_error(
        "[midtrain]\nout = 'run'\noptimizer = 3\n",
        &[],
        "`midtrain.optimizer` must be a table, not the number `3` at recipe.toml:3:13\n  \
         3 | optimizer = 3\n    |             ^",
        "",
    );
    check_error(
        "[midtrain]\nout = 'run'\noptimizer.betas = [1, 2, 3]\n",
        &[],
        "`midtrain.optimizer.betas` is not right: it has 3 elements, not 2 at recipe.toml:3:19\n  \
         3 | optimizer.betas = [1, 2, 3]\n    |                   ^^^^^^^^^",
        "",
    );
    check_error(
        "[midtrain]\nout = 'run'\nsteps = -1\n",
        &[],
        "`midtrain.steps` must be a whole number from 0 to 18446744073709551615, not the number `-1` \
         at recipe.toml:3:9\n  3 | steps = -1\n    |         ^^",
        "",
    );
}

#[test]
fn unknown_choices_list_the_known_ones() {
    check_error(
        "[midtrain]\nout = 'run'\nschedule = 'linaer'\n",
        &[],
        "`midtrain.schedule` has the unknown value `linaer` at recipe.toml:3:12\n  \
         3 | schedule = 'linaer'\n    |            ^^^^^^^^",
        "did you mean `linear`? the choices are `linear`, `one-minus-sqrt`",
    );
    check_error(
        "[midtrain]\nout = 'run'\n",
        &["objective.kind=remitt"],
        "`midtrain.objective.kind` has the unknown value `remitt` on the command line (`--objective.kind=remitt`)",
        "did you mean `remit`? the choices are `ntp`, `remit`, `rho1`",
    );
    check_error(
        "[midtrain]\nout = 'run'\nobjective.kind = 'remit'\nobjective.center = 'window'\n",
        &[],
        "`midtrain.objective.center` has the unknown value `window` at recipe.toml:4:20\n  \
         4 | objective.center = 'window'\n    |                    ^^^^^^^^",
        "the choices are `sequence`, `document`",
    );
}

#[test]
fn missing_settings_say_where_to_put_them() {
    check_error(
        "[midtrain]\nsteps = 3\n",
        &[],
        "`midtrain.out` is not set, and it has no default at recipe.toml:1:1\n  \
         1 | [midtrain]\n    | ^^^^^^^^^^",
        "set `out` under `[midtrain]` in `recipe.toml`, or give `--midtrain.out=VALUE`",
    );
    let error = resolve::<Midtrain>(None, "midtrain", SECTIONS, &toml::Table::new(), &[]).unwrap_err();
    assert_eq!(error.to_string(), "`midtrain.out` is not set, and it has no default");
    assert_eq!(error.hint().unwrap(), "give `--midtrain.out=VALUE`, or a recipe with `--config FILE.toml`");
}

#[test]
fn unknown_tables_and_stray_settings() {
    check_error(
        "[midtrian]\nout = 'run'\n",
        &[],
        "unknown table `[midtrian]` at recipe.toml:1:2\n  1 | [midtrian]\n    |  ^^^^^^^^",
        "did you mean `[midtrain]`? a recipe may have `[prepare]`, `[pretrain]`, `[score]`, `[midtrain]`",
    );
    check_error(
        "steps = 3\n[midtrain]\nout = 'run'\n",
        &[],
        "`steps` stands outside of any table at recipe.toml:1:1\n  1 | steps = 3\n    | ^^^^^",
        "put it under the table of its stage, one of `[prepare]`, `[pretrain]`, `[score]`, `[midtrain]`",
    );
    check_error(
        "midtrain = 3\n",
        &[],
        "`midtrain` must be a table, not the number `3` at recipe.toml:1:12\n  \
         1 | midtrain = 3\n    |            ^",
        "",
    );
}

#[test]
fn syntax_errors_show_the_line() {
    check_error(
        "[midtrain]\nout = 'run\nsteps = 3\n",
        &[],
        "the recipe is not valid TOML: invalid literal string, expected `'` at recipe.toml:2:11\n  \
         2 | out = 'run\n    |           ^",
        "",
    );
    check_error(
        "[midtrain]\nsteps = 1\nsteps = 2\n",
        &[],
        "the recipe is not valid TOML: duplicate key at recipe.toml:3:1\n  \
         3 | steps = 2\n    | ^^^^^",
        "",
    );
    check_error(
        "[midtrain]\nsteps = 99999999999999999999\n",
        &[],
        "the recipe is not valid TOML: the number `99999999999999999999` is too large at recipe.toml:2:9\n  \
         2 | steps = 99999999999999999999\n    |         ^^^^^^^^^^^^^^^^^^^^",
        "",
    );
}

#[test]
fn a_recipe_that_is_not_there() {
    let error =
        resolve::<Midtrain>(Some(Path::new("no/such.toml")), "midtrain", SECTIONS, &toml::Table::new(), &[])
            .unwrap_err();
    assert_eq!(error.to_string(), "cannot read the recipe `no/such.toml`");
    assert_eq!(error.hint().unwrap(), "paths are relative to the current directory");
}

#[test]
fn an_editor_byte_order_mark_is_no_error() {
    assert_eq!(
        resolve_text("\u{feff}[midtrain]\nout = 'run'\n", &[]).unwrap().value.out,
        PathBuf::from("run")
    );
}

#[test]
fn overrides_are_taken_out_of_the_command_line() {
    let split = |args: &[&str]| split_overrides(args.iter().map(OsString::from));
    let (rest, overrides) = split(&[
        "remit",
        "midtrain",
        "--config",
        "recipe.v2.toml",
        "--midtrain.optimizer.learning_rate=1e-3",
        "--objective.kind",
        "remit",
        "--optimizer.decay",
        "-1",
        "--out=run.1",
        "--quiet",
        "--",
        "--not.an.override",
    ])
    .unwrap();
    assert_eq!(
        rest,
        [
            "remit",
            "midtrain",
            "--config",
            "recipe.v2.toml",
            "--out=run.1",
            "--quiet",
            "--",
            "--not.an.override"
        ]
    );
    assert_eq!(
        overrides,
        ["midtrain.optimizer.learning_rate=1e-3", "objective.kind=remit", "optimizer.decay=-1"]
    );
    let error = split(&["remit", "--objective.kind", "--quiet"]).unwrap_err();
    assert_eq!(error.to_string(), "`--objective.kind` on the command line has no value");
    assert_eq!(
        error.hint().unwrap(),
        "write `--objective.kind=VALUE`, with `=` where the value starts with two dashes"
    );
}

#[test]
fn overrides_that_lead_nowhere() {
    let text = "[midtrain]\nout = 'run'\nsteps = 3\n";
    check_error(
        text,
        &["--midtrain.steps.more=1"],
        "`midtrain.steps` is the number `3` and has no `more` inside, on the command line \
         (`--midtrain.steps.more=1`)",
        "set `--midtrain.steps=VALUE` as a whole",
    );
    check_error(
        text,
        &["--midtrain..steps=1"],
        "`--midtrain..steps=1` on the command line is not a dotted name with a value",
        "write `--section.key=VALUE`, such as `--midtrain.optimizer.learning_rate=1e-3`",
    );
    check_error(
        text,
        &["--midtrain=1"],
        "`--midtrain=1` on the command line is not a dotted name with a value",
        "write `--section.key=VALUE`, such as `--midtrain.optimizer.learning_rate=1e-3`",
    );
}

/// A stage whose defaults are not those of the types of its tables.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tuning {
    optimizer: Adam,
    loss: Loss,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<Warm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<u64>,
    prompt: String,
    files: Vec<PathBuf>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adam {
    rate: f64,
    #[serde(default)]
    decay: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Loss {
    Pair { beta: f64 },
    Single { alpha: f64 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Warm {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_fraction: Option<f64>,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            optimizer: Adam { rate: 0.5, decay: 0.25 },
            loss: Loss::Pair { beta: 0.1 },
            schedule: None,
            steps: None,
            epochs: None,
            prompt: String::new(),
            files: Vec::new(),
        }
    }
}

fn tuning(text: &str, overrides: &[&str]) -> Resolved<Tuning> {
    let recipe = Recipe::parse(Path::new("recipe.toml"), text.to_string(), &["sft"]).unwrap();
    let defaults: toml::Table =
        toml::from_str("schedule = { kind = 'linear', warmup_fraction = 0.03 }\noptimizer = { rate = 0.5 }")
            .unwrap();
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    recipe.resolve("sft", &defaults, &overrides).unwrap()
}

#[test]
fn an_override_changes_one_thing_of_a_table() {
    let adam = |text: &str, overrides: &[&str]| tuning(text, overrides).value.optimizer;
    assert_eq!(adam("[sft]", &["optimizer.rate=0.125"]), Adam { rate: 0.125, decay: 0.25 });
    assert_eq!(adam("[sft.optimizer]\ndecay = 1.0", &[]), Adam { rate: 0.5, decay: 1.0 });
    assert_eq!(adam("[sft.optimizer]\ndecay = 1.0", &["optimizer.rate=2"]), Adam { rate: 2.0, decay: 1.0 });
    let warm = |text: &str, overrides: &[&str]| {
        let Warm { kind, warmup_steps, warmup_fraction } = tuning(text, overrides).value.schedule?;
        Some((kind, warmup_steps, warmup_fraction))
    };
    assert_eq!(warm("[sft]", &[]), None, "a table that is left out stays out");
    assert_eq!(warm("[sft]", &["schedule.kind=cosine"]), Some(("cosine".into(), None, Some(0.03))));
    assert_eq!(warm("[sft]", &["schedule.warmup_steps=7"]), Some(("linear".into(), Some(7), None)));
    // The command line's warm-up is in the place of the recipe's.
    let text = "[sft.schedule]\nkind = 'linear'\nwarmup_steps = 40";
    assert_eq!(warm(text, &["schedule.warmup_fraction=0.5"]), Some(("linear".into(), None, Some(0.5))));
    let resolved = tuning("[sft]\nsteps = 3", &["sft.epochs=2"]);
    assert_eq!((resolved.value.steps, resolved.value.epochs), (None, Some(2)));
    assert_eq!(
        resolved.warnings,
        ["`steps` of the recipe has no effect: `sft.epochs` on the command line is in its place"]
    );
}

#[test]
fn another_kind_has_no_defaults_of_the_first() {
    let loss = |overrides: &[&str]| tuning("[sft]", overrides).value.loss;
    assert_eq!(loss(&["loss.beta=0.5"]), Loss::Pair { beta: 0.5 });
    assert_eq!(loss(&["loss.kind=single", "loss.alpha=2"]), Loss::Single { alpha: 2.0 });
}

#[test]
fn templates_typed_in_a_shell_have_line_feeds() {
    let prompt = |typed: &str| tuning("[sft]", &[&format!("prompt={typed}")]).value.prompt;
    assert_eq!(prompt(r"{question}\n{answer}\t."), "{question}\n{answer}\t.");
    assert_eq!(prompt(r"\\nabla and \boxed\r"), "\\nabla and \\boxed\r");
    // What is TOML has TOML's escapes, in a recipe and here.
    assert_eq!(prompt(r#"'{q}\n'"#), r"{q}\n");
    assert_eq!(prompt(r#""{q}\n""#), "{q}\n");
    assert_eq!(tuning(r"sft.prompt = '{q}\n'", &[]).value.prompt, r"{q}\n");
    // No template, no escapes.
    assert_eq!(tuning("[sft]", &[r"schedule.kind=a\n"]).value.schedule.unwrap().kind, r"a\n");
}

#[test]
fn a_tilde_is_the_home_directory() {
    let home = std::env::var("HOME").unwrap();
    let home = home.trim_end_matches('/');
    let text = "[sft]\nfiles = ['~/a', '~b/c', 'd/~/e', '~']\nprompt = '~/x'";
    let value = tuning(text, &[]).value;
    let expected = [format!("{home}/a"), "~b/c".into(), "d/~/e".into(), "~".into()];
    assert_eq!(value.files, expected.map(PathBuf::from));
    assert_eq!(value.prompt, "~/x");
    assert_eq!(tuning("[sft]", &["files=['~/z']"]).value.files, [PathBuf::from(format!("{home}/z"))]);
}
