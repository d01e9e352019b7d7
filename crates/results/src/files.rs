//! What the files of a run and of a flywheel are called, each name once.

/// A run's log: what follows from its settings and data, a line a record.
pub const METRICS: &str = "metrics.jsonl";
/// What a clock said of a run's steps.
pub const TIMINGS: &str = "timings.jsonl";
/// The directory of event files, which repeat both logs.
pub const TENSORBOARD: &str = "tensorboard";
/// The resolved settings of a run.
pub const SETTINGS: &str = "settings.toml";
/// Hashes of what lies behind the paths in them.
pub const INPUTS: &str = "inputs.json";
/// The figures of an evaluation.
pub const RESULTS: &str = "results.json";
/// Checkpoints beside a reference.
pub const DYNAMICS: &str = "dynamics.json";
/// The directory of a flywheel's nodes.
pub const NODES: &str = "nodes";
/// The record of a node that is done.
pub const NODE: &str = "node.json";
/// What came of a flywheel.
pub const FLYWHEEL: &str = "flywheel.json";
/// The recipe of a flywheel, resolved.
pub const RECIPE: &str = "recipe.toml";
/// The report as a page.
pub const REPORT_HTML: &str = "report.html";
/// The same as Markdown.
pub const REPORT_MARKDOWN: &str = "report.md";
