//! The notes of this project on a model, besides Hugging Face's files: `setpoint.json` in the model's folder.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use setpoint_files::words;

use crate::error::Error;
use crate::template::TemplateDate;

const FILE: &str = "setpoint.json";
const TEMPLATE_DATE: &str = "template_date";

/// The content of a model's `setpoint.json`. Keys that this version does not know are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelNotes {
    path: PathBuf,
    values: Map<String, Value>,
}

impl ModelNotes {
    /// Reads the notes of a model's folder; a folder without the file has none.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Notes`] when it holds no object.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let bytes = match setpoint_files::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => return Ok(Self { path, values: Map::new() }),
            Err(e) => return Err(e.into()),
        };
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(values)) => Ok(Self { path, values }),
            Ok(_) => Err(Error::Notes { path, reason: "expected an object".into() }),
            Err(e) => Err(Error::Notes { path, reason: format!("not valid JSON: {}", words::json(&e)) }),
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|v| !v.is_null())
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.values.insert(key.to_owned(), value.into());
    }

    /// The date that the chat template printed when the model was trained.
    ///
    /// # Errors
    /// [`Error::Notes`] when it is no date.
    pub fn template_date(&self) -> Result<Option<TemplateDate>, Error> {
        let Some(value) = self.get(TEMPLATE_DATE) else { return Ok(None) };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let date = text
            .parse()
            .map_err(|e| Error::Notes { path: self.path.clone(), reason: format!("`{TEMPLATE_DATE}`: {e}") });
        date.map(Some)
    }

    /// Sets the date that the chat template prints.
    pub fn set_template_date(&mut self, date: TemplateDate) {
        self.set(TEMPLATE_DATE, date.to_string());
    }

    /// Writes the file, unless there is nothing to remember.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk refuses.
    pub fn write(&self) -> Result<(), Error> {
        if self.values.is_empty() {
            return Ok(());
        }
        let text = format!("{:#}\n", Value::Object(self.values.clone()));
        setpoint_files::write(&self.path, |out| Ok(out.put(text.as_bytes())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ModelNotes::read(dir.path()).unwrap().template_date().unwrap(), None);
        ModelNotes::read(dir.path()).unwrap().write().unwrap();
        assert!(!dir.path().join(FILE).exists());
        std::fs::write(dir.path().join(FILE), r#"{"pooling": "last"}"#).unwrap();
        let mut notes = ModelNotes::read(dir.path()).unwrap();
        notes.set_template_date("2026-11-29".parse().unwrap());
        notes.write().unwrap();
        let back = ModelNotes::read(dir.path()).unwrap();
        assert_eq!(back.template_date().unwrap(), Some("2026-11-29".parse().unwrap()));
        assert_eq!(back.get("pooling"), Some(&Value::from("last")));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (text, expected) in
            [("[1]", "expected an object"), ("{", "not valid JSON"), (r#"{"template_date": "soon"}"#, "soon")]
        {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let error = ModelNotes::read(dir.path()).and_then(|n| n.template_date()).unwrap_err().to_string();
            assert!(error.contains("setpoint.json") && error.contains(expected), "{error}");
        }
    }
}
