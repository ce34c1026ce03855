//! FastChat's judge prompts, and what depends on a question's category.

use serde::Deserialize;

use crate::judge::{ChatMessage, fill_template};

const PROMPTS: &str = include_str!("../../prompts/fastchat_judge_prompts.jsonl");

/// A published prompt.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MtPrompt {
    /// `single-v1`, `pair-math-v1-multi-turn` …
    pub name: String,
    /// The system message.
    pub system_prompt: String,
    /// The user's message, with fields.
    pub prompt_template: String,
}

impl MtPrompt {
    /// The prompt for a turn of a question.
    ///
    /// # Panics
    /// Never: the prompts are compiled in, and a test finds every name.
    pub fn choose(pairwise: bool, reference: bool, second_turn: bool) -> Self {
        let name = match (pairwise, reference) {
            (false, false) => "single-v1",
            (false, true) => "single-math-v1",
            (true, false) => "pair-v2",
            (true, true) => "pair-math-v1",
        };
        let name = if second_turn { format!("{name}-multi-turn") } else { name.to_owned() };
        let rows = PROMPTS.lines().filter_map(|line| serde_json::from_str::<Self>(line).ok());
        rows.into_iter().find(|p| p.name == name).expect("every prompt is compiled in")
    }

    /// The user's message with its fields filled in.
    pub fn user_prompt<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> String {
        fill_template(&self.prompt_template, value)
    }

    /// System and user message.
    pub fn messages(&self, user_prompt: &str) -> Vec<ChatMessage> {
        vec![ChatMessage::new("system", self.system_prompt.as_str()), ChatMessage::new("user", user_prompt)]
    }
}

/// The temperature at which a category's questions are answered; FastChat's `temperature_config`, 0.7 where it has none.
pub fn category_temperature(category: &str) -> f64 {
    match category {
        "extraction" | "math" | "coding" | "reasoning" | "arena-hard-200" => 0.0,
        "stem" | "humanities" => 0.1,
        _ => 0.7,
    }
}

/// Returns whether the judge is shown a reference answer.
pub fn needs_reference(category: &str) -> bool {
    matches!(category, "math" | "reasoning" | "coding" | "arena-hard-200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_is_there_and_its_fields_are_filled() {
        let fields = |name: &str| match name {
            "question" | "question_1" | "question_2" | "answer" | "answer_1" | "answer_2" | "answer_a" | "answer_b"
            | "answer_a_1" | "answer_a_2" | "answer_b_1" | "answer_b_2" | "ref_answer_1" | "ref_answer_2" => {
                Some("text")
            }
            _ => None,
        };
        for (pairwise, reference, second) in (0..8).map(|i| (i & 1 > 0, i & 2 > 0, i & 4 > 0)) {
            let prompt = MtPrompt::choose(pairwise, reference, second);
            let text = prompt.user_prompt(fields);
            assert!(!text.contains('{') && text.contains("text"), "{}: {text}", prompt.name);
            assert_eq!(prompt.name.starts_with("pair"), pairwise);
            assert_eq!(prompt.prompt_template.contains("{ref_answer_1}"), reference, "{}", prompt.name);
            assert_eq!(prompt.prompt_template.contains("{question_2}"), second, "{}", prompt.name);
        }
    }
}
