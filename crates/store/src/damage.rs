//! The errors of files that are not what they should be.

use std::fmt::Display;
use std::path::Path;

use remit_fault::fault;

use crate::Error;

/// A file that is cut short, altered or of another kind; or a directory, where the fault is between its files. `what` is
/// what it should be. The hint is that of something that came from elsewhere.
pub(crate) fn damaged(path: &Path, what: &str, problem: impl Display) -> Error {
    fault!("`{}` is not a whole {what}: {problem}", path.display()).with_hint("copy or download it again")
}

/// A file of another version of this program.
pub(crate) fn other_version(path: &Path, found: u32, supported: u32) -> Error {
    fault!("`{}` has format version {found}, and version {supported} is supported", path.display())
        .with_hint("read it with the version of `remit` that wrote it")
}

/// Something that would have to be overwritten.
pub(crate) fn exists(path: &Path) -> Error {
    fault!("`{}` exists already", path.display()).with_hint("remove it or choose another path")
}
