//! Different responses of a record have different tokens.

use std::collections::HashMap;

use super::kept::parts;
use crate::error::EncodeProblem;
use crate::record::{Record, Response};

/// Checks that no two different responses of a record became the same tokens. Equal ones may occur twice, and so may those that differ in
/// whitespace at their ends or in fields that no template prints, as long as their rewards and labels agree.
pub(super) fn check_different(record: &Record, ids: &[Vec<u32>]) -> Result<(), EncodeProblem> {
    let mut groups: HashMap<&[u32], SameTokens> = HashMap::with_capacity(ids.len());
    for (second, (response, ids)) in record.responses.iter().zip(ids).enumerate() {
        let group = groups.entry(ids).or_default();
        let message = |first: usize| &record.responses[first].message;
        let like_first = group.alike.first().is_none_or(|&first| *message(first) == response.message);
        // Responses with different messages agree in everything else, so that one of them is enough for a comparison.
        let firsts = match (like_first, &group.other) {
            (true, None) => {
                group.alike.push(second);
                continue;
            }
            (true, Some(other)) => std::slice::from_ref(other),
            (false, None) => &group.alike[..],
            (false, Some(_)) => &group.alike[..1],
        };
        let judged = |response: &Response| (response.reward, response.label);
        let agrees = |first: &usize| {
            *message(*first) == response.message
                || judged(&record.responses[*first]) == judged(response)
                    && parts(message(*first)) == parts(&response.message)
        };
        if let Some(&first) = firsts.iter().find(|first| !agrees(first)) {
            return Err(EncodeProblem::SameTokens { first, second });
        }
        group.other.get_or_insert(second);
    }
    Ok(())
}

/// Responses with the same tokens.
#[derive(Default)]
struct SameTokens {
    /// The first response, and those with the same message up to the first with another one.
    alike: Vec<usize>,
    /// The first response with another message.
    other: Option<usize>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::{Message, Prompt};

    fn turn(content: &str, note: &str) -> Message {
        let mut message = Message::assistant(content);
        message.extra.insert("analysis".into(), json!(note));
        message
    }

    #[test]
    fn answers_with_the_same_tokens_but_other_judgements_are_refused() {
        let record = |notes: [&str; 2], rewards: [f64; 2]| {
            let response =
                |i: usize| Response { message: turn("Yes.", notes[i]), reward: Some(rewards[i]), label: None };
            Record::new(Prompt::Text("Two?".into()), vec![response(0), response(1)])
        };
        let check = |notes, rewards| check_different(&record(notes, rewards), &[vec![1, 2], vec![1, 2]]).is_ok();
        assert!(!check(["even", "odd"], [1.0, -1.0]), "a field that the template ignores is all that differs");
        assert!(check(["even", "odd"], [1.0, 1.0]));
        assert!(check(["even", "even"], [1.0, 0.5]), "one answer, judged twice");
    }

    #[test]
    fn the_first_two_that_disagree_are_named() {
        let check = |responses: &[(&str, &str, f64)]| {
            let response = |&(content, note, reward): &(&str, &str, f64)| Response {
                message: turn(content, note),
                reward: Some(reward),
                label: None,
            };
            let record = Record::new(Prompt::Text("Two?".into()), responses.iter().map(response).collect());
            match check_different(&record, &vec![vec![7]; responses.len()]) {
                Ok(()) => None,
                Err(EncodeProblem::SameTokens { first, second }) => Some((first, second)),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(check(&[("a", "x", 1.0), ("a", "x", 2.0), ("a", "y", 1.0)]), Some((1, 2)));
        assert_eq!(check(&[("a", "x", 1.0), ("a", "y", 1.0), ("a", "x", 2.0)]), Some((1, 2)));
        assert_eq!(check(&[("a", "x", 1.0), ("a", "y", 1.0), ("a", "y", 2.0)]), Some((0, 2)));
        assert_eq!(check(&[("a", "x", 1.0), ("a", "y", 1.0), ("a ", "z", 1.0), ("b", "x", 1.0)]), Some((0, 3)));
        assert_eq!(check(&[("a", "x", 1.0), ("a", "y", 1.0), ("a ", "z", 1.0), ("a", "x", 1.0)]), None);
    }

    #[test]
    fn many_responses_are_compared_in_good_time() {
        let response = |i: usize| Response::new(format!("a{}", " ".repeat(i % 3))).rewarded(1.0);
        let record = Record::new(Prompt::Text("Two?".into()), (0..100_000).map(response).collect());
        let start = std::time::Instant::now();
        assert!(check_different(&record, &vec![vec![1, 2]; 100_000]).is_ok());
        let ids: Vec<Vec<u32>> = (0..100_000).map(|i| vec![i, 2]).collect();
        assert!(check_different(&record, &ids).is_ok());
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }
}
