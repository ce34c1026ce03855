//! The filters of jinja2 that make numbers, and those that look at numbers.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::args::Args;
use super::print::text;
use super::value::{as_float, as_int, failed, from_int, type_name};

type State_<'a, 'b, 'c> = &'a mut State<'b, 'c>;
type Output = Result<Value, Error>;

/// Python's `int(text, base)`.
fn parse_int(text: &str, base: i64) -> Option<i128> {
    let text = super::text::strip(text, None, true, true);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixed = |base: i64| {
        let lower = digits.get(..2).map(str::to_ascii_lowercase);
        let prefix = match base {
            2 => "0b",
            8 => "0o",
            16 => "0x",
            _ => return None,
        };
        (lower.as_deref() == Some(prefix)).then(|| digits[2..].strip_prefix('_').unwrap_or(&digits[2..]))
    };
    let (digits, base) = match base {
        0 => match [2, 8, 16].into_iter().find_map(|b| prefixed(b).map(|d| (d, b))) {
            Some(found) => found,
            None if digits.starts_with('0') && digits.bytes().any(|b| b != b'0' && b != b'_') => return None,
            None => (digits, 10),
        },
        base => (prefixed(base).unwrap_or(digits), base),
    };
    let digits = without_underscores(digits)?;
    let base = u32::try_from(base).ok().filter(|b| (2..=36).contains(b))?;
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(&digits, base).ok()?;
    Some(if negative { -value } else { value })
}

/// Digits without single underscores between them.
fn without_underscores(digits: &str) -> Option<String> {
    let bad = digits.is_empty() || digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    (!bad).then(|| digits.replace('_', ""))
}

/// Python's `float(text)`.
fn parse_float(text: &str) -> Option<f64> {
    let text = super::text::strip(text, None, true, true);
    let lower = text.to_ascii_lowercase();
    let bare = lower.trim_start_matches(['+', '-']);
    if matches!(bare, "inf" | "infinity" | "nan") {
        return lower.parse().ok();
    }
    if !bare.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    without_underscores(text)?.parse().ok()
}

pub(super) fn abs(_: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    match (as_int(value), as_float(value)) {
        (Some(n), _) => Ok(from_int(n.checked_abs().ok_or_else(|| failed("abs: the number is too large"))?)),
        (None, Some(x)) => Ok(x.abs().into()),
        _ => Err(failed(format!("abs: expected a number, found {}", type_name(value)))),
    }
}

pub(super) fn int(_: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    if value.is_undefined() {
        return Err(minijinja::ErrorKind::UndefinedError.into());
    }
    let default = args.get(0).cloned().unwrap_or_else(|| 0.into());
    let base = args.int(1, 10, "int")?;
    if let Some(text) = value.as_str()
        && let Some(n) = parse_int(text, base)
    {
        return Ok(from_int(n));
    }
    if let Some(n) = as_int(value) {
        return Ok(from_int(n));
    }
    let float = value.as_str().map_or_else(|| as_float(value), parse_float);
    Ok(match float {
        Some(x) if x.is_finite() && x.abs() < 1e38 => from_int(x.trunc() as i128),
        _ => default,
    })
}

pub(super) fn float(_: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    if value.is_undefined() {
        return Err(minijinja::ErrorKind::UndefinedError.into());
    }
    let default = args.get(0).cloned().unwrap_or_else(|| 0.0.into());
    Ok(value.as_str().map_or_else(|| as_float(value), parse_float).map_or(default, Value::from))
}

pub(super) fn filesizeformat(_: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let bytes = value.as_str().map_or_else(|| as_float(value), parse_float);
    let bytes =
        bytes.ok_or_else(|| failed(format!("filesizeformat: expected a number, found {}", type_name(value))))?;
    let (base, infix) = if args.flag(0) { (1024.0_f64, "i") } else { (1000.0, "") };
    if bytes == 1.0 {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes.trunc() as i128).into());
    }
    let mut unit = base * base;
    let letters: [&str; 8] = [if infix.is_empty() { "k" } else { "K" }, "M", "G", "T", "P", "E", "Z", "Y"];
    for (i, letter) in letters.iter().enumerate() {
        if bytes < unit || i + 1 == letters.len() {
            return Ok(format!("{:.1} {letter}{infix}B", base * bytes / unit).into());
        }
        unit *= base;
    }
    Ok(Value::UNDEFINED)
}

pub(super) fn round(_: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let precision = args.int(0, 0, "round")?;
    let method = args.text(1, "round")?.unwrap_or("common");
    if !matches!(method, "common" | "ceil" | "floor") {
        return Err(failed("round: expected common, ceil or floor"));
    }
    let places = i32::try_from(precision).ok().filter(|p| (-300..=300).contains(p));
    let places = places.ok_or_else(|| failed("round: expected a precision of at most 300"))?;
    let Some(x) = as_float(value) else {
        return Err(failed(format!("round: expected a number, found {}", type_name(value))));
    };
    let power = 10f64.powi(places);
    if method != "common" {
        let whole = if method == "ceil" { (x * power).ceil() } else { (x * power).floor() };
        // A zero without sign: Python rounds to an integer first.
        return Ok((whole / power + 0.0).into());
    }
    match (as_int(value), usize::try_from(places)) {
        (Some(n), Ok(_)) => Ok(from_int(n)),
        (Some(n), Err(_)) => {
            let unit = 10i128.checked_pow(places.unsigned_abs()).unwrap_or(i128::MAX);
            let (down, rest) = (n.div_euclid(unit) * unit, n.rem_euclid(unit));
            let up = rest * 2 > unit || (rest * 2 == unit && (down / unit) % 2 != 0);
            Ok(from_int(if up { down + unit } else { down }))
        }
        // The decimal digits are correctly rounded, as Python's are.
        (None, Ok(places)) => Ok(format!("{x:.places$}").parse::<f64>().unwrap_or(x).into()),
        (None, Err(_)) => Ok(((x * power).round_ties_even() / power).into()),
    }
}

/// Python's `value % divisor == remainder`, as the tests of jinja2 put it.
pub(super) fn divides(s: &State<'_, '_>, value: &Value, divisor: &Value, remainder: f64) -> Result<bool, Error> {
    if let Some(format) = value.as_str() {
        // For strings `%` formats: without a place for the argument that fails, except for a list or map.
        let ignores = matches!(divisor.kind(), ValueKind::Map | ValueKind::Undefined)
            || (super::value::is_list(divisor) && !divisor.is_tuple());
        if ignores && !format.contains('%') {
            return Ok(false);
        }
        text(s, &super::format::percent(s, value, divisor)?)?;
        return Ok(false);
    }
    if let (Some(a), Some(b)) = (as_int(value), as_int(divisor)) {
        let rest = a.checked_rem_euclid(b).ok_or_else(|| failed("division by zero"))?;
        let rest = if b < 0 && rest != 0 { rest + b } else { rest };
        return Ok(rest as f64 == remainder);
    }
    match (as_float(value), as_float(divisor)) {
        (Some(_), Some(0.0)) => Err(failed("division by zero")),
        (Some(a), Some(b)) => {
            let rest = a % b;
            let rest = if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest };
            Ok(rest == remainder)
        }
        _ => Err(failed(format!("`%` is not supported between {} and {}", type_name(value), type_name(divisor)))),
    }
}
