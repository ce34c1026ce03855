//! jinja2 as transformers sets it up, harmless for templates from strangers.
//!
//! The engine counts instructions and bytes. All that walks values or makes texts is this module's own: operators, functions,
//! filters, tests and methods, each charged for its work. So a rendering ends, within bounds of time, memory and stack that do
//! not depend on the template.

mod args;
mod checks;
mod compare;
mod compile;
mod filters;
mod format;
mod methods;
mod number_filters;
mod operators;
mod paths;
mod print;
mod sequence_filters;
mod text;
mod text_filters;
mod value;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::machinery::{eval, make_string_output};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

pub(super) use self::args::Args;
use self::compile::{Program, compile};

/// Stack for the deepest source and the deepest values that the limits allow.
const STACK: usize = 64 << 20;

/// Budget of a rendering: instructions, and one for each 64 bytes that it makes. A long conversation in an elaborate template
/// takes some ten thousand.
const FUEL: u64 = 2_000_000;
/// The budget grows with the input, up to this.
const MOST_FUEL: u64 = 10_000_000;

/// A compiled template with its environment.
pub(super) struct Compiled {
    environment: Environment<'static>,
    program: Program,
}

fn syntax() -> SyntaxConfig {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    syntax.expect("Jinja's own delimiters are valid")
}

/// An environment with everything that a chat template may use, but for the functions that transformers adds.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::method);
    environment.set_formatter(|out, state, value| {
        let text = match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&print::text(state, value)?),
        };
        text.map_err(|_| Error::from(ErrorKind::WriteFailure))
    });
    operators::add_operators(&mut environment);
    operators::add_functions(&mut environment);
    filters::add_filters(&mut environment);
    checks::add_tests(&mut environment);
    environment
}

/// Runs something that may panic on a stack of its own.
fn guarded<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let caught = catch_unwind(AssertUnwindSafe(|| stacker::maybe_grow(STACK - (4 << 20), STACK, run)));
    caught.unwrap_or_else(|_| Err(Error::new(ErrorKind::InvalidOperation, "the template engine failed")))
}

impl Compiled {
    /// Compiles a template.
    pub(super) fn new(source: &str, mut environment: Environment<'static>) -> Result<Self, Error> {
        let program = guarded(|| compile(source, &syntax()))?;
        operators::add_assignments(&mut environment, &program.assignments);
        Ok(Self { environment, program })
    }

    /// Renders with these variables; `size` is that of the input in bytes.
    pub(super) fn render(&self, variables: BTreeMap<&str, Value>, size: usize) -> Result<String, Error> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some((FUEL + size as u64 / 2).min(MOST_FUEL)));
        let environment = &environment;
        let root = Value::from_pairs(variables);
        guarded(move || {
            let mut text = String::new();
            let mut output = make_string_output(&mut text);
            let done = eval(environment, &self.program.main, root, &self.program.blocks, &mut output, AutoEscape::None);
            done.map(drop)?;
            Ok(text)
        })
    }
}
