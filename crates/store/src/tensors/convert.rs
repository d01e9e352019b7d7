//! Elements between file and memory. Files are little-endian.

use half::f16;

/// The bfloat16 nearest to `value`, ties to even. What came from a bfloat16 goes back to the same bits, NaN payloads
/// included, which rules out the usual quieting of NaN.
pub(super) fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let upper = (bits >> 16) as u16;
    if !value.is_nan() {
        // Adding just under half of the last kept place, or exactly half where that place is odd, carries into it
        // exactly when rounding to nearest even goes up. The largest float becomes infinity, as it should.
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
    } else if upper & 0x7f != 0 {
        upper
    } else {
        upper | 0x40 // the payload lay in the lower half: without this bit it would read as infinity
    }
}

/// Decodes little-endian float32. `out` has a quarter of the length of `bytes`.
pub(super) fn from_f32(bytes: &[u8], out: &mut [f32]) {
    decode(bytes, out, f32::from_le_bytes);
}

/// Decodes little-endian bfloat16, exactly. `out` has half the length of `bytes`.
pub(super) fn from_bf16(bytes: &[u8], out: &mut [f32]) {
    decode(bytes, out, |pair| f32::from_bits(u32::from(u16::from_le_bytes(pair)) << 16));
}

/// Decodes little-endian float16, exactly. `out` has half the length of `bytes`.
pub(super) fn from_f16(bytes: &[u8], out: &mut [f32]) {
    decode(bytes, out, |pair| f16::from_le_bytes(pair).to_f32());
}

/// Encodes one element after the other. `bytes` has `SIZE` bytes an element.
pub(super) fn encode<const SIZE: usize>(
    values: &[f32],
    bytes: &mut [u8],
    element: impl Fn(f32) -> [u8; SIZE],
) {
    assert_eq!(bytes.len(), values.len() * SIZE, "{SIZE} bytes an element");
    for (encoded, &value) in bytes.chunks_exact_mut(SIZE).zip(values) {
        encoded.copy_from_slice(&element(value));
    }
}

/// One element after the other, from bytes that need not be aligned.
fn decode<const SIZE: usize>(bytes: &[u8], out: &mut [f32], element: impl Fn([u8; SIZE]) -> f32) {
    assert_eq!(bytes.len(), out.len() * SIZE, "one output an element");
    for (value, encoded) in out.iter_mut().zip(bytes.chunks_exact(SIZE)) {
        *value = element(encoded.try_into().expect("chunks are of this size"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bf16_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            let mut value = [0.0];
            from_bf16(&bits.to_le_bytes(), &mut value);
            assert_eq!(bf16_bits(value[0]), bits, "{bits:#06x}");
        }
    }

    /// Halfway between two neighbours goes to the even one, anything beyond halfway to the nearer one.
    #[test]
    fn bf16_rounds_to_nearest_even() {
        let cases: [(u32, u16); 9] = [
            (0x3f80_8000, 0x3f80), // tie, even below
            (0x3f80_8001, 0x3f81),
            (0x3f81_8000, 0x3f82), // tie, even above
            (0x3f81_7fff, 0x3f81),
            (0xbf81_8000, 0xbf82),
            (0x7f7f_ffff, 0x7f80), // the largest float32 rounds to infinity
            (0xff80_0000, 0xff80),
            (0x7f80_0001, 0x7fc0), // NaN stays NaN
            (0x0000_8001, 0x0001), // subnormal
        ];
        for (bits, expected) in cases {
            assert_eq!(bf16_bits(f32::from_bits(bits)), expected, "{bits:#010x}");
        }
    }

    #[test]
    fn f16_and_f32_decode_from_unaligned_bytes() {
        let mut halves = vec![0u8];
        let mut singles = vec![0u8];
        for value in [1.5f32, -0.25, 65504.0] {
            halves.extend(f16::from_f32(value).to_le_bytes());
            singles.extend(value.to_le_bytes());
        }
        let mut out = [0.0; 3];
        from_f16(&halves[1..], &mut out);
        assert_eq!(out, [1.5, -0.25, 65504.0]);
        from_f32(&singles[1..], &mut out);
        assert_eq!(out, [1.5, -0.25, 65504.0]);
    }
}
