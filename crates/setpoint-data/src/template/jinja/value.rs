//! Values of a template as Python sees them: what they are made of, and how large they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Most levels of lists and maps within each other. JSON text has at most 128.
pub(super) const MAX_DEPTH: usize = 200;

/// Most namespaces of one rendering that are kept within other values.
const MAX_NESTED_NAMESPACES: usize = 50;

/// Nodes and bytes between two charges.
pub(super) const STRIDE: usize = 64;

pub(super) fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

pub(super) fn over_budget() -> Error {
    Error::from(ErrorKind::OutOfFuel)
}

/// Charges for work on this many bytes before it is done.
pub(super) fn charge_bytes(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    if bytes < STRIDE { Ok(()) } else { state.consume_fuel((bytes / STRIDE) as u64) }
}

/// Charges for the texts that a filter, a test or a method is given besides its subject.
pub(super) fn charge_arguments(state: &State<'_, '_>, args: &[Value]) -> Result<(), Error> {
    for arg in args {
        charge_bytes(state, arg.as_str().map_or(0, str::len))?;
        if let Some(named) = arg.as_object().filter(|_| arg.is_kwargs()) {
            for (_, value) in pairs(named) {
                charge_bytes(state, value.as_str().map_or(0, str::len))?;
            }
        }
    }
    Ok(())
}

/// Charges for this many list slots before they exist.
pub(super) fn charge_items(state: &State<'_, '_>, items: usize) -> Result<(), Error> {
    if items < 2 { Ok(()) } else { state.consume_fuel((items / 2) as u64) }
}

/// The object of `namespace()`.
#[derive(Debug, Default)]
pub(super) struct Namespace(Mutex<BTreeMap<String, Value>>);

impl Object for Namespace {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.fields().get(key.as_str()?).cloned()
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

impl Namespace {
    pub(super) fn fields(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn values(&self) -> Vec<Value> {
        self.fields().values().cloned().collect()
    }

    pub(super) fn set(&self, name: &str, value: Value) {
        self.fields().insert(name.to_owned(), value);
    }
}

/// The number of namespaces that a rendering has put into other values.
#[derive(Default)]
struct NestedNamespaces(usize);

/// Walks values and charges for each.
pub(super) struct Walk<'a, 'b, 'c> {
    pub(super) state: &'a State<'b, 'c>,
    nodes: usize,
    namespaces: usize,
    /// A namespace that must not be found.
    forbidden: Option<*const Namespace>,
}

impl<'a, 'b, 'c> Walk<'a, 'b, 'c> {
    pub(super) fn new(state: &'a State<'b, 'c>) -> Self {
        Self { state, nodes: 0, namespaces: 0, forbidden: None }
    }

    pub(super) fn step(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes.is_multiple_of(STRIDE) { self.state.consume_fuel(STRIDE as u64 / 4) } else { Ok(()) }
    }

    fn visit(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.step()?;
        let Some(object) = value.as_object() else { return Ok(()) };
        if depth > MAX_DEPTH {
            return Err(over_budget());
        }
        if let Some(namespace) = value.downcast_object_ref::<Namespace>() {
            self.namespaces += 1;
            if self.forbidden == Some(std::ptr::from_ref(namespace)) {
                return Err(over_budget());
            }
            return namespace.values().iter().try_for_each(|v| self.visit(v, depth + 1));
        }
        match object.repr() {
            ObjectRepr::Map => pairs(object).try_for_each(|(k, v)| {
                self.visit(&k, depth + 1)?;
                self.visit(&v, depth + 1)
            }),
            ObjectRepr::Seq | ObjectRepr::Iterable if value.downcast_object_ref::<Range>().is_none() => {
                items(object).try_for_each(|v| self.visit(&v, depth + 1))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn items(object: &DynObject) -> Box<dyn Iterator<Item = Value> + Send + Sync> {
    object.try_iter().unwrap_or_else(|| Box::new(std::iter::empty()))
}

pub(super) fn pairs(object: &DynObject) -> Box<dyn Iterator<Item = (Value, Value)> + Send + Sync> {
    object.try_iter_pairs().unwrap_or_else(|| Box::new(std::iter::empty()))
}

/// Fails if a value is nested too deeply, and charges for its size.
pub(super) fn measure(state: &State<'_, '_>, value: &Value) -> Result<usize, Error> {
    let mut walk = Walk::new(state);
    walk.visit(value, 0)?;
    Ok(walk.namespaces)
}

/// Fails if values that become the parts of another are nested too deeply.
pub(super) fn measure_parts<'v>(
    state: &mut State<'_, '_>,
    parts: impl IntoIterator<Item = &'v Value>,
) -> Result<(), Error> {
    let mut walk = Walk::new(state);
    for part in parts {
        if part.as_object().is_some() {
            walk.visit(part, 1)?;
        }
    }
    let found = walk.namespaces;
    nested(state, found)
}

fn nested(state: &mut State<'_, '_>, namespaces: usize) -> Result<(), Error> {
    if namespaces > 0 {
        let nested = state.get_or_insert_extension(NestedNamespaces::default());
        nested.0 += namespaces;
        if nested.0 > MAX_NESTED_NAMESPACES {
            return Err(over_budget());
        }
    }
    Ok(())
}

/// Sets an attribute of a namespace, which may not become a part of itself.
pub(super) fn set_attribute(
    state: &mut State<'_, '_>,
    namespace: &Namespace,
    name: &str,
    value: &Value,
) -> Result<(), Error> {
    if name.starts_with('_') {
        return Err(failed(format!("a namespace has no attribute that begins with an underscore: {name}")));
    }
    let direct = value.downcast_object_ref::<Namespace>().is_some();
    // Without a namespace within another value there is no way for this one to be reached from `value`.
    if direct || (value.as_object().is_some() && state.get_extension::<NestedNamespaces>().is_some()) {
        let mut walk = Walk::new(state);
        walk.forbidden = Some(std::ptr::from_ref(namespace));
        walk.visit(value, 1)?;
        let found = walk.namespaces;
        nested(state, found)?;
    }
    namespace.set(name, value.clone());
    Ok(())
}

/// The object of `range()`.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) step: i64,
    pub(super) len: usize,
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = key.as_usize().filter(|i| *i < self.len)?;
        Some(Value::from(self.start + self.step * index as i64))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.len)
    }
}

pub(super) fn list(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    measure_parts(state, &values)?;
    Ok(Value::from(values))
}

pub(super) fn tuple(state: &mut State<'_, '_>, values: Vec<Value>) -> Result<Value, Error> {
    measure_parts(state, &values)?;
    Ok(Value::from(Tuple::from(values)))
}

pub(super) fn dict(state: &mut State<'_, '_>, fields: Vec<(Value, Value)>) -> Result<Value, Error> {
    measure_parts(state, fields.iter().flat_map(|(k, v)| [k, v]))?;
    for (key, _) in &fields {
        hashable(key)?;
        charge_bytes(state, key.as_str().map_or(0, str::len))?;
    }
    Ok(Value::from_pairs(fields))
}

/// Fails for a key that Python cannot hash.
pub(super) fn hashable(key: &Value) -> Result<(), Error> {
    match key.as_object() {
        Some(object) if key.is_tuple() => items(object).try_for_each(|item| hashable(&item)),
        Some(object) if object.repr() != ObjectRepr::Plain && key.downcast_object_ref::<Range>().is_none() => {
            Err(failed(format!("unhashable type: {}", type_name(key))))
        }
        _ => Ok(()),
    }
}

/// Python's name of a value's type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Map => "dict",
        ValueKind::Seq | ValueKind::Iterable if value.is_tuple() => "tuple",
        ValueKind::Seq | ValueKind::Iterable => "list",
        _ => "object",
    }
}

pub(super) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// An integer or a boolean.
pub(super) fn as_int(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// A number or a boolean.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok().or_else(|| as_int(value).map(|i| i as f64)),
        _ => None,
    }
}

pub(super) fn from_int(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

/// The items of a value as a Python `for` sees them.
pub(super) fn iterate(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    let collected: Vec<Value> = match (value.kind(), value.as_str(), value.as_object()) {
        (ValueKind::Undefined, ..) => Vec::new(),
        (_, Some(text), _) => {
            charge_items(state, text.len())?;
            text.chars().map(Value::from).collect()
        }
        (_, _, Some(object)) if object.repr() != ObjectRepr::Plain => {
            charge_items(state, object.enumerator_len().unwrap_or(0))?;
            items(object).collect()
        }
        _ => return Err(failed(format!("a value of type {} is not iterable", type_name(value)))),
    };
    Ok(collected)
}
