//! The one place where errors and warnings are shown, and where exit codes are decided.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | what was asked for could not be done: files, data, settings, disk; the message says what and the hint what to do |
//! | 2 | the command line itself was not understood |
//! | 70 | a fault of this program: an assertion failed |
//! | 128 + n | ended by signal n, as the shell reports it |

use std::error::Error;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;

use serde::Serialize;

use super::style::{Colours, Ink};
use crate::settings::SettingsError;

/// An error that knows what to do about itself.
pub trait Hint: Error + Send + Sync + Sized + 'static {
    /// The advice, apart from the message.
    fn advice(&self) -> Option<String>;

    /// The exit code when a command ends with this error.
    fn exit_code(&self) -> Code {
        Code::Failed
    }
}

/// Makes [`Hint`]s of error types that have a `hint` method of their own.
#[macro_export]
macro_rules! hints {
    ($($error:ty),* $(,)?) => {
        $(impl $crate::render::error::Hint for $error {
            fn advice(&self) -> Option<String> {
                self.hint()
            }
        })*
    };
}

impl Hint for SettingsError {
    fn advice(&self) -> Option<String> {
        self.hint()
    }

    fn exit_code(&self) -> Code {
        match self {
            SettingsError::NoValue { .. }
            | SettingsError::Malformed { .. }
            | SettingsError::NotUnicode { .. } => Code::Usage,
            _ => Code::Failed,
        }
    }
}

/// Why a command ended. Any error with a [`Hint`] becomes one by `?`.
#[derive(Debug)]
pub struct Failure {
    /// What the command was about when it happened, outermost first.
    contexts: Vec<String>,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
    code: Code,
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// What was asked for could not be done.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
    /// A fault of this program.
    Bug = 70,
}

impl<E: Hint> From<E> for Failure {
    fn from(error: E) -> Failure {
        let (hint, code) = (error.advice(), error.exit_code());
        Failure { contexts: Vec::new(), error: Box::new(error), hint, code }
    }
}

impl Failure {
    /// A failure without advice, from an error or a message.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure { contexts: Vec::new(), error: error.into(), hint: None, code: Code::Failed }
    }

    /// A command line that was not understood.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: Code::Usage, ..Failure::new(message.into()) }
    }

    /// The same with this advice.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// The same, shown as the cause of `message`.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Failure {
        self.contexts.insert(0, message.into());
        self
    }

    /// The exit code of a program that ends with this.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Shows it on stderr, as JSON in one line with `json`.
    pub fn report(&self, json: bool) {
        if json {
            eprintln!("{}", self.to_json());
        } else {
            eprint!("{}", self.to_text(Colours::of_stderr()));
        }
    }

    /// `error: ...`, its causes and the hint, a line each.
    pub fn to_text(&self, colours: Colours) -> String {
        let messages = self.messages();
        let mut text = format!("{}: {}\n", colours.paint(Ink::Error, "error"), messages[0]);
        for cause in &messages[1..] {
            text += &format!("  {}: {cause}\n", colours.paint(Ink::Quiet, "caused by"));
        }
        if let Some(hint) = &self.hint {
            text += &format!("{}: {hint}\n", colours.paint(Ink::Hint, "hint"));
        }
        text
    }

    fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Report<'a> {
            error: &'a str,
            causes: &'a [String],
            hint: Option<&'a str>,
        }
        let messages = self.messages();
        let report = Report { error: &messages[0], causes: &messages[1..], hint: self.hint.as_deref() };
        serde_json::to_string(&report).expect("strings are always JSON")
    }

    /// The message and its causes. A cause that the message before it already ends with is not repeated.
    fn messages(&self) -> Vec<String> {
        let mut messages = self.contexts.clone();
        let mut next: Option<&dyn Error> = Some(self.error.as_ref());
        while let Some(error) = next {
            let message = error.to_string();
            if !messages.last().is_some_and(|last| last.ends_with(&message)) {
                messages.push(message);
            }
            next = error.source();
        }
        messages
    }
}

/// Shows a warning on stderr: something was accepted, but perhaps not as it was meant.
pub fn warn(message: &str) {
    eprintln!("{}: {message}", Colours::of_stderr().paint(Ink::Warning, "warning"));
}

/// Runs a command to its exit code, showing whatever it ends with. Failed assertions of our own are shown as such.
pub fn exit_code_of(json: bool, command: impl FnOnce() -> Result<(), Failure>) -> ExitCode {
    let default_hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            default_hook(info);
        }
        bug(info).report(json);
    }));
    let code = match panic::catch_unwind(AssertUnwindSafe(command)) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            failure.report(json);
            failure.code()
        }
        Err(_) => Code::Bug, // the hook has shown it
    };
    ExitCode::from(code as u8)
}

fn bug(info: &PanicHookInfo<'_>) -> Failure {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let message =
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
    let failure = Failure::new(format!("internal error{}: {message}", place.unwrap_or_default()));
    let failure = failure.hint(
        "this is a fault of remit, not of what it was given; please report it with the command line, \
         and run with `RUST_BACKTRACE=1` for more",
    );
    Failure { code: Code::Bug, ..failure }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn not_found() -> Failure {
        let source = io::Error::new(io::ErrorKind::NotFound, "No such file or directory");
        SettingsError::Read { path: "recipe.toml".into(), source }.into()
    }

    #[test]
    fn an_error_is_shown_with_causes_and_hint() {
        let expected = "\
error: cannot read the recipe `recipe.toml`
  caused by: No such file or directory
hint: paths are relative to the current directory
";
        assert_eq!(not_found().to_text(Colours::None), expected);
        assert_eq!(not_found().code(), Code::Failed);
    }

    #[test]
    fn colours_touch_only_the_labels() {
        let coloured = not_found().to_text(Colours::Named);
        assert!(coloured.starts_with("\x1b[1;31merror\x1b[0m: cannot read"), "{coloured:?}");
        assert!(coloured.contains("\x1b[1;36mhint\x1b[0m: paths"), "{coloured:?}");
    }

    #[test]
    fn an_error_in_json_is_one_line() {
        let expected = r#"{"error":"cannot read the recipe `recipe.toml`","causes":["No such file or directory"],"hint":"paths are relative to the current directory"}"#;
        assert_eq!(not_found().to_json(), expected);
    }

    #[test]
    fn context_comes_first_and_nothing_is_said_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open `x`: {0}")]
        struct Outer(#[source] io::Error);
        let failure =
            Failure::new(Outer(io::Error::other("disk on fire"))).context("cannot score").hint("run");
        let expected = "error: cannot score\n  caused by: cannot open `x`: disk on fire\nhint: run\n";
        assert_eq!(failure.to_text(Colours::None), expected);
    }

    #[test]
    fn usage_errors_have_their_own_code() {
        let failure: Failure = SettingsError::NoValue { argument: "--a.b".to_string() }.into();
        assert_eq!(failure.code(), Code::Usage);
        assert_eq!(Failure::usage("no such verb").to_text(Colours::None), "error: no such verb\n");
    }
}
