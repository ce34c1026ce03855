//! The filters of jinja2 that make texts.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::args::Args;
use super::operators::charge_copies;
use super::print::{repr, text as string};
use super::text::{self, Lines};
use super::value::{as_int, charge_bytes, failed, hashable, is_list, iterate, pairs, type_name};

type State_<'a, 'b, 'c> = &'a mut State<'b, 'c>;
type Output = Result<Value, Error>;

pub(super) fn capitalize(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    Ok(text::capitalize(&string(s, value)?).into())
}

pub(super) fn center(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let width = args.int(0, 80, "center")?;
    text::pad(s, &string(s, value)?, width, ' ', text::Side::Both)
}

pub(super) fn escape(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    if value.is_safe() { Ok(value.clone()) } else { force_escape(s, value, &Args::parse("", &[], &[])?) }
}

pub(super) fn force_escape(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    let plain = string(s, value)?;
    charge_bytes(s, plain.len().saturating_mul(5))?;
    Ok(Value::from_safe_string(text::escape(&plain)))
}

pub(super) fn safe(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    Ok(Value::from_safe_string(string(s, value)?))
}

pub(super) fn to_string(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    if value.is_safe() { Ok(value.clone()) } else { Ok(string(s, value)?.into()) }
}

pub(super) fn indent(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let Some(plain) = value.as_str() else {
        return Err(failed(format!("indent: expected a string, found {}", type_name(value))));
    };
    let indention = match args.get(0) {
        None => "    ".to_owned(),
        Some(width) => match (width.as_str(), as_int(width)) {
            (Some(text), _) => text.to_owned(),
            (None, Some(width)) => {
                let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
                charge_copies(s, 1, width)?;
                " ".repeat(width)
            }
            _ => return Err(failed(format!("indent: expected a width, found {}", type_name(width)))),
        },
    };
    let (first, blank) = (args.flag(1), args.flag(2));
    let source = format!("{plain}\n");
    let lines: Vec<&str> = Lines::new(&source).map(|(line, _)| line).collect();
    charge_copies(s, indention.len() + 1, lines.len())?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let indented = if i == 0 { first } else { blank || !line.is_empty() };
        if indented {
            out.push_str(&indention);
        }
        out.push_str(line);
    }
    Ok(out.into())
}

pub(super) fn join(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let separator = args.get(0).map_or(Ok(String::new()), |d| string(s, d))?;
    let items = match args.some(1) {
        Some(attribute) => super::paths::attributes(s, value, attribute)?,
        None => iterate(s, value)?,
    };
    charge_copies(s, separator.len(), items.len())?;
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(&separator);
        }
        let item = string(s, item)?;
        charge_bytes(s, item.len())?;
        out.push_str(&item);
    }
    Ok(out.into())
}

pub(super) fn lower(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    Ok(string(s, value)?.to_lowercase().into())
}

pub(super) fn upper(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    Ok(string(s, value)?.to_uppercase().into())
}

pub(super) fn pprint(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    Ok(repr(s, value, true)?.into())
}

pub(super) fn replace(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let (old, new) = (string(s, args.required(0, "replace")?)?, string(s, args.required(1, "replace")?)?);
    let count = if args.some(2).is_some() { args.int(2, -1, "replace")? } else { -1 };
    let plain = string(s, value)?;
    text::replace(s, &plain, &old, &new, count)
}

pub(super) fn strip_tags(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    let plain = string(s, value)?;
    charge_bytes(s, plain.len().saturating_mul(32))?;
    Ok(text::strip_tags(&plain).into())
}

/// A letter at the beginning of a word in upper case; words begin behind white space and `-({[<`.
pub(super) fn title(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    let plain = string(s, value)?;
    let mut out = String::with_capacity(plain.len());
    let mut starts = true;
    for c in plain.chars() {
        let separates = text::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
        if separates {
            out.push(c);
        } else if starts {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        starts = separates;
    }
    Ok(out.into())
}

pub(super) fn trim(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let chars = match args.some(0) {
        Some(_) => args.text(0, "trim")?,
        None => None,
    };
    let plain = string(s, value)?;
    Ok(text::strip(&plain, chars, true, true).into())
}

pub(super) fn truncate(_: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let length = args.int(0, 255, "truncate")?;
    let end = args.text(2, "truncate")?.unwrap_or("...");
    let leeway = if args.some(3).is_some() { args.int(3, 5, "truncate")? } else { 5 };
    let ending = end.chars().count() as i64;
    if length < ending || leeway < 0 {
        return Err(failed(format!("truncate: expected a length of at least {ending} and a leeway of at least 0")));
    }
    let plain = match value.as_str() {
        Some(plain) => plain,
        None if value.is_undefined() || value.len().is_some_and(|n| n as i64 <= length.saturating_add(leeway)) => {
            return Ok(value.clone());
        }
        None => return Err(failed(format!("truncate: expected a string, found {}", type_name(value)))),
    };
    if plain.chars().count() as i64 <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let kept: String = plain.chars().take((length - ending) as usize).collect();
    let kept = match kept.rsplit_once(' ') {
        Some((before, _)) if !args.flag(1) => before.to_owned(),
        _ => kept,
    };
    Ok((kept + end).into())
}

pub(super) fn url_encode(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    let mut fields: Vec<(Value, Value)> = Vec::new();
    match value.as_object() {
        Some(object) if value.kind() == ValueKind::Map => fields.extend(pairs(object)),
        Some(_) if is_list(value) => {
            for pair in iterate(s, value)? {
                match iterate(s, &pair)?.as_slice() {
                    [key, value] => fields.push((key.clone(), value.clone())),
                    _ => return Err(failed("urlencode: expected pairs")),
                }
            }
        }
        _ if value.is_undefined() => {}
        _ => {
            let plain = string(s, value)?;
            charge_bytes(s, plain.len().saturating_mul(3))?;
            return Ok(text::url_quote(&plain, false).into());
        }
    }
    let mut out = String::new();
    for (key, value) in fields {
        let (key, value) = (string(s, &key)?, string(s, &value)?);
        charge_bytes(s, (key.len() + value.len()).saturating_mul(3))?;
        if !out.is_empty() {
            out.push('&');
        }
        out.extend([&*text::url_quote(&key, true), "=", &*text::url_quote(&value, true)]);
    }
    Ok(out.into())
}

pub(super) fn word_count(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    let plain = string(s, value)?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    Ok(plain.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count().into())
}

pub(super) fn word_wrap(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let Some(plain) = value.as_str() else {
        return Err(failed(format!("wordwrap: expected a string, found {}", type_name(value))));
    };
    let width = args.int(0, 79, "wordwrap")?;
    let Some(width) = usize::try_from(width).ok().filter(|w| *w > 0) else {
        return Err(failed("wordwrap: expected a width above 0"));
    };
    let long_words = args.get(1).is_none_or(Value::is_true);
    let separator = match args.some(2) {
        Some(_) => args.text(2, "wordwrap")?.unwrap_or("\n"),
        None => "\n",
    };
    let hyphens = args.get(3).is_none_or(Value::is_true);
    charge_copies(s, separator.len() + 8, plain.len())?;
    // A word without end is copied once for each of its lines.
    charge_copies(s, plain.len(), plain.len() / width)?;
    let mut wrapped = Vec::new();
    for (line, _) in Lines::new(plain) {
        wrapped.push(text::wrap(line, width, long_words, hyphens).join(separator));
    }
    Ok(wrapped.join(separator).into())
}

pub(super) fn xml_attributes(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let Some(object) = value.as_object().filter(|_| value.kind() == ValueKind::Map) else {
        return Err(failed(format!("xmlattr: expected a map, found {}", type_name(value))));
    };
    let mut out = String::new();
    for (key, value) in pairs(object) {
        if value.is_none() || value.is_undefined() {
            continue;
        }
        hashable(&key)?;
        let key = key.as_str().ok_or_else(|| failed("xmlattr: expected names"))?;
        if key.contains(|c: char| c.is_ascii_whitespace() || matches!(c, '\u{b}' | '/' | '>' | '=')) {
            return Err(failed(format!("xmlattr: {key:?} is no name of an attribute")));
        }
        let escaped = escape(s, &value, &Args::parse("", &[], &[])?)?;
        let escaped = escaped.as_str().unwrap_or_default();
        charge_bytes(s, key.len().saturating_mul(5) + escaped.len())?;
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend([&*text::escape(key), "=\"", escaped, "\""]);
    }
    if !out.is_empty() && args.get(0).is_none_or(Value::is_true) {
        out.insert(0, ' ');
    }
    Ok(out.into())
}
