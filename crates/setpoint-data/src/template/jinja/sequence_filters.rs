//! The filters of jinja2 that work on lists and maps.

use std::cmp::Ordering;
use std::collections::HashSet;

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::args::{Args, split};
use super::compare::{compare, equal};
use super::paths::{attributes, follow, path};
use super::print::repr;
use super::value::{as_float, as_int, charge_items, failed, hashable, iterate, list, measure, pairs, type_name};

type State_<'a, 'b, 'c> = &'a mut State<'b, 'c>;
type Output = Result<Value, Error>;

fn ignore_case(value: Value) -> Value {
    match value.as_str() {
        Some(text) => Value::from(text.to_lowercase()),
        None => value,
    }
}

/// The keys by which items are sorted or told apart.
fn keys(items: &[Value], attribute: Option<&Value>, sensitive: bool) -> Result<Vec<Value>, Error> {
    let path = attribute.map(path).transpose()?.unwrap_or_default();
    let key = |item: &Value| follow(item, &path, None);
    items.iter().map(|item| key(item).map(|k| if sensitive { k } else { ignore_case(k) })).collect()
}

/// Sorts by keys, stably; an error where two keys have no order.
fn sorted(
    s: &State<'_, '_>,
    items: Vec<Value>,
    keys: Vec<Vec<Value>>,
    [reverse, single]: [bool; 2],
) -> Result<Vec<(Vec<Value>, Value)>, Error> {
    charge_items(s, items.len().saturating_mul(16))?;
    let mut problem = None;
    let mut pairs: Vec<_> = keys.into_iter().zip(items).collect();
    pairs.sort_by(|a, b| {
        if problem.is_some() {
            return Ordering::Equal;
        }
        let order = match (a.0.as_slice(), b.0.as_slice()) {
            // Python compares single keys by order alone, and two nones have none; lists of keys by equality first.
            ([x], [y]) if single => compare(s, x, y),
            (xs, ys) => xs.iter().zip(ys).try_fold(Ordering::Equal, |order, (x, y)| {
                if order.is_eq() && !equal(s, x, y)? { compare(s, x, y) } else { Ok(order) }
            }),
        };
        let order = order.unwrap_or_else(|e| {
            problem = Some(e);
            Ordering::Equal
        });
        if reverse { order.reverse() } else { order }
    });
    problem.map_or(Ok(pairs), Err)
}

pub(super) fn attr(_: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let name = args.text(0, "attr")?.ok_or_else(|| failed("attr: expected a name"))?;
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let plain = value.as_object().filter(|o| o.repr() == ObjectRepr::Plain);
    Ok(plain.and_then(|o| o.get_value(&Value::from(name))).unwrap_or_default())
}

pub(super) fn batch(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let size = args.required(0, "batch")?.clone();
    let items = iterate(s, value)?;
    let size = as_int(&size).and_then(|n| i64::try_from(n).ok()).ok_or_else(|| failed("batch: expected a number"))?;
    let mut batches: Vec<Vec<Value>> = Vec::new();
    let mut current: Vec<Value> = Vec::new();
    for item in items {
        if current.len() as i64 == size {
            batches.push(std::mem::take(&mut current));
        }
        current.push(item);
    }
    if !current.is_empty() {
        if let Some(fill) = args.some(1) {
            let missing = usize::try_from(size).unwrap_or(0).saturating_sub(current.len());
            charge_items(s, missing)?;
            current.resize(current.len() + missing, fill.clone());
        }
        batches.push(current);
    }
    nested(s, batches)
}

fn nested(s: State_<'_, '_, '_>, lists: Vec<Vec<Value>>) -> Output {
    charge_items(s, lists.len().saturating_mul(4))?;
    let lists = lists.into_iter().map(Value::from).collect();
    list(s, lists)
}

pub(super) fn dictsort(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let sensitive = args.flag(0);
    let place = match args.get(1).map(|by| by.as_str()) {
        None | Some(Some("key")) => 0,
        Some(Some("value")) => 1,
        Some(_) => return Err(failed("dictsort: expected by=\"key\" or by=\"value\"")),
    };
    let fields = fields(s, value)?;
    let key = |item: &(Value, Value)| {
        let key = if place == 0 { &item.0 } else { &item.1 }.clone();
        vec![if sensitive { key } else { ignore_case(key) }]
    };
    let keys = fields.iter().map(key).collect();
    let fields = fields.into_iter().map(|(k, v)| Value::from(Tuple::from([k, v]))).collect();
    let sorted = sorted(s, fields, keys, [args.flag(2), true])?.into_iter().map(|(_, item)| item).collect();
    list(s, sorted)
}

fn fields(s: &State<'_, '_>, value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    match value.as_object().filter(|_| value.kind() == ValueKind::Map) {
        Some(object) => {
            charge_items(s, value.len().unwrap_or(0).saturating_mul(4))?;
            Ok(pairs(object).collect())
        }
        None => Err(failed(format!("expected a map, found {}", type_name(value)))),
    }
}

pub(super) fn items(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    if value.is_undefined() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    let fields = fields(s, value)?.into_iter().map(|(k, v)| Value::from(Tuple::from([k, v]))).collect();
    list(s, fields)
}

pub(super) fn first(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    match (value.as_str(), value.as_object()) {
        (Some(text), _) => Ok(text.chars().next().map(Value::from).unwrap_or_default()),
        (_, Some(object)) if object.repr() != ObjectRepr::Plain => {
            Ok(super::value::items(object).next().unwrap_or_default())
        }
        _ => Ok(iterate(s, value)?.into_iter().next().unwrap_or_default()),
    }
}

pub(super) fn last(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    Ok(iterate(s, value)?.pop().unwrap_or_default())
}

/// A group of `groupby`: a pair whose parts have names.
#[derive(Debug)]
struct Group(Value, Value);

impl Object for Group {
    fn repr(self: &std::sync::Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &std::sync::Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), key.as_usize()) {
            (Some("grouper"), _) | (_, Some(0)) => Some(self.0.clone()),
            (Some("list"), _) | (_, Some(1)) => Some(self.1.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &std::sync::Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// Returns whether a value is a group of `groupby`, which prints as a tuple.
pub(super) fn is_group(value: &Value) -> bool {
    value.downcast_object_ref::<Group>().is_some()
}

pub(super) fn groupby(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let path = path(args.required(0, "groupby")?)?;
    let (default, sensitive) = (args.some(1).cloned(), args.flag(2));
    let items = iterate(s, value)?;
    let raw: Result<Vec<Value>, Error> = items.iter().map(|item| follow(item, &path, default.as_ref())).collect();
    let raw = raw?;
    let keys = raw.iter().map(|k| vec![if sensitive { k.clone() } else { ignore_case(k.clone()) }]).collect();
    let items = items.into_iter().zip(raw).map(|(item, key)| Value::from(vec![item, key])).collect();
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (mut key, pair) in sorted(s, items, keys, [false, true])? {
        let key = key.pop().unwrap_or_default();
        let (item, original) = (pair.get_item_by_index(0)?, pair.get_item_by_index(1)?);
        match groups.last_mut() {
            Some(group) if equal(s, &group.0, &key)? => group.2.push(item),
            _ => groups.push((key, original, vec![item])),
        }
    }
    let groups = groups.into_iter().map(|(_, key, items)| Value::from_object(Group(key, Value::from(items)))).collect();
    list(s, groups)
}

pub(super) fn length(_: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    if value.is_undefined() {
        return Ok(0.into());
    }
    if let Some(text) = value.as_str() {
        return Ok(text.chars().count().into());
    }
    let length = if value.as_object().is_some() { value.len() } else { None };
    length.map(Value::from).ok_or_else(|| failed(format!("a value of type {} has no length", type_name(value))))
}

pub(super) fn to_list(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    Ok(Value::from(iterate(s, value)?))
}

pub(super) fn map(s: State_<'_, '_, '_>, value: &Value, args: &[Value]) -> Output {
    if !value.is_true() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    let (positional, named) = split(args)?;
    let items = iterate(s, value)?;
    let mut out = Vec::with_capacity(items.len());
    match (positional, named.iter().find(|(name, _)| name == "attribute")) {
        ([], Some((_, attribute))) => {
            let path = path(attribute)?;
            let mut default = None;
            for (name, value) in &named {
                match name.as_str() {
                    "attribute" => {}
                    "default" => default = Some(value.clone()).filter(|v| !v.is_none()),
                    _ => return Err(failed(format!("map: there is no argument `{name}`"))),
                }
            }
            for item in &items {
                out.push(follow(item, &path, default.as_ref())?);
            }
        }
        ([], None) => return Err(failed("map: expected a filter")),
        ([filter, rest @ ..], _) => {
            let filter = filter.as_str().ok_or_else(|| failed("map: expected the name of a filter"))?;
            let rest = if named.is_empty() { rest } else { &args[1..] };
            for item in items {
                let call: Vec<Value> = std::iter::once(item).chain(rest.iter().cloned()).collect();
                s.consume_fuel(1)?;
                out.push(s.apply_filter(filter, &call)?);
            }
        }
    }
    list(s, out)
}

/// `select`, `reject`, `selectattr` and `rejectattr`.
pub(super) fn select(s: State_<'_, '_, '_>, value: &Value, args: &[Value], keep: bool, attribute: bool) -> Output {
    if !value.is_true() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    let (path, args) = match (attribute, args) {
        (false, args) => (Vec::new(), args),
        (true, [name, args @ ..]) if !name.is_kwargs() => (path(name)?, args),
        (true, _) => return Err(failed("expected the name of an attribute")),
    };
    let mut out = Vec::new();
    for item in iterate(s, value)? {
        s.consume_fuel(1)?;
        let subject = follow(&item, &path, None)?;
        let chosen = match args {
            [] => subject.is_true(),
            [test, rest @ ..] => {
                let test = test.as_str().ok_or_else(|| failed("expected the name of a test"))?;
                let call: Vec<Value> = std::iter::once(subject).chain(rest.iter().cloned()).collect();
                s.perform_test(test, &call)?
            }
        };
        if chosen == keep {
            out.push(item);
        }
    }
    Ok(Value::from(out))
}

pub(super) fn extreme(s: State_<'_, '_, '_>, value: &Value, args: &Args, wanted: Ordering) -> Output {
    let items = iterate(s, value)?;
    let keys = keys(&items, args.some(1), args.flag(0))?;
    let mut best: Option<usize> = None;
    for (i, key) in keys.iter().enumerate() {
        let better = match best {
            None => true,
            Some(b) => compare(s, key, &keys[b])? == wanted,
        };
        if better {
            best = Some(i);
        }
    }
    Ok(best.map(|i| items[i].clone()).unwrap_or_default())
}

pub(super) fn reverse(s: State_<'_, '_, '_>, value: &Value, _: &Args) -> Output {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().rev().collect::<String>().into());
    }
    let mut items = iterate(s, value)?;
    items.reverse();
    Ok(Value::from(items))
}

pub(super) fn slice(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let slices = args.required(0, "slice")?;
    let slices = as_int(slices).ok_or_else(|| failed("slice: expected a number"))?;
    let items = iterate(s, value)?;
    if slices == 0 {
        return Err(failed("slice: division by zero"));
    }
    let slices = usize::try_from(slices).unwrap_or(0);
    charge_items(s, slices.saturating_mul(8))?;
    let (each, extra) = (items.len().checked_div(slices).unwrap_or(0), items.len().checked_rem(slices).unwrap_or(0));
    let mut out = Vec::new();
    let mut rest = items.as_slice();
    for n in 0..slices {
        let (taken, behind) = rest.split_at(each + usize::from(n < extra));
        rest = behind;
        let mut taken = taken.to_vec();
        if let Some(fill) = args.some(1)
            && n >= extra
        {
            taken.push(fill.clone());
        }
        out.push(taken);
    }
    nested(s, out)
}

pub(super) fn sort(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let items = iterate(s, value)?;
    let sensitive = args.flag(1);
    let mut all: Vec<Vec<Value>> = vec![Vec::new(); items.len()];
    let attributes: Vec<Option<Value>> = match args.some(2) {
        None => vec![None],
        Some(names) => match names.as_str() {
            Some(names) => names.split(',').map(|name| Some(Value::from(name))).collect(),
            None => vec![Some(names.clone())],
        },
    };
    for attribute in &attributes {
        for (all, key) in all.iter_mut().zip(keys(&items, attribute.as_ref(), sensitive)?) {
            all.push(key);
        }
    }
    let sorted = sorted(s, items, all, [args.flag(0), false])?;
    Ok(Value::from(sorted.into_iter().map(|(_, item)| item).collect::<Vec<_>>()))
}

pub(super) fn sum(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let items = match args.some(0) {
        Some(attribute) => attributes(s, value, attribute)?,
        None => iterate(s, value)?,
    };
    let start = args.get(1).cloned().unwrap_or_else(|| Value::from(0));
    if start.as_str().is_some() {
        return Err(failed("sum: strings cannot be summed"));
    }
    let mut total = start;
    for item in items {
        total = s.apply_filter("+", &[total, item])?;
    }
    Ok(total)
}

pub(super) fn tojson(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    measure(s, value)?;
    super::super::tojson::tojson(s, value, args)
}

pub(super) fn unique(s: State_<'_, '_, '_>, value: &Value, args: &Args) -> Output {
    let items = iterate(s, value)?;
    let keys = keys(&items, args.some(1), args.flag(0))?;
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for (item, key) in items.into_iter().zip(keys) {
        hashable(&key)?;
        // Numbers that are equal are the same key: 1, 1.0 and true.
        let name = match as_float(&key) {
            Some(x) if as_int(&key).is_none_or(|i| i == x as i128) => format!("n{x:?}"),
            _ => repr(s, &key, false)?,
        };
        if seen.insert(name) {
            out.push(item);
        }
    }
    Ok(Value::from(out))
}

/// The arguments of a filter that is none of jinja2's but is still here, or an error.
pub(super) fn no_random(_: State_<'_, '_, '_>, _: &Value, _: &Args) -> Output {
    Err(failed("random: a chat template must render the same text each time"))
}
