//! Chat templates in Jinja, rendered as transformers renders them.

mod builtin;
mod date;
mod environment;
mod jinja;
mod source;
mod tojson;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::NaiveDateTime;
use minijinja::ErrorKind;
use minijinja::value::Value as Jinja;
use serde_json::{Map, Value};

pub use self::builtin::BuiltIn;
pub use self::date::TemplateDate;
use self::jinja::Compiled;
pub(crate) use self::source::{ADDITIONAL, TOOL_USE, template_names, tool_template_source};
pub use self::source::{TemplateChoice, template_source};
use crate::error::Error;
use crate::record::Message;

/// A chat template, compiled.
///
/// It renders what `apply_chat_template` of transformers renders: jinja2's sandbox with `trim_blocks` and `lstrip_blocks`,
/// loop controls, `raise_exception`, `strftime_now`, `tojson` as Python's `json.dumps(ensure_ascii=False)`, jinja2's filters and
/// tests, Python's string methods, `{% generation %}` as a plain block. The filters `random` and `urlize` are errors.
///
/// Any template is harmless, whoever wrote it: one that needs too much time, memory or nesting is an error.
///
/// ```
/// use setpoint_data::{BuiltIn, ChatTemplate, Message, TemplateVariables};
///
/// let template = ChatTemplate::built_in(BuiltIn::ChatMl);
/// let text = template.render(&[Message::user("Hi")], true, &TemplateVariables::default())?;
/// assert_eq!(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
/// # Ok::<(), setpoint_data::TemplateError>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    name: String,
    source: String,
    compiled: Arc<Compiled>,
    outcomes: Arc<Outcomes>,
}

/// Counts of the renderings of a template that ended, and of those that were stopped.
#[derive(Default)]
struct Outcomes {
    ended: AtomicUsize,
    stopped: AtomicUsize,
}

/// A template that was stopped this often, and more often than not, is not tried again: a data set would wait for each row.
const MOST_STOPPED: usize = 16;

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The reason for which a template did not render.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template called `raise_exception`.
    #[error("{0}")]
    Raised(String),
    /// The template used up its budget of steps, memory and nesting.
    #[error("it did not finish within its budget: it needs too much time, memory or nesting. Use another template")]
    OverBudget,
    /// There are no messages.
    #[error("the conversation has no messages")]
    NoMessages,
    /// The template did something that is an error in Jinja.
    #[error("{reason} (line {line})")]
    Failed {
        /// The reason, in Jinja's words.
        reason: String,
        /// The line, from 1; 0 when unknown.
        line: usize,
    },
}

/// The variables of a template that a conversation itself gives, so that nothing else may set them.
pub const OWN_VARIABLES: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

/// Variables of a template besides the messages.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TemplateVariables {
    /// `bos_token`, `eos_token` and so on, as text. One that is not here is undefined in the template.
    pub special_tokens: BTreeMap<String, String>,
    /// Tools as JSON schemas; `none` in the template when absent.
    pub tools: Option<Value>,
    /// Further variables, which win over special tokens of the same name.
    pub extra: Map<String, Value>,
}

impl ChatTemplate {
    /// Compiles a template. `strftime_now` tells the time of this call, so that a run does not change at midnight.
    ///
    /// # Errors
    /// [`Error::Template`] with the line when it is not valid Jinja.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Result<Self, Error> {
        Self::with_clock(name, source, chrono::Local::now().naive_local())
    }

    /// Compiles a template whose `strftime_now` tells this time.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`].
    pub fn with_clock(name: impl Into<String>, source: impl Into<String>, now: NaiveDateTime) -> Result<Self, Error> {
        let (name, source) = (name.into(), source.into());
        let environment = environment::environment(now);
        let compiled = Compiled::new(&environment::prepare(&source), environment).map_err(|e| {
            let reason = match describe(&e) {
                TemplateError::Failed { reason, line } => format!("not valid Jinja: line {line}: {reason}"),
                other => other.to_string(),
            };
            Error::Template { name: name.clone(), reason }
        })?;
        Ok(Self { name, source, compiled: Arc::new(compiled), outcomes: Arc::default() })
    }

    /// A template that comes with this crate.
    ///
    /// # Panics
    /// Never: a test compiles each of them.
    #[must_use]
    pub fn built_in(template: BuiltIn) -> Self {
        Self::new(template.name(), template.source()).expect("built-in templates are valid Jinja")
    }

    /// Its name or file, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// The error that the template raised, or a limit that it passed.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &TemplateVariables,
    ) -> Result<String, TemplateError> {
        if messages.is_empty() {
            return Err(TemplateError::NoMessages);
        }
        self.render_turns(messages, add_generation_prompt, variables)
    }

    /// [`ChatTemplate::render`], also of the nothing that precedes a conversation's first turn.
    pub(crate) fn render_turns(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &TemplateVariables,
    ) -> Result<String, TemplateError> {
        let mut size = 0;
        let messages = messages.iter().map(|message| {
            size += 32 + message.content.len();
            let mut fields = vec![
                (Jinja::from("role"), Jinja::from(message.role.as_str())),
                (Jinja::from("content"), Jinja::from(message.content.as_str())),
            ];
            fields.extend(
                message.extra.iter().map(|(k, v)| (Jinja::from(k.as_str()), environment::jinja_value(v, &mut size))),
            );
            Jinja::from_pairs(fields)
        });
        let messages: Vec<Jinja> = messages.collect();
        self.render_any(messages, size, add_generation_prompt, variables)
    }

    /// Renders messages given as JSON, also those that are no [`Message`]. Fields that are null are left out, as transformers
    /// does.
    #[cfg(test)]
    fn render_json(
        &self,
        messages: &[Value],
        add_generation_prompt: bool,
        variables: &TemplateVariables,
    ) -> Result<String, TemplateError> {
        if messages.is_empty() {
            return Err(TemplateError::NoMessages);
        }
        let mut size = 0;
        let messages = messages.iter().map(|message| match message {
            Value::Object(fields) => Jinja::from_pairs(
                fields
                    .iter()
                    .filter(|(_, v)| !v.is_null())
                    .map(|(k, v)| (Jinja::from(k.as_str()), environment::jinja_value(v, &mut size))),
            ),
            other => environment::jinja_value(other, &mut size),
        });
        let messages: Vec<Jinja> = messages.collect();
        self.render_any(messages, size, add_generation_prompt, variables)
    }

    fn render_any(
        &self,
        messages: Vec<Jinja>,
        mut size: usize,
        add_generation_prompt: bool,
        variables: &TemplateVariables,
    ) -> Result<String, TemplateError> {
        let mut context: BTreeMap<&str, Jinja> =
            variables.special_tokens.iter().map(|(k, v)| (k.as_str(), Jinja::from(v.as_str()))).collect();
        let mut value = |json: &Value| environment::jinja_value(json, &mut size);
        context.insert("documents", Jinja::from(()));
        context.insert("tools", variables.tools.as_ref().map_or(Jinja::from(()), &mut value));
        context.extend(variables.extra.iter().map(|(k, v)| (k.as_str(), value(v))));
        context.insert("messages", Jinja::from(messages));
        context.insert("add_generation_prompt", Jinja::from(add_generation_prompt));
        let (ended, stopped) = (&self.outcomes.ended, &self.outcomes.stopped);
        let stops = stopped.load(Ordering::Relaxed);
        if stops >= MOST_STOPPED && stops > ended.load(Ordering::Relaxed) {
            return Err(TemplateError::OverBudget);
        }
        let outcome = self.compiled.render(context, size).map_err(|e| describe(&e));
        let count = if outcome == Err(TemplateError::OverBudget) { stopped } else { ended };
        count.fetch_add(1, Ordering::Relaxed);
        outcome
    }
}

fn describe(error: &minijinja::Error) -> TemplateError {
    // An error within a macro or an include is wrapped; the cause is what the user must see.
    let mut cause = error;
    while let Some(inner) = std::error::Error::source(cause).and_then(|e| e.downcast_ref::<minijinja::Error>()) {
        cause = inner;
    }
    if cause.kind() == ErrorKind::OutOfFuel {
        return TemplateError::OverBudget;
    }
    if let Some(raised) = std::error::Error::source(cause).and_then(|e| e.downcast_ref::<environment::Raised>()) {
        return TemplateError::Raised(raised.0.clone());
    }
    let reason = match cause.detail() {
        Some(detail) => format!("{}: {detail}", cause.kind()),
        None => cause.kind().to_string(),
    };
    TemplateError::Failed { reason, line: cause.line().unwrap_or(0) }
}

#[cfg(test)]
mod family_golden_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod jinja_golden_tests;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str, variables: Value) -> Result<String, TemplateError> {
        let Value::Object(extra) = variables else { panic!("an object") };
        let variables = TemplateVariables { extra, ..TemplateVariables::default() };
        ChatTemplate::new("test", source).unwrap().render(&[Message::user("hi")], false, &variables)
    }

    fn text(source: &str, variables: Value) -> String {
        render(source, variables).unwrap()
    }

    #[test]
    fn blocks_are_trimmed_as_in_transformers() {
        let source = "{% for m in messages %}\n  {% if true %}\n  {{ m.content }}\n  {% endif %}\n{% endfor %}\nend\n";
        assert_eq!(text(source, json!({})), "  hi\nend");
    }

    #[test]
    fn values_print_as_in_python() {
        let variables = json!({"t": true, "n": null, "f": 1.0, "i": 3, "l": [1, "a", true, null]});
        assert_eq!(
            text("{{ t }} {{ n }} {{ f }} {{ i }} {{ l }} {{ u }}", variables),
            "True None 1.0 3 [1, 'a', True, None] "
        );
    }

    #[test]
    fn pythons_methods_slices_and_namespaces() {
        assert_eq!(text("{{ ' a '.strip() ~ 'b'.upper() ~ 'c-d'.split('-')[-1] }}", json!({})), "aBd");
        assert_eq!(text("{{ x[1:] }}{{ x[::-1] }}{{ 'abc'[:2] }}", json!({"x": [1, 2, 3]})), "[2, 3][3, 2, 1]ab");
        let source = "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}";
        assert_eq!(text(source, json!({})), "3");
        assert_eq!(
            text(
                "{{ d.get('k', 'none') }}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
                json!({"d": {"b": 1, "a": 2}})
            ),
            "noneb=1;a=2;"
        );
    }

    #[test]
    fn whitespace_is_what_python_calls_whitespace() {
        // U+001C..U+001F are whitespace for str.strip, not for Rust; U+200B is for neither.
        let variables = json!({"x": "\u{1c}\u{a0} a\u{200b}\u{1f}"});
        assert_eq!(text("[{{ x | trim }}][{{ x.strip() }}]", variables.clone()), "[a\u{200b}][a\u{200b}]");
        assert_eq!(
            text("[{{ x.lstrip() }}][{{ x.rstrip() }}]", variables),
            "[a\u{200b}\u{1f}][\u{1c}\u{a0} a\u{200b}]"
        );
        assert_eq!(text("[{{ 'xxaxx' | trim('x') }}][{{ 'xxaxx'.lstrip('x') }}]", json!({})), "[a][axx]");
    }

    #[test]
    fn generation_blocks_are_plain_blocks() {
        let source =
            "{% for m in messages %}\n{%- generation %}\n{{ m.content }}\n{%- endgeneration -%}\n{% endfor %}!";
        assert_eq!(text(source, json!({})), "hi!");
    }

    #[test]
    fn the_clock_stands_where_it_was_set() {
        let now = chrono::NaiveDate::from_ymd_opt(2025, 2, 3).unwrap().and_hms_opt(4, 5, 6).unwrap();
        let template = ChatTemplate::with_clock("t", "{{ strftime_now('%d %b %Y, %H:%M') }}", now).unwrap();
        let render = |t: &ChatTemplate| t.render_turns(&[], false, &TemplateVariables::default());
        assert_eq!(render(&template).unwrap(), "03 Feb 2025, 04:05");
        let template = ChatTemplate::with_clock("t", "{{ strftime_now('%Q!') }}", now).unwrap();
        assert!(matches!(render(&template), Err(TemplateError::Failed { reason, .. }) if reason.contains("%Q!")));
    }

    #[test]
    fn a_template_can_refuse() {
        let refused = render("\n{{ raise_exception('No system turns.') }}", json!({})).unwrap_err();
        assert_eq!(refused, TemplateError::Raised("No system turns.".into()));
        let in_macro = "{% macro m() %}{{ raise_exception('Inner.') }}{% endmacro %}{{ m() }}";
        assert_eq!(render(in_macro, json!({})).unwrap_err(), TemplateError::Raised("Inner.".into()));
    }

    #[test]
    fn a_template_that_loops_for_ever_is_an_error() {
        let nested = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x{% endfor %}{% endfor %}{% endfor %}";
        assert_eq!(render(nested, json!({})).unwrap_err(), TemplateError::OverBudget);
        let recursive = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
        assert!(render(recursive, json!({})).is_err());
        let growing = "{% set ns = namespace(s='x') %}{% for i in range(90) %}{% set ns.s = ns.s + ns.s %}{% endfor %}";
        assert_eq!(render(growing, json!({})).unwrap_err(), TemplateError::OverBudget);
    }

    #[test]
    fn broken_templates_name_the_line() {
        let error = ChatTemplate::new("mine", "a\n{% if %}").unwrap_err().to_string();
        assert!(error.starts_with("chat template `mine`: not valid Jinja: line 2: "), "{error}");
        let failed = render("\n\n{{ messages[0].content.nothing.at_all }}", json!({})).unwrap_err();
        assert!(matches!(failed, TemplateError::Failed { line: 3, .. }), "{failed:?}");
    }
}
