//! Where a long document is cut for tokenization.

/// The longest piece of text given to the tokenizer at once.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// The longest piece of a raw token array.
pub(crate) const PIECE_TOKENS: usize = 1 << 18;

/// A part of a document, or all of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub content: Content,
    /// It begins a document.
    pub first: bool,
    /// It ends a document.
    pub last: bool,
}

/// What a piece is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Text(String),
    Tokens(Vec<u32>),
}

impl Content {
    /// Bytes in memory.
    pub fn size(&self) -> usize {
        match self {
            Content::Text(text) => text.len(),
            Content::Tokens(tokens) => tokens.len() * 4,
        }
    }
}

/// Where to cut the text that begins with `text`: `None` when it fits in one piece. Looks at no more than
/// [`PIECE_BYTES`] + 1 bytes, so that a reader which has that many cuts as one that has the whole document.
///
/// Best is the start of a line between two lines that touch it with something other than white space: there
/// pre-tokenizers part words anyway, and the tokens are those of the uncut text. Otherwise any start of a line in the
/// second half, otherwise between any two characters.
pub(crate) fn cut(text: &[u8]) -> Option<usize> {
    if text.len() <= PIECE_BYTES {
        return None;
    }
    let head = &text[..PIECE_BYTES];
    let starts = || memchr::memrchr_iter(b'\n', head).map(|i| i + 1).take_while(|&i| i > PIECE_BYTES / 2);
    let is_clean = |&i: &usize| !text[i - 2].is_ascii_whitespace() && !text[i].is_ascii_whitespace();
    starts().find(is_clean).or_else(|| starts().next()).or_else(|| {
        // The first byte of a character; at most three bytes follow it.
        (PIECE_BYTES - 3..=PIECE_BYTES).rev().find(|&i| text[i] & 0xC0 != 0x80).or(Some(PIECE_BYTES))
    })
}

/// Cuts a document held in memory.
pub(crate) fn cut_all(text: String) -> Vec<Piece> {
    if text.len() <= PIECE_BYTES {
        return vec![Piece { content: Content::Text(text), first: true, last: true }];
    }
    let mut pieces = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = cut(rest.as_bytes()) {
        let content = Content::Text(rest[..at].to_owned());
        pieces.push(Piece { content, first: pieces.is_empty(), last: false });
        rest = &rest[at..];
    }
    pieces.push(Piece { content: Content::Text(rest.to_owned()), first: false, last: true });
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_is_not_cut() {
        assert_eq!(cut("a\n".repeat(PIECE_BYTES / 2).as_bytes()), None);
    }

    #[test]
    fn lines_are_cut_between_words() {
        let text = format!("{}\n  x\n\n  ", "word\n".repeat(PIECE_BYTES / 5 - 2));
        let pieces = cut_all(text.clone() + &"y".repeat(PIECE_BYTES));
        assert!(pieces.len() >= 2);
        let Content::Text(first) = &pieces[0].content else { panic!("text stays text") };
        assert!(first.ends_with("word\n"), "{:?}", &first[first.len() - 12..]);
        let Content::Text(second) = &pieces[1].content else { panic!("text stays text") };
        assert!(second.starts_with("word\n\n  x\n\n  y"), "blank and indented lines are no place to cut");
    }

    #[test]
    fn a_line_without_end_is_cut_between_characters() {
        let text = "é€𝄞".repeat(PIECE_BYTES / 4);
        let pieces = cut_all(text.clone());
        let joined: String = pieces
            .iter()
            .map(|piece| match &piece.content {
                Content::Text(text) => text.as_str(),
                Content::Tokens(_) => panic!("text stays text"),
            })
            .collect();
        assert_eq!(joined, text);
        assert_eq!(pieces.iter().filter(|piece| piece.first).count(), 1);
        assert!(pieces[0].first && pieces.last().unwrap().last);
    }
}
