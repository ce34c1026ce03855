//! The error of every job: a sentence, and a hint where there is a remedy.

use std::fmt;

use setpoint_files::words;

use crate::visible::{one_line, shortened};

/// One mistake in a configuration: its place and a sentence about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// `align.toml:12`, `--set align.beta=x`, or the bare key when it comes from nowhere in particular.
    pub place: String,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The reason for which a job ended early.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or configuration.
    Usage(Vec<Problem>),
    /// Anything else.
    Run {
        /// The error and its causes, in one sentence.
        message: String,
        /// A remedy for the user.
        hint: Option<String>,
    },
    /// The [host](crate::session::Host) asked for it.
    Stopped {
        /// The state of the job and the way to go on.
        message: String,
    },
}

/// The result of a job.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of one sentence.
    pub fn run(message: impl fmt::Display) -> Self {
        Failure::Run { message: message.to_string(), hint: None }
    }

    /// Wrong usage, found outside the configuration's own checks.
    pub fn usage(place: impl Into<String>, message: impl Into<String>) -> Self {
        Failure::Usage(vec![Problem { place: place.into(), message: message.into() }])
    }

    /// The message without `error:` and hint, to be part of another one.
    pub fn sentence(&self) -> String {
        match self {
            Failure::Usage(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Failure::Run { message, .. } | Failure::Stopped { message, .. } => message.clone(),
        }
    }

    /// Names a place by how the user gave it.
    #[must_use]
    pub(crate) fn with_place(self, place: &str, given: &str) -> Self {
        match self {
            Failure::Run { message, hint } => Failure::Run { message: message.replace(place, given), hint },
            other => other,
        }
    }

    /// Puts the place of the failure in front of its message.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        match self {
            Failure::Run { message, hint } => Failure::Run { message: format!("{place}: {message}"), hint },
            other => other,
        }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Failure::Run { message, .. } => Failure::Run { message, hint: Some(hint.into()) },
            other => other,
        }
    }
}

impl std::error::Error for Failure {}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Failure::Usage(problems)
    }
}

impl Failure {
    /// An error with its causes, in one sentence.
    pub fn of(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = words::without_codes(&inner.to_string()).into_owned();
            // Errors that already print their cause need no second copy of it.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = inner.source();
        }
        let hint = hint_for(&message);
        Failure::Run { message, hint }
    }
}

/// `?` on the errors of the crates that recipes call. (A blanket implementation would overlap with the one for problems.)
macro_rules! from_errors {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::of(&error)
            }
        }
    )*};
}

from_errors!(
    setpoint_align::Error,
    setpoint_data::Error,
    setpoint_eval::Error,
    setpoint_files::Error,
    setpoint_reward::Error,
    setpoint_train::Error,
    setpoint_transformer::Error,
    serde_json::Error,
    toml::ser::Error,
    std::io::Error,
);

/// Remedies for causes that can appear in any command.
fn hint_for(message: &str) -> Option<String> {
    let lower = message.to_lowercase();
    if lower.contains("no space left") {
        return Some(
            "free some space and run the same command again (a training with --resume); nothing already written was harmed".into(),
        );
    }
    if lower.contains("the tokenizer has no chat template") {
        let fitting = message.split("of the built-in templates, `").nth(1).and_then(|rest| rest.split('`').next());
        let name = fitting.unwrap_or("FILE.jinja");
        return Some(format!(
            "as in --set model.template={name}; a model that was trained with a template needs that one"
        ));
    }
    if lower.contains("belong to no known format") {
        return Some(rename_hint(message));
    }
    if lower.contains("permission denied") {
        return Some("check who owns the file or folder, or choose another one".into());
    }
    None
}

/// Returns how columns that belong to no format are renamed: those of the message, if their names tell a prompt and its answer.
fn rename_hint(message: &str) -> String {
    const PROMPTS: [&str; 8] = ["question", "query", "problem", "instruction", "input", "inputs", "user", "text"];
    const ANSWERS: [&str; 9] =
        ["answer", "response", "completion", "output", "solution", "summary", "target", "targets", "assistant"];
    // Columns that belong to the question as well.
    const MORE: [&str; 5] = ["context", "history", "input", "system", "system_prompt"];
    let listed = message.split_once("columns [").and_then(|(_, rest)| rest.split_once(']'));
    let columns: Vec<&str> = listed.map_or_else(Vec::new, |(columns, _)| columns.split(", ").collect());
    let found = |names: &[&'static str]| names.iter().find(|name| columns.contains(name)).copied();
    match (found(&PROMPTS), found(&ANSWERS)) {
        (Some(prompt), Some(answer)) if !MORE.iter().any(|more| columns.contains(more) && *more != prompt) => {
            format!("rename columns: --set data.columns.prompt={prompt} --set data.columns.completion={answer}")
        }
        _ => "rename columns, as in --set data.columns.prompt=question --set data.columns.completion=answer, or \
              --set data.columns.text=content for whole texts"
            .to_owned(),
    }
}

/// Returns a message as it is shown: on one line, not too long, without the numbers of the system.
fn shown(message: &str) -> String {
    one_line(&shortened(&words::without_codes(message))).into_owned()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(problems) => {
                for (i, problem) in problems.iter().enumerate() {
                    if i > 0 {
                        writeln!(f)?;
                    }
                    write!(f, "error: {}", shown(&problem.to_string()))?;
                }
                Ok(())
            }
            Failure::Stopped { message, .. } => f.write_str(message),
            Failure::Run { message, hint } => {
                write!(f, "error: {}", shown(message))?;
                if let Some(hint) = hint {
                    write!(f, "\n  hint: {}", shown(hint))?;
                }
                Ok(())
            }
        }
    }
}
