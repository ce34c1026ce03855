//! The judge's prompts, and the baseline of each category.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::judge::{ChatMessage, fill_template};

const PROMPTS: &str = include_str!("../../prompts/arena_hard_v2_judge_prompts.jsonl");

/// A category of prompts.
#[derive(Debug, Deserialize)]
struct Category {
    category: String,
    baseline: String,
    system_prompt: String,
    prompt_template: String,
}

static CATEGORIES: LazyLock<Vec<Category>> =
    LazyLock::new(|| PROMPTS.lines().filter_map(|line| serde_json::from_str(line).ok()).collect());

fn named(category: &str) -> Option<&'static Category> {
    CATEGORIES.iter().find(|known| known.category == category)
}

/// Returns the categories: `hard_prompt` and `creative_writing`.
pub fn arena_categories() -> impl Iterator<Item = &'static str> {
    CATEGORIES.iter().map(|category| category.category.as_str())
}

/// Returns the model with whose answers a category's are compared.
#[must_use]
pub fn arena_baseline(category: &str) -> Option<&'static str> {
    named(category).map(|category| category.baseline.as_str())
}

/// Returns what the judge is asked; `None` for an unknown category.
pub(super) fn messages(category: &str, question: &str, answer_a: &str, answer_b: &str) -> Option<Vec<ChatMessage>> {
    let category = named(category)?;
    let user = fill_template(&category.prompt_template, |name| match name {
        "QUESTION" => Some(question),
        "ANSWER_A" => Some(answer_a),
        "ANSWER_B" => Some(answer_b),
        _ => None,
    });
    Some(vec![ChatMessage::new("system", category.system_prompt.as_str()), ChatMessage::new("user", user)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_categories_have_a_baseline_and_a_prompt() {
        assert_eq!(arena_categories().collect::<Vec<_>>(), ["hard_prompt", "creative_writing"]);
        assert_eq!(arena_baseline("hard_prompt"), Some("o3-mini-2025-01-31"));
        assert_eq!(arena_baseline("creative_writing"), Some("gemini-2.0-flash-001"));
        assert_eq!(arena_baseline("other"), None);
        let messages = messages("hard_prompt", "{ANSWER_A}?", "one", "two").unwrap();
        assert!(messages[0].content.contains("generating your own answer") && messages[0].content.contains("[[B>>A]]"));
        assert_eq!(
            messages[1].content,
            "<|User Prompt|>\n{ANSWER_A}?\n\n<|The Start of Assistant A's Answer|>\none\n<|The End of Assistant A's Answer|>\n\n\
             <|The Start of Assistant B's Answer|>\ntwo\n<|The End of Assistant B's Answer|>"
        );
        let creative = super::messages("creative_writing", "", "", "").unwrap();
        assert!(!creative[0].content.contains("generating your own answer"));
    }
}
