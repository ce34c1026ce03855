//! Responses that occur more than once and are judged in opposite ways.

use std::collections::{HashMap, HashSet};

use setpoint_align::Role;

use super::data::SetView;
use crate::failure::Outcome;
use crate::setup::token_hash;
use crate::tasks::stages::{Prompt, PromptList};

/// Rewards that differ by less, as a share of the larger, are one reward: a reward model rounds in its own way in every batch.
const SAME: f64 = 1e-3;

/// The judgement of a response by the data.
#[derive(Clone, Copy, PartialEq)]
struct Judgement {
    row: usize,
    reward: Option<f64>,
    label: Option<Role>,
    /// True if the response is the only one of its row, so that its label compares it with nothing.
    is_alone: bool,
}

impl Judgement {
    /// Returns whether both cannot be right. A label counts within a row, where it compares responses, or where it is about one response
    /// alone: the best response of one row may well be the worst of another.
    fn contradicts(&self, other: &Self) -> bool {
        let differ = |(a, b): (f64, f64)| (a - b).abs() > SAME * a.abs().max(b.abs());
        let labels = self.label.zip(other.label).is_some_and(|(a, b)| a != b);
        self.reward.zip(other.reward).is_some_and(differ)
            || labels && (self.row == other.row || self.is_alone && other.is_alone)
    }
}

/// Identifies a prompt and a response to it.
fn texts(prompt: &Prompt) -> impl Iterator<Item = (u64, u64)> + '_ {
    let asked = prompt.sequences.first().map_or(0, |_| token_hash(prompt.prompt_ids()));
    (0..prompt.sequences.len()).map(move |response| (asked, token_hash(prompt.response_ids(response))))
}

/// Returns one number for a prompt and a response: different texts rarely have the same.
fn short((asked, response): (u64, u64)) -> u64 {
    asked.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ response
}

/// Returns how many responses are judged in another way than the same response to the same prompt before them, and the name of the first.
/// Goes through the prompts once, and a second time if texts repeat: only those that do are kept with their judgements.
fn conflicts(prompts: &dyn PromptList) -> Outcome<(usize, Option<String>)> {
    let mut all = Vec::new();
    for prompt in prompts.iter() {
        all.extend(texts(prompt?.prompt()).map(short));
    }
    all.sort_unstable();
    let repeated: HashSet<u64> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    drop(all);
    let (mut count, mut first) = (0, None);
    if repeated.is_empty() {
        return Ok((count, first));
    }
    let mut seen: HashMap<(u64, u64), Judgement> = HashMap::new();
    for (row, prompt) in prompts.iter().enumerate() {
        let prompt = prompt?;
        let prompt = prompt.prompt();
        for (j, text) in texts(prompt).enumerate().filter(|(_, text)| repeated.contains(&short(*text))) {
            let (reward, label) = (prompt.rewards.get(j).copied().flatten(), prompt.labels.get(j).copied().flatten());
            let own = Judgement { row, reward, label, is_alone: prompt.sequences.len() == 1 };
            let known = seen.entry(text).or_insert(own);
            if known.contradicts(&own) {
                count += 1;
                first.get_or_insert_with(|| prompt.name.clone());
            }
        }
    }
    Ok((count, first))
}

/// Warns of responses that contradict each other.
///
/// # Errors
/// When a row cannot be read back.
pub fn warn_of_conflicts(set: &SetView<'_>) -> Outcome {
    if let (count, Some(first)) = conflicts(set.prompts)? {
        let mut all = 0;
        for prompt in set.prompts.iter() {
            all += prompt?.prompt().sequences.len();
        }
        log::warn!(
            "responses with the text of another one to the same prompt, but another reward or the opposite label: {count} of {all}, the \
             first in {first}; together they teach the mean of both, or nothing: keep one of each"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use setpoint_train::{OnDemand, Sequence};

    use super::*;
    use crate::tasks::stages::RowPrompt;

    /// A prompt whose responses are single tokens.
    fn prompt(name: &str, responses: &[(u32, Option<f64>, Option<Role>)]) -> Prompt {
        let sequence = |&(token, _, _): &(u32, Option<f64>, Option<Role>)| Sequence {
            ids: vec![1, 2, token],
            prompt_len: 2,
            scored_from: 2,
        };
        Prompt {
            set: 0,
            name: name.to_owned(),
            sequences: responses.iter().map(sequence).collect(),
            labels: responses.iter().map(|response| response.2).collect(),
            rewards: responses.iter().map(|response| response.1).collect(),
        }
    }

    fn found(prompts: &[Prompt]) -> (usize, Option<String>) {
        let row = |prompt: &Prompt| RowPrompt { prompt: prompt.clone(), roles: Vec::new(), rewards: None };
        conflicts(&OnDemand::from(prompts.iter().map(row).collect::<Vec<_>>())).unwrap()
    }

    #[test]
    fn opposite_judgements_of_one_text_are_counted() {
        let (good, bad) = (Some(Role::Chosen), Some(Role::Rejected));
        let pair = prompt("pair", &[(5, None, good), (5, None, bad)]);
        assert_eq!(found(&[pair]), (1, Some("pair".into())));
        let rewards = prompt("rewards", &[(5, Some(1.0), None), (6, Some(0.0), None), (5, Some(-1.0), None)]);
        assert_eq!(found(std::slice::from_ref(&rewards)), (1, Some("rewards".into())));
        let (one, other) = (prompt("one", &[(6, Some(3.0), None)]), prompt("other", &[(5, Some(3.0), None)]));
        assert_eq!(found(&[one, other, rewards]), (3, Some("rewards".into())), "6 and both 5 against the rows before");
        let single = |name, label| prompt(name, &[(5, None, label)]);
        assert_eq!(found(&[single("a", good), single("b", bad), single("c", good)]), (1, Some("b".into())));
    }

    #[test]
    fn what_agrees_or_compares_with_others_is_no_conflict() {
        let (good, bad) = (Some(Role::Chosen), Some(Role::Rejected));
        // Second best: preferred to one response, and not to another.
        let pairs = [prompt("1", &[(5, None, good), (6, None, bad)]), prompt("2", &[(7, None, good), (5, None, bad)])];
        assert_eq!(found(&pairs), (0, None));
        let rounded = prompt("rounded", &[(5, Some(0.51), None), (5, Some(0.510_000_1), None), (5, Some(0.51), good)]);
        assert_eq!(found(&[rounded, prompt("none", &[])]), (0, None));
    }
}
