//! The arguments of a filter or test: by place or by name, as Python takes them.

use minijinja::value::{Kwargs, Rest, Value, ValueOrKwargs};
use minijinja::{Error, ErrorKind};

use super::value::{as_int, failed, type_name};

/// The arguments behind the value that a filter works on.
pub(in crate::template) struct Args(Vec<Option<Value>>);

impl Args {
    /// Puts arguments in the order of the parameters.
    pub(in crate::template) fn parse(filter: &str, parameters: &[&str], args: &[Value]) -> Result<Self, Error> {
        let (positional, named) = split(args)?;
        if positional.len() > parameters.len() {
            let message = format!("{filter}: expected at most {} arguments", parameters.len());
            return Err(Error::new(ErrorKind::TooManyArguments, message));
        }
        let mut values: Vec<Option<Value>> = positional.iter().cloned().map(Some).collect();
        values.resize(parameters.len(), None);
        for (name, value) in named {
            match parameters.iter().position(|p| *p == name) {
                Some(i) if values[i].is_none() => values[i] = Some(value),
                Some(_) => return Err(failed(format!("{filter}: `{name}` is given twice"))),
                None => return Err(failed(format!("{filter}: there is no argument `{name}`"))),
            }
        }
        Ok(Self(values))
    }

    /// An argument, if it was given.
    pub(in crate::template) fn get(&self, index: usize) -> Option<&Value> {
        self.0.get(index).and_then(Option::as_ref)
    }

    /// An argument, if it was given and is not none.
    pub(in crate::template) fn some(&self, index: usize) -> Option<&Value> {
        self.get(index).filter(|v| !v.is_none())
    }

    /// An argument that has to be given.
    pub(in crate::template) fn required(&self, index: usize, filter: &str) -> Result<&Value, Error> {
        let missing = || Error::new(ErrorKind::MissingArgument, format!("{filter}: an argument is missing"));
        self.get(index).ok_or_else(missing)
    }

    /// Returns whether an argument is true.
    pub(in crate::template) fn flag(&self, index: usize) -> bool {
        self.get(index).is_some_and(Value::is_true)
    }

    /// A whole number.
    pub(in crate::template) fn int(&self, index: usize, default: i64, filter: &str) -> Result<i64, Error> {
        let Some(value) = self.get(index) else { return Ok(default) };
        let int = as_int(value).and_then(|n| i64::try_from(n).ok());
        int.ok_or_else(|| failed(format!("{filter}: expected a whole number, found {}", type_name(value))))
    }

    /// A text.
    pub(in crate::template) fn text(&self, index: usize, filter: &str) -> Result<Option<&str>, Error> {
        let Some(value) = self.get(index) else { return Ok(None) };
        let wrong = || failed(format!("{filter}: expected a string, found {}", type_name(value)));
        value.as_str().map(Some).ok_or_else(wrong)
    }
}

/// The arguments of a call as values; those by name are the last one.
pub(super) fn values(args: Rest<ValueOrKwargs>) -> Vec<Value> {
    args.0.into_iter().map(ValueOrKwargs::into_value).collect()
}

/// The arguments of a call: by place, and by name.
pub(super) type Split<'a> = (&'a [Value], Vec<(String, Value)>);

/// Arguments by place and by name.
pub(super) fn split(args: &[Value]) -> Result<Split<'_>, Error> {
    match args.split_last() {
        Some((last, positional)) if last.is_kwargs() => {
            let kwargs = Kwargs::try_from(last.clone())?;
            let named: Result<Vec<_>, Error> =
                kwargs.args().map(|name| Ok((name.to_owned(), kwargs.peek::<Value>(name)?))).collect();
            Ok((positional, named?))
        }
        _ => Ok((args, Vec::new())),
    }
}
