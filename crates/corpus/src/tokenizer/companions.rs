//! What lies beside a model and says how its text is read, written and rendered.

use std::path::Path;
use std::string::FromUtf8Error;

use serde_json::Value;

use super::{ADDED_TOKENS_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_FILE};
use crate::{Error, error};
use remit_store::atomic;

/// The file with the template of conversations.
const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";
/// The directory with further templates, one a file.
const CHAT_TEMPLATE_DIRECTORY: &str = "additional_chat_templates";
/// Files of a tokenizer in all formats, of which `remit` reads the first four.
const TOKENIZER_FILES: [&str; 9] = [
    TOKENIZER_FILE,
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    ADDED_TOKENS_FILE,
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
];

/// The files beside a model that a checkpoint trained from it takes along: the tokenizer's and the chat templates.
/// `generation_config.json` is not among them; it belongs to the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Companions {
    /// Names relative to the directory, with `/`, and bytes.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Companions {
    /// Those in a directory.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read(directory: &Path) -> Result<Companions, Error> {
        let mut files = Companions::chat_template_files(directory)?;
        for name in TOKENIZER_FILES {
            files.extend(read(directory, name)?.map(|bytes| (name.to_owned(), bytes)));
        }
        Ok(Companions { files })
    }

    /// The files with templates, the default first, the others in the order of their names.
    ///
    /// # Errors
    /// One that is there and cannot be read.
    pub fn chat_template_files(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let path = directory.join(CHAT_TEMPLATE_DIRECTORY);
        let mut names = Vec::new();
        match std::fs::read_dir(&path) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(|cause| error::io("read", &path, cause))?.file_name();
                    let name = name.to_str().filter(|name| name.ends_with(".jinja"));
                    names.extend(name.map(|name| format!("{CHAT_TEMPLATE_DIRECTORY}/{name}")));
                }
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(error::io("read", &path, cause)),
        }
        names.sort();
        names.insert(0, CHAT_TEMPLATE_FILE.to_owned());
        let mut files = Vec::new();
        for name in names {
            files.extend(read(directory, &name)?.map(|bytes| (name, bytes)));
        }
        Ok(files)
    }

    /// The chat template that goes by `default`.
    pub fn chat_template(&self) -> Option<String> {
        let config = self.files.iter().find(|(name, _)| name == CONFIG_FILE);
        let config = config.and_then(|(_, bytes)| serde_json::from_slice(bytes).ok()).unwrap_or_default();
        let templates = chat_templates(&self.files, &config).ok()?;
        templates.into_iter().find(|(name, _)| name == "default").map(|(_, source)| source)
    }

    /// Whether there is a `tokenizer.json`.
    pub fn has_tokenizer(&self) -> bool {
        self.files.iter().any(|(name, _)| name == TOKENIZER_FILE)
    }

    /// The same with `template` for conversations. Where it is not that of before, all others go: they are of another
    /// format, and readers might choose them in its stead.
    pub fn with_chat_template(mut self, template: Option<&str>) -> Companions {
        let Some(template) = template.filter(|template| self.chat_template().as_deref() != Some(*template))
        else {
            return self;
        };
        self.files
            .retain(|(name, _)| name != CHAT_TEMPLATE_FILE && !name.starts_with(CHAT_TEMPLATE_DIRECTORY));
        if let Some((_, bytes)) = self.files.iter_mut().find(|(name, _)| name == CONFIG_FILE)
            && let Ok(Value::Object(mut config)) = serde_json::from_slice(bytes)
            && config.remove("chat_template").is_some()
        {
            *bytes = serde_json::to_vec_pretty(&config).expect("it came from JSON");
        }
        self.files.push((CHAT_TEMPLATE_FILE.to_owned(), template.as_bytes().to_vec()));
        self
    }

    /// Writes them into a directory.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        self.files.iter().try_for_each(|(name, bytes)| {
            let path = directory.join(name);
            let parent = path.parent().expect("a file is in a directory");
            std::fs::create_dir_all(parent).map_err(|cause| error::io("make", parent, cause))?;
            atomic::write(&path, bytes)
        })
    }

    /// The same with the files of `other` over its own.
    pub fn over(mut self, other: Companions) -> Companions {
        self.files.retain(|(name, _)| !other.files.iter().any(|(others, _)| others == name));
        self.files.extend(other.files);
        self
    }
}

/// Chat templates by name, as `transformers` chooses them: `chat_template.jinja` (named `default`) and
/// `additional_chat_templates/*.jinja`; where there are none, those of `tokenizer_config.json`, which are one text, a
/// list of named ones, or an object. An error says which file is no text.
pub(super) fn chat_templates(
    files: &[(String, Vec<u8>)],
    config: &Value,
) -> Result<Vec<(String, String)>, (String, FromUtf8Error)> {
    let mut templates = Vec::new();
    for (file, bytes) in files {
        let further = file.strip_prefix(CHAT_TEMPLATE_DIRECTORY);
        if further.is_none() && file != CHAT_TEMPLATE_FILE {
            continue;
        }
        let name = further.map_or("default", |name| name.trim_start_matches('/').trim_end_matches(".jinja"));
        let source = String::from_utf8(bytes.clone()).map_err(|cause| (file.clone(), cause))?;
        templates.push((name.to_owned(), source));
    }
    if !templates.is_empty() {
        return Ok(templates);
    }
    let named = |name: &str, source: &Value| Some((name.to_owned(), source.as_str()?.to_owned()));
    Ok(match &config["chat_template"] {
        Value::Array(list) => {
            list.iter().filter_map(|one| named(one["name"].as_str()?, &one["template"])).collect()
        }
        Value::Object(object) => object.iter().filter_map(|(name, source)| named(name, source)).collect(),
        one => named("default", one).into_iter().collect(),
    })
}

/// A file of a directory; `None` where there is none.
pub(super) fn read(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let path = directory.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(error::io("read", &path, cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(directory: &Path) -> Vec<(String, String)> {
        let companions = Companions::read(directory).unwrap();
        let config = companions.files.iter().find(|(name, _)| name == CONFIG_FILE);
        let config = config.map_or(Value::Null, |(_, bytes)| serde_json::from_slice(bytes).unwrap());
        chat_templates(&companions.files, &config).unwrap()
    }

    fn pair(name: &str, source: &str) -> (String, String) {
        (name.to_owned(), source.to_owned())
    }

    /// Seen with `transformers`: files go before the config, all or nothing.
    #[test]
    fn templates_are_found_in_every_layout() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
        assert_eq!(names(home.path()), []);
        write(CONFIG_FILE, &json!({"chat_template": "one"}).to_string());
        assert_eq!(names(home.path()), [pair("default", "one")]);
        let both = [pair("default", "d"), pair("tool_use", "t")];
        let list = json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]);
        for several in [list, json!({"default": "d", "tool_use": "t"})] {
            write(CONFIG_FILE, &json!({ "chat_template": several }).to_string());
            assert_eq!(names(home.path()), both);
        }
        write(CHAT_TEMPLATE_FILE, "file");
        assert_eq!(names(home.path()), [pair("default", "file")]);
        std::fs::create_dir(home.path().join(CHAT_TEMPLATE_DIRECTORY)).unwrap();
        write("additional_chat_templates/rag.jinja", "r");
        write("additional_chat_templates/notes.txt", "no template");
        assert_eq!(names(home.path()), [pair("default", "file"), pair("rag", "r")]);
    }
}
