//! The table of filters.

use std::cmp::Ordering;

use minijinja::value::{Rest, Tuple, Value, ValueOrKwargs};
use minijinja::{Environment, Error, State};

use super::args::{Args, split, values};
use super::format::percent;
use super::print::text;
use super::value::{charge_arguments, failed};
use super::{number_filters as number, sequence_filters as sequence, text_filters as texts};

type Filter = fn(&mut State<'_, '_>, &Value, &Args) -> Result<Value, Error>;
/// A filter that takes any arguments.
type Free = fn(&mut State<'_, '_>, &Value, &[Value]) -> Result<Value, Error>;

/// Each filter with the names of its arguments.
const FILTERS: [(&str, &[&str], Filter); 46] = [
    ("abs", &[], number::abs),
    ("attr", &["name"], sequence::attr),
    ("batch", &["linecount", "fill_with"], sequence::batch),
    ("capitalize", &[], texts::capitalize),
    ("center", &["width"], texts::center),
    ("count", &[], sequence::length),
    ("d", &["default_value", "boolean"], default),
    ("default", &["default_value", "boolean"], default),
    ("dictsort", &["case_sensitive", "by", "reverse"], sequence::dictsort),
    ("e", &[], texts::escape),
    ("escape", &[], texts::escape),
    ("filesizeformat", &["binary"], number::filesizeformat),
    ("first", &[], sequence::first),
    ("float", &["default"], number::float),
    ("forceescape", &[], texts::force_escape),
    ("groupby", &["attribute", "default", "case_sensitive"], sequence::groupby),
    ("indent", &["width", "first", "blank"], texts::indent),
    ("int", &["default", "base"], number::int),
    ("items", &[], sequence::items),
    ("join", &["d", "attribute"], texts::join),
    ("last", &[], sequence::last),
    ("length", &[], sequence::length),
    ("list", &[], sequence::to_list),
    ("lower", &[], texts::lower),
    ("max", &["case_sensitive", "attribute"], |s, v, a| sequence::extreme(s, v, a, Ordering::Greater)),
    ("min", &["case_sensitive", "attribute"], |s, v, a| sequence::extreme(s, v, a, Ordering::Less)),
    ("pprint", &[], texts::pprint),
    ("random", &[], sequence::no_random),
    ("replace", &["old", "new", "count"], texts::replace),
    ("reverse", &[], sequence::reverse),
    ("round", &["precision", "method"], number::round),
    ("safe", &[], texts::safe),
    ("slice", &["slices", "fill_with"], sequence::slice),
    ("sort", &["reverse", "case_sensitive", "attribute"], sequence::sort),
    ("string", &[], texts::to_string),
    ("striptags", &[], texts::strip_tags),
    ("sum", &["attribute", "start"], sequence::sum),
    ("title", &[], texts::title),
    ("tojson", &["ensure_ascii", "indent", "separators", "sort_keys"], sequence::tojson),
    ("trim", &["chars"], texts::trim),
    ("truncate", &["length", "killwords", "end", "leeway"], texts::truncate),
    ("unique", &["case_sensitive", "attribute"], sequence::unique),
    ("upper", &[], texts::upper),
    ("urlencode", &[], texts::url_encode),
    ("wordcount", &[], texts::word_count),
    ("wordwrap", &["width", "break_long_words", "wrapstring", "break_on_hyphens"], texts::word_wrap),
];

const FREE: [(&str, Free); 8] = [
    ("format", format),
    ("map", sequence::map),
    ("reject", |s, v, a| sequence::select(s, v, a, false, false)),
    ("rejectattr", |s, v, a| sequence::select(s, v, a, false, true)),
    ("select", |s, v, a| sequence::select(s, v, a, true, false)),
    ("selectattr", |s, v, a| sequence::select(s, v, a, true, true)),
    ("urlize", |_, _, _| Err(failed("urlize is not available: links have no place in a chat template"))),
    ("xmlattr", |s, v, a| texts::xml_attributes(s, v, &Args::parse("xmlattr", &["autospace"], a)?)),
];

/// The names of all filters.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FILTERS.iter().map(|(name, ..)| *name).chain(FREE.iter().map(|(name, _)| *name))
}

/// Adds the filters in place of the engine's own.
pub(super) fn add_filters(environment: &mut Environment<'static>) {
    // The engine's own, which jinja2 does not have.
    for gone in ["bool", "chain", "lines", "split", "zip"] {
        environment.remove_filter(gone);
    }
    for (name, parameters, filter) in FILTERS {
        environment.add_filter(name, move |s: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            match values(args).split_first() {
                Some((value, rest)) if !value.is_kwargs() => {
                    charge_arguments(s, rest)?;
                    filter(s, value, &Args::parse(name, parameters, rest)?)
                }
                _ => Err(failed(format!("{name}: expected a value"))),
            }
        });
    }
    for (name, filter) in FREE {
        environment.add_filter(name, move |s: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            match values(args).split_first() {
                Some((value, rest)) if !value.is_kwargs() => {
                    charge_arguments(s, rest)?;
                    filter(s, value, rest)
                }
                _ => Err(failed(format!("{name}: expected a value"))),
            }
        });
    }
}

fn default(_: &mut State<'_, '_>, value: &Value, args: &Args) -> Result<Value, Error> {
    let missing = value.is_undefined() || (args.flag(1) && !value.is_true());
    Ok(if missing { args.get(0).cloned().unwrap_or_else(|| "".into()) } else { value.clone() })
}

fn format(s: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value, Error> {
    let source = Value::from(text(s, value)?);
    let (positional, named) = split(args)?;
    match (positional, named.is_empty()) {
        (_, true) => percent(s, &source, &Value::from(Tuple::from(positional.to_vec()))),
        ([], false) => percent(s, &source, &Value::from_pairs(named)),
        _ => Err(failed("format: expected arguments by place or by name, not both")),
    }
}
