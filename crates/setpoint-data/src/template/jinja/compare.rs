//! Python's `==`, `<` and `in`.

use std::cmp::Ordering;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::value::{
    MAX_DEPTH, Namespace, STRIDE, Walk, as_float, as_int, charge_bytes, failed, hashable, is_list, items, over_budget,
    pairs, type_name,
};

/// Python's `a == b`.
pub(super) fn equal(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<bool, Error> {
    equal_within(&mut Walk::new(state), a, b, 0)
}

fn equal_within(walk: &mut Walk<'_, '_, '_>, a: &Value, b: &Value, depth: usize) -> Result<bool, Error> {
    walk.step()?;
    if depth > MAX_DEPTH * 2 {
        return Err(over_budget());
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        if a.len() == b.len() && a.len() > 1024 {
            walk.state.consume_fuel((a.len() / 1024) as u64)?;
        }
        return Ok(a == b);
    }
    if let (Some(a), Some(b)) = (as_int(a), as_int(b)) {
        return Ok(a == b);
    }
    if let (Some(a), Some(b)) = (as_float(a), as_float(b)) {
        return Ok(a == b);
    }
    if a.kind() == ValueKind::Map && b.kind() == ValueKind::Map {
        if a.len() != b.len() {
            return Ok(false);
        }
        let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return Ok(false) };
        for (key, value) in pairs(a) {
            match b.get_value(&key) {
                Some(other) if equal_within(walk, &value, &other, depth + 1)? => {}
                _ => return Ok(false),
            }
        }
        return Ok(true);
    }
    if is_list(a) && is_list(b) {
        if a.is_tuple() != b.is_tuple() || a.len() != b.len() {
            return Ok(false);
        }
        let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return Ok(false) };
        for (x, y) in items(a).zip(items(b)) {
            if !equal_within(walk, &x, &y, depth + 1)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if let (Some(a), Some(b)) = (a.downcast_object_ref::<Namespace>(), b.downcast_object_ref::<Namespace>()) {
        return Ok(std::ptr::eq(a, b));
    }
    // What is left are none, undefined, and objects without items.
    Ok(a.kind() == b.kind() && a.kind() != ValueKind::Map && !is_list(a) && a == b)
}

/// Python's order of two values, an error where it has none.
pub(super) fn compare(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Ordering, Error> {
    compare_within(state, a, b, 0)
}

fn compare_within(state: &State<'_, '_>, a: &Value, b: &Value, depth: usize) -> Result<Ordering, Error> {
    if depth > MAX_DEPTH * 2 {
        return Err(over_budget());
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        charge_bytes(state, a.len().min(b.len()) / 8)?;
        return Ok(a.cmp(b));
    }
    if let (Some(a), Some(b)) = (as_int(a), as_int(b)) {
        return Ok(a.cmp(&b));
    }
    if let (Some(a), Some(b)) = (as_float(a), as_float(b)) {
        return Ok(a.partial_cmp(&b).unwrap_or(Ordering::Greater));
    }
    if is_list(a)
        && is_list(b)
        && a.is_tuple() == b.is_tuple()
        && let (Some(x), Some(y)) = (a.as_object(), b.as_object())
    {
        for (x, y) in items(x).zip(items(y)) {
            if !equal(state, &x, &y)? {
                return compare_within(state, &x, &y, depth + 1);
            }
        }
        return Ok(a.len().cmp(&b.len()));
    }
    Err(failed(format!("`<` is not supported between {} and {}", type_name(a), type_name(b))))
}

/// Python's `value in container`.
pub(super) fn contains(state: &State<'_, '_>, container: &Value, value: &Value) -> Result<bool, Error> {
    if let Some(whole) = container.as_str() {
        let Some(part) = value.as_str() else {
            return Err(failed(format!("`in` a string needs a string, not {}", type_name(value))));
        };
        charge_bytes(state, whole.len())?;
        return Ok(whole.contains(part));
    }
    match (container.kind(), container.as_object()) {
        (ValueKind::Undefined, _) => Ok(false),
        (ValueKind::Map, Some(object)) => {
            hashable(value)?;
            Ok(object.get_value(value).is_some())
        }
        (ValueKind::Seq | ValueKind::Iterable, Some(object)) => {
            for (n, item) in items(object).enumerate() {
                if n % STRIDE == STRIDE - 1 {
                    state.consume_fuel(STRIDE as u64 / 4)?;
                }
                if equal(state, &item, value)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(failed(format!("a value of type {} is not a container", type_name(container)))),
    }
}
