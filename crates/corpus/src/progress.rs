//! Who is told how far the work is.

/// Receives progress. Called from one thread at a time, a few times a second at most.
pub trait Progress: Sync {
    /// `done_bytes` of `total_bytes` of the input files, as they lie on disk, are through; `tokens` came of them.
    fn advance(&self, done_bytes: u64, total_bytes: u64, tokens: u64);

    /// Something a person should read: what is continued, discarded, skipped.
    fn message(&self, text: &str);
}

/// Tells nobody.
impl Progress for () {
    fn advance(&self, _done_bytes: u64, _total_bytes: u64, _tokens: u64) {}

    fn message(&self, _text: &str) {}
}
