//! TensorBoard event files: scalars only, which is a page of code and no dependency on a protocol compiler.
//!
//! A file is a sequence of records, `u64 length, u32 masked CRC of the length, bytes, u32 masked CRC of the bytes`,
//! little-endian (TensorFlow's `TFRecord`); the bytes are one `Event` protocol buffer
//! (`tensorboard/compat/proto/event.proto` and `summary.proto`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use remit_store::Error;

/// One event file, opened when a run starts or resumes.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Opens a new event file in `directory`, making the directory if need be.
    ///
    /// `first_step` is the first step this file will hold. TensorBoard then drops what earlier files of the directory
    /// hold from that step on: steps that a killed run had already written beyond its last checkpoint.
    ///
    /// # Errors
    /// When the directory or the file cannot be made.
    pub fn create(directory: &Path, first_step: u64) -> Result<EventWriter, Error> {
        std::fs::create_dir_all(directory).map_err(|cause| Error::io("create", directory, cause))?;
        let path = directory.join(next_name(directory, now().as_secs())?);
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .map_err(|cause| Error::io("create", &path, cause))?;
        let mut writer = EventWriter { path, file };
        writer.write(&event(now(), 0, Payload::FileVersion("brain.Event:2")))?;
        writer.write(&event(now(), first_step, Payload::SessionStart))?;
        Ok(writer)
    }

    /// Adds scalars, as `(tag, value)`, to the curves.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<(), Error> {
        self.write(&event(now(), step, Payload::Scalars(scalars)))
    }

    /// Brings everything written so far to the disk.
    ///
    /// # Errors
    /// When the file cannot be synced.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(|cause| Error::io("sync", &self.path, cause))
    }

    fn write(&mut self, event: &[u8]) -> Result<(), Error> {
        // One write a record: a viewer that is open on the file meets a torn one at worst at its end, and waits.
        self.file.write_all(&framed(event)).map_err(|cause| Error::io("write", &self.path, cause))
    }
}

fn now() -> Duration {
    // A clock before 1970 only misplaces the curve on TensorBoard's wall-clock axis.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A name that sorts after all event files already there: TensorBoard reads them in that order, and a clock that was
/// set back or a second start within one second must not change it.
fn next_name(directory: &Path, seconds: u64) -> Result<String, Error> {
    const PREFIX: &str = "events.out.tfevents.";
    let latest = || -> io::Result<Option<u64>> {
        let mut latest = None;
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next());
            latest = latest.max(digits.and_then(|digits| digits.parse::<u64>().ok()));
        }
        Ok(latest)
    };
    let latest = latest().map_err(|cause| Error::io("read", directory, cause))?;
    let seconds = latest.map_or(seconds, |latest| seconds.max(latest + 1));
    Ok(format!("{PREFIX}{seconds:010}.remit"))
}

fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted: TensorFlow's guard against checksums of data that itself contains checksums.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

enum Payload<'a> {
    FileVersion(&'a str),
    SessionStart,
    Scalars(&'a [(&'a str, f64)]),
}

/// `Event { double wall_time = 1; int64 step = 2; oneof { string file_version = 3; Summary summary = 5;
/// SessionLog session_log = 7; } }`
fn event(wall_time: Duration, step: u64, payload: Payload<'_>) -> Vec<u8> {
    let mut event = Vec::new();
    event.push(1 << 3 | FIXED_64);
    event.extend(wall_time.as_secs_f64().to_le_bytes());
    event.push(2 << 3 | VARINT);
    varint(&mut event, step);
    match payload {
        Payload::FileVersion(version) => bytes_field(&mut event, 3, version.as_bytes()),
        // `SessionLog { SessionStatus status = 1; }`, START = 1
        Payload::SessionStart => bytes_field(&mut event, 7, &[1 << 3 | VARINT, 1]),
        Payload::Scalars(scalars) => {
            // `Summary { repeated Value value = 1; }`, `Value { string tag = 1; float simple_value = 2; }`
            let mut summary = Vec::new();
            for (tag, scalar) in scalars {
                let mut value = Vec::new();
                bytes_field(&mut value, 1, tag.as_bytes());
                value.push(2 << 3 | FIXED_32);
                value.extend((*scalar as f32).to_le_bytes());
                bytes_field(&mut summary, 1, &value);
            }
            bytes_field(&mut event, 5, &summary);
        }
    }
    event
}

// The wire types of protocol buffers used here.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

fn bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | LENGTH_DELIMITED);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a test reads back: `(step, [(tag, value)])` of every event with scalars.
    pub(in crate::metrics) fn read_scalars(path: &Path) -> Vec<(u64, Vec<(String, f32)>)> {
        events(&std::fs::read(path).unwrap())
            .into_iter()
            .filter_map(|fields| {
                let step = fields.iter().find(|(number, _)| *number == 2).map(|(_, bytes)| to_u64(bytes))?;
                let (_, summary) = fields.into_iter().find(|(number, _)| *number == 5)?;
                let scalars = message(&summary)
                    .into_iter()
                    .map(|(number, value)| {
                        assert_eq!(number, 1);
                        let value = message(&value);
                        assert_eq!((value[0].0, value[1].0), (1, 2));
                        let bits = u32::from_le_bytes(value[1].1[..].try_into().unwrap());
                        (String::from_utf8(value[0].1.clone()).unwrap(), f32::from_bits(bits))
                    })
                    .collect();
                Some((step, scalars))
            })
            .collect()
    }

    type Fields = Vec<(u64, Vec<u8>)>;

    fn events(mut file: &[u8]) -> Vec<Fields> {
        let mut events = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            assert_eq!(file[8..12], masked_crc(&file[..8]).to_le_bytes());
            let data = &file[12..12 + length];
            assert_eq!(file[12 + length..16 + length], masked_crc(data).to_le_bytes());
            events.push(message(data));
            file = &file[16 + length..];
        }
        events
    }

    /// Field numbers and contents; a varint's content is its value in eight bytes.
    fn message(mut data: &[u8]) -> Fields {
        let mut fields = Vec::new();
        while !data.is_empty() {
            let key = read_varint(&mut data);
            let length = match (key & 7) as u8 {
                VARINT => {
                    fields.push((key >> 3, read_varint(&mut data).to_le_bytes().to_vec()));
                    continue;
                }
                FIXED_64 => 8,
                FIXED_32 => 4,
                LENGTH_DELIMITED => read_varint(&mut data) as usize,
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, data[..length].to_vec()));
            data = &data[length..];
        }
        fields
    }

    fn read_varint(data: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = data[0];
            *data = &data[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn to_u64(bytes: &[u8]) -> u64 {
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    #[test]
    fn the_checksum_is_tensorflow_s() {
        // RFC 3720, B.4: the CRC-32C of 32 zero bytes is 0x8a9136aa.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        // The first twelve bytes of every event file TensorFlow writes: its first record has 24 bytes.
        let start = framed(&[0; 24])[..12].to_vec();
        assert_eq!(start, [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn an_event_is_encoded_byte_for_byte() {
        let bytes = event(Duration::from_millis(1500), 300, Payload::Scalars(&[("a/b", 0.5)]));
        #[rustfmt::skip]
        let expected = [
            0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, // wall_time = 1.5
            0x10, 0xac, 0x02, // step = 300
            0x2a, 12, // summary
            0x0a, 10, // value
            0x0a, 3, b'a', b'/', b'b', // tag
            0x15, 0, 0, 0, 0x3f, // simple_value = 0.5
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_file_starts_with_version_and_session_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&folder.path().join("tensorboard"), 7).unwrap();
        writer.scalars(7, &[("train/loss", 3.25), ("train/learning_rate", 1e-3)]).unwrap();
        writer.scalars(1 << 40, &[("train/loss", -1.0)]).unwrap();
        writer.sync().unwrap();
        let events = events(&std::fs::read(&writer.path).unwrap());
        assert_eq!(events.len(), 4);
        assert_eq!(events[0][2], (3, b"brain.Event:2".to_vec()));
        assert_eq!((to_u64(&events[1][1].1), &events[1][2]), (7, &(7, vec![8, 1])));
        assert_eq!(
            read_scalars(&writer.path),
            [
                (7, vec![("train/loss".to_string(), 3.25), ("train/learning_rate".to_string(), 1e-3)]),
                (1 << 40, vec![("train/loss".to_string(), -1.0)]),
            ]
        );
    }

    #[test]
    fn later_files_sort_later_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(next_name(folder.path(), 12).unwrap(), "events.out.tfevents.0000000012.remit");
        std::fs::write(folder.path().join("events.out.tfevents.0000000012.remit"), "").unwrap();
        assert_eq!(next_name(folder.path(), 12).unwrap(), "events.out.tfevents.0000000013.remit");
        assert_eq!(next_name(folder.path(), 3).unwrap(), "events.out.tfevents.0000000013.remit");
        assert_eq!(next_name(folder.path(), 40).unwrap(), "events.out.tfevents.0000000040.remit");
    }
}
