//! Whether a rendered turn still holds everything that its message says: its text, its thoughts and its tool calls.
//!
//! Templates may drop thoughts, ignore tool calls or rewrite text. In the history that is often intended, in a turn that is trained it
//! never is: two different responses would become the same tokens.

use std::collections::HashSet;
use std::ops::Range;

use memchr::memmem;
use serde_json::Value;

use super::TextEncoder;
use super::options::EncodeOptions;
use crate::error::EncodeProblem;
use crate::record::{Message, is_space};

/// Fields that hold a turn's thoughts, in the spellings of the common servers and templates.
const FIELDS: [&str; 5] = ["reasoning_content", "reasoning", "thinking", "thought", "thoughts"];
/// The name of a lost thought in messages.
const THOUGHTS: &str = "thoughts";
/// Fields that hold a tool call's arguments, in the spellings of the common servers.
const ARGUMENTS: [&str; 5] = ["arguments", "parameters", "input", "args", "kwargs"];
const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
/// Bytes behind a found part in which the next one is looked for first.
const NEAR: usize = 256;
/// Bytes that may be searched for thoughts which a template may leave out. Beyond them, the others count as left out.
const IN_VAIN: usize = 256 << 20;
/// Characters of a lost text that an error shows.
const EXCERPT: usize = 40;

/// A part of a message that must be found in the rendered turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    what: &'static str,
    /// As the row has it.
    text: String,
    /// The ways in which a template may print it.
    forms: Vec<String>,
}

impl Part {
    /// A text that must be printed as it is.
    fn verbatim(what: &'static str, text: &str) -> Option<Self> {
        let text = trimmed(text);
        (!text.is_empty()).then(|| Self { what, text: text.to_owned(), forms: vec![text.to_owned()] })
    }

    /// A text within a tool call, which may be printed as JSON, as a Python literal or as it is.
    fn literal(what: &'static str, text: &str) -> Option<Self> {
        let mut part = Self::verbatim(what, text)?;
        let quoted = |text: &str| Value::from(text).to_string().trim_matches('"').to_owned();
        let once = quoted(&part.text);
        let ascii = ascii_only(&once);
        let python = part.text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
        let (twice, quote) = (quoted(&once), python.replace('\'', "\\'"));
        part.forms.extend([once, ascii.clone(), quoted(&ascii), twice, python, quote]);
        part.forms.dedup();
        Some(part)
    }

    /// A value within a tool call's arguments that is not a text.
    fn scalar(value: &Value) -> Option<Self> {
        let text = value.to_string();
        let mut forms = vec![text.clone()];
        match value {
            Value::Bool(true) => forms.push("True".into()),
            Value::Bool(false) => forms.push("False".into()),
            Value::Number(number) => {
                if let Some(x) = number.as_f64() {
                    // Python writes 1e-07, and a template may print 2.0 as 2.
                    forms.extend([format!("{x}"), format!("{x:?}"), format!("{x:?}").replace("e-", "e-0")]);
                    forms.push(format!("{x:e}"));
                }
            }
            _ => return None,
        }
        Some(Self { what: "tool call", text, forms })
    }
}

/// A JSON text in which characters beyond ASCII are escaped, as Python's `json.dumps` writes by default.
fn ascii_only(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
    }
    text
}

/// Without the whitespace at both ends, in Python's sense.
fn trimmed(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Everything that a message says.
pub(super) fn parts(message: &Message) -> Vec<Part> {
    let mut parts: Vec<Part> = pieces(&message.content)
        .into_iter()
        .filter_map(|(thought, text)| Part::verbatim(if thought { THOUGHTS } else { "text" }, text))
        .collect();
    if parts.iter().any(|part| part.what == THOUGHTS) {
        // Without their end the thoughts would be part of the answer. Their beginning may be the prompt's.
        parts.extend(Part::verbatim(THOUGHTS, CLOSE).filter(|_| message.content.contains(CLOSE)));
    }
    for thoughts in FIELDS.iter().filter_map(|field| message.extra.get(*field)?.as_str()) {
        // Some servers give the thoughts twice, and some within the text as well.
        if !parts.iter().any(|part| part.text.contains(trimmed(thoughts))) {
            parts.extend(pieces(thoughts).into_iter().filter_map(|(_, text)| Part::verbatim(THOUGHTS, text)));
        }
    }
    for call in message.tool_calls() {
        let function = call.get("function").filter(|f| f.is_object()).unwrap_or(&call);
        // Some put the name itself into `function`.
        let Some(name) = ["name", "function"].iter().find_map(|field| function.get(*field)?.as_str()) else {
            leaves(function, &mut parts);
            continue;
        };
        parts.extend(Part::literal("tool call", name));
        match ARGUMENTS.iter().find_map(|field| function.get(*field).filter(|value| !value.is_null())) {
            Some(Value::String(json)) => match serde_json::from_str::<Value>(json) {
                Ok(arguments @ (Value::Object(_) | Value::Array(_))) => leaves(&arguments, &mut parts),
                _ => parts.extend(Part::literal("tool call", json)),
            },
            Some(arguments) => leaves(arguments, &mut parts),
            None => {}
        }
    }
    parts
}

/// A text cut at the marks of thoughts, around which templates change the whitespace; true: a thought.
fn pieces(text: &str) -> Vec<(bool, &str)> {
    let mut pieces = Vec::new();
    let (mut start, mut open) = (0, false);
    for (at, _) in text.match_indices('<') {
        let Some(mark) = [OPEN, CLOSE].into_iter().find(|mark| text[at..].starts_with(mark)) else { continue };
        // Where the prompt opens the thoughts, the text has their end alone.
        pieces.push((open || mark == CLOSE, &text[start..at]));
        open = mark == OPEN;
        start = at + mark.len();
    }
    pieces.push((open, &text[start..]));
    pieces
}

/// The names and values of a tool call's arguments. Null and what is empty says nothing.
fn leaves(value: &Value, parts: &mut Vec<Part>) {
    match value {
        Value::Null => {}
        Value::String(text) => parts.extend(Part::literal("tool call", text)),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, parts)),
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null() && **value != "") {
                parts.extend(Part::literal("tool call", name));
                leaves(value, parts);
            }
        }
        scalar => parts.extend(Part::scalar(scalar)),
    }
}

/// Returns whether a rendered turn holds everything that its message says, thoughts among it.
pub(super) fn prints_thoughts(turn: &str, message: &Message) -> bool {
    parts(message).iter().any(|part| part.what == THOUGHTS) && missing(turn, message, true).is_none()
}

/// The first part of a message that its rendered turn lacks. Thoughts may be missing if they are not learned: many templates leave out
/// those of earlier turns.
fn missing(turn: &str, message: &Message, thoughts: bool) -> Option<Part> {
    let mut parts = parts(message);
    if in_order(turn, &parts) {
        return None;
    }
    // Long texts first, each found in a place of its own: `1` is not found within `10`.
    parts.sort_by_key(|part| std::cmp::Reverse(part.text.len()));
    let mut left = Left { turn: turn.as_bytes().to_vec(), behind: 0, absent: HashSet::new(), in_vain: 0 };
    for part in &parts {
        let optional = part.what == THOUGHTS && !thoughts;
        if optional && left.in_vain > IN_VAIN {
            continue;
        }
        if !left.take(part) && !optional {
            return Some(part.clone());
        }
    }
    None
}

/// Returns whether a rendered turn holds all parts one behind the other, as most templates print them.
fn in_order(turn: &str, parts: &[Part]) -> bool {
    let turn = turn.as_bytes();
    let mut from = 0;
    parts.iter().all(|part| {
        let found = near(turn, from, part).or_else(|| {
            let form = part.forms.iter().find_map(|form| Some((memmem::find(&turn[from..], form.as_bytes())?, form)));
            form.map(|(at, form)| from + at..from + at + form.len())
        });
        from = found.as_ref().map_or(from, |range| range.end);
        found.is_some()
    })
}

/// The first form of a part that begins shortly behind a place.
fn near(turn: &[u8], from: usize, part: &Part) -> Option<Range<usize>> {
    part.forms.iter().find_map(|form| {
        let window = &turn[from..turn.len().min(from + NEAR + form.len())];
        let at = from + memmem::find(window, form.as_bytes())?;
        Some(at..at + form.len())
    })
}

/// The places of a rendered turn in which no part was found yet.
struct Left<'p> {
    /// The turn, with a byte that no text has where a part was found.
    turn: Vec<u8>,
    /// The place behind the part that was found last.
    behind: usize,
    /// Forms that are nowhere. What is taken never comes back, so they need no second search.
    absent: HashSet<&'p str>,
    /// Bytes that were searched for forms that are nowhere.
    in_vain: usize,
}

impl<'p> Left<'p> {
    /// Takes the place of a part, if it has one. Parts of equal length come in the order of the message, so the search begins behind the
    /// last one.
    fn take(&mut self, part: &'p Part) -> bool {
        let found = near(&self.turn, self.behind, part).or_else(|| part.forms.iter().find_map(|form| self.find(form)));
        let Some(range) = found else { return false };
        self.behind = range.end;
        self.turn[range].fill(0xff);
        true
    }

    fn find(&mut self, form: &'p str) -> Option<Range<usize>> {
        if self.absent.contains(form) {
            return None;
        }
        let later = memmem::find(&self.turn[self.behind..], form.as_bytes()).map(|at| self.behind + at);
        let Some(at) = later.or_else(|| memmem::find(&self.turn, form.as_bytes())) else {
            self.in_vain += self.turn.len();
            self.absent.insert(form);
            return None;
        };
        Some(at..at + form.len())
    }
}

/// Returns where the first of some texts begins. It looks no further than needed, since one of them may be nowhere.
fn first_of(texts: &[&str], rendered: &str) -> Option<usize> {
    let rendered = rendered.as_bytes();
    let longest = texts.iter().map(|text| text.len()).max()?;
    let mut reach = 1024;
    loop {
        let window = &rendered[..rendered.len().min(reach)];
        let found = texts.iter().filter_map(|text| memmem::find(window, text.as_bytes())).min();
        // One that begins before it may reach over the end of the window.
        if window.len() == rendered.len() || found.is_some_and(|at| at + longest <= window.len()) {
            return found;
        }
        reach *= 2;
    }
}

impl TextEncoder {
    /// Returns the text of a turn up to its stop token. `rendered` is the conversation's text from the turn's first character on.
    pub(super) fn turn_text<'t>(&self, rendered: &'t str) -> &'t str {
        let stops: Vec<&str> =
            self.control.iter().filter(|(_, id)| self.stop_ids.contains(id)).map(|(text, _)| text.as_str()).collect();
        &rendered[..first_of(&stops, rendered).unwrap_or(rendered.len())]
    }

    /// Checks that a turn which is trained says something, and that the template printed all of it that is learned.
    pub(super) fn check_kept(
        &self,
        rendered: &str,
        message: &Message,
        options: &EncodeOptions,
        turn: impl Fn() -> String,
    ) -> Result<(), EncodeProblem> {
        if message.is_empty() {
            return Err(EncodeProblem::EmptyTurn { turn: turn() });
        }
        match missing(rendered, message, options.learns_thoughts()) {
            None => Ok(()),
            Some(part) => Err(EncodeProblem::Lost {
                template: self.template.as_ref().map_or_else(String::new, |t| t.name().to_owned()),
                turn: turn(),
                what: part.what,
                text: part.text.chars().take(EXCERPT).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn turn(content: &str, extra: Value) -> Message {
        let Value::Object(extra) = extra else { panic!("an object") };
        Message { extra, ..Message::assistant(content) }
    }

    fn lacks(rendered: &str, message: &Message) -> Option<(&'static str, String)> {
        missing(rendered, message, true).map(|part| (part.what, part.text))
    }

    #[test]
    fn text_may_lose_whitespace_at_its_ends_alone() {
        let message = Message::assistant("\n Two  lines:\n1. one ");
        assert_eq!(lacks("Two  lines:\n1. one", &message), None);
        assert_eq!(lacks("Two lines:\n1. one", &message).unwrap().0, "text");
        assert_eq!(lacks("two  lines:\n1. one", &message).unwrap().0, "text");
        assert_eq!(lacks("Two  lines:", &message).unwrap().0, "text");
    }

    #[test]
    fn thoughts_in_the_text_and_in_fields() {
        let message = Message::assistant("<think>\nhm\n</think>\n\nYes.");
        assert_eq!(lacks("<think>hm</think>Yes.", &message), None);
        assert_eq!(lacks("hm\n</think>\n\nYes.", &message), None, "the prompt has opened them");
        assert_eq!(lacks("hm Yes.", &message), Some(("thoughts", "</think>".into())), "the marks are gone");
        assert_eq!(lacks("<think></think>Yes.", &message), Some(("thoughts", "hm".into())));
        assert_eq!(lacks("Yes.", &Message::assistant("<think>\n\n</think>\n\nYes.")), None, "no thoughts");
        for field in FIELDS {
            let message = turn("Yes.", json!({ field: "because" }));
            assert_eq!(lacks("<think>\nbecause\n</think>\n\nYes.", &message), None);
            assert_eq!(lacks("Yes.", &message), Some(("thoughts", "because".into())), "{field}");
        }
        let twice = turn("Yes.", json!({"reasoning": "because", "reasoning_content": "because"}));
        assert_eq!(lacks("<think>because</think>Yes.", &twice), None);
        assert_eq!(lacks("Yes.", &turn("Yes.", json!({"thinking": true}))), None, "a switch is no text");
    }

    #[test]
    fn the_first_stop_is_found_across_the_end_of_a_window() {
        let text = format!("{}<|end|>x<|e", "a".repeat(1020));
        assert_eq!(first_of(&["<|end|>x", "nd|>"], &text), Some(1020));
        assert_eq!(first_of(&["nd|>", "nowhere"], &text), Some(1023));
        assert_eq!(first_of(&["nowhere"], &text), None);
        assert_eq!(first_of(&[], &text), None);
        assert_eq!(first_of(&["a"], ""), None);
    }

    #[test]
    fn a_text_of_many_marks_is_cut_in_good_time() {
        let text = OPEN.repeat(500_000);
        assert_eq!(pieces(&text).len(), 500_001);
        assert_eq!(pieces("a<think>b</think>c</think>d"), [(false, "a"), (true, "b"), (true, "c"), (false, "d")]);
    }

    #[test]
    fn many_parts_are_found_in_good_time() {
        let text = "<think>a</think>".repeat(250_000);
        let start = std::time::Instant::now();
        assert_eq!(lacks(&text, &Message::assistant(&text)), None);
        // Text before thoughts, as a template prints that takes them from a field.
        let both = turn("Yes.", json!({"reasoning": text}));
        assert_eq!(lacks(&format!("{text}Yes."), &both), None);
        // Thoughts that all differ, of which a template keeps the last.
        let thoughts: String = (0..100_000).map(|i| format!("<think>t{i}</think>")).collect();
        let answer = "word ".repeat(400_000);
        let message = Message::assistant(format!("{thoughts}{answer}"));
        assert_eq!(missing(&answer, &message, false), None);
        assert_eq!(missing(&answer, &message, true).unwrap().what, "thoughts");
        // Arguments that are printed with escapes.
        let arguments: Vec<String> = (0..100_000).map(|i| format!("{i}\n{i}")).collect();
        let calls = turn("", json!({"tool_calls": [{"name": "f", "arguments": {"all": arguments}}]}));
        assert_eq!(lacks(&calls.tool_calls()[0].to_string(), &calls), None);
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }

    #[test]
    fn tool_calls_in_the_ways_of_many_templates() {
        let arguments = json!({"city": "São \"P\"\n", "days": [3, 2.0], "metric": true, "unit": null, "note": ""});
        let message = turn("", json!({"tool_calls": [{"function": {"name": "weather", "arguments": arguments}}]}));
        let rendered = [
            r#"{"name": "weather", "arguments": {"city": "São \"P\"\n", "days": [3, 2.0], "metric": true, "unit": null, "note": ""}}"#,
            r#"{"name": "weather", "arguments": {"city": "S\u00e3o \"P\"\n", "days": [3, 2.0], "metric": true}}"#,
            r#"{"name": "weather", "arguments": "{\"city\": \"São \\\"P\\\"\\n\", \"days\": [3, 2.0], \"metric\": true}"}"#,
            r#"{'name': 'weather', 'arguments': {'city': 'São "P"\n', 'days': [3, 2.0], 'metric': True}}"#,
            "<function=weather>\n<parameter=city>\nSão \"P\"\n</parameter>\n<parameter=days>\n[3, 2.0]\n</parameter>\n<parameter=metric>True",
        ];
        for text in rendered {
            assert_eq!(lacks(text, &message), None, "{text}");
        }
        assert_eq!(lacks(r#"weather(city="São \"P\"\n", days=[3], metric=true)"#, &message).unwrap().1, "2.0");
        assert_eq!(lacks("", &message).unwrap().0, "tool call");
        let as_text = arguments_as_text(&message);
        for text in rendered {
            assert_eq!(lacks(text, &as_text), None, "{text}");
        }
        let several = turn(
            "Both.",
            json!({"tool_calls": [{"name": "f", "arguments": {"x": 1}}, {"name": "f", "arguments": {"x": 10}}]}),
        );
        assert_eq!(lacks("Both. f(x=1) f(x=10)", &several), None);
        assert_eq!(lacks("Both. f(x=10)", &several).unwrap().0, "tool call");
    }

    #[test]
    fn other_spellings_of_names_and_arguments() {
        for field in ARGUMENTS {
            for call in [
                json!({"name": "add", field: {"a": 71}}),
                json!({"id": "call_1", "type": "function", "function": {"name": "add", field: {"a": 71}}}),
                json!({"function": "add", field: {"a": 71}}),
            ] {
                let message = turn("Ok.", json!({"tool_calls": [call]}));
                assert_eq!(lacks(r#"Ok. {"name": "add", "arguments": {"a": 71}}"#, &message), None, "{field}");
                assert_eq!(lacks("Ok. add()", &message).map(|(what, _)| what), Some("tool call"), "{field}");
                assert_eq!(lacks("Ok. {\"a\": 71}", &message), Some(("tool call", "add".into())), "{field}");
            }
        }
    }

    fn arguments_as_text(message: &Message) -> Message {
        let mut message = message.clone();
        let arguments = &mut message.extra["tool_calls"][0]["function"]["arguments"];
        *arguments = arguments.to_string().into();
        message
    }
}
