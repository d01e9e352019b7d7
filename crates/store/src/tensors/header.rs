//! What a safetensors header says, checked against the file it heads.
//!
//! The `safetensors` crate parses each tensor's entry; the checks are made here because every way in which a
//! download is cut or a disk lies deserves its own sentence, and because the crate lets a name occur twice.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo as RawInfo;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// The header is prefixed by its own length in so many bytes.
pub(super) const LENGTH_BYTES: usize = 8;
/// The format's own limit, against files that are something else.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// One tensor of a file.
#[derive(Debug)]
pub(super) struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Where its bytes are, counted from the start of the file; checked to lie within.
    pub range: Range<usize>,
}

/// Reads the header of a whole file.
///
/// # Errors
/// A sentence saying what is wrong, without the path.
pub(super) fn parse(file: &[u8]) -> Result<BTreeMap<String, Entry>, String> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(format!("it has {} bytes, too few for the header's length", file.len()));
    };
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > HEADER_BYTES_MAX {
        return Err(format!(
            "its header claims {header_bytes} bytes, more than the {HEADER_BYTES_MAX} the format allows"
        ));
    }
    let header_bytes = header_bytes as usize;
    let Some((header, data)) = rest.split_at_checked(header_bytes) else {
        return Err(format!("its header claims {header_bytes} bytes and only {} follow", rest.len()));
    };
    let header = std::str::from_utf8(header).map_err(|error| format!("its header is not UTF-8: {error}"))?;
    let Header { tensors } =
        serde_json::from_str(header).map_err(|error| format!("its header is not valid: {error}"))?;
    check(&tensors, data.len())?;
    let start = LENGTH_BYTES + header_bytes;
    Ok(tensors
        .into_iter()
        .map(|(name, RawInfo { dtype, shape, data_offsets: (from, to) })| {
            (name, Entry { dtype, shape, range: start + from..start + to })
        })
        .collect())
}

/// Every tensor takes the bytes its shape needs, and together they cover the data without gap or overlap.
fn check(tensors: &BTreeMap<String, RawInfo>, data_bytes: usize) -> Result<(), String> {
    let mut by_offset: Vec<_> = tensors.iter().collect();
    by_offset.sort_by_key(|(name, info)| (info.data_offsets, *name));
    let described_bytes = by_offset.last().map_or(0, |(_, info)| info.data_offsets.1);
    if described_bytes > data_bytes {
        return Err(format!(
            "its header describes {described_bytes} bytes of data and only {data_bytes} are there"
        ));
    }
    let mut expected = 0;
    for (name, info) in by_offset {
        let (from, to) = info.data_offsets;
        if from != expected || to < from {
            return Err(format!(
                "tensor `{name}` lies at bytes {from} to {to} of the data, but the tensor before it ends at {expected}"
            ));
        }
        let Some(bytes) = bytes_of(info) else {
            return Err(format!(
                "tensor `{name}` has shape {:?} of {}, which is not a number of bytes",
                info.shape, info.dtype
            ));
        };
        if to - from != bytes {
            return Err(format!(
                "tensor `{name}` has shape {:?} of {}, which takes {bytes} bytes, but {} are set aside",
                info.shape,
                info.dtype,
                to - from
            ));
        }
        expected = to;
    }
    if expected != data_bytes {
        return Err(format!("its header describes {expected} bytes of data and {data_bytes} are there"));
    }
    Ok(())
}

/// `None` where it overflows or is not whole.
fn bytes_of(info: &RawInfo) -> Option<usize> {
    let elements = info.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
    let bits = elements.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The header's JSON object.
struct Header {
    tensors: BTreeMap<String, RawInfo>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<Option<UniqueMap<String>>>()?;
                        continue;
                    }
                    let info = map.next_value().map_err(|error| {
                        serde::de::Error::custom(format_args!("tensor `{name}`: {error}"))
                    })?;
                    insert_once(&mut tensors, name, info)?;
                }
                Ok(Header { tensors })
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A JSON object in which a name occurs once; maps as `serde` reads them keep the last of equal names silently.
#[derive(Debug)]
pub(super) struct UniqueMap<V>(pub BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueMap<V>, D::Error> {
        struct MapVisitor<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for MapVisitor<V> {
            type Value = UniqueMap<V>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap<V>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    insert_once(&mut entries, name, value)?;
                }
                Ok(UniqueMap(entries))
            }
        }
        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

fn insert_once<V, E: serde::de::Error>(
    map: &mut BTreeMap<String, V>,
    name: String,
    value: V,
) -> Result<(), E> {
    if map.contains_key(&name) {
        return Err(E::custom(format_args!("`{name}` occurs twice")));
    }
    map.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use safetensors::SafeTensors;

    use super::*;

    /// A file of this header and so many bytes of data.
    fn file(header: &str, data_bytes: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 7);
        bytes
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;

    #[test]
    fn a_good_header_is_read() {
        let entries = parse(&file(TWO, 12)).unwrap();
        let start = LENGTH_BYTES + TWO.len();
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(entries["a"].range, start..start + 4);
        assert_eq!(entries["b"].range, start + 4..start + 12);
        assert_eq!((entries["b"].dtype, &entries["b"].shape[..]), (Dtype::F32, &[2, 1][..]));
    }

    #[test]
    fn each_damage_has_its_sentence() {
        let check = |bytes: Vec<u8>, expected: &str| {
            let message = parse(&bytes).unwrap_err();
            assert!(message.contains(expected), "{message:?} should contain {expected:?}");
        };
        let one = |entry: &str, data: usize| file(&format!(r#"{{"a":{entry}}}"#), data);
        check(vec![1, 2, 3], "it has 3 bytes, too few for the header's length");
        check(u64::MAX.to_le_bytes().to_vec(), "claims 18446744073709551615 bytes, more than the 100000000");
        check(file(TWO, 0)[..50].to_vec(), &format!("claims {} bytes and only 42 follow", TWO.len()));
        check(file(TWO, 11), "describes 12 bytes of data and only 11 are there");
        check(file(TWO, 13), "describes 12 bytes of data and 13 are there");
        check(file("{\"a\":", 0), "its header is not valid: tensor `a`: EOF while parsing");
        check(file("[1]", 0), "expected an object of tensors");
        check([&file("abcd", 0)[..8], &[0xff; 4]].concat(), "not UTF-8");
        check(
            one(r#"{"dtype":"F7","shape":[1],"data_offsets":[0,4]}"#, 4),
            "tensor `a`: unknown variant `F7`",
        );
        check(one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#, 4), "tensor `a`: invalid value");
        check(
            one(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#, 8),
            "shape [3] of F32, which takes 12 bytes, but 8 are set aside",
        );
        check(
            one(r#"{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,4]}"#, 4),
            "is not a number of bytes",
        );
        check(one(r#"{"dtype":"U8","shape":[1],"data_offsets":[3,4]}"#, 4), "the tensor before it ends at 0");
        check(one(r#"{"dtype":"U8","shape":[0],"data_offsets":[4,0]}"#, 4), "at bytes 4 to 0 of the data");
        let entry = r#"{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
        check(file(&format!(r#"{{"a":{entry},"a":{entry}}}"#), 4), "`a` occurs twice");
        check(file(&format!(r#"{{"a":{entry},"b":{entry}}}"#), 4), "tensor `b` lies at bytes 0 to 4");
    }

    /// The crate adds up the ends without checking, so this one would overflow there.
    #[test]
    fn offsets_at_the_end_of_the_address_space_are_refused() {
        let huge = usize::MAX;
        let entry = format!(r#"{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}}"#);
        let message = parse(&file(&format!(r#"{{"a":{entry}}}"#), 4)).unwrap_err();
        assert!(message.contains("and only 4 are there"), "{message}");
    }

    /// Values that break formats, mixed with ones that do not.
    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            5 => (0u64..20).prop_map(|number| number.to_string()),
            1 => Just(u64::MAX.to_string()),
            1 => Just("9223372036854775808".to_string()),
            1 => Just("-1".to_string()),
            1 => Just("1.5".to_string()),
            1 => Just("null".to_string()),
        ]
    }

    fn entry() -> impl Strategy<Value = String> {
        let dtype = prop_oneof![Just("F32"), Just("BF16"), Just("U8"), Just("F4"), Just("F99")];
        let name = prop_oneof![Just("a"), Just("b"), Just(""), Just("__metadata__")];
        (name, dtype, proptest::collection::vec(number(), 0..4), number(), number()).prop_map(
            |(name, dtype, shape, from, to)| {
                let shape = shape.join(",");
                format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{from},{to}]}}"#)
            },
        )
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&[&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat());
        }

        #[test]
        fn hostile_headers_never_panic(entries in proptest::collection::vec(entry(), 0..4), data in 0usize..40) {
            let _ = parse(&file(&format!("{{{}}}", entries.join(",")), data));
        }

        /// What passes here passes the reference parser, and one changed byte is judged alike (but for equal names,
        /// which the reference parser lets pass).
        #[test]
        fn one_changed_byte_is_judged_as_the_crate_does(place in 8usize..8 + TWO.len(), byte in 0x20u8..0x7f) {
            let mut bytes = file(TWO, 12);
            bytes[place] = byte;
            prop_assert_eq!(
                parse(&bytes).is_ok(),
                SafeTensors::deserialize(&bytes).is_ok(),
                "{}", String::from_utf8_lossy(&bytes)
            );
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = file(TWO, 12);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        assert!(parse(&whole).is_ok());
    }
}
