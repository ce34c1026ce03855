//! The tests of jinja2: `is defined`, `is iterable` and the others.

use minijinja::value::{ObjectRepr, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::compare::{compare, contains, equal};
use super::number_filters::divides;
use super::print::text;
use super::value::{Namespace, charge_arguments, failed, hashable, is_list, measure};

type Unary = fn(&mut State<'_, '_>, &Value) -> Result<bool, Error>;
type Binary = fn(&mut State<'_, '_>, &Value, &Value) -> Result<bool, Error>;

const UNARY: [(&str, Unary); 22] = [
    ("boolean", |_, v| Ok(v.kind() == ValueKind::Bool)),
    ("callable", |_, v| Ok(is_callable(v))),
    ("defined", |_, v| Ok(!v.is_undefined())),
    ("escaped", |_, v| Ok(v.is_safe())),
    ("even", |s, v| divides(s, v, &Value::from(2), 0.0)),
    ("false", |_, v| Ok(v.kind() == ValueKind::Bool && !v.is_true())),
    ("filter", |_, v| {
        hashable(v)?;
        Ok(v.as_str().is_some_and(|name| super::filters::names().any(|n| n == name)))
    }),
    ("float", |_, v| Ok(v.kind() == ValueKind::Number && !v.is_integer())),
    ("integer", |_, v| Ok(v.kind() == ValueKind::Number && v.is_integer())),
    ("iterable", |_, v| Ok(v.is_undefined() || v.as_str().is_some() || has_items(v))),
    ("lower", |s, v| {
        let text = text(s, v)?;
        Ok(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase))
    }),
    ("mapping", |_, v| Ok(v.kind() == ValueKind::Map)),
    ("none", |_, v| Ok(v.is_none())),
    ("number", |_, v| Ok(matches!(v.kind(), ValueKind::Number | ValueKind::Bool))),
    ("odd", |s, v| divides(s, v, &Value::from(2), 1.0)),
    ("sequence", |_, v| Ok(v.is_undefined() || v.as_str().is_some() || has_items(v))),
    ("string", |_, v| Ok(v.as_str().is_some())),
    ("test", |_, v| {
        hashable(v)?;
        Ok(v.as_str().is_some_and(|name| names().any(|n| n == name)))
    }),
    ("true", |_, v| Ok(v.kind() == ValueKind::Bool && v.is_true())),
    ("undefined", |_, v| Ok(v.is_undefined())),
    ("upper", |s, v| {
        let text = text(s, v)?;
        Ok(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase))
    }),
    // Not jinja2's, but this engine had it, and templates may use it.
    ("int", |_, v| Ok(v.kind() == ValueKind::Number && v.is_integer())),
];

const BINARY: [(&str, Binary); 18] = [
    ("!=", |s, a, b| Ok(!equal(s, a, b)?)),
    ("<", |s, a, b| Ok(compare(s, a, b)?.is_lt())),
    ("<=", |s, a, b| Ok(compare(s, a, b)?.is_le())),
    ("==", equal_),
    (">", |s, a, b| Ok(compare(s, a, b)?.is_gt())),
    (">=", |s, a, b| Ok(compare(s, a, b)?.is_ge())),
    ("divisibleby", |s, a, b| divides(s, a, b, 0.0)),
    ("eq", equal_),
    ("equalto", equal_),
    ("ge", |s, a, b| Ok(compare(s, a, b)?.is_ge())),
    ("greaterthan", |s, a, b| Ok(compare(s, a, b)?.is_gt())),
    ("gt", |s, a, b| Ok(compare(s, a, b)?.is_gt())),
    ("in", |s, a, b| contains(s, b, a)),
    ("le", |s, a, b| Ok(compare(s, a, b)?.is_le())),
    ("lessthan", |s, a, b| Ok(compare(s, a, b)?.is_lt())),
    ("lt", |s, a, b| Ok(compare(s, a, b)?.is_lt())),
    ("ne", |s, a, b| Ok(!equal(s, a, b)?)),
    ("sameas", |s, a, b| same(s, a, b)),
];

fn equal_(s: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<bool, Error> {
    equal(s, a, b)
}

fn has_items(value: &Value) -> bool {
    value.kind() == ValueKind::Map || is_list(value)
}

fn is_callable(value: &Value) -> bool {
    // Undefined is: calling it fails with its name.
    value.is_undefined()
        || value.as_object().is_some_and(|o| o.repr() == ObjectRepr::Plain)
            && value.downcast_object_ref::<Namespace>().is_none()
}

/// Python's `a is b`, for values whose identity does not depend on how they came to be.
fn same(s: &State<'_, '_>, a: &Value, b: &Value) -> Result<bool, Error> {
    let small = |n: i64| (-5..=256).contains(&n);
    Ok(match (a.kind(), b.kind()) {
        (x, y) if x != y => false,
        (ValueKind::None | ValueKind::Bool, _) => a == b,
        (ValueKind::Number, _) if a.is_integer() && b.is_integer() => a == b && a.as_i64().is_some_and(small),
        (ValueKind::String, _) => a == b && a.as_str().is_some_and(|text| text.chars().count() < 2),
        (ValueKind::Seq, _) if a.downcast_object_ref::<Vec<Value>>().is_some() => {
            let (a, b) = (a.downcast_object_ref::<Vec<Value>>(), b.downcast_object_ref::<Vec<Value>>());
            a.zip(b).is_some_and(|(a, b)| std::ptr::eq(a, b))
        }
        _ => {
            measure(s, a)?;
            false
        }
    })
}

fn names() -> impl Iterator<Item = &'static str> {
    UNARY.iter().map(|(n, _)| *n).filter(|n| *n != "int").chain(BINARY.iter().map(|(n, _)| *n))
}

/// Adds the tests in place of the engine's own.
pub(super) fn add_tests(environment: &mut Environment<'static>) {
    // The engine's own, which jinja2 does not have.
    for gone in ["safe", "startingwith", "endingwith"] {
        environment.remove_test(gone);
    }
    for (name, test) in UNARY {
        environment.add_test(name, move |s: &mut State<'_, '_>, args: Rest<Value>| match args.as_slice() {
            [value] => {
                charge_arguments(s, &args)?;
                test(s, value)
            }
            _ => Err(Error::new(ErrorKind::TooManyArguments, format!("the test {name} takes no arguments"))),
        });
    }
    for (name, test) in BINARY {
        environment.add_test(name, move |s: &mut State<'_, '_>, args: Rest<Value>| match args.as_slice() {
            [value, other] => {
                charge_arguments(s, &args)?;
                test(s, value, other)
            }
            _ => Err(failed(format!("the test {name} takes one argument"))),
        });
    }
}
