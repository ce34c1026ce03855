//! The source of a chat template.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::BuiltIn;
use crate::error::Error;

/// The choice of a chat template.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TemplateChoice {
    /// The tokenizer's own: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json` (the one named `default`
    /// where it is a list). None is no error until a conversation must be rendered.
    #[default]
    Own,
    /// One of the tokenizer's own templates by name (`tool_use`, `rag` …).
    Named(String),
    /// One that comes with this crate.
    BuiltIn(BuiltIn),
    /// A file.
    File(PathBuf),
    /// The text itself, with a name for messages.
    Text {
        /// The name.
        name: String,
        /// The Jinja.
        source: String,
    },
}

impl TemplateChoice {
    /// A choice as it stands in a configuration file: the name of a built-in template, a path (it contains a `/` or ends with
    /// `.jinja` or `.j2`), or else the name of one of the tokenizer's own.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if let Some(template) = BuiltIn::from_name(text) {
            Self::BuiltIn(template)
        } else if text.contains(['/', '\\']) || text.ends_with(".jinja") || text.ends_with(".j2") {
            Self::File(text.into())
        } else {
            Self::Named(text.to_owned())
        }
    }
}

/// The name and text of the chosen template; `None` when the tokenizer has none of its own.
///
/// `config` is the content of `tokenizer_config.json` in `dir`.
///
/// # Errors
/// [`Error::Template`] when a named one does not exist (with the names there are), [`Error::Io`] when a file cannot be read,
/// [`Error::Tokenizer`] when `chat_template` has neither of its two forms.
pub fn template_source(dir: &Path, config: &Value, choice: &TemplateChoice) -> Result<Option<(String, String)>, Error> {
    let read = |path: &Path| setpoint_files::read_text(path);
    match choice {
        TemplateChoice::Text { name, source } => Ok(Some((name.clone(), source.clone()))),
        TemplateChoice::BuiltIn(template) => Ok(Some((template.name().into(), template.source().into()))),
        TemplateChoice::File(path) => Ok(Some((path.display().to_string(), read(path)?))),
        TemplateChoice::Own => {
            let own = own(dir, config)?;
            let first = |names: &[&str]| own.iter().position(|(n, _)| names.contains(&n.as_str()));
            Ok(first(&[FILE, SINGLE, "default"]).map(|i| own[i].clone()))
        }
        TemplateChoice::Named(wanted) => {
            let own = own(dir, config)?;
            // In transformers, the only template of a file or an entry has the name `default`.
            let only = |name: &str| wanted == "default" && [FILE, SINGLE].contains(&name);
            let named = own.iter().find(|(name, _)| name == wanted);
            if let Some(found) = named.or_else(|| own.iter().find(|(name, _)| only(name))) {
                return Ok(Some(found.clone()));
            }
            let names: Vec<_> = own.into_iter().map(|(n, _)| n).collect();
            let names = if names.is_empty() { "none".into() } else { names.join(", ") };
            let reason = format!(
                "there is no such template. The tokenizer's own: {names}. Built in: {}. A file is given by its path",
                BuiltIn::names()
            );
            Err(Error::Template { name: wanted.clone(), reason })
        }
    }
}

/// The name and text of the template for conversations with tools, where the tokenizer has one besides its default.
///
/// It is transformers' rule: a tokenizer with several named templates uses `tool_use` for a conversation with tools, unless a
/// template was chosen.
///
/// # Errors
/// As [`template_source`].
pub(crate) fn tool_template_source(
    dir: &Path,
    config: &Value,
    choice: &TemplateChoice,
) -> Result<Option<(String, String)>, Error> {
    if *choice != TemplateChoice::Own {
        return Ok(None);
    }
    let mut own = own(dir, config)?;
    if own.first().is_some_and(|(name, _)| name == FILE) {
        // Where there is a file, transformers does not look at the templates of the entry.
        let named = dir.join(ADDITIONAL).join(format!("{TOOL_USE}.jinja"));
        own.truncate(if named.is_file() { own.len() } else { 0 });
    }
    Ok(own.into_iter().find(|(name, _)| name == TOOL_USE))
}

/// The names of a tokenizer's own templates.
pub(crate) fn template_names(dir: &Path, config: &Value) -> Result<Vec<String>, Error> {
    Ok(own(dir, config)?.into_iter().map(|(name, _)| name).collect())
}

/// The name of the template for conversations with tools.
pub(crate) const TOOL_USE: &str = "tool_use";

/// The folder of further named templates.
pub(crate) const ADDITIONAL: &str = "additional_chat_templates";
const FILE: &str = "chat_template.jinja";
const SINGLE: &str = "chat_template of tokenizer_config.json";

/// All templates of a tokenizer folder, those that win first: transformers prefers the file to the entry.
fn own(dir: &Path, config: &Value) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    let read = |path: &Path| setpoint_files::read_text(path);
    let file = dir.join(FILE);
    if file.is_file() {
        found.push((FILE.to_owned(), read(&file)?));
    }
    let folder = dir.join(ADDITIONAL);
    if folder.is_dir() {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            paths.push(entry.map_err(Error::io("list", &folder))?.path());
        }
        paths.sort();
        for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "jinja")) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, read(path)?));
        }
    }
    let wrong = || Error::Tokenizer {
        path: dir.join("tokenizer_config.json"),
        reason: "`chat_template`: expected text, or a list of objects with name and template".into(),
    };
    match config.get("chat_template") {
        None | Some(Value::Null) => {}
        Some(Value::String(source)) => found.push((SINGLE.to_owned(), source.clone())),
        Some(Value::Array(named)) => {
            for one in named {
                match (one.get("name").and_then(Value::as_str), one.get("template").and_then(Value::as_str)) {
                    (Some(name), Some(source)) => found.push((name.to_owned(), source.to_owned())),
                    _ => return Err(wrong()),
                }
            }
        }
        Some(_) => return Err(wrong()),
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn choices_by_name() {
        assert_eq!(TemplateChoice::parse("llama3"), TemplateChoice::BuiltIn(BuiltIn::Llama3));
        assert_eq!(TemplateChoice::parse("my.jinja"), TemplateChoice::File("my.jinja".into()));
        assert_eq!(TemplateChoice::parse("tool_use"), TemplateChoice::Named("tool_use".into()));
    }

    #[test]
    fn the_file_wins_over_the_entry() {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"chat_template": "entry"});
        let own = || template_source(dir.path(), &config, &TemplateChoice::Own).unwrap().unwrap().1;
        assert_eq!(own(), "entry");
        std::fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
        assert_eq!(own(), "file");
        let none = template_source(Path::new("/nonexistent"), &json!({}), &TemplateChoice::Own).unwrap();
        assert_eq!(none, None);
    }

    #[test]
    fn named_templates() {
        let config = json!({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]});
        let source = |choice| template_source(Path::new("/nonexistent"), &config, &choice);
        assert_eq!(source(TemplateChoice::Own).unwrap().unwrap().1, "d");
        assert_eq!(source(TemplateChoice::Named("rag".into())).unwrap().unwrap().1, "r");
        let message = source(TemplateChoice::Named("toolz".into())).unwrap_err().to_string();
        assert!(message.contains("The tokenizer's own: rag, default."), "{message}");
        let wrong = template_source(Path::new("x"), &json!({"chat_template": 3}), &TemplateChoice::Own).unwrap_err();
        assert!(matches!(wrong, Error::Tokenizer { .. }));
    }
}
