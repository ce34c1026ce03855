//! Turns the messages of serde, which are written for programmers, into sentences about settings.

use setpoint_files::words;
use toml::Value;

use super::foreign::foreign;
use super::spelling::respell;
use super::suggest::nearest;

/// The settings of a job, as far as an explanation asks for them.
pub(super) trait Known {
    /// Returns the names next to `key`, as far as they have a default.
    fn siblings(&self, key: &str) -> Vec<String>;
    /// Returns the dotted keys of the settings of a name in all sections.
    fn named(&self, name: &str) -> Vec<String>;
    /// Returns the dotted keys of all settings.
    fn all(&self) -> Vec<String>;
    /// Returns whether a setting of this dotted key exists.
    fn has(&self, key: &str) -> bool;
}

/// Turns a message about the setting `key` into a sentence with a remedy. `fits` says why a value does not fit the setting, by which the
/// forms that it takes are found out.
pub(super) fn explain(
    message: &str,
    key: &str,
    known: &impl Known,
    found: Option<&Value>,
    fits: impl Fn(Value) -> Result<(), String>,
) -> String {
    let message = message.lines().next().unwrap_or_default().trim();
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown_setting(rest, key, known);
    }
    if let Some(field) = message.strip_prefix("missing field ").and_then(|rest| rest.split('`').nth(1)) {
        return format!("`{}` is missing", if key == "." { field.to_owned() } else { format!("{key}.{field}") });
    }
    // An entry of a list has no value of its own to try.
    if !key.contains('[')
        && let Some(found) = found
        && let Some(names) = choices(&fits)
    {
        let forms: Vec<String> = names.iter().map(|name| form(name, &fits)).collect();
        let near = found.as_str().and_then(|found| nearest(found, names.iter().map(String::as_str)));
        // A suggestion helps only if the name stood there misspelt.
        let near = near.filter(|near| found.as_str() != Some(near));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return format!("`{key}` must be {}; found {}{near}", alternatives(&forms), shown(found));
    }
    if matches!(found, Some(Value::Array(_))) && fits(no_settings()).is_err_and(|m| expects_table(&m)) {
        return format!("`{key}` is a table of settings; found a list");
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut names = rest.split('`').skip(1).step_by(2);
        let found = names.next().unwrap_or_default();
        let names: Vec<&str> = names.collect();
        let near = nearest(found, names.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
        let forms: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        return format!("`{key}` must be {}; found \"{found}\"{}", alternatives(&forms), near.unwrap_or_default());
    }
    format!("`{key}`: {}", words::value(message, "a table of settings"))
}

/// Returns the name of a choice that a value spells in another way, if it does.
pub(super) fn respelled(found: Option<&Value>, fits: impl Fn(Value) -> Result<(), String>) -> Option<String> {
    let found = found?.as_str()?;
    let names = choices(&fits)?;
    let name = respell(found, names.iter().map(String::as_str))?;
    (name != found).then(|| name.to_owned())
}

fn unknown_setting(rest: &str, key: &str, known: &impl Known) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    let field = rest.split('`').nth(1).unwrap_or(name);
    if field != name {
        // In a list of tables, where a key has no path of its own.
        return format!("`{key}`: `{field}` is not a setting of one of its entries");
    }
    let mut names: Vec<String> = rest.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    if names.is_empty() {
        names = known.siblings(key);
    }
    let unknown = |meant: &[String]| {
        let meant: Vec<String> = meant.iter().take(3).map(|key| format!("`{key}`")).collect();
        format!("`{key}` is not a setting; did you mean {}?", alternatives(&meant))
    };
    let others = known.named(name);
    if !others.is_empty() {
        return unknown(&others);
    }
    if let Some(remedy) = foreign_remedy(name, known) {
        return format!("`{key}` is not a setting: {remedy}");
    }
    if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
        return unknown(&[near.to_owned()]);
    }
    // A misspelt name of another section.
    let all = known.all();
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let lasts: Vec<String> = all.iter().map(|key| last(key)).collect();
    if let Some(near) = nearest(name, lasts.iter().map(String::as_str)) {
        let meant: Vec<String> = all.iter().filter(|key| last(key) == near).cloned().collect();
        return unknown(&meant);
    }
    match names.is_empty() {
        true => format!("`{key}` is not a setting; there are none here"),
        false => format!("`{key}` is not a setting; there are: {}", names.join(", ")),
    }
}

/// Returns what to write instead of another tool's name, if the job has a setting for it.
fn foreign_remedy(name: &str, known: &impl Known) -> Option<String> {
    let found = foreign(name).filter(|foreign| foreign.setting().is_none_or(|key| known.has(key)))?;
    Some(found.remedy(name))
}

/// Returns whether a table of settings is expected, by what serde says of [`no_settings`].
pub(super) fn expects_table(message: &str) -> bool {
    message.starts_with("unknown field `no such setting`") || message.starts_with("missing field")
}

/// Returns a table that no table of settings takes.
pub(super) fn no_settings() -> Value {
    Value::Table([("no such setting".to_owned(), Value::Integer(0))].into_iter().collect())
}

/// Returns the names that the setting takes, if it is a choice between names.
fn choices(fits: impl Fn(Value) -> Result<(), String>) -> Option<Vec<String>> {
    let message = fits(Value::String("no such choice".to_owned())).err()?;
    let names = message.strip_prefix("unknown variant ")?;
    Some(names.split('`').skip(3).step_by(2).map(str::to_owned).collect())
}

/// Returns how a choice is written: by its name, or as a table with a value of its own.
fn form(name: &str, fits: impl Fn(Value) -> Result<(), String>) -> String {
    let with = |value: Value| fits(Value::Table([(name.to_owned(), value)].into_iter().collect())).is_ok();
    match fits(Value::String(name.to_owned())) {
        Err(message) if message.starts_with("invalid type: unit variant") => match () {
            () if with(Value::Float(0.5)) => format!("{{ {name} = NUMBER }}"),
            () if with(Value::Integer(1)) => format!("{{ {name} = WHOLE_NUMBER }}"),
            () => format!("{{ {name} = … }}"),
        },
        // By its name; other settings may have to come with it.
        _ => format!("\"{name}\""),
    }
}

/// `a`, `a or b`, `a, b or c`.
fn alternatives(forms: &[String]) -> String {
    match forms {
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        _ => forms.join(""),
    }
}

/// The value in a line, as it would be written.
fn shown(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let entries: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {}", shown(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}
