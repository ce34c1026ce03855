//! The names that other tools have for what is set here. Messages about unknown settings and flags, `setpoint convert` and the tables of
//! `docs/COMING_FROM.md` follow from one list, [`FOREIGN`].

mod list;
#[cfg(test)]
mod tests;

use super::spelling::plain;

pub use self::list::FOREIGN;

/// A tool whose configurations use the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// trl, and the `TrainingArguments` of transformers that it extends.
    Trl,
    /// axolotl.
    Axolotl,
    /// LLaMA-Factory.
    LlamaFactory,
}

impl Tool {
    /// Returns its name as its users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trl => "trl",
            Self::Axolotl => "axolotl",
            Self::LlamaFactory => "LLaMA-Factory",
        }
    }
}

/// The counterpart of a name of another tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    /// A setting of the same meaning, which takes the same values.
    Setting(&'static str),
    /// A setting whose values are written in another way: the setting, and an example of its value.
    Written(&'static str, &'static str),
    /// A flag of the command.
    Flag(&'static str),
    /// Nothing has to be set: a sentence that says why, or an empty text if the name concerns the other tool alone.
    Nothing(&'static str),
    /// It does not exist: a sentence that says what is done instead.
    Missing(&'static str),
}

/// The rule by which `setpoint convert` carries over the value of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// A number, as it is.
    Number,
    /// A whole number, as it is.
    Count,
    /// True or false, as it is.
    Bool,
    /// By a rule, together with the other names of the rule.
    By(Rule),
    /// Not at all, for the reason that is reported.
    Lost(&'static str),
    /// Not at all, and nothing is lost: it concerns only logging, speed or storage of the other tool.
    Dropped,
}

/// A conversion that is more than a number under another name; `convert::rules` has a function for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are named after the settings that they set")]
pub enum Rule {
    Model,
    Tokenizer,
    Template,
    TemplateKwargs,
    Dtype,
    Reference,
    Data,
    System,
    EvalData,
    LongRows,
    Method,
    Losses,
    Beta,
    GammaBetaRatio,
    LabelSmoothing,
    Tau,
    DesirableWeight,
    UndesirableWeight,
    MaxSteps,
    BatchSize,
    Recompute,
    Schedule,
    Warmup,
    Betas,
    Optimizer,
    LoggingSteps,
    EvalSteps,
    SaveSteps,
    Best,
    Adapter,
    Quantize,
    Run,
    Tracker,
}

/// A name of other tools.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// The name. One with a `*` covers all names that begin and end like it.
    pub name: &'static str,
    /// The tools that use it; empty if they were not told apart.
    pub tools: &'static [Tool],
    /// The setting that it corresponds to.
    pub here: Here,
    /// The rule by which a value is carried over.
    pub carry: Carry,
}

/// Returns the entry of another tool's name, if it is called differently here.
pub fn foreign(name: &str) -> Option<&'static Foreign> {
    let name = plain(name);
    FOREIGN.iter().find(|foreign| match foreign.name.contains('*') {
        // A pattern of names that are dropped covers misspelt settings as well, such as `logging_stps`.
        true => foreign.carry != Carry::Dropped && foreign.covers(&name),
        false => foreign.name == name && !foreign.is_same_name(),
    })
}

impl Foreign {
    /// Returns the setting that it corresponds to, if it does to one.
    pub fn setting(&self) -> Option<&'static str> {
        match self.here {
            Here::Setting(key) | Here::Written(key, _) => Some(key),
            Here::Flag(_) | Here::Nothing(_) | Here::Missing(_) => None,
        }
    }

    /// Returns whether it is or covers a name.
    pub fn covers(&self, name: &str) -> bool {
        match self.name.split_once('*') {
            Some((start, end)) => {
                name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
            }
            None => self.name == name,
        }
    }

    /// Returns whether its value is carried over.
    pub fn is_carried(&self) -> bool {
        !matches!(self.carry, Carry::Lost(_) | Carry::Dropped)
    }

    /// Returns whether the two are carried over, or lost, together.
    pub fn goes_with(&self, other: &Self) -> bool {
        let is_plain = matches!(self.carry, Carry::Number | Carry::Count | Carry::Bool);
        self.carry == other.carry && (!is_plain || self.setting() == other.setting())
    }

    /// Returns a sentence that says what to write here instead of `name`.
    pub fn remedy(&self, name: &str) -> String {
        let name = plain(name);
        let tools: Vec<&str> = self.tools.iter().map(|tool| tool.name()).collect();
        let whose = match tools[..] {
            [] => "a name of other tools".to_owned(),
            [one] => format!("a name of {one}"),
            [one, other] => format!("a name of {one} and {other}"),
            _ => format!("a name of {}", tools.join(", ")),
        };
        match self.here {
            Here::Setting(_) | Here::Written(..) | Here::Flag(_) => format!("`{name}` is {whose}; {}", self.instead()),
            Here::Nothing("") => format!("`{name}` is {whose} and not needed here"),
            Here::Nothing(reason) => format!("`{name}` is {whose} and not needed here: {reason}"),
            Here::Missing(reason) => format!("`{name}` is {whose}; here {reason}"),
        }
    }

    /// Returns a part of a sentence that says what there is here instead.
    pub fn instead(&self) -> String {
        match self.here {
            Here::Setting(key) => format!("here it is `{key}`"),
            Here::Written(key, value) => format!("here it is `{key}`, as in {key} = {value}"),
            Here::Flag(flag) => format!("here it is the flag {flag}"),
            Here::Nothing("") => "it concerns only logging, speed or storage of the other tool".to_owned(),
            Here::Nothing(reason) | Here::Missing(reason) => reason.to_owned(),
        }
    }

    /// Returns whether the setting that it corresponds to has the same name.
    fn is_same_name(&self) -> bool {
        let last = |key: &'static str| key.rsplit('.').next();
        self.setting().is_some_and(|key| last(key) == last(self.name))
    }
}
