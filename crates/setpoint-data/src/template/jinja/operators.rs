//! The operators and functions of templates, in Python's semantics and at a price.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};

use super::args::values;
use super::compare::{compare, contains, equal};
use super::compile::Assignment;
use super::format::percent;
use super::print::text;
use super::value::{
    Namespace, Range, as_float, as_int, charge_bytes, charge_items, dict, failed, from_int, is_list, iterate, list,
    measure, measure_parts, over_budget, set_attribute, tuple, type_name,
};

/// The longest `range` that jinja2's sandbox allows.
const MAX_RANGE: i128 = 100_000;

type Binary = fn(&mut State<'_, '_>, &Value, &Value) -> Result<Value, Error>;

/// Adds what [`compile`](super::compile) calls instead of the engine's own operators.
pub(super) fn add_operators(environment: &mut Environment<'static>) {
    const BINARY: [(&str, Binary); 19] = [
        ("~", concat),
        ("+", add),
        ("*", multiply),
        ("%", remainder),
        ("==", |s, a, b| Ok(equal(s, a, b)?.into())),
        ("!=", |s, a, b| Ok((!equal(s, a, b)?).into())),
        ("<", |s, a, b| Ok(compare(s, a, b)?.is_lt().into())),
        ("<=", |s, a, b| Ok(compare(s, a, b)?.is_le().into())),
        (">", |s, a, b| Ok(compare(s, a, b)?.is_gt().into())),
        (">=", |s, a, b| Ok(compare(s, a, b)?.is_ge().into())),
        ("<in>", |s, a, b| Ok(contains(s, b, a)?.into())),
        ("keep:Eq", |s, a, b| keep(b, equal(s, a, b)?)),
        ("keep:Ne", |s, a, b| keep(b, !equal(s, a, b)?)),
        ("keep:Lt", |s, a, b| keep(b, compare(s, a, b)?.is_lt())),
        ("keep:Lte", |s, a, b| keep(b, compare(s, a, b)?.is_le())),
        ("keep:Gt", |s, a, b| keep(b, compare(s, a, b)?.is_gt())),
        ("keep:Gte", |s, a, b| keep(b, compare(s, a, b)?.is_ge())),
        ("keep:In", |s, a, b| keep(b, contains(s, b, a)?)),
        ("keep:NotIn", |s, a, b| keep(b, !contains(s, b, a)?)),
    ];
    for (name, operator) in BINARY {
        environment.add_filter(name, move |s: &mut State<'_, '_>, a: Value, b: Value| operator(s, &a, &b));
    }
    environment.add_filter("[]", |s: &mut State<'_, '_>, items: Rest<ValueOrKwargs>| list(s, values(items)));
    environment.add_filter("()", |s: &mut State<'_, '_>, items: Rest<ValueOrKwargs>| tuple(s, values(items)));
    environment.add_filter("{}", |s: &mut State<'_, '_>, items: Rest<Value>| {
        dict(s, items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    });
    environment.add_filter("[:]", |s: &mut State<'_, '_>, value: Value, start: Value, stop: Value, step: Value| {
        slice(s, &value, [&start, &stop, &step])
    });
    environment.add_filter("[.]", |s: &mut State<'_, '_>, value: Value, key: Value| -> Result<Value, Error> {
        charge_bytes(s, key.as_str().map_or(0, str::len))?;
        if key.as_object().is_some() {
            measure(s, &key)?;
        }
        value.get_item(&key)
    });
    environment.add_filter("<changed>", |s: &mut State<'_, '_>, values: Rest<Value>| -> Result<Value, Error> {
        let Some((value, arguments)) = values.split_first() else { return Err(failed("changed() of nothing")) };
        measure_parts(s, arguments)?;
        value.call_method(s, "changed", arguments)
    });
}

/// Adds what sets attributes of namespaces.
pub(super) fn add_assignments<'a>(
    environment: &mut Environment<'static>,
    assignments: impl IntoIterator<Item = &'a Assignment>,
) {
    for Assignment { function, name, attribute } in assignments.into_iter().cloned() {
        environment.add_filter(function, move |s: &mut State<'_, '_>, value: Value| -> Result<Value, Error> {
            let target = s.lookup(name).unwrap_or_default();
            let Some(namespace) = target.downcast_object::<Namespace>() else {
                return Err(failed(format!("{name} is no namespace: its attribute {attribute} cannot be set")));
            };
            set_attribute(s, &namespace, attribute, &value)?;
            Ok(Value::UNDEFINED)
        });
    }
}

/// Adds the global functions.
pub(super) fn add_functions(environment: &mut Environment<'static>) {
    for (name, _) in environment.globals().map(|(n, v)| (n.to_owned(), v)).collect::<Vec<_>>() {
        environment.remove_global(&name);
    }
    environment.add_function("namespace", |s: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
        let namespace = Namespace::default();
        for (key, value) in merged(s, &values(args))? {
            let Some(name) = key.as_str() else { return Err(failed("an attribute of a namespace needs a name")) };
            set_attribute(s, &namespace, name, &value)?;
        }
        Ok(Value::from_object(namespace))
    });
    environment.add_function("dict", |s: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
        let fields = merged(s, &values(args))?;
        dict(s, fields)
    });
    environment.add_function("range", |args: Rest<Value>| -> Result<Value, Error> {
        let args = args.iter().map(as_int).collect::<Option<Vec<_>>>();
        let (start, stop, step) = match args.as_deref() {
            Some([stop]) => (0, *stop, 1),
            Some([start, stop]) => (*start, *stop, 1),
            Some([start, stop, step]) if *step != 0 => (*start, *stop, *step),
            _ => return Err(failed("range: expected one to three whole numbers and a step that is not 0")),
        };
        let len = stop.saturating_sub(start).saturating_add(step - step.signum()).checked_div(step).unwrap_or(0).max(0);
        if len > MAX_RANGE {
            return Err(failed(format!("range: it has more than {MAX_RANGE} items")));
        }
        match (i64::try_from(start), i64::try_from(step)) {
            (Ok(start), Ok(step)) => Ok(Value::from_object(Range { start, step, len: len as usize })),
            _ => Err(failed("range: a number is too large")),
        }
    });
}

/// The fields that `dict` and `namespace` are given: of a map or of pairs, and by name.
fn merged(state: &mut State<'_, '_>, args: &[Value]) -> Result<Vec<(Value, Value)>, Error> {
    let mut fields: Vec<(Value, Value)> = Vec::new();
    let (args, named) = match args.split_last() {
        Some((last, args)) if last.is_kwargs() => (args, Some(Kwargs::try_from(last.clone())?)),
        _ => (args, None),
    };
    let mut set = |key: Value, value: Value| fields.push((key, value));
    match args {
        [] => {}
        [missing] if missing.is_undefined() => return Err(ErrorKind::UndefinedError.into()),
        [map] if map.kind() == ValueKind::Map => {
            charge_items(state, map.len().unwrap_or(0))?;
            map.as_object().into_iter().flat_map(super::value::pairs).for_each(|(k, v)| set(k, v));
        }
        [pairs] => {
            for pair in iterate(state, pairs)? {
                match iterate(state, &pair)?.as_slice() {
                    [key, value] => {
                        super::value::hashable(key)?;
                        set(key.clone(), value.clone());
                    }
                    _ => return Err(failed("dict: expected pairs")),
                }
            }
        }
        _ => return Err(failed("dict: expected one map")),
    }
    if let Some(named) = named {
        for name in named.args() {
            set(Value::from(name), named.peek::<Value>(name)?);
        }
    }
    Ok(fields)
}

fn keep(right: &Value, result: bool) -> Result<Value, Error> {
    Ok(Value::from(Tuple::from([Value::from(result), right.clone()])))
}

fn concat(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    let size = a.as_str().map_or(0, str::len) + b.as_str().map_or(0, str::len);
    charge_bytes(state, size)?;
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return Ok(Value::from([a, b].concat()));
    }
    Ok(Value::from(text(state, a)? + &text(state, b)?))
}

fn add(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        charge_bytes(state, a.len() + b.len())?;
        return Ok(Value::from([a, b].concat()));
    }
    if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() {
        let mut items = iterate(state, a)?;
        items.extend(iterate(state, b)?);
        return Ok(if a.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) });
    }
    arithmetic("+", a, b, i128::checked_add, |a, b| a + b)
}

fn multiply(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    for (value, times) in [(a, b), (b, a)] {
        let Some(times) = as_int(times) else { continue };
        let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
        if let Some(text) = value.as_str() {
            charge_bytes(state, text.len().saturating_mul(times))?;
            return Ok(Value::from(text.repeat(times)));
        }
        if is_list(value) {
            charge_items(state, value.len().unwrap_or(0).saturating_mul(times))?;
            let items = iterate(state, value)?;
            let items: Vec<Value> = std::iter::repeat_n(items, times).flatten().collect();
            return Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) });
        }
    }
    arithmetic("*", a, b, i128::checked_mul, |a, b| a * b)
}

fn remainder(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if a.as_str().is_some() {
        return percent(state, a, b);
    }
    if as_float(b) == Some(0.0) && as_float(a).is_some() {
        return Err(failed("division by zero"));
    }
    arithmetic("%", a, b, python_remainder, |a, b| {
        let r = a % b;
        if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
    })
}

fn python_remainder(a: i128, b: i128) -> Option<i128> {
    let r = a.checked_rem(b)?;
    Some(if r != 0 && (r < 0) != (b < 0) { r + b } else { r })
}

fn arithmetic(
    name: &str,
    a: &Value,
    b: &Value,
    ints: fn(i128, i128) -> Option<i128>,
    floats: fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (as_int(a), as_int(b)) {
        return ints(a, b).map(from_int).ok_or_else(|| failed(format!("`{name}`: the number is too large")));
    }
    match (as_float(a), as_float(b)) {
        (Some(a), Some(b)) => Ok(Value::from(floats(a, b))),
        _ => Err(failed(format!("`{name}` is not supported between {} and {}", type_name(a), type_name(b)))),
    }
}

/// Python's `value[start:stop:step]`.
fn slice(state: &mut State<'_, '_>, value: &Value, bounds: [&Value; 3]) -> Result<Value, Error> {
    let mut numbers = [None; 3];
    for (number, bound) in numbers.iter_mut().zip(bounds) {
        if !bound.is_none() {
            let index = as_int(bound).ok_or_else(|| failed("slice: expected whole numbers"))?;
            *number = Some(index.clamp(i128::from(i64::MIN), i128::from(i64::MAX)));
        }
    }
    if value.as_str().is_none() && !is_list(value) {
        return Err(failed(format!("a value of type {} cannot be sliced", type_name(value))));
    }
    let [start, stop, step] = numbers;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(failed("slice step cannot be zero"));
    }
    if let (Some(text), 1) = (value.as_str(), step)
        && text.is_ascii()
    {
        charge_bytes(state, text.len() / 8)?;
        let (from, to) = limits(text.len(), start, stop, step);
        return Ok(Value::from(&text[from.min(to) as usize..to as usize]));
    }
    let items = if let Some(text) = value.as_str() {
        charge_bytes(state, text.len().saturating_mul(8))?;
        text.chars().map(Value::from).collect()
    } else {
        iterate(state, value)?
    };
    let (from, to) = limits(items.len(), start, stop, step);
    let mut picked = Vec::new();
    let mut at = from;
    while (step > 0 && at < to) || (step < 0 && at > to) {
        picked.push(items[at as usize].clone());
        at += step;
    }
    Ok(match value.as_str() {
        Some(_) => Value::from(picked.iter().filter_map(Value::as_str).collect::<String>()),
        None if value.is_tuple() => Value::from(Tuple::from(picked)),
        None => Value::from(picked),
    })
}

/// The first index of a slice and the one behind its last.
fn limits(len: usize, start: Option<i128>, stop: Option<i128>, step: i128) -> (i128, i128) {
    let len = len as i128;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |index: i128| (if index < 0 { index + len } else { index }).clamp(low, high);
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    (start.map_or(first, place), stop.map_or(last, place))
}

/// Fails where a filter would make more than a rendering may: `times` copies of `size` bytes.
pub(super) fn charge_copies(state: &State<'_, '_>, size: usize, times: usize) -> Result<(), Error> {
    charge_bytes(state, size.checked_mul(times).ok_or_else(over_budget)?)
}
