//! Turns the messages of serde, which are written for programmers, into sentences about settings.

use setpoint_files::words;
use setpoint_train::USUAL_METRICS;
use toml::{Table, Value};

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
    /// Returns whether a dotted key is that of a table of settings.
    fn is_section(&self, key: &str) -> bool;
    /// Returns the command whose settings are read, if it is known, and those that have a setting or section of this dotted key.
    fn commands_with(&self, key: &str) -> Option<(&'static str, Vec<&'static str>)>;
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
        return match found {
            Some(Value::Table(table)) if !key.contains('[') => unknown_section(rest, key, table, known),
            _ => unknown_setting(rest, key, known),
        };
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
    let metric = found.and_then(Value::as_str).filter(|_| key.ends_with("best.metric"));
    let near = metric.and_then(|metric| nearest(metric, USUAL_METRICS));
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!("`{key}`: {}{near}", words::value(&dotted(message, key, known), "a table of settings"))
}

/// Returns a message in which the settings next to `key` or in it have their dotted keys.
fn dotted(message: &str, key: &str, known: &impl Known) -> String {
    let tables = [key, key.rsplit_once('.').map_or("", |(table, _)| table)];
    let named = |word: &str| {
        let is_name = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let keys = tables.iter().filter(|table| !table.is_empty()).map(|table| format!("{table}.{word}"));
        keys.filter(|_| is_name).find(|key| known.has(key)).unwrap_or_else(|| word.to_owned())
    };
    let parts = message.split('`').enumerate();
    parts.map(|(i, part)| if i % 2 == 1 { named(part) } else { part.to_owned() }).collect::<Vec<_>>().join("`")
}

/// Returns the name of a choice that a value spells in another way, if it does.
pub(super) fn respelled(found: Option<&Value>, fits: impl Fn(Value) -> Result<(), String>) -> Option<String> {
    let found = found?.as_str()?;
    let names = choices(&fits)?;
    let name = respell(found, names.iter().map(String::as_str))?;
    (name != found).then(|| name.to_owned())
}

/// Returns what to write instead of a table of a name that no section has.
fn unknown_section(rest: &str, key: &str, table: &Table, known: &impl Known) -> String {
    let name = last(key);
    let leaves = leaves(key, table);
    let asked = match leaves.as_slice() {
        [only] => only.as_str(),
        _ => key,
    };
    if let Some(of_others) =
        of_other_commands(asked, "setting", known).or_else(|| of_other_commands(key, "section", known))
    {
        return of_others;
    }
    let moved = known.named(name);
    if let (true, Some(remedy)) = (moved.is_empty(), foreign_remedy(name, known)) {
        return format!("`{key}` is not a section: {remedy}");
    }
    let mut names = names_next_to(rest, key, known);
    // `training` stands for `train`, and `datasets` for `data`.
    let longer = |known: &&String| known.len() > 3 && name.starts_with(known.as_str());
    let near =
        nearest(name, names.iter().map(String::as_str)).or_else(|| names.iter().find(longer).map(String::as_str));
    let meant = match near {
        _ if !moved.is_empty() => moved,
        Some(near) => vec![beside(key, near)],
        None if leaves.len() == 1 => known.named(last(asked)),
        None => Vec::new(),
    };
    if !meant.is_empty() {
        return format!("`{key}` is not a section; did you mean {}?", alternatives(&quoted(&meant)));
    }
    names.retain(|name| known.is_section(&beside(key, name)));
    match names.is_empty() {
        true => format!("`{key}` is not a section; there are none here"),
        false => format!("`{key}` is not a section; there are: {}", names.join(", ")),
    }
}

/// Returns the dotted keys of the settings in a table.
fn leaves(key: &str, table: &Table) -> Vec<String> {
    let of = |(name, value): (&String, &Value)| {
        let key = format!("{key}.{name}");
        match value {
            Value::Table(inner) => leaves(&key, inner),
            _ => vec![key],
        }
    };
    table.iter().flat_map(of).collect()
}

/// Returns the sentence about a setting or section that only other commands have.
fn of_other_commands(key: &str, what: &str, known: &impl Known) -> Option<String> {
    const MOST: usize = 3;
    let (here, others) = known.commands_with(key).filter(|(here, others)| !others.contains(here))?;
    // The command of a section's name is the one that it is about.
    let own = others.iter().find(|command| key.split('.').next() == Some(**command));
    let others = own.map_or(others.clone(), |command| vec![*command]);
    // One more takes no more room than to say that there is one.
    let most = if others.len() == MOST + 1 { others.len() } else { MOST };
    let shown: Vec<String> = others.iter().take(most).map(|command| format!("`setpoint {command}`")).collect();
    let more = match others.len().saturating_sub(most) {
        0 => String::new(),
        more => format!(", and of {more} other commands"),
    };
    let (last, most) = shown.split_last()?;
    let shown = if most.is_empty() { last.clone() } else { format!("{} and {last}", most.join(", ")) };
    Some(format!("`{key}` is a {what} of {shown}{more}, not of `setpoint {here}`"))
}

/// Returns the last part of a dotted key.
fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Returns the dotted key of a name next to `key`.
fn beside(key: &str, name: &str) -> String {
    key.rsplit_once('.').map_or_else(|| name.to_owned(), |(table, _)| format!("{table}.{name}"))
}

fn quoted(keys: &[String]) -> Vec<String> {
    keys.iter().take(3).map(|key| format!("`{key}`")).collect()
}

/// Returns the names that are taken where serde does not know one: those that it lists, and those that a section of several types has by
/// default.
fn names_next_to(rest: &str, key: &str, known: &impl Known) -> Vec<String> {
    let mut names: Vec<String> = rest.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    for name in known.siblings(key) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn unknown_setting(rest: &str, key: &str, known: &impl Known) -> String {
    let name = last(key);
    let field = rest.split('`').nth(1).unwrap_or(name);
    if field != name && name == "method" && !key.ends_with(']') {
        // The method chooses the settings next to it, and has none of this name.
        return format!(
            "`{}` is not a setting of this method (`setpoint methods` lists what each has)",
            beside(key, field)
        );
    }
    if field != name {
        // In a list of tables, where a key has no path of its own.
        return format!("`{key}`: `{field}` is not a setting of one of its entries");
    }
    let names = names_next_to(rest, key, known);
    let unknown =
        |meant: &[String]| format!("`{key}` is not a setting; did you mean {}?", alternatives(&quoted(meant)));
    let others = known.named(name);
    if !others.is_empty() {
        return unknown(&others);
    }
    if let Some(of_others) = of_other_commands(key, "setting", known) {
        return of_others;
    }
    if let Some(remedy) = foreign_remedy(name, known) {
        return format!("`{key}` is not a setting: {remedy}");
    }
    if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
        return unknown(&[beside(key, near)]);
    }
    // A misspelt name of another section.
    let all = known.all();
    if let Some(near) = nearest(name, all.iter().map(|key| last(key))) {
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
