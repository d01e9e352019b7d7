//! The special tokens of a tokenizer, out of all the files that `transformers` 5 reads, in its order of precedence.
//!
//! `tokenizer_config.json` comes first. Where it has `added_tokens_decoder`, no other file is looked at. Where it has not,
//! `special_tokens_map.json` overrides its names, `added_tokens.json` adds tokens, and those of `tokenizer.json` count as
//! they stand there. Tokens that `tokenizer.json` lacks are added behind its vocabulary.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::Files;

/// The names that every tokenizer may have, in the order in which tokens are added.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Further tokens: a list, or an object of names. The older word for the list is `additional_special_tokens`.
const EXTRA: &str = "extra_special_tokens";
const ADDITIONAL: &str = "additional_special_tokens";

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Special {
    /// By key, `eos_token` and the like: the token's text; `None` where the key is there and null.
    named: BTreeMap<String, Option<AddedToken>>,
    /// Names beyond [`NAMES`], in the order of the file.
    own_names: Vec<String>,
    /// Tokens without a name.
    extra: Vec<AddedToken>,
    /// By the id that a file gives them.
    numbered: BTreeMap<u32, AddedToken>,
    /// They are the config's, beside which `tokenizer.json` does not say how named tokens match.
    is_decoder: bool,
    /// The file that names tokens, as far as errors tell.
    named_in: &'static str,
    /// Special tokens in a text are text.
    pub split: bool,
}

impl Special {
    /// Reads what stands beside `tokenizer.json`. An error says which file is wrong, and what is.
    /// `defaults` are names that hold where no file says anything of them.
    pub fn read(files: &Files, defaults: super::class::Defaults) -> Result<Special, (&'static str, String)> {
        let config = parse(files, super::CONFIG_FILE)?;
        let mut settings = config.unwrap_or_default();
        if let Some(additional) = settings.remove(ADDITIONAL) {
            settings.entry(EXTRA).or_insert(additional);
        }
        let mut special = Special { named_in: super::CONFIG_FILE, ..Special::default() };
        let wrong = |file| move |message| (file, message);
        if let Some(Value::Object(tokens)) = settings.get("added_tokens_decoder") {
            special.is_decoder = true;
            for (id, token) in tokens {
                let wrong = wrong(super::CONFIG_FILE);
                let number = id
                    .parse()
                    .map_err(|_| wrong(format!("`{id}` in its added_tokens_decoder is no token id")))?;
                let token = added_token(token, "added_tokens_decoder", false).map_err(wrong)?;
                special.numbered.insert(number, token);
            }
        } else {
            if let Some(map) = parse(files, super::SPECIAL_TOKENS_FILE)? {
                if NAMES.iter().any(|key| map.contains_key(*key)) {
                    special.named_in = super::SPECIAL_TOKENS_FILE;
                }
                merge(&mut settings, map);
            }
            if let Some(added) = parse(files, super::ADDED_TOKENS_FILE)? {
                special.numbered = numbered(added, &special_texts(&settings))?;
            }
        }
        for (key, text) in defaults {
            settings.entry(*key).or_insert_with(|| (*text).into());
        }
        let wrong = wrong(super::CONFIG_FILE);
        special.split = settings.get("split_special_tokens") == Some(&Value::Bool(true));
        let extra = settings.remove(EXTRA).unwrap_or_default();
        for (key, value) in &settings {
            let is_usual = NAMES.contains(&key.as_str());
            let is_token = value.is_string() || value.get("content").is_some();
            if is_usual && value.is_null() {
                special.named.insert(key.clone(), None);
            } else if is_usual || (key.ends_with("_token") && is_token) {
                special.name(key, value).map_err(wrong)?;
            }
        }
        match &extra {
            Value::Null => {}
            Value::Array(tokens) => {
                let tokens = tokens.iter().map(|token| added_token(token, EXTRA, false));
                special.extra = tokens.collect::<Result<_, _>>().map_err(wrong)?;
            }
            Value::Object(tokens) => {
                for (key, value) in tokens {
                    special.name(key, value).map_err(wrong)?;
                }
            }
            _ => return Err(wrong("its extra_special_tokens are neither a list nor an object".into())),
        }
        Ok(special)
    }

    fn name(&mut self, key: &str, value: &Value) -> Result<(), String> {
        self.named.insert(key.to_owned(), Some(added_token(value, key, true)?));
        if !NAMES.contains(&key) {
            self.own_names.push(key.to_owned());
        }
        Ok(())
    }

    /// The text of a named token; the outer `None` where no file has the key.
    pub fn named(&self, key: &str) -> Option<Option<&str>> {
        self.named.get(key).map(|token| token.as_ref().map(|token| token.content.as_str()))
    }

    /// Adds what `inner` lacks. An error says in which file a token is wrong, and why.
    pub fn add_to(&self, inner: &mut Inner) -> Result<(), (&'static str, String)> {
        let failed = |error: tokenizers::Error| (super::CONFIG_FILE, error.to_string());
        inner.add_tokens(self.numbered.values().cloned()).map_err(failed)?;
        for (&id, token) in &self.numbered {
            let text = &token.content;
            let own = inner.token_to_id(text);
            if own != Some(id) {
                let own = own.map_or("none".to_owned(), |own| own.to_string());
                let file = if self.is_decoder { super::CONFIG_FILE } else { super::ADDED_TOKENS_FILE };
                return Err((file, format!("it gives the token `{text}` the id {id}, and its id is {own}")));
            }
        }
        for key in ["eos_token", "bos_token"] {
            if let Some(Some(name)) = self.named(key)
                && inner.token_to_id(name).is_none()
            {
                let message = format!("its {key} `{name}` is not in the vocabulary");
                return Err((self.named_in, message));
            }
        }
        let known = inner.get_added_tokens_decoder();
        let keys = NAMES.into_iter().chain(self.own_names.iter().map(String::as_str));
        let named = keys.filter_map(|key| self.named.get(key)?.as_ref()).filter(|token| {
            let is_token = |other: &AddedToken| other.content == token.content;
            !self.numbered.values().any(is_token) && (self.is_decoder || !known.values().any(is_token))
        });
        let tokens: Vec<AddedToken> = named.chain(&self.extra).cloned().collect();
        inner.add_tokens(tokens).map_err(failed)?;
        Ok(())
    }
}

/// `special_tokens_map.json` goes before `tokenizer_config.json`; its extra tokens are added to the others.
fn merge(settings: &mut Map<String, Value>, map: Map<String, Value>) {
    for (key, value) in map {
        match (key.as_str(), value) {
            (EXTRA, Value::Array(more)) => match settings.get_mut(EXTRA) {
                Some(Value::Array(tokens)) => tokens.extend(more),
                _ => drop(settings.insert(key, Value::Array(more))),
            },
            (ADDITIONAL, value) => drop(settings.entry(EXTRA).or_insert(value)),
            (_, value) => drop(settings.insert(key, value)),
        }
    }
}

/// The tokens of `added_tokens.json` by id. Those that `special` names are special.
fn numbered(
    tokens: Map<String, Value>,
    special: &[String],
) -> Result<BTreeMap<u32, AddedToken>, (&'static str, String)> {
    let token = |(text, id): (String, Value)| {
        let wrong =
            || (super::ADDED_TOKENS_FILE, format!("the id of `{text}` is {id}, which is no token id"));
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong)?;
        Ok((id, AddedToken::from(text.as_str(), special.contains(&text))))
    };
    tokens.into_iter().map(token).collect()
}

/// The texts of all special tokens that settings name.
fn special_texts(settings: &Map<String, Value>) -> Vec<String> {
    let extra = settings.get(EXTRA).and_then(Value::as_array).into_iter().flatten();
    let named = NAMES.iter().filter_map(|key| settings.get(*key));
    named
        .chain(extra)
        .filter_map(|token| added_token(token, "", true).ok())
        .map(|token| token.content)
        .collect()
}

/// A token from its text, or from an object with its text as `content` and its ways of matching.
fn added_token(value: &Value, key: &str, special: bool) -> Result<AddedToken, String> {
    if let Value::String(text) = value {
        return Ok(AddedToken::from(text.as_str(), true));
    }
    let Some(content) = value.get("content").and_then(Value::as_str) else {
        return Err(format!("its {key} has {value}, which is neither text nor an object with `content`"));
    };
    let is = |key: &str| value.get(key).and_then(Value::as_bool);
    let special = is("special").unwrap_or(special);
    Ok(AddedToken {
        content: content.to_owned(),
        single_word: is("single_word").unwrap_or(false),
        lstrip: is("lstrip").unwrap_or(false),
        rstrip: is("rstrip").unwrap_or(false),
        normalized: is("normalized").unwrap_or(!special),
        special,
    })
}

/// The object in a file; none where the file is missing.
fn parse(files: &Files, name: &'static str) -> Result<Option<Map<String, Value>>, (&'static str, String)> {
    let Some(bytes) = files.get(name) else { return Ok(None) };
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err((name, "it is no JSON object".into())),
        Err(error) => Err((name, error.to_string())),
    }
}
