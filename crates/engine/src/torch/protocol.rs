//! Frames, as they go over the pipes of a worker.
//!
//! ```text
//! b"RMT1" | header length u32 | payload length u64 | header, a JSON object in UTF-8 | payload
//! ```
//!
//! All numbers are little-endian. `header["tensors"]` lists `{name, dtype, shape}` of the arrays of the payload, which
//! lie in it one after another, row-major and without padding. Nothing that a header claims is believed before it is
//! checked: buffers grow with what has arrived.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::{self, Read, Write};

const MAGIC: [u8; 4] = *b"RMT1";
const HEADER_BYTES_MAX: u64 = 64 << 20;
const PAYLOAD_BYTES_MAX: u64 = 1 << 40;
/// Bytes that are read and converted at a time.
const CHUNK: usize = 1 << 20;

/// The JSON object of a frame.
pub(crate) type Header = Map<String, Value>;

/// A message and its arrays.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Frame {
    pub header: Header,
    pub arrays: Vec<Array>,
}

/// A named array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// The elements of an array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
}

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The stream ends within a frame.
    #[error("the stream ends after {found} of {expected} bytes of a frame's {part}")]
    Truncated { part: &'static str, found: u64, expected: u64 },
    /// Something else than a frame.
    #[error("a frame begins with `{}`, not with `{found}`", MAGIC.escape_ascii())]
    Magic { found: String },
    /// More than is ever sent.
    #[error("a frame's {part} would have {found} bytes; at most {limit} are allowed")]
    TooLong { part: &'static str, found: u64, limit: u64 },
    /// A header that is no such object.
    #[error("a frame's header cannot be understood: {0}")]
    Header(String),
    /// Arrays and payload that do not belong together.
    #[error("a frame's arrays take {described} bytes, its payload has {found}")]
    Payload { described: String, found: u64 },
}

/// An array, as a header describes it.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dtype {
    F32,
    F64,
    U32,
    I64,
    U8,
}

impl Dtype {
    fn bytes(self) -> u64 {
        match self {
            Dtype::U8 => 1,
            Dtype::F32 | Dtype::U32 => 4,
            Dtype::F64 | Dtype::I64 => 8,
        }
    }
}

impl Description {
    /// Elements; `None` where that is no number of a machine.
    fn count(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size))
    }

    fn bytes(&self) -> Option<u64> {
        self.count()?.checked_mul(self.dtype.bytes())
    }
}

impl Values {
    fn dtype(&self) -> Dtype {
        match self {
            Values::F32(_) => Dtype::F32,
            Values::F64(_) => Dtype::F64,
            Values::U32(_) => Dtype::U32,
            Values::I64(_) => Dtype::I64,
            Values::U8(_) => Dtype::U8,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
            Values::U32(values) => values.len(),
            Values::I64(values) => values.len(),
            Values::U8(values) => values.len(),
        }
    }

    fn append_bytes(&self, bytes: &mut Vec<u8>) {
        match self {
            Values::F32(values) => values.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
            Values::F64(values) => values.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
            Values::U32(values) => values.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
            Values::I64(values) => values.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
            Values::U8(values) => bytes.extend(values),
        }
    }
}

impl Array {
    /// An array of the sizes `shape`.
    pub fn new(name: &str, shape: &[usize], values: Values) -> Array {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Array { name: name.to_owned(), shape: shape.to_vec(), values }
    }
}

/// The bytes of a frame.
pub(crate) fn encode(mut header: Header, arrays: &[Array]) -> Result<Vec<u8>, FrameError> {
    let describe = |array: &Array| Description {
        name: array.name.clone(),
        dtype: array.values.dtype(),
        shape: array.shape.iter().map(|&size| size as u64).collect(),
    };
    let descriptions: Vec<_> = arrays.iter().map(describe).collect();
    let payload = descriptions.iter().filter_map(Description::bytes).sum();
    check_length("payload", payload, PAYLOAD_BYTES_MAX)?;
    if !descriptions.is_empty() {
        let tensors = serde_json::to_value(descriptions).expect("names and numbers are JSON");
        header.insert("tensors".into(), tensors);
    }
    let header = serde_json::to_vec(&header).expect("a JSON object is JSON");
    check_length("header", header.len() as u64, HEADER_BYTES_MAX)?;
    let mut bytes = Vec::with_capacity(16 + header.len() + payload as usize);
    bytes.extend(MAGIC);
    bytes.extend((header.len() as u32).to_le_bytes());
    bytes.extend(payload.to_le_bytes());
    bytes.extend(header);
    arrays.iter().for_each(|array| array.values.append_bytes(&mut bytes));
    Ok(bytes)
}

/// Writes a frame that [`encode`] made.
pub(crate) fn write(writer: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    writer.write_all(frame)?;
    writer.flush()
}

/// The next frame; `None` where the stream ends before it.
pub(crate) fn read(reader: &mut impl Read) -> Result<Option<Frame>, FrameError> {
    let start = read_bytes(reader, 16, "first part")?;
    match start.len() {
        0 => return Ok(None),
        16 => {}
        found => return Err(truncated("first part", found as u64, 16)),
    }
    if start[..4] != MAGIC {
        return Err(FrameError::Magic { found: start[..].escape_ascii().to_string() });
    }
    let length = u64::from(u32::from_le_bytes(start[4..8].try_into().expect("four bytes")));
    let size = u64::from_le_bytes(start[8..].try_into().expect("eight bytes"));
    check_length("header", length, HEADER_BYTES_MAX)?;
    check_length("payload", size, PAYLOAD_BYTES_MAX)?;
    let text = read_bytes(reader, length, "header")?;
    if (text.len() as u64) < length {
        return Err(truncated("header", text.len() as u64, length));
    }
    let wrong = |error: serde_json::Error| FrameError::Header(error.to_string());
    let mut header: Header = serde_json::from_slice(&text).map_err(wrong)?;
    let tensors = header.remove("tensors").unwrap_or(Value::Array(Vec::new()));
    let descriptions: Vec<Description> = serde_json::from_value(tensors).map_err(wrong)?;
    let described =
        descriptions.iter().try_fold(0u64, |sum, description| sum.checked_add(description.bytes()?));
    if described != Some(size) {
        let described = described.map_or("too many".into(), |bytes| bytes.to_string());
        return Err(FrameError::Payload { described, found: size });
    }
    let arrays = descriptions.into_iter().map(|description| read_array(reader, description));
    Ok(Some(Frame { header, arrays: arrays.collect::<Result<_, _>>()? }))
}

fn check_length(part: &'static str, found: u64, limit: u64) -> Result<(), FrameError> {
    if found > limit { Err(FrameError::TooLong { part, found, limit }) } else { Ok(()) }
}

fn truncated(part: &'static str, found: u64, expected: u64) -> FrameError {
    FrameError::Truncated { part, found, expected }
}

/// Up to `length` bytes: fewer where the stream ends.
fn read_bytes(reader: &mut impl Read, length: u64, part: &'static str) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    match reader.take(length).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(truncated(part, bytes.len() as u64, length))
        }
        Err(error) => Err(error.into()),
    }
}

fn read_array(reader: &mut impl Read, description: Description) -> Result<Array, FrameError> {
    let count = description.count().expect("it has been checked");
    let values = match description.dtype {
        Dtype::F32 => Values::F32(read_values(reader, count, f32::from_le_bytes)?),
        Dtype::F64 => Values::F64(read_values(reader, count, f64::from_le_bytes)?),
        Dtype::U32 => Values::U32(read_values(reader, count, u32::from_le_bytes)?),
        Dtype::I64 => Values::I64(read_values(reader, count, i64::from_le_bytes)?),
        Dtype::U8 => Values::U8(read_values(reader, count, u8::from_le_bytes)?),
    };
    let shape = description.shape.iter().map(|&size| size as usize).collect();
    Ok(Array { name: description.name, shape, values })
}

/// `count` elements, a chunk of bytes at a time.
fn read_values<T, const WIDTH: usize>(
    reader: &mut impl Read,
    count: u64,
    convert: fn([u8; WIDTH]) -> T,
) -> Result<Vec<T>, FrameError> {
    let mut values = Vec::new();
    let mut left = count;
    while left > 0 {
        let now = left.min((CHUNK / WIDTH) as u64);
        let bytes = read_bytes(reader, now * WIDTH as u64, "payload")?;
        let (elements, _) = bytes.as_chunks::<WIDTH>();
        values.extend(elements.iter().map(|&element| convert(element)));
        if (elements.len() as u64) < now {
            return Err(truncated("payload", values.len() as u64 * WIDTH as u64, count * WIDTH as u64));
        }
        left -= now;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Header {
        let Value::Object(header) = value else { panic!("an object") };
        header
    }

    fn arrays() -> Vec<Array> {
        vec![
            Array::new("a", &[2, 1], Values::F32(vec![1.5, f32::NEG_INFINITY])),
            Array::new("b", &[0, 7], Values::U32(vec![])),
            Array::new("c", &[3], Values::U8(vec![0, 1, 255])),
            Array::new("d", &[], Values::I64(vec![-1])),
            Array::new("e", &[1], Values::F64(vec![std::f64::consts::PI])),
        ]
    }

    fn frame() -> Vec<u8> {
        encode(object(json!({"op": "é"})), &arrays()).unwrap()
    }

    /// A frame with a header as text and a payload of its own.
    fn raw(header: &str, claimed: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(claimed.to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(payload);
        bytes
    }

    fn error(bytes: &[u8]) -> String {
        read(&mut &bytes[..]).expect_err("no frame").to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = [frame(), frame()].concat();
        let mut stream = &bytes[..];
        for _ in 0..2 {
            let found = read(&mut stream).unwrap().expect("a frame");
            assert_eq!(found, Frame { header: object(json!({"op": "é"})), arrays: arrays() });
        }
        assert_eq!(read(&mut stream).unwrap(), None);
    }

    #[test]
    fn values_longer_than_a_chunk() {
        let values: Vec<f64> = (0..CHUNK / 8 + 5).map(|i| i as f64).collect();
        let array = Array::new("x", &[values.len()], Values::F64(values));
        let bytes = encode(Header::new(), std::slice::from_ref(&array)).unwrap();
        assert_eq!(read(&mut &bytes[..]).unwrap().unwrap().arrays, [array]);
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = frame();
        for end in 1..bytes.len() {
            let message = error(&bytes[..end]);
            assert!(message.starts_with("the stream ends after"), "{end}: {message}");
        }
        assert_eq!(error(&bytes[..20]).matches("4 of ").count(), 1);
    }

    #[test]
    fn garbage_is_named() {
        let message = error(b"Traceback (most recent call last)");
        assert_eq!(message, "a frame begins with `RMT1`, not with `Traceback (most `");
    }

    #[test]
    fn claims_are_checked_before_they_are_believed() {
        let mut header = MAGIC.to_vec();
        header.extend(u32::MAX.to_le_bytes());
        header.extend(0u64.to_le_bytes());
        assert_eq!(
            error(&header),
            "a frame's header would have 4294967295 bytes; at most 67108864 are allowed"
        );
        assert_eq!(
            error(&raw("{}", u64::MAX, &[])),
            "a frame's payload would have 18446744073709551615 bytes; at most 1099511627776 are allowed"
        );
        // Within the limits, but nothing of it is there: the end is found without an allocation of that size.
        let tensors =
            |shape: &str| format!("{{\"tensors\":[{{\"name\":\"x\",\"dtype\":\"u8\",\"shape\":{shape}}}]}}");
        assert_eq!(
            error(&raw(&tensors("[1099511627776]"), 1 << 40, &[1, 2])),
            "the stream ends after 2 of 1099511627776 bytes of a frame's payload"
        );
        for (shape, claimed, described) in
            [("[4]", 3, "4"), ("[]", 0, "1"), ("[18446744073709551615,18446744073709551615]", 0, "too many")]
        {
            assert_eq!(
                error(&raw(&tensors(shape), claimed, &[0; 8])),
                format!("a frame's arrays take {described} bytes, its payload has {claimed}")
            );
        }
        let text = "{\"tensors\":[{\"name\":\"x\",\"dtype\":\"f64\",\"shape\":[4611686018427387904]}]}";
        assert!(error(&raw(text, 0, &[])).contains("take too many bytes"));
    }

    #[test]
    fn headers_that_are_none() {
        for text in [
            "[]",
            "{",
            "\u{1}",
            "{\"tensors\":3}",
            "{\"tensors\":[{\"name\":\"x\",\"dtype\":\"f16\",\"shape\":[1]}]}",
            "{\"tensors\":[{\"name\":\"x\",\"dtype\":\"f32\",\"shape\":[-1]}]}",
            "{\"tensors\":[{\"dtype\":\"f32\",\"shape\":[1]}]}",
        ] {
            let message = error(&raw(text, 4, &[0; 4]));
            assert!(message.starts_with("a frame's header cannot be understood: "), "{text}: {message}");
        }
        let mut bytes = raw("{}", 0, &[]);
        bytes[16] = 0xff;
        assert!(error(&bytes).starts_with("a frame's header cannot be understood: "));
    }
}
