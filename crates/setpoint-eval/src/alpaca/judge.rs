//! AlpacaEval 2's annotator, `weighted_alpaca_eval_gpt4_turbo`: prompt, order of the two outputs, preference from log-probabilities.

use serde_json::json;

use super::annotation::AlpacaExample;
use crate::error::Error;
use crate::judge::{ChatAnswer, ChatMessage, ChatRequest, JudgeClient, TokenLogprob, fill_template};
use crate::python_random::PythonRandom;

/// The annotator's name in results.
const NAME: &str = "weighted_alpaca_eval_gpt4_turbo";
/// The preference of a draw.
const DRAW: f64 = 1.5;
const TEMPLATE: &str = include_str!("../../prompts/alpaca_eval_clf.txt");

/// Annotates pairs of outputs through a [`JudgeClient`].
#[derive(Debug)]
pub struct AlpacaJudge<'a> {
    client: &'a JudgeClient,
}

impl<'a> AlpacaJudge<'a> {
    /// An annotator on an open client.
    pub fn new(client: &'a JudgeClient) -> Self {
        Self { client }
    }

    /// Fills in `preference`, `annotator` and the judge's raw answer. Equal outputs are a draw without one. A pair whose answer holds neither `m`
    /// nor `M`, or that the endpoint does not answer, keeps no preference; how many is returned.
    ///
    /// # Errors
    /// The errors of [`JudgeClient::ask_all`]; [`Error::Judgment`] for the first such pair if `on_failure` is `error`.
    pub fn annotate(&self, examples: &mut [AlpacaExample], progress: &mut dyn FnMut(usize)) -> Result<usize, Error> {
        let is_same = |example: &AlpacaExample| example.output_1 == example.output_2;
        let asked: Vec<usize> = (0..examples.len()).filter(|&at| !is_same(&examples[at])).collect();
        let requests: Vec<ChatRequest> = asked
            .iter()
            .map(|&at| {
                let example = &examples[at];
                let swapped = alpaca_swapped(&example.instruction);
                let (first, second) = ordered(example, swapped);
                ChatRequest {
                    messages: alpaca_judge_messages(&example.instruction, first, second),
                    // As published. It changes no log-probability.
                    temperature: 1.0,
                    max_tokens: Some(1),
                    top_logprobs: Some(5),
                    sample: 0,
                }
            })
            .collect();
        // One token is asked for, so every answer is cut off there; the log-probabilities are whole.
        let usable = |answer: &ChatAnswer| preference(answer, false).is_some();
        let known = examples.len() - asked.len();
        let mut progress = |done: usize| progress(known + done);
        let name = |at: usize| format!("instruction {}", asked[at] + 1);
        let answers = self.client.ask_usable(&requests, &usable, &mut progress, name)?;
        let mut failed = 0;
        for example in examples.iter_mut() {
            example.annotator = Some(NAME.to_owned());
            example.preference = is_same(example).then_some(DRAW);
        }
        for (at, answer) in asked.into_iter().zip(answers) {
            let example = &mut examples[at];
            let swapped = alpaca_swapped(&example.instruction);
            example.preference = answer.as_ref().ok().and_then(|a| preference(a, swapped));
            let raw = match answer {
                Ok(answer) => answer.choice,
                Err(reason) => json!({ "error": reason }),
            };
            example.extra.insert("raw_completion".to_owned(), raw);
            failed += usize::from(example.preference.is_none());
        }
        Ok(failed)
    }
}

fn ordered(example: &AlpacaExample, swapped: bool) -> (&str, &str) {
    if swapped { (&example.output_2, &example.output_1) } else { (&example.output_1, &example.output_2) }
}

fn preference(answer: &ChatAnswer, swapped: bool) -> Option<f64> {
    let first = alpaca_preference(answer.top_logprobs.first()?)?;
    Some(if swapped { 3.0 - first } else { first })
}

/// `2 − p(m) / (p(m) + p(M))`: 1 for the output shown first (`m`), 2 for the second. `None` where neither is among the likeliest tokens.
pub fn alpaca_preference(top: &[TokenLogprob]) -> Option<f64> {
    // The last of two equal tokens counts, as in a Python dict.
    let of = |token: &str| top.iter().rev().find(|t| t.token == token).map(|t| t.logprob);
    match (of("m"), of("M")) {
        (None, None) => None,
        // p(m) / (p(m) + p(M)) without leaving the logarithms.
        (m, big) => {
            let difference = big.unwrap_or(f64::NEG_INFINITY) - m.unwrap_or(f64::NEG_INFINITY);
            Some(2.0 - 1.0 / (1.0 + difference.exp()))
        }
    }
}

/// The published prompt, with `first` as model `m` and `second` as model `M`.
pub fn alpaca_judge_messages(instruction: &str, first: &str, second: &str) -> Vec<ChatMessage> {
    TEMPLATE
        .split("<|im_start|>")
        .skip(1)
        .filter_map(|part| {
            let (role, content) = part.split_once('\n')?;
            // Markers are cut before the texts are filled in: an output may hold one itself.
            let content = content.split("<|im_end|>").next()?.trim();
            let text = fill_template(content, |name| match name {
                "instruction" => Some(instruction),
                "output_1" => Some(first),
                "output_2" => Some(second),
                _ => None,
            });
            Some(ChatMessage::new(role.trim(), text))
        })
        .collect()
}

/// Returns whether alpaca_eval shows the model's output first: Python's `random.Random("is_switched_outputs" + instruction + "0")` and its
/// `choices([False, True])`.
pub fn alpaca_swapped(instruction: &str) -> bool {
    PythonRandom::from_text(&format!("is_switched_outputs{instruction}0")).coin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(pairs: &[(&str, f64)]) -> Vec<TokenLogprob> {
        pairs.iter().map(|(token, p)| TokenLogprob { token: (*token).into(), logprob: p.ln() }).collect()
    }

    #[test]
    fn the_preference_is_the_share_of_the_two_names() {
        let got = alpaca_preference(&tokens(&[("m", 0.6), ("M", 0.2), ("The", 0.1)])).unwrap();
        assert!((got - 1.25).abs() < 1e-12, "{got}"); // 2 − 0.6/0.8
        assert_eq!(alpaca_preference(&tokens(&[("m", 0.6)])), Some(1.0));
        assert_eq!(alpaca_preference(&tokens(&[("M", 1e-9), ("x", 0.9)])), Some(2.0));
        assert_eq!(alpaca_preference(&tokens(&[("mm", 0.5)])), None);
    }

    #[test]
    fn the_prompt_has_a_system_and_a_user_message_and_keeps_markers_in_outputs() {
        let messages = alpaca_judge_messages("Say {output_2}", "one <|im_end|>", "two");
        let roles: Vec<&str> = messages.iter().map(|m| m.role.as_str()).collect();
        assert_eq!(roles, ["system", "user"]);
        let user = &messages[1].content;
        assert!(user.contains("\"instruction\": \"\"\"Say {output_2}\"\"\","), "{user}");
        assert!(
            user.contains("\"model_identifier\": \"m\",\n        \"output\": \"\"\"one <|im_end|>\"\"\""),
            "{user}"
        );
        assert!(user.ends_with("## Best Model Identifier"), "{user}");
    }

    #[test]
    fn the_order_is_the_one_python_draws() {
        // python -c "import random; print([random.Random(f'is_switched_outputs{i}0').random() >= .5 for i in range(12)])"
        let expected = [true, false, true, false, false, false, true, true, true, true, true, false];
        let got: Vec<bool> = (0..12).map(|i| alpaca_swapped(&i.to_string())).collect();
        assert_eq!(got, expected);
    }
}
