//! What a flywheel came to: metrics files in, one HTML page and the same as Markdown out. Nothing is run here.
//!
//! [`Run::read`] reads a run directory, [`report()`] makes a [`Document`] of it, and the document knows both forms, so that
//! they say the same. What a clock said is in the costs alone and can be left out: the rest is a function of the
//! recipe, whatever stopped the flywheel on its way.

mod chart;
mod document;
mod error;
mod html;
mod input;
mod markdown;
mod numbers;
mod sections;

pub use document::Document;
pub use error::Error;
pub use html::{escape, head};
pub use input::{Now, Run};
pub use sections::{Excerpt, Excerpts, Options, report};

use remit_results::files::{REPORT_HTML, REPORT_MARKDOWN};
use remit_store::atomic;
use std::path::{Path, PathBuf};

/// The paths of both forms in a run directory, the page first.
pub fn paths(directory: &Path) -> [PathBuf; 2] {
    [REPORT_HTML, REPORT_MARKDOWN].map(|name| directory.join(name))
}

/// Writes both forms into a run directory; their paths, the page first.
///
/// # Errors
/// A file that cannot be written.
pub fn write(document: &Document, directory: &Path) -> Result<[PathBuf; 2], Error> {
    let paths = paths(directory);
    atomic::write(&paths[0], document.to_html().as_bytes())?;
    atomic::write(&paths[1], document.to_markdown().as_bytes())?;
    Ok(paths)
}
