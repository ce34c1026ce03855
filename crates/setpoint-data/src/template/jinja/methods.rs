//! The methods of Python's strings, lists and maps. Those that change a value do not exist: jinja2's sandbox forbids them.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::args::Args;
use super::compare::equal;
use super::format::str_format;
use super::text::{self, Lines, Side, index_of, is_space, strip};
use super::value::{
    charge_arguments, charge_bytes, charge_items, dict, failed, hashable, is_list, iterate, list, measure, pairs,
    tuple, type_name,
};

/// Calls a method of a value that has none of its own.
pub(super) fn method(s: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    charge_arguments(s, args)?;
    if let Some(text) = value.as_str() {
        return string_method(s, text, name, args);
    }
    match value.kind() {
        ValueKind::Map => map_method(s, value, name, args),
        ValueKind::Seq | ValueKind::Iterable => list_method(s, value, name, args),
        ValueKind::Undefined => Err(ErrorKind::UndefinedError.into()),
        _ => Err(unknown(value, name)),
    }
}

fn unknown(value: &Value, name: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("{} has no method named {name}", type_name(value)))
}

fn required<'a>(args: &'a Args, index: usize, method: &str) -> Result<&'a str, Error> {
    args.required(index, method)?;
    Ok(args.text(index, method)?.unwrap_or_default())
}

/// The separator of `split`: none means white space.
fn separator<'a>(args: &'a Args, method: &str) -> Result<Option<&'a str>, Error> {
    match args.some(0) {
        None => Ok(None),
        Some(_) => match args.text(0, method)? {
            Some("") => Err(failed(format!("{method}: the separator is empty"))),
            other => Ok(other),
        },
    }
}

fn split(s: &mut State<'_, '_>, text: &str, args: &Args, right: bool) -> Result<Value, Error> {
    let most = usize::try_from(args.int(1, -1, "split")?).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = text;
    match separator(args, "split")? {
        Some(separator) => {
            charge_items(s, text.matches(separator).count().min(most).saturating_mul(2))?;
            while parts.len() < most {
                let cut = if right { rest.rsplit_once(separator) } else { rest.split_once(separator) };
                let Some((before, behind)) = cut else { break };
                let (part, left) = if right { (behind, before) } else { (before, behind) };
                parts.push(part);
                rest = left;
            }
            parts.push(rest);
        }
        None => {
            charge_items(s, text.split(is_space).count().min(most).saturating_mul(2))?;
            loop {
                rest = if right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
                if rest.is_empty() {
                    break;
                }
                let cut = if right { rest.rfind(is_space) } else { rest.find(is_space) };
                let Some(at) = cut.filter(|_| parts.len() < most) else {
                    parts.push(rest);
                    break;
                };
                let width = rest[at..].chars().next().map_or(1, char::len_utf8);
                let (part, left) = if right { (&rest[at + width..], &rest[..at]) } else { (&rest[..at], &rest[at..]) };
                parts.push(part);
                rest = left;
            }
        }
    }
    if right {
        parts.reverse();
    }
    Ok(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
}

/// Returns whether any of the given texts satisfies a condition: `startswith` takes one or a tuple of them.
fn any_of(args: &Args, method: &str, test: impl Fn(&str) -> bool) -> Result<Value, Error> {
    let value = args.required(0, method)?;
    if let Some(text) = value.as_str() {
        return Ok(test(text).into());
    }
    if !value.is_tuple() {
        return Err(failed(format!("{method}: expected a string or a tuple of strings, found {}", type_name(value))));
    }
    for item in value.try_iter()? {
        let text = item.as_str().ok_or_else(|| failed(format!("{method}: expected strings")))?;
        if test(text) {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

/// The part of a text that `find`, `count` and `index` look at, and how many characters are before it.
fn part<'t>(whole: &'t str, args: &Args, method: &str) -> Result<(&'t str, usize), Error> {
    if args.get(1).is_none() && args.get(2).is_none() {
        return Ok((whole, 0));
    }
    let length = whole.chars().count() as i64;
    let place = |index: i64| (if index < 0 { index.saturating_add(length) } else { index }).clamp(0, length) as usize;
    let from = if args.some(1).is_some() { place(args.int(1, 0, method)?) } else { 0 };
    let to = if args.some(2).is_some() { place(args.int(2, length, method)?) } else { length as usize };
    let at = |n: usize| whole.char_indices().nth(n).map_or(whole.len(), |(at, _)| at);
    Ok((&whole[at(from)..at(to).max(at(from))], from))
}

fn string_method(s: &mut State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let parameters: &[&str] = match name {
        "split" | "rsplit" => &["sep", "maxsplit"],
        "splitlines" => &["keepends"],
        "strip" | "lstrip" | "rstrip" | "partition" | "rpartition" | "removeprefix" | "removesuffix" | "zfill"
        | "join" | "startswith" | "endswith" => &["_0"],
        "replace" | "count" | "find" | "rfind" | "index" | "rindex" => &["_0", "_1", "count"],
        "ljust" | "rjust" | "center" => &["_0", "_1"],
        "expandtabs" => &["tabsize"],
        _ => &[],
    };
    if name == "format" {
        return Ok(str_format(s, text, args)?.into());
    }
    let args = Args::parse(name, parameters, args)?;
    let all = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
    let cased = |upper: bool| {
        let mut tests: [fn(char) -> bool; 2] = [char::is_lowercase, char::is_uppercase];
        if upper {
            tests.reverse();
        }
        let [wanted, other] = tests;
        Value::from(text.chars().any(wanted) && !text.chars().any(other))
    };
    let find = |right: bool| -> Result<(Option<usize>, usize), Error> {
        let (part, before) = part(text, &args, name)?;
        let wanted = required(&args, 0, name)?;
        let found = if right { part.rfind(wanted) } else { part.find(wanted) };
        Ok((found.map(|at| part[..at].chars().count()), before))
    };
    Ok(match name {
        "upper" => text.to_uppercase().into(),
        "lower" | "casefold" => text.to_lowercase().into(),
        "capitalize" => text::capitalize(text).into(),
        "title" => text::title(text).into(),
        "swapcase" => text
            .chars()
            .flat_map(|c| -> Vec<char> {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            })
            .collect::<String>()
            .into(),
        "islower" => cased(false),
        "isupper" => cased(true),
        "istitle" => (text.chars().any(char::is_alphabetic) && text::title(text) == text).into(),
        "isspace" => all(is_space),
        "isdigit" | "isnumeric" | "isdecimal" => all(char::is_numeric),
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => text.is_ascii().into(),
        "strip" | "lstrip" | "rstrip" => {
            let chars = if args.some(0).is_some() { args.text(0, name)? } else { None };
            strip(text, chars, name != "rstrip", name != "lstrip").into()
        }
        "replace" => {
            let (old, new) = (required(&args, 0, name)?, required(&args, 1, name)?);
            return text::replace(s, text, old, new, args.int(2, -1, name)?);
        }
        "split" | "rsplit" => return split(s, text, &args, name == "rsplit"),
        "splitlines" => {
            let keep = args.flag(0);
            charge_items(s, Lines::new(text).count().saturating_mul(2))?;
            let lines =
                Lines::new(text).map(|(line, end)| Value::from(if keep { [line, end].concat() } else { line.into() }));
            Value::from(lines.collect::<Vec<_>>())
        }
        "partition" | "rpartition" => {
            let separator = required(&args, 0, name)?;
            if separator.is_empty() {
                return Err(failed(format!("{name}: the separator is empty")));
            }
            let cut = if name == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            let parts = match (cut, name) {
                (Some((before, behind)), _) => [before, separator, behind],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            return tuple(s, parts.map(Value::from).to_vec());
        }
        "removeprefix" => text.strip_prefix(required(&args, 0, name)?).unwrap_or(text).into(),
        "removesuffix" => text.strip_suffix(required(&args, 0, name)?).unwrap_or(text).into(),
        "startswith" => return any_of(&args, name, |start| text.starts_with(start)),
        "endswith" => return any_of(&args, name, |end| text.ends_with(end)),
        "count" => {
            let (part, _) = part(text, &args, name)?;
            let wanted = required(&args, 0, name)?;
            if wanted.is_empty() { part.chars().count() + 1 } else { part.matches(wanted).count() }.into()
        }
        "find" | "rfind" => match find(name == "rfind")? {
            (Some(at), before) => ((at + before) as i64).into(),
            (None, _) => index_of(text, None),
        },
        "index" | "rindex" => match find(name == "rindex")? {
            (Some(at), before) => ((at + before) as i64).into(),
            (None, _) => return Err(text::not_found(required(&args, 0, name)?)),
        },
        "ljust" | "rjust" | "center" => {
            args.required(0, name)?;
            let mut fill = args.text(1, name)?.unwrap_or(" ").chars();
            let (Some(c), None) = (fill.next(), fill.next()) else {
                return Err(failed(format!("{name}: expected one character to fill with")));
            };
            let side = match name {
                "ljust" => Side::Right,
                "rjust" => Side::Left,
                _ => Side::Both,
            };
            return text::pad(s, text, args.int(0, 0, name)?, c, side);
        }
        "zfill" => {
            args.required(0, name)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let width = args.int(0, 0, name)?.saturating_sub(sign.len() as i64);
            let padded = text::pad(s, digits, width, '0', Side::Left)?;
            (sign.to_owned() + padded.as_str().unwrap_or_default()).into()
        }
        "join" => {
            let items = iterate(s, args.required(0, name)?)?;
            let mut out = String::new();
            for (i, item) in items.iter().enumerate() {
                let item = item
                    .as_str()
                    .ok_or_else(|| failed(format!("join: expected strings, found {} at {i}", type_name(item))))?;
                charge_bytes(s, item.len() + text.len() + 8)?;
                out.push_str(if i > 0 { text } else { "" });
                out.push_str(item);
            }
            out.into()
        }
        _ => return Err(unknown(&Value::from(text), name)),
    })
}

fn map_method(s: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(object) = value.as_object() else { return Err(unknown(value, name)) };
    let parameters: &[&str] = if name == "get" { &["_0", "_1"] } else { &[] };
    let args = Args::parse(name, parameters, args)?;
    if name != "get" {
        charge_items(s, value.len().unwrap_or(0).saturating_mul(2))?;
    }
    match name {
        "keys" => Ok(Value::from(pairs(object).map(|(k, _)| k).collect::<Vec<_>>())),
        "values" => Ok(Value::from(pairs(object).map(|(_, v)| v).collect::<Vec<_>>())),
        "items" => {
            let items = pairs(object).map(|(k, v)| Value::from(minijinja::value::Tuple::from([k, v]))).collect();
            list(s, items)
        }
        "get" => {
            let key = args.required(0, "get")?;
            hashable(key)?;
            Ok(object.get_value(key).unwrap_or_else(|| args.get(1).cloned().unwrap_or_else(|| Value::from(()))))
        }
        "copy" => dict(s, pairs(object).collect()),
        _ => Err(unknown(value, name)),
    }
}

fn list_method(s: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if !is_list(value) {
        return Err(unknown(value, name));
    }
    match name {
        "count" | "index" => {
            let args = Args::parse(name, &["_0"], args)?;
            let wanted = args.required(0, name)?;
            measure(s, wanted)?;
            let mut count = 0;
            for (i, item) in iterate(s, value)?.iter().enumerate() {
                if equal(s, item, wanted)? {
                    if name == "index" {
                        return Ok(i.into());
                    }
                    count += 1;
                }
            }
            if name == "index" { Err(failed("index: the value is not in the list")) } else { Ok(count.into()) }
        }
        "copy" if !value.is_tuple() => Ok(Value::from(iterate(s, value)?)),
        _ => Err(unknown(value, name)),
    }
}
