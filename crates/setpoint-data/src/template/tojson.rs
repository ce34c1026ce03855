//! `tojson` as transformers defines it: Python's `json.dumps` with `ensure_ascii=False` and no HTML escaping.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::jinja::Args;

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(state: &State<'_, '_>, value: &Value, args: &Args) -> Result<Value, Error> {
    let indent = match args.some(1) {
        None => None,
        Some(value) => Some(match value.as_str() {
            Some(text) => text.to_owned(),
            None => {
                let width = usize::try_from(args.int(1, 0, "tojson")?).unwrap_or(0);
                charge(state, width)?;
                " ".repeat(width)
            }
        }),
    };
    let (item, key) = match args.some(2) {
        Some(separators) => {
            let texts: Vec<Value> = separators.try_iter()?.take(3).collect();
            match texts.iter().map(Value::as_str).collect::<Option<Vec<_>>>().as_deref() {
                Some([item, key]) => ((*item).to_owned(), (*key).to_owned()),
                _ => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: expected two separators")),
            }
        }
        None => (if indent.is_some() { ",".into() } else { ", ".into() }, ": ".into()),
    };
    let mut writer = Writer {
        state,
        out: String::new(),
        paid: 0,
        ensure_ascii: args.flag(0),
        sort_keys: args.flag(3),
        indent,
        item,
        key,
    };
    writer.value(value, 0)?;
    charge(state, writer.out.len() - writer.paid)?;
    Ok(Value::from(writer.out))
}

/// Charges for serialised bytes: writing them is a multiple of the work of copying.
fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 4)
}

struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    out: String,
    /// Bytes that have been charged for.
    paid: usize,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > 400 {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deeply"));
        }
        if self.out.len() > self.paid + 1024 {
            charge(self.state, self.out.len() - self.paid)?;
            self.paid = self.out.len();
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.items(items, ['[', ']'], depth, |writer, item| writer.value(&item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut fields = Vec::new();
                for key in value.try_iter()? {
                    fields.push((key_text(&key)?, value.get_item(&key)?));
                }
                if self.sort_keys {
                    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.items(fields, ['{', '}'], depth, |writer, (key, item)| {
                    writer.string(&key);
                    let separator = writer.key.clone();
                    writer.out.push_str(&separator);
                    writer.value(&item, depth + 1)
                })?;
            }
            kind => {
                let message = format!("tojson: a value of type {kind} is not JSON serializable");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn items<T>(
        &mut self,
        items: Vec<T>,
        [open, close]: [char; 2],
        depth: usize,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        let empty = items.is_empty();
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                let separator = self.item.clone();
                self.out.push_str(&separator);
            }
            self.line(depth + 1)?;
            write(self, item)?;
        }
        if !empty {
            self.line(depth)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            let width = indent.len().saturating_mul(depth);
            if self.out.len().saturating_add(width) > self.paid.saturating_add(1024) {
                charge(self.state, width)?;
            }
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::None => "null".into(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.into(),
        ValueKind::Number => number(key),
        kind => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("tojson: a key of type {kind} is not allowed"),
            ));
        }
    })
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), python_float)
}

/// Python's `repr` of a float: the shortest digits that read back, in fixed notation from 1e-4 to below 1e16.
pub(super) fn python_float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    // Rust's `{:e}` has the shortest digits, too: "1.5e-7".
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let fixed = x.to_string();
        return if fixed.contains('.') { fixed } else { fixed + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{ChatTemplate, TemplateVariables};
    use super::*;

    fn dumps(arguments: &str, value: serde_json::Value) -> String {
        let template = ChatTemplate::new("t", format!("{{{{ x | tojson{arguments} }}}}")).unwrap();
        let extra = serde_json::Map::from_iter([("x".to_owned(), value)]);
        template.render_turns(&[], false, &TemplateVariables { extra, ..Default::default() }).unwrap()
    }

    #[test]
    fn spacing_order_and_no_escaping_of_html() {
        let value = json!({"b": "<a> & 'b' \"c\" é\n\u{1}", "a": [1, 2.0, true, null], "e": {}, "l": []});
        let expected = r#"{"b": "<a> & 'b' \"c\" é\n\u0001", "a": [1, 2.0, true, null], "e": {}, "l": []}"#;
        assert_eq!(dumps("", value.clone()), expected);
        let expected = "{\n    \"b\": 1,\n    \"a\": [\n        2\n    ]\n}";
        assert_eq!(dumps("(indent=4)", json!({"b": 1, "a": [2]})), expected);
        assert_eq!(dumps("(indent=0)", json!([1, 2])), "[\n1,\n2\n]");
        assert_eq!(
            dumps("(separators=(',', ':'), sort_keys=true)", json!({"b": [1, 2], "a": 3})),
            r#"{"a":3,"b":[1,2]}"#
        );
        assert_eq!(dumps("(ensure_ascii=true)", json!("é😀")), r#""\u00e9\ud83d\ude00""#);
    }

    #[test]
    fn floats_are_pythons() {
        // As printed by CPython's repr.
        let expected = [
            (0.1, "0.1"),
            (100.0, "100.0"),
            (-2.5, "-2.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.234e123, "1.234e+123"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (9007199254740993.0, "9007199254740992.0"),
        ];
        for (x, text) in expected {
            assert_eq!(python_float(x), text);
        }
    }
}
