//! A rule about the tags that a response is divided by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Check, Compiled, one};
use crate::error::Error;
use crate::source::Scored;

/// `score_if_match` where the response consists of tags in the given order, each once, as in
/// `<think>…</think><answer>…</answer>`; else `else`.
///
/// White space around the tags is allowed, other text is not. Tags may not be nested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TagsRule {
    /// The names of the tags, at least one.
    #[serde(default = "think_and_answer")]
    pub tags: Vec<String>,
    /// Says that the prompt opens the first tag, as some chat templates do: the response then begins inside of it.
    #[serde(default)]
    pub opened: bool,
    /// Allows text after the last tag, such as an answer after `</think>`.
    #[serde(default)]
    pub allow_rest: bool,
    /// The reward if the tags are as wanted.
    #[serde(default = "one")]
    pub score_if_match: f64,
    /// The reward if they are not.
    #[serde(default, rename = "else")]
    pub otherwise: f64,
}

fn think_and_answer() -> Vec<String> {
    vec!["think".to_owned(), "answer".to_owned()]
}

impl TagsRule {
    pub(super) fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        check.finite("score_if_match", self.score_if_match);
        check.finite("else", self.otherwise);
        if self.tags.is_empty() {
            check.problem("tags", "is empty, expected at least one name, such as \"think\"");
        }
        for (at, name) in self.tags.iter().enumerate() {
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '|');
            if name.is_empty() || !name.chars().all(plain) {
                check.problem(
                    &format!("tags[{at}]"),
                    format!("is {name:?}, expected a name such as \"think\", without < and >"),
                );
            } else if self.tags[..at].contains(name) {
                check.problem(&format!("tags[{at}]"), format!("is {name:?} again, expected each name once"));
            }
        }
        Some(Box::new(CompiledTags(self.clone())))
    }

    fn holds(&self, response: &str) -> bool {
        let mut rest = response;
        for (at, name) in self.tags.iter().enumerate() {
            if at > 0 || !self.opened {
                let Some(inside) = rest.trim_start().strip_prefix(&format!("<{name}>")) else { return false };
                rest = inside;
            }
            let Some((content, after)) = rest.split_once(&format!("</{name}>")) else { return false };
            if self.has_tag(content) {
                return false;
            }
            rest = after;
        }
        rest.trim().is_empty() || self.allow_rest && !self.has_tag(rest)
    }

    /// Returns whether a text has one of the tags, opening or closing.
    fn has_tag(&self, text: &str) -> bool {
        self.tags.iter().any(|name| text.contains(&format!("<{name}>")) || text.contains(&format!("</{name}>")))
    }
}

struct CompiledTags(TagsRule);

impl Compiled for CompiledTags {
    fn score(&self, item: &Scored<'_>) -> Result<f64, Error> {
        Ok(if self.0.holds(item.response) { self.0.score_if_match } else { self.0.otherwise })
    }
}

/// Returns the content of the last tag of a name that is closed.
pub(super) fn last_content<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (before, _) = text.rsplit_once(&format!("</{name}>"))?;
    before.rsplit_once(&format!("<{name}>")).map(|(_, content)| content)
}

#[cfg(test)]
mod tests {
    use super::super::{problems_of, score_of};
    use super::last_content;

    #[test]
    fn the_response_is_its_tags_in_order() {
        let rule = "kind = 'tags'\nelse = -1.0";
        for good in [
            "<think>a</think><answer>b</answer>",
            "\n<think>\n1 < 2\n</think>\n\n<answer>b</answer>\n",
            "<think></think><answer></answer>",
        ] {
            assert_eq!(score_of(rule, good), 1.0, "{good:?}");
        }
        for bad in [
            "",
            "b",
            "<answer>b</answer><think>a</think>",
            "<think>a</think>b",
            "<think>a</think><answer>b",
            "<think>a</think>so <answer>b</answer>",
            "Well: <think>a</think><answer>b</answer>",
            "<think>a</think><answer>b</answer> done",
            "<think>a<think>b</think></think><answer>c</answer>",
            "<think>a</think><answer>b</answer><answer>c</answer>",
            "<think>a<answer>b</answer></think><answer>c</answer>",
            "<Think>a</Think><answer>b</answer>",
        ] {
            assert_eq!(score_of(rule, bad), -1.0, "{bad:?}");
        }
    }

    #[test]
    fn a_tag_may_be_opened_by_the_prompt_and_text_may_follow() {
        let opened = "kind = 'tags'\nopened = true";
        assert_eq!(score_of(opened, "a</think><answer>b</answer>"), 1.0);
        assert_eq!(score_of(opened, "<think>a</think><answer>b</answer>"), 0.0);
        let thinking = "kind = 'tags'\ntags = ['think']\nallow_rest = true\nscore_if_match = 0.5";
        assert_eq!(score_of(thinking, "<think>a</think>\nb"), 0.5);
        assert_eq!(score_of(thinking, "<think>a</think>b<think>"), 0.0);
    }

    #[test]
    fn contents_are_those_of_the_last_tag() {
        assert_eq!(last_content("<answer>1</answer> <answer>2</answer> <answer>", "answer"), Some("2"));
        assert_eq!(last_content("1</answer>", "answer"), None);
        assert_eq!(last_content("<answer>1", "answer"), None);
    }

    #[test]
    fn senseless_settings_are_named() {
        let keys = |text: &str| -> Vec<String> {
            problems_of(&format!("kind = 'tags'\n{text}")).into_iter().map(|problem| problem.key).collect()
        };
        assert_eq!(keys("tags = []\nelse = nan"), ["else", "tags"]);
        assert_eq!(keys("tags = ['think', '<answer>', '', 'think']"), ["tags[1]", "tags[2]", "tags[3]"]);
    }
}
