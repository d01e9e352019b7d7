//! Texts that stand one behind the other: their ids as one text, and where each ends.
//!
//! Some tokenizers put a blank in front of every text (the normalizer `Prepend`, `Metaspace` with `first` or `always`,
//! `ByteLevel` with `add_prefix_space`). A text that goes on behind another must not get one.

use serde_json::Value;
use tokenizers::Tokenizer as Inner;

use super::{Tokenizer, failed};
use crate::Error;

impl Tokenizer {
    /// The ids of texts that stand one behind the other, and how many ids there are up to the end of each.
    ///
    /// They are those of the whole text, wherever the ids of the text up to the end of a part are a beginning of them. A
    /// token that reaches across such an end is taken apart: the text before it has the ids that it has by itself, as
    /// generation meets them that goes on behind it, and the text behind it follows without a blank of its own.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_parts(&self, parts: &[&str]) -> Result<(Vec<u32>, Vec<usize>), Error> {
        let text = parts.concat();
        let mut ids = self.encode(&text)?;
        let mut ends = Vec::with_capacity(parts.len());
        // Up to here the ids are settled: where the last token was taken apart.
        let (mut settled, mut from, mut at) = (Vec::new(), 0, 0);
        for part in parts {
            at += part.len();
            if at == text.len() {
                ends.push(ids.len());
                continue;
            }
            let mut head = settled.clone();
            head.extend(self.encode_from(from, &text[from..at])?);
            if !ids.starts_with(&head) {
                ids.clone_from(&head);
                ids.extend(self.encode_from(at, &text[at..])?);
                settled.clone_from(&head);
                from = at;
            }
            ends.push(head.len());
        }
        Ok((ids, ends))
    }

    /// The ids of `text` that begins at `from` in a longer one.
    fn encode_from(&self, from: usize, text: &str) -> Result<Vec<u32>, Error> {
        if from == 0 { self.encode(text) } else { self.encode_behind(text) }
    }

    /// The ids of `text` behind other text: without the blank that the tokenizer puts in front of a text.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_behind(&self, text: &str) -> Result<Vec<u32>, Error> {
        let Some(unprefixed) = &self.unprefixed else { return self.encode(text) };
        let encoding = unprefixed.encode(text, false).map_err(failed)?;
        let added = unprefixed.get_added_vocabulary().get_added_tokens_decoder();
        let mut ids = encoding.get_ids().to_vec();
        // Behind an added token the tokenizer may begin anew, so from there on its own rule holds.
        if let Some(first) = ids.iter().position(|id| added.contains_key(id)) {
            ids.truncate(first);
            ids.extend(self.encode(&text[encoding.get_offsets()[first].0..])?);
        }
        Ok(ids)
    }
}

/// The same tokenizer without the blank in front of a text; `None` where it puts none.
pub(super) fn unprefixed(json: &Value, inner: &Inner) -> Result<Option<Inner>, Error> {
    let (mut normalizer, mut pre_tokenizer) = (json["normalizer"].clone(), json["pre_tokenizer"].clone());
    let changed = [without_prefix(&mut normalizer), without_prefix(&mut pre_tokenizer)];
    if changed == [false, false] {
        return Ok(None);
    }
    let wrong = |error: serde_json::Error| failed(error.into());
    let mut inner = inner.clone();
    inner
        .with_normalizer(
            serde_json::from_value::<Option<tokenizers::NormalizerWrapper>>(normalizer).map_err(wrong)?,
        )
        .map_err(failed)?;
    inner.with_pre_tokenizer(
        serde_json::from_value::<Option<tokenizers::PreTokenizerWrapper>>(pre_tokenizer).map_err(wrong)?,
    );
    Ok(Some(inner))
}

/// Takes out of a normalizer or pre-tokenizer what it does at the beginning of a text; whether there was anything.
fn without_prefix(step: &mut Value) -> bool {
    let mut changed = false;
    for list in ["normalizers", "pretokenizers"] {
        if let Some(Value::Array(steps)) = step.get_mut(list) {
            for step in &mut *steps {
                changed |= without_prefix(step);
            }
            steps.retain(|step| !step.is_null());
        }
    }
    let settings: &[(&str, Value)] = match step["type"].as_str() {
        Some("Prepend") => {
            *step = Value::Null;
            return true;
        }
        Some("Metaspace") => {
            // The older way to say it.
            step.as_object_mut().expect("it has a type").remove("add_prefix_space");
            &[("prepend_scheme", "never".into())]
        }
        Some("ByteLevel") => &[("add_prefix_space", false.into())],
        Some("Strip") => &[("strip_left", false.into())],
        _ => &[],
    };
    for (key, value) in settings {
        if step.get(*key) != Some(value) {
            step[*key] = value.clone();
            changed = true;
        }
    }
    changed
}
