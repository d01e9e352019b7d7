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

/// A file being read, decompressed where its name ends in `.gz` or `.zst`.
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
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        let is_compressed = matches!(extension.as_deref(), Some("gz" | "zst"));
        let bytes_read = Arc::new(AtomicU64::new(0));
        if !is_compressed {
            file.seek(SeekFrom::Start(offset)).map_err(|cause| error::io("seek in", path, cause))?;
            bytes_read.store(offset, Ordering::Relaxed);
        }
        let counted =
            BufReader::with_capacity(BUFFER_BYTES, Counted { file, bytes_read: bytes_read.clone() });
        let reader: Box<dyn BufRead + Send> = match extension.as_deref() {
            Some("gz") => Box::new(BufReader::with_capacity(
                BUFFER_BYTES,
                flate2::bufread::MultiGzDecoder::new(counted),
            )),
            Some("zst") => {
                let decoder = zstd::Decoder::with_buffer(counted).map_err(|cause| damaged(path, &cause))?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
            _ => Box::new(counted),
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

/// Counts what is read of the file itself.
fn damaged(path: &Path, cause: &io::Error) -> Error {
    fault!("cannot decompress `{}`: {cause}", path.display())
        .with_hint("the file is damaged, cut off, or not what its name says: fetch it again")
}

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
