//! A file's bytes, decompressed, from an offset on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use remit_fault::fault;

use crate::{Error, error};

/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 16;

/// The largest window that the library can hold: 2 GiB.
const MAX_WINDOW_LOG: u32 = 31;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstandard,
    Brotli,
}

const ENDINGS: [(&str, Compression); 3] =
    [(".gz", Compression::Gzip), (".zst", Compression::Zstandard), (".br", Compression::Brotli)];

/// A file's name in lower case, and how it is compressed by its ending, which is cut off.
fn part_name(path: &Path) -> (String, Option<Compression>) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let found =
        ENDINGS.into_iter().find_map(|(ending, kind)| Some((name.strip_suffix(ending)?.to_owned(), kind)));
    match found {
        Some((plain, kind)) => (plain, Some(kind)),
        None => (name, None),
    }
}

/// A file's name in lower case as it is when decompressed.
pub(crate) fn plain_name(path: &Path) -> String {
    part_name(path).0
}

/// A file being read, decompressed where its name ends in `.gz`, `.zst` or `.br`.
pub(crate) struct Input {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    bytes_read: Arc<AtomicU64>,
    is_compressed: bool,
}

impl Input {
    /// Opens `path` after the first `offset` bytes of its decompressed content.
    pub fn open(path: &Path, offset: u64) -> Result<Input, Error> {
        let mut file = File::open(path).map_err(|cause| error::io("open", path, cause))?;
        let compression = part_name(path).1;
        let is_compressed = compression.is_some();
        let bytes_read = Arc::new(AtomicU64::new(0));
        if !is_compressed {
            file.seek(SeekFrom::Start(offset)).map_err(|cause| error::io("seek in", path, cause))?;
            bytes_read.store(offset, Ordering::Relaxed);
        }
        let counted =
            BufReader::with_capacity(BUFFER_BYTES, Counted { file, bytes_read: bytes_read.clone() });
        let buffered = |reader| BufReader::with_capacity(BUFFER_BYTES, reader);
        let reader: Box<dyn BufRead + Send> = match compression {
            None => Box::new(counted),
            Some(Compression::Gzip) => {
                let decoder: Box<dyn Read + Send> = Box::new(flate2::bufread::MultiGzDecoder::new(counted));
                Box::new(buffered(decoder))
            }
            Some(Compression::Zstandard) => {
                let mut decoder =
                    zstd::Decoder::with_buffer(counted).map_err(|cause| damaged(path, &cause))?;
                decoder.window_log_max(MAX_WINDOW_LOG).map_err(|cause| damaged(path, &cause))?;
                Box::new(buffered(Box::new(decoder)))
            }
            Some(Compression::Brotli) => {
                Box::new(buffered(Box::new(brotli::Decompressor::new(counted, BUFFER_BYTES))))
            }
        };
        let mut input = Input { path: path.to_owned(), reader, bytes_read, is_compressed };
        if is_compressed {
            let skipped = io::copy(&mut input.reader.by_ref().take(offset), &mut io::sink())
                .map_err(|cause| input.failed(cause))?;
            if skipped < offset {
                return Err(error::input_changed(path));
            }
        }
        Ok(input)
    }

    /// What is buffered, refilled when it is used up; empty at the end of the file.
    pub fn fill(&mut self) -> Result<&[u8], Error> {
        // Asked twice because the borrow checker cannot see that an error ends the first borrow.
        if let Err(cause) = self.reader.fill_buf() {
            return Err(self.failed(cause));
        }
        Ok(self.reader.fill_buf().expect("the buffer was filled a moment ago"))
    }

    /// Marks `count` buffered bytes as used.
    pub fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }

    /// Reads up to and with the next `\n` or to the end, appending to `line`; the number of bytes read.
    pub fn read_line(&mut self, line: &mut Vec<u8>) -> Result<usize, Error> {
        self.reader.read_until(b'\n', line).map_err(|cause| self.failed(cause))
    }

    /// Fills `buffer` as far as the file goes; the number of bytes read.
    pub fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(self.failed(cause)),
            }
        }
        Ok(filled)
    }

    /// Bytes read of the file as it lies on disk.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn failed(&self, cause: io::Error) -> Error {
        if self.is_compressed && cause.raw_os_error().is_none() {
            damaged(&self.path, &cause)
        } else {
            error::io("read", &self.path, cause)
        }
    }
}

/// A compressed file cannot be read.
fn damaged(path: &Path, cause: &io::Error) -> Error {
    let error = fault!("cannot decompress `{}`: {cause}", path.display());
    // The library has no error kinds; these are its words.
    let words = cause.to_string().to_lowercase();
    error.with_hint(if words.contains("too much memory") {
        "its window is larger than 2 GiB: compress it again with `zstd --long=31` or less"
    } else if words.contains("dictionary") {
        "it was compressed with a dictionary: compress it again without one"
    } else {
        "the file is damaged, cut off, or not what its name says: fetch it again"
    })
}

/// Counts what is read of the file itself.
struct Counted {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
