//! What can be wrong with settings, where it stands, and what to do about it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use unicode_width::UnicodeWidthStr;

/// Why settings could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The recipe cannot be read.
    #[error("cannot read the recipe `{}`", path.display())]
    Read {
        /// The recipe.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The recipe is not TOML.
    #[error("the recipe is not valid TOML: {message}{place}")]
    Syntax {
        /// What the parser says.
        message: String,
        /// Where.
        place: Box<Place>,
    },
    /// The recipe has a table that belongs to no stage.
    #[error("unknown table `[{name}]`{place}")]
    UnknownSection {
        /// The table.
        name: String,
        /// The tables a recipe may have.
        known: Vec<String>,
        /// Where.
        place: Box<Place>,
    },
    /// The recipe has a setting in front of its first table.
    #[error("`{key}` stands outside of any table{place}")]
    OutsideTable {
        /// The setting.
        key: String,
        /// The tables a recipe may have.
        known: Vec<String>,
        /// Where.
        place: Box<Place>,
    },
    /// No setting has this name.
    #[error("unknown key `{key}`{place}")]
    UnknownKey {
        /// The full dotted name.
        key: String,
        /// The table it stands in.
        table: String,
        /// The name that was probably meant.
        nearest: Option<String>,
        /// The names there are in this table.
        allowed: Vec<String>,
        /// Where.
        place: Box<Place>,
    },
    /// A setting that chooses among names has none of them.
    #[error("`{key}` has the unknown value `{found}`{place}")]
    UnknownChoice {
        /// The full dotted name.
        key: String,
        /// Its value.
        found: String,
        /// The values there are.
        allowed: Vec<String>,
        /// Where.
        place: Box<Place>,
    },
    /// A setting without a default is not set.
    #[error("`{key}` is not set, and it has no default{place}")]
    Missing {
        /// The full dotted name.
        key: String,
        /// The table it belongs to.
        table: String,
        /// Its name in that table.
        name: String,
        /// The table's place.
        place: Box<Place>,
        /// The recipe, if there is one.
        recipe: Option<PathBuf>,
    },
    /// A setting has a value of another type.
    #[error("`{key}` must be {expected}, not {found}{place}")]
    WrongType {
        /// The full dotted name.
        key: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
        /// Where.
        place: Box<Place>,
    },
    /// A setting has a value that it cannot have.
    #[error("`{key}` is not right: {message}{place}")]
    Invalid {
        /// The full dotted name.
        key: String,
        /// What is wrong with it.
        message: String,
        /// Where.
        place: Box<Place>,
    },
    /// A path begins with `~/`, and nothing says where that is.
    #[error("a path begins with `~/`, and the variable HOME is not set")]
    NoHome,
    /// An override without a value.
    #[error("`{argument}` on the command line has no value")]
    NoValue {
        /// The argument.
        argument: String,
    },
    /// An override whose name is not a dotted name.
    #[error("`{argument}` on the command line is not a dotted name with a value")]
    Malformed {
        /// The argument.
        argument: String,
    },
    /// An override that is not Unicode text.
    #[error("`{argument}` on the command line is not Unicode text")]
    NotUnicode {
        /// The argument, with its foreign bytes replaced.
        argument: String,
    },
    /// An override of something inside a value that has no inside.
    #[error("`{key}` is {found} and has no `{inside}` inside, on the command line (`{argument}`)")]
    NothingInside {
        /// The full dotted name of the value.
        key: String,
        /// What was looked for in it.
        inside: String,
        /// The value.
        found: String,
        /// The argument.
        argument: String,
    },
    /// An override of an array element that is not there.
    #[error("`{key}` has no element `{element}`, on the command line (`{argument}`)")]
    NoElement {
        /// The full dotted name of the array.
        key: String,
        /// The index that was asked for.
        element: String,
        /// How many elements there are.
        len: usize,
        /// The argument.
        argument: String,
    },
    /// The resolved settings do not fit into TOML, such as a whole number beyond 64 bits.
    #[error("the settings of `[{section}]` cannot be written as TOML")]
    Unwritable {
        /// The table.
        section: String,
        /// Why not.
        source: toml::ser::Error,
    },
}

impl SettingsError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            SettingsError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("paths are relative to the current directory".to_string())
            }
            SettingsError::Read { .. } | SettingsError::Syntax { .. } | SettingsError::Unwritable { .. } => {
                None
            }
            SettingsError::UnknownSection { name, known, .. } => {
                let tables: Vec<String> = known.iter().map(|name| format!("[{name}]")).collect();
                let nearest = nearest(name, known.iter().map(String::as_str));
                let meant = nearest.map(|name| format!("did you mean `[{name}]`? "));
                Some(format!("{}a recipe may have {}", meant.unwrap_or_default(), quoted(&tables)))
            }
            SettingsError::OutsideTable { known, .. } => Some(format!(
                "put it under the table of its stage, one of {}",
                quoted(&known.iter().map(|name| format!("[{name}]")).collect::<Vec<_>>())
            )),
            SettingsError::UnknownKey { table, nearest, allowed, .. } => {
                let meant = nearest.as_ref().map(|name| format!("did you mean `{name}`? "));
                let keys = match &allowed[..] {
                    [] => format!("`{table}` has no settings"),
                    keys => format!("the keys of `{table}` are {}", quoted(keys)),
                };
                Some(meant.unwrap_or_default() + &keys)
            }
            SettingsError::UnknownChoice { found, allowed, .. } => {
                let meant = nearest(found, allowed.iter().map(String::as_str));
                let meant = meant.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
                Some(format!("{meant}the choices are {}", quoted(allowed)))
            }
            SettingsError::Missing { key, table, name, recipe, .. } => Some(match recipe {
                Some(recipe) => {
                    let recipe = recipe.display();
                    format!("set `{name}` under `[{table}]` in `{recipe}`, or give `--{key}=VALUE`")
                }
                None => format!("give `--{key}=VALUE`, or a recipe with `--config FILE.toml`"),
            }),
            SettingsError::WrongType { key, expected, found, place } => {
                wrong_type(key, expected, found, place)
            }
            SettingsError::Invalid { .. } => None,
            SettingsError::NoHome => Some("write the path out".to_string()),
            SettingsError::NoValue { argument } => Some(format!(
                "write `--{}=VALUE`, with `=` where the value starts with two dashes",
                argument.trim_start_matches("--")
            )),
            SettingsError::Malformed { .. } => Some(
                "write `--section.key=VALUE`, such as `--midtrain.optimizer.learning_rate=1e-3`".to_string(),
            ),
            SettingsError::NotUnicode { .. } => {
                Some("settings are Unicode; rename the file it names".to_string())
            }
            SettingsError::NothingInside { key, .. } => Some(format!("set `--{key}=VALUE` as a whole")),
            SettingsError::NoElement { len, .. } => Some(match len {
                0 => "the array is empty".to_string(),
                len => format!("elements count from 0 to {}", len - 1),
            }),
        }
    }
}

fn wrong_type(key: &str, expected: &str, found: &str, place: &Place) -> Option<String> {
    let quoted = found.rsplit('`').nth(1);
    if expected.starts_with("a whole number") && quoted.is_some_and(|text| text.contains(['.', 'e'])) {
        return Some("write whole numbers without a fraction or exponent, such as 1_000_000".to_string());
    }
    if expected.contains("string") && matches!(place, Place::CommandLine { .. }) {
        let text = quoted.unwrap_or("TEXT");
        return Some(format!("quote it twice: `--{key}='\"{text}\"'`"));
    }
    if expected.contains("string") && found.starts_with("the number") {
        return Some("put it in quotes".to_string());
    }
    None
}

/// Where a setting was written. Displays as the end of a sentence: ` at recipe.toml:3:1` and the line itself with the
/// place marked, or ` on the command line (...)`, or nothing for defaults.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// In a recipe.
    File {
        /// The recipe.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// The line's text.
        text: String,
        /// How many characters of the line are meant, at least one.
        num_chars: usize,
    },
    /// On the command line.
    CommandLine {
        /// The override.
        argument: String,
    },
    /// Not written anywhere.
    Defaults,
}

impl Place {
    /// The place of the bytes `span` of the file's `text`.
    pub(super) fn in_text(path: &Path, text: &str, span: Range<usize>) -> Place {
        // Spans of an incomplete file may point at its end or, after an odd character, into the middle of one.
        let floor =
            |at: usize| (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let (start, end) = (floor(span.start), floor(span.end));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_text = text[line_start..].lines().next().unwrap_or("");
        let line_end = line_start + line_text.len();
        Place::File {
            path: path.to_path_buf(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: line_text.to_string(),
            num_chars: text[start..end.clamp(start, line_end.max(start))].chars().count().max(1),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line, column, text, num_chars } => {
                let before: String = text.chars().take(column - 1).collect();
                let marked: String = text.chars().skip(column - 1).take(*num_chars).collect();
                let text = text.replace('\t', " ");
                let gutter = " ".repeat(line.to_string().len());
                let (indent, width) = (before.replace('\t', " ").width(), marked.width().max(1));
                write!(f, " at {}:{line}:{column}", path.display())?;
                write!(f, "\n  {line} | {text}\n  {gutter} | {}{}", " ".repeat(indent), "^".repeat(width))
            }
            Place::CommandLine { argument } => {
                write!(f, " on the command line (`--{}`)", argument.trim_start_matches("--"))
            }
            Place::Defaults => Ok(()),
        }
    }
}

/// The candidate that `word` was probably meant to be, if one is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let allowed_distance = (word.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= allowed_distance)
        .min()
        .map(|(_, candidate)| candidate.to_string())
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
