//! The page: templates, and the guards on every text that they show.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, escape_formatter};
use serde::Serialize;

use super::Report;
use crate::failure::{Failure, Outcome};
use crate::visible::visible;

/// The templates. Those that end in `.html` escape what they show.
const TEMPLATES: [(&str, &str); 4] = [
    ("report.html", include_str!("templates/report.html")),
    ("answers.html", include_str!("templates/answers.html")),
    ("chart.html", include_str!("templates/chart.html")),
    ("style.css", include_str!("templates/style.css")),
];

/// The colour of a run: on a light and on a dark page.
#[derive(Debug, PartialEq, Serialize)]
pub struct Colour {
    light: String,
    dark: String,
}

/// Colours that most eyes can tell apart (after Okabe and Ito), with enough contrast on each page.
const COLOURS: [(&str, &str); 7] = [
    ("#0067a3", "#56b4e9"),
    ("#c24a00", "#ff9452"),
    ("#007a5a", "#2fcf9f"),
    ("#a8458a", "#e59ac8"),
    ("#8a6100", "#f0c04a"),
    ("#6941c6", "#b8a1ff"),
    ("#5f6368", "#bdc1c6"),
];

/// Returns the colours of so many runs and results.
pub fn colours(count: usize) -> Vec<Colour> {
    let colour = |i: usize| match COLOURS.get(i) {
        Some((light, dark)) => Colour { light: (*light).to_owned(), dark: (*dark).to_owned() },
        None => {
            // Hues that are far from those before.
            let hue = (137.5 * i as f64) % 360.0;
            Colour { light: format!("hsl({hue:.0} 70% 35%)"), dark: format!("hsl({hue:.0} 70% 70%)") }
        }
    };
    (0..count).map(colour).collect()
}

/// The beginning of a page that holds its title, in bytes.
const BEGINNING: u64 = 4096;
/// The title, as the template writes it.
const TITLE: &str = "<title>Setpoint report</title>";

/// Returns whether a file is a report, which can be written again from its runs, or is empty.
pub fn is_report(path: &Path) -> bool {
    let mut beginning = Vec::new();
    let read = setpoint_files::open(path).map(|file| file.take(BEGINNING).read_to_end(&mut beginning));
    matches!(read, Ok(Ok(_))) && (beginning.is_empty() || String::from_utf8_lossy(&beginning).contains(TITLE))
}

/// Fills the templates.
///
/// # Errors
/// When a template is wrong, which a test rules out.
pub fn render(report: &Report) -> Outcome<String> {
    let failed = |error: minijinja::Error| Failure::run(format!("cannot write the report: {error:#}"));
    let value = from_json(&serde_json::to_value(report)?);
    environment().map_err(failed)?.get_template("report.html").and_then(|page| page.render(value)).map_err(failed)
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| match name.ends_with(".html") {
        true => AutoEscape::Html,
        false => AutoEscape::None,
    });
    // Texts come from strangers: data, models, file names. Control characters and marks that reorder text are displayed.
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => escape_formatter(out, state, &Value::from(displayed(text))),
        _ => escape_formatter(out, state, value),
    });
    for (name, source) in TEMPLATES {
        environment.add_template(name, source)?;
    }
    Ok(environment)
}

/// Returns a text with its control characters and with all marks of direction displayed.
fn displayed(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '\u{61c}' | '\u{200e}' | '\u{200f}' => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// Returns a JSON value for a template.
fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            (None, value) => Value::from(value.unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(list) => list.iter().map(from_json).collect(),
        serde_json::Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields.iter().map(|(k, v)| (k.clone(), from_json(v))).collect();
            Value::from(fields)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_switch_no_guard_off() {
        for (name, source) in TEMPLATES {
            for word in [
                "| safe",
                "|safe",
                "autoescape",
                "<script",
                "http:",
                "https:",
                "src=",
                "href=",
                "@import",
                "url(",
                "onload",
                "onclick",
            ] {
                assert!(!source.contains(word), "{name} has {word}");
            }
        }
        environment().unwrap();
    }

    #[test]
    fn every_text_is_escaped_and_made_visible() {
        let mut environment = environment().unwrap();
        environment.add_template("test.html", "<p title=\"{{ text }}\">{{ text }}</p>").unwrap();
        let show = |text: &str| {
            let value = from_json(&serde_json::json!({ "text": text }));
            environment.get_template("test.html").unwrap().render(value).unwrap()
        };
        let escaped = show("<b>&\"'");
        assert!(!escaped.contains("<b>") && escaped.contains("&lt;b&gt;&amp;&quot;&#x27;"), "{escaped}");
        let hidden = show("a\u{1b}[31m\u{202e}b\u{200f}\u{61c}\u{2066}c\r");
        assert!(!hidden.chars().any(|c| c.is_control() || "\u{202e}\u{200f}\u{61c}\u{2066}".contains(c)), "{hidden:?}");
        assert!(hidden.contains("\\u{202e}") && hidden.contains("\\u{200f}"), "{hidden}");
    }

    #[test]
    fn every_run_has_a_colour_of_its_own() {
        let colours = colours(50);
        assert!((0..50).all(|i| (0..i).all(|j| colours[i] != colours[j])));
    }
}
