//! Attributes of items in jinja2's dot notation, as filters take them: `attribute="user.name"`.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::value::{Namespace, as_int, failed, iterate, type_name};

/// One step of an attribute's path.
pub(super) enum Step {
    Index(i64),
    Name(String),
}

/// An attribute in jinja2's dot notation: `user.address.0`.
pub(super) fn path(attribute: &Value) -> Result<Vec<Step>, Error> {
    if let Some(index) = as_int(attribute) {
        return Ok(vec![Step::Index(i64::try_from(index).map_err(|_| failed("an index is too large"))?)]);
    }
    let Some(text) = attribute.as_str() else {
        return Err(failed(format!("expected the name of an attribute, found {}", type_name(attribute))));
    };
    Ok(text
        .split('.')
        .map(|part| match part.parse() {
            Ok(index) if part.bytes().all(|b| b.is_ascii_digit()) => Step::Index(index),
            _ => Step::Name(part.to_owned()),
        })
        .collect())
}

/// jinja2's `environment.getitem` along a path.
pub(super) fn follow(item: &Value, path: &[Step], default: Option<&Value>) -> Result<Value, Error> {
    let mut item = item.clone();
    for step in path {
        if item.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        let key = match step {
            Step::Index(index) => Value::from(*index),
            Step::Name(name) => Value::from(name.as_str()),
        };
        item = match (item.as_str(), step, item.as_object()) {
            (Some(text), Step::Index(index), _) => nth(text, *index),
            (_, _, Some(object))
                if item.kind() == ValueKind::Map || item.downcast_object_ref::<Namespace>().is_some() =>
            {
                object.get_value(&key).unwrap_or_default()
            }
            (_, _, Some(_)) => item.get_item(&key).unwrap_or_default(),
            _ => Value::UNDEFINED,
        };
        if let (true, Some(default)) = (item.is_undefined(), default) {
            item = default.clone();
        }
    }
    Ok(item)
}

fn nth(text: &str, index: i64) -> Value {
    let chars = text.chars().count() as i64;
    let index = if index < 0 { index + chars } else { index };
    usize::try_from(index).ok().and_then(|i| text.chars().nth(i)).map(Value::from).unwrap_or_default()
}

/// The attribute of each item.
pub(super) fn attributes(s: &State<'_, '_>, value: &Value, attribute: &Value) -> Result<Vec<Value>, Error> {
    let path = path(attribute)?;
    iterate(s, value)?.iter().map(|item| follow(item, &path, None)).collect()
}
