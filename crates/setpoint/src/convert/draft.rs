//! The settings of another tool's file, and those that they become.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};
use setpoint_align::Method;
use toml::{Table, Value};

use super::{Remark, Tool, Trainer};
use crate::config::load::{insert, to_table};

/// A conversion under way.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The tool whose file is read.
    pub tool: Tool,
    /// The training that the file describes.
    pub trainer: Trainer,
    /// The method of `setpoint align`, if it is one.
    pub method: Option<String>,
    /// The settings so far.
    pub settings: Table,
    /// Sentences about settings that are not carried over, or not exactly.
    pub remarks: Vec<Remark>,
    /// The run folder that the file names.
    pub run: Option<String>,
    source: &'a Map<String, Json>,
    /// Names that the rule at hand looked at.
    read: RefCell<BTreeSet<String>>,
    /// Names that a setting follows from, and those that ask for what is done anyway.
    answered: BTreeSet<String>,
}

/// The settings before a rule.
#[derive(Debug, PartialEq)]
pub struct Before {
    settings: Table,
    method: Option<String>,
    run: Option<String>,
}

impl<'a> Draft<'a> {
    /// Begins with an empty table of settings.
    pub fn new(tool: Tool, trainer: Trainer, source: &'a Map<String, Json>) -> Self {
        let method = trainer.method().map(str::to_owned);
        Self {
            tool,
            trainer,
            method,
            settings: Table::new(),
            remarks: Vec::new(),
            run: None,
            source,
            read: RefCell::default(),
            answered: BTreeSet::new(),
        }
    }

    /// Begins a rule.
    pub fn begin(&self) -> Before {
        self.read.borrow_mut().clear();
        self.state()
    }

    /// Ends a rule: if it changed the settings, they follow from the names that it looked at.
    pub fn end(&mut self, before: &Before) {
        let read = self.read.take();
        if self.state() != *before {
            self.answered.extend(read);
        }
    }

    fn state(&self) -> Before {
        Before { settings: self.settings.clone(), method: self.method.clone(), run: self.run.clone() }
    }

    /// Notes that a value of the file asks for what is done without any setting.
    pub fn agree(&mut self, name: &str) {
        self.answered.insert(name.to_owned());
    }

    /// Returns whether a name of the file is carried over or in a remark.
    pub fn is_answered(&self, name: &str) -> bool {
        self.answered.contains(name) || self.remarks.iter().any(|remark| remark.name == name)
    }

    /// Returns a value of the file; a dot leads into a section. Null counts as absent.
    pub fn get(&self, name: &str) -> Option<&'a Json> {
        self.read.borrow_mut().insert(name.to_owned());
        let mut value = None;
        let mut table = Some(self.source);
        for part in name.split('.') {
            value = table?.get(part);
            table = value.and_then(Json::as_object);
        }
        value.filter(|value| !value.is_null())
    }

    /// Returns the first of some values that the file has, with its name.
    pub fn first(&self, names: &[&'static str]) -> Option<(&'static str, &'a Json)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    /// Returns a text of the file.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name)?.as_str()
    }

    /// Returns a number of the file, also one in quotes.
    pub fn number(&self, name: &str) -> Option<f64> {
        number(self.get(name)?)
    }

    /// Returns whether the file has a name set to true.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).and_then(Json::as_bool) == Some(true)
    }

    /// Sets one of our settings, by its dotted key.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        insert(&mut self.settings, key, value.into());
    }

    /// Sets one of the method's settings, if the method has it. Returns whether it does.
    pub fn set_of_method(&mut self, name: &str, value: impl Into<Value>) -> bool {
        let has = self.method.as_deref().and_then(Method::named).is_some_and(|m| to_table(&m).contains_key(name));
        if has {
            self.set(&format!("align.{name}"), value);
        }
        has
    }

    /// Notes that a setting of the file is not carried over.
    pub fn lose(&mut self, name: &str, reason: impl Into<String>) {
        self.remarks.push(Remark { name: name.to_owned(), text: reason.into() });
    }

    /// Notes that a value of the file cannot be read.
    pub fn misread(&mut self, name: &str, expected: &str) {
        let found =
            self.get(name).map_or_else(String::new, |value| crate::visible::shortened(&value.to_string()).into_owned());
        self.lose(name, format!("expected {expected}, found {found}"));
    }
}

/// Returns a number, also one in quotes: YAML 1.1 reads `2e-5` as a text.
pub fn number(value: &Json) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
}

/// Returns a whole number.
pub fn count(value: &Json) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = number(value)?;
        (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64)
    })
}
