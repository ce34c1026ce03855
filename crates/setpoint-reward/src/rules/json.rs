//! A rule about JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Check, Compiled, one};
use crate::error::Error;
use crate::source::Scored;

/// `score_if_valid` where the whole response is one JSON value, else `else`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonRule {
    /// Keys that the value must have; it must then be an object.
    #[serde(default)]
    pub required: Vec<String>,
    /// Allows the value to be in one Markdown code fence.
    #[serde(default)]
    pub allow_fence: bool,
    /// The reward for a valid response.
    #[serde(default = "one")]
    pub score_if_valid: f64,
    /// The reward for any other response.
    #[serde(default, rename = "else")]
    pub otherwise: f64,
}

impl JsonRule {
    pub(super) fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        check.finite("score_if_valid", self.score_if_valid);
        check.finite("else", self.otherwise);
        Some(Box::new(CompiledJson(self.clone())))
    }

    fn holds(&self, response: &str) -> bool {
        let text = if self.allow_fence { without_fence(response.trim()) } else { response };
        // serde_json bounds the nesting, so no response can exhaust the stack.
        let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
        self.required.is_empty()
            || value.as_object().is_some_and(|object| self.required.iter().all(|key| object.contains_key(key)))
    }
}

/// The content of a fence that encloses all of `text`, or `text` itself.
fn without_fence(text: &str) -> &str {
    let inside = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    // The first line of a fence names the language.
    inside.and_then(|inside| inside.split_once('\n')).map_or(text, |(_language, body)| body)
}

struct CompiledJson(JsonRule);

impl Compiled for CompiledJson {
    fn score(&self, item: &Scored<'_>) -> Result<f64, Error> {
        Ok(if self.0.holds(item.response) { self.0.score_if_valid } else { self.0.otherwise })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{problems_of, score_of};

    #[test]
    fn the_whole_response_must_be_one_value() {
        let rule = "kind = 'json'\nscore_if_valid = 2.0\nelse = -2.0";
        for valid in ["{}", " [1, 2] \n", "\"text\"", "3.5", "null"] {
            assert_eq!(score_of(rule, valid), 2.0, "{valid}");
        }
        for invalid in ["", "{'a': 1}", "{} {}", "{\"a\": 1,}", "NaN", "Here: {}", "```json\n{}\n```"] {
            assert_eq!(score_of(rule, invalid), -2.0, "{invalid}");
        }
    }

    #[test]
    fn required_keys_ask_for_an_object() {
        let rule = "kind = 'json'\nrequired = ['name', 'age']";
        assert_eq!(score_of(rule, r#"{"age": null, "name": "x", "more": 1}"#), 1.0);
        assert_eq!(score_of(rule, r#"{"name": "x"}"#), 0.0);
        assert_eq!(score_of(rule, r#"["name", "age"]"#), 0.0);
    }

    #[test]
    fn a_fence_is_allowed_where_set() {
        let rule = "kind = 'json'\nallow_fence = true";
        for valid in ["```json\n{}\n```", "\n```\n[1]\n```\n", "{}"] {
            assert_eq!(score_of(rule, valid), 1.0, "{valid}");
        }
        for invalid in ["```json\n{}", "Sure:\n```json\n{}\n```", "```{}```", "``````"] {
            assert_eq!(score_of(rule, invalid), 0.0, "{invalid}");
        }
    }

    #[test]
    fn deep_nesting_is_invalid_instead_of_fatal() {
        assert_eq!(score_of("kind = 'json'", &"[".repeat(1_000_000)), 0.0);
    }

    #[test]
    fn senseless_settings_are_named() {
        assert_eq!(problems_of("kind = 'json'\nelse = inf")[0].key, "else");
    }
}
