//! Content hashes of what a user gives: the same content has the same hash wherever it lies.

use crate::Error;
use remit_corpus::{Companions, TokenStore, Tokenizer, files_at};
use remit_store::hash::{hash_bytes, hash_checkpoint, hash_file};
use std::path::Path;

/// Files beside a model that a stage starting from it reads.
const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "state/optimizer.safetensors",
    "state/parameters.safetensors",
    "state/progress.json",
];

/// Of the files that `path` means, in their order, with what their names say of their format.
pub(crate) fn hash_files(key: &str, path: &Path) -> Result<String, Error> {
    let files = files_at(path)?;
    if files.is_empty() {
        return Err(Error::NoFile { key: key.to_owned(), path: path.to_owned() });
    }
    let mut text = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ending = name.split_once('.').map_or("", |(_, ending)| ending);
        text += &format!("{ending} {}\n", hash_file(&file)?);
    }
    Ok(hash_bytes(text.as_bytes()))
}

/// Of a checkpoint with what lies beside its model.
pub(crate) fn hash_model(checkpoint: &Path) -> Result<String, Error> {
    let mut text = hash_checkpoint(checkpoint)?;
    let templates = Companions::chat_template_files(checkpoint)?.into_iter().map(|(name, _)| name);
    let templates = templates.filter(|name| !COMPANIONS.contains(&name.as_str()));
    for name in COMPANIONS.map(str::to_owned).into_iter().chain(templates) {
        let path = checkpoint.join(&name);
        if path.is_file() {
            text += &format!("\n{name} {}", hash_file(&path)?);
        }
    }
    Ok(hash_bytes(text.as_bytes()))
}

/// Of a tokenizer: a `tokenizer.json` or a directory with one, and the files beside it that say what its ids are.
pub(crate) fn hash_tokenizer(path: &Path) -> Result<String, Error> {
    let text: String = Tokenizer::open(path)?.files().map(|(_, bytes)| hash_bytes(bytes)).collect();
    Ok(hash_bytes(text.as_bytes()))
}

/// Of a token store.
pub(crate) fn hash_store(path: &Path) -> Result<String, Error> {
    Ok(TokenStore::open(path)?.content_hash().to_owned())
}
