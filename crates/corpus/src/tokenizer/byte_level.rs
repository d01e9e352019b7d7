//! How byte-level BPE writes bytes as printable characters, after GPT-2's `bytes_to_unicode`.

/// The character that stands for each byte: itself where it is printable, otherwise one from U+0100 on.
pub(super) fn byte_characters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte as u8 as char,
        _ => {
            next += 1;
            char::from_u32(next - 1).expect("U+0100 to U+0143 are characters")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_characters_are_those_of_gpt_2() {
        let characters = byte_characters();
        assert_eq!((characters[b' ' as usize], characters[b'\n' as usize]), ('Ġ', 'Ċ'));
        assert_eq!((characters[0xAD], characters[0xFF], characters[b'a' as usize]), ('Ń', 'ÿ', 'a'));
        let theirs = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        assert!(characters.iter().all(|character| theirs.contains(character)) && theirs.len() == 256);
    }
}
