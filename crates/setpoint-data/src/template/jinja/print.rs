//! Values as text: Python's `str` and `repr`.

use std::cmp::Ordering;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::compare::compare;
use super::value::{MAX_DEPTH, Namespace, Range, STRIDE, items, over_budget, pairs};
use crate::template::tojson::python_float;

/// Python's `str(value)`.
pub(super) fn text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut printer = Printer { state, out: String::new(), paid: 0 };
    if value.kind() != ValueKind::Undefined {
        printer.write(value, 0)?;
    }
    Ok(printer.out)
}

/// Python's `repr(value)`.
pub(super) fn repr(state: &State<'_, '_>, value: &Value, sort_keys: bool) -> Result<String, Error> {
    let mut printer = Printer { state, out: String::new(), paid: 0 };
    if sort_keys {
        printer.write_sorted(value, 0)?
    } else {
        printer.write(value, 0)?
    };
    Ok(printer.out)
}

struct Printer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    out: String,
    /// Bytes that have been charged for.
    paid: usize,
}

impl Printer<'_, '_, '_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.print(value, depth, false)
    }

    fn write_sorted(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.print(value, depth, true)
    }

    fn print(&mut self, value: &Value, depth: usize, sort_keys: bool) -> Result<(), Error> {
        if depth > MAX_DEPTH * 2 {
            return Err(over_budget());
        }
        if self.out.len() >= self.paid + STRIDE {
            self.state.consume_fuel(((self.out.len() - self.paid) / 16) as u64)?;
            self.paid = self.out.len();
        }
        match value.kind() {
            ValueKind::Undefined => self.out.push_str("Undefined"),
            ValueKind::None => self.out.push_str("None"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String if value.is_safe() => {
                self.out.push_str("Markup(");
                quote(value.as_str().unwrap_or_default(), &mut self.out);
                self.out.push(')');
            }
            ValueKind::String => quote(value.as_str().unwrap_or_default(), &mut self.out),
            ValueKind::Map => {
                let mut fields: Vec<(Value, Value)> = value.as_object().map(|o| pairs(o).collect()).unwrap_or_default();
                if sort_keys {
                    fields.sort_by(|a, b| compare(self.state, &a.0, &b.0).unwrap_or(Ordering::Equal));
                }
                self.out.push('{');
                for (i, (key, item)) in fields.iter().enumerate() {
                    self.out.push_str(if i > 0 { ", " } else { "" });
                    self.print(key, depth + 1, sort_keys)?;
                    self.out.push_str(": ");
                    self.print(item, depth + 1, sort_keys)?;
                }
                self.out.push('}');
            }
            ValueKind::Seq | ValueKind::Iterable => {
                if let Some(range) = value.downcast_object_ref::<Range>() {
                    let stop = range.start + range.step * range.len as i64;
                    self.out.push_str(&format!("range({}, {stop}", range.start));
                    self.out.push_str(&if range.step == 1 { ")".into() } else { format!(", {})", range.step) });
                    return Ok(());
                }
                let tuple = value.is_tuple() || super::sequence_filters::is_group(value);
                self.out.push(if tuple { '(' } else { '[' });
                let mut count = 0;
                for item in value.as_object().into_iter().flat_map(items) {
                    self.out.push_str(if count > 0 { ", " } else { "" });
                    self.print(&item, depth + 1, sort_keys)?;
                    count += 1;
                }
                self.out.push_str(match (tuple, count) {
                    (true, 1) => ",)",
                    (true, _) => ")",
                    _ => "]",
                });
            }
            _ => match value.downcast_object_ref::<Namespace>() {
                Some(namespace) => {
                    let fields: Vec<_> = namespace.fields().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                    self.out.push_str("<Namespace ");
                    self.print(&Value::from_pairs(fields), depth + 1, sort_keys)?;
                    self.out.push('>');
                }
                // Macros, functions and loops: a name.
                None => self.out.push_str(&value.to_string()),
            },
        }
        Ok(())
    }
}

/// A number's text.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(x) if x.is_finite() => python_float(x),
        Ok(x) if x.is_nan() => "nan".into(),
        Ok(x) => if x > 0.0 { "inf" } else { "-inf" }.into(),
        Err(_) => value.to_string(),
    }
}

/// Python's `repr` of a string.
pub(super) fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push(mark);
}

/// Python's `str.isprintable`, but for unassigned code points.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{10ffff}'))
}
