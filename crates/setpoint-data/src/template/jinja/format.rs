//! Python's `text % values` and `text.format(…)`, with the widths that a template asks for paid in advance.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::args::split;
use super::operators::charge_copies;
use super::print::{repr, text};
use super::value::{as_float, as_int, charge_bytes, failed, is_list, iterate, type_name};

/// The values that a format takes one after another.
struct Values<'a> {
    given: Vec<Value>,
    map: Option<&'a Value>,
    next: usize,
}

impl Values<'_> {
    fn take(&mut self) -> Result<Value, Error> {
        self.next += 1;
        self.given.get(self.next - 1).cloned().ok_or_else(|| failed("not enough arguments for the format"))
    }
}

/// Python's `text % values`.
pub(super) fn percent(state: &State<'_, '_>, format: &Value, values: &Value) -> Result<Value, Error> {
    let source = format.as_str().unwrap_or_default();
    let given = if values.is_tuple() { iterate(state, values)? } else { vec![values.clone()] };
    let map = (values.kind() == ValueKind::Map).then_some(values);
    let unchecked = map.is_some() || (is_list(values) && !values.is_tuple());
    let mut values = Values { given, map, next: 0 };
    let mut out = String::new();
    let mut rest = source;
    let mut named = false;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let spec = Spec::parse(&rest[at + 1..], &mut values, &mut named)?;
        rest = &rest[at + 1 + spec.length..];
        charge_bytes(state, out.len() / 8)?;
        charge_copies(state, 1, spec.size())?;
        spec.write(state, &mut values, &mut out)?;
    }
    out.push_str(rest);
    if values.next < values.given.len() && !unchecked && !named {
        return Err(failed("not all arguments were converted by the format"));
    }
    Ok(out.into())
}

/// `%(key)-08.3f`.
struct Spec {
    key: Option<Value>,
    flags: String,
    width: Option<usize>,
    precision: Option<usize>,
    kind: char,
    length: usize,
}

/// A number that no text is as long as.
const TOO_LONG: usize = usize::MAX / 4;

fn number(
    chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
    values: &mut Values<'_>,
) -> Result<Option<i128>, Error> {
    if chars.next_if(|(_, c)| *c == '*').is_some() {
        let value = values.take()?;
        return as_int(&value).map(Some).ok_or_else(|| failed("`*` needs a whole number"));
    }
    let mut number = None;
    while let Some((_, c)) = chars.next_if(|(_, c)| c.is_ascii_digit()) {
        let digit = i128::from(c as u8 - b'0');
        number = Some(number.unwrap_or(0i128).saturating_mul(10).saturating_add(digit));
    }
    Ok(number)
}

impl Spec {
    fn parse(source: &str, values: &mut Values<'_>, named: &mut bool) -> Result<Self, Error> {
        let incomplete = || failed("incomplete format");
        let (key, start) = match source.strip_prefix('(') {
            Some(inner) => {
                let (name, _) = inner.split_once(')').ok_or_else(incomplete)?;
                let map = values.map.ok_or_else(|| failed("the format needs a map"))?;
                let value = map.as_object().and_then(|o| o.get_value(&Value::from(name)));
                *named = true;
                (Some(value.ok_or_else(|| failed(format!("the format's {name:?} is not in the map")))?), name.len() + 2)
            }
            None => (None, 0),
        };
        let mut chars = source[start..].char_indices().peekable();
        let mut flags = String::new();
        while let Some((_, flag)) = chars.next_if(|(_, c)| "#0- +".contains(*c)) {
            flags.push(flag);
        }
        let mut width = number(&mut chars, values)?;
        if let Some(negative) = width.filter(|w| *w < 0) {
            flags.push('-');
            width = Some(-negative);
        }
        let precision = match chars.next_if(|(_, c)| *c == '.') {
            Some(_) => Some(number(&mut chars, values)?.unwrap_or(0).max(0)),
            None => None,
        };
        while chars.next_if(|(_, c)| "hlL".contains(*c)).is_some() {}
        let (at, kind) = chars.next().ok_or_else(incomplete)?;
        let size = |n: i128| usize::try_from(n).unwrap_or(TOO_LONG).min(TOO_LONG);
        let length = start + at + kind.len_utf8();
        Ok(Self { key, flags, width: width.map(size), precision: precision.map(size), kind, length })
    }

    fn size(&self) -> usize {
        self.width.unwrap_or(0) + self.precision.unwrap_or(0)
    }

    fn write(&self, state: &State<'_, '_>, values: &mut Values<'_>, out: &mut String) -> Result<(), Error> {
        if self.kind == '%' {
            out.push('%');
            return Ok(());
        }
        let value = match &self.key {
            Some(value) => value.clone(),
            None => values.take()?,
        };
        let wrong = || failed(format!("%{} needs a number, found {}", self.kind, type_name(&value)));
        let (value, kind) = match self.kind {
            's' => (Value::from(text(state, &value)?), 's'),
            'r' | 'a' => (Value::from(repr(state, &value, false)?), 's'),
            'd' | 'i' | 'u' => {
                let float = || as_float(&value).filter(|x| x.is_finite()).map(|x| x.trunc() as i128);
                let int = as_int(&value).or_else(float).ok_or_else(wrong)?;
                (super::value::from_int(int), 'd')
            }
            'x' | 'X' | 'o' => (super::value::from_int(as_int(&value).ok_or_else(wrong)?), self.kind),
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => (Value::from(as_float(&value).ok_or_else(wrong)?), self.kind),
            'c' => (value, 'c'),
            other => return Err(failed(format!("unsupported format character {other:?}"))),
        };
        let width = self.width.map_or_else(String::new, |w| w.to_string());
        let precision = self.precision.map_or_else(String::new, |p| format!(".{p}"));
        let spec = format!("%{}{width}{precision}{kind}", self.flags);
        charge_bytes(state, value.as_str().map_or(0, str::len))?;
        out.push_str(&format(FormatStyle::Printf, &spec, &[value])?);
        Ok(())
    }
}

/// Python's `text.format(…)`.
pub(super) fn str_format(state: &State<'_, '_>, source: &str, args: &[Value]) -> Result<String, Error> {
    let (positional, named) = split(args)?;
    let mut formatter = Formatter { state, positional, named, next: 0 };
    formatter.expand(source, 2)
}

struct Formatter<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    positional: &'a [Value],
    named: Vec<(String, Value)>,
    next: usize,
}

impl Formatter<'_, '_, '_> {
    fn expand(&mut self, source: &str, depth: usize) -> Result<String, Error> {
        if depth == 0 {
            return Err(failed("format: fields are nested too deeply"));
        }
        let mut out = String::new();
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = behind;
                continue;
            }
            if brace == "}" {
                return Err(failed("format: a single } is in the text"));
            }
            let end = closing(rest).ok_or_else(|| failed("format: a { is never closed"))?;
            let field = self.field(&rest[..end], depth)?;
            charge_bytes(self.state, field.len())?;
            out.push_str(&field);
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = name.split_once('!').map_or((name, None), |(name, c)| (name, Some(c)));
        let mut value = self.value(name)?;
        match conversion {
            None => {}
            Some("s") => value = Value::from(text(self.state, &value)?),
            Some("r" | "a") => value = Value::from(repr(self.state, &value, false)?),
            Some(other) => return Err(failed(format!("format: unknown conversion {other:?}"))),
        }
        let spec = if spec.is_empty() { String::new() } else { self.expand(spec, depth - 1)? };
        if spec.is_empty() || value.as_object().is_some() || value.is_none() || value.is_undefined() {
            if spec.is_empty() {
                return text(self.state, &value);
            }
            return Err(failed(format!("format: {} takes no format, found {spec:?}", type_name(&value))));
        }
        let mut size = 0usize;
        let mut number = 0usize;
        for c in spec.chars() {
            number = match c.to_digit(10) {
                Some(digit) => number.saturating_mul(10).saturating_add(digit as usize),
                None => 0,
            };
            size = size.max(number);
        }
        charge_copies(self.state, 4, size.min(TOO_LONG))?;
        format(FormatStyle::StrFormat, &format!("{{:{spec}}}"), &[value])
    }

    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let mut value = if first.is_empty() {
            self.next += 1;
            self.positional.get(self.next - 1).cloned()
        } else if let Ok(index) = first.parse::<usize>() {
            self.positional.get(index).cloned()
        } else {
            self.named.iter().find(|(n, _)| n == first).map(|(_, v)| v.clone())
        }
        .ok_or_else(|| failed(format!("format: there is no argument {first:?}")))?;
        while !rest.is_empty() {
            let (key, behind) = if let Some(inner) = rest.strip_prefix('[') {
                inner.split_once(']').ok_or_else(|| failed("format: a [ is never closed"))?
            } else {
                let inner = rest.strip_prefix('.').ok_or_else(|| failed("format: expected . or ["))?;
                inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
            };
            value = match key.parse::<i64>() {
                Ok(index) => value.get_item(&Value::from(index))?,
                Err(_) => value.get_attr(key)?,
            };
            rest = behind;
        }
        Ok(value)
    }
}

/// The place of the brace that closes a field.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}
