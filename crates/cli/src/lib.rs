//! What was typed becomes what is meant: settings, progress, and everything that is shown to a person.
//!
//! No mathematics lives here. `settings` turns a recipe file and the command line into typed settings, `progress`
//! shows how far a long stage has come, `render` is the only place that words, tables and colours are printed from.

pub mod args;
pub mod commands;
pub mod out_of_memory;
pub mod progress;
pub mod render;
pub mod settings;
