//! `chosen` and `rejected`, with or without `prompt`, as text or as messages (trl, ultrafeedback_binarized, hh-rlhf).

use super::columns::{Columns, response_text};
use super::conversation::{Side, answer, conversation_prompt, side};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Label, Message, Prompt, Response};

const CHOSEN_REWARDS: [&str; 7] = [
    "reward_chosen",
    "chosen_reward",
    "score_chosen",
    "chosen_score",
    "chosen_rating",
    "chosen-rating",
    "chosen_avg_rating",
];
const REJECTED_REWARDS: [&str; 7] = [
    "reward_rejected",
    "rejected_reward",
    "score_rejected",
    "rejected_score",
    "rejected_rating",
    "rejected-rating",
    "rejected_avg_rating",
];

pub(super) const FORMAT: Definition = Definition {
    name: "preference",
    layouts: &[
        Layout { needs: &["prompt", "chosen", "rejected"], may_have: &[] },
        Layout { needs: &["chosen", "rejected"], may_have: &[] },
    ],
    priority: 40,
    about: "two labelled responses, with the rewards and the `margin` if the row has them (trl; ultrafeedback_binarized; hh-rlhf)",
    example: r#"{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = row.take_turns("prompt")?.map(|v| side(v, "prompt")).transpose()?;
    pair(row, prompt, uses)
}

/// Reads `chosen`, `rejected` and their rewards; the prompt comes from the format.
pub(super) fn pair(row: &mut Columns, prompt: Option<Side>, uses: Uses) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let chosen = side(row.need_turns("chosen")?, "chosen")?;
    let rejected = side(row.need_turns("rejected")?, "rejected")?;
    let rewards = rewards(row, uses)?;
    let (prompt, chosen, rejected) = match (chosen, rejected) {
        (Side::Messages(chosen), Side::Messages(rejected)) => from_messages(prompt, chosen, rejected, uses.rejected)?,
        (Side::Text(chosen), Side::Text(rejected)) => from_texts(prompt, chosen, rejected, uses.rejected)?,
        (Side::Text(_), Side::Messages(_)) | (Side::Messages(_), Side::Text(_)) => {
            return Err(RowProblem::WrongType {
                column: "rejected".into(),
                expected: "the same type as `chosen` (both text or both messages)",
                found: "the other one".into(),
            });
        }
    };
    Ok((prompt, labelled([chosen, rejected], rewards)))
}

/// Reads the rewards of the chosen and the rejected response: both, or none.
pub(super) fn rewards(row: &mut Columns, uses: Uses) -> Result<[Option<f64>; 2], RowProblem> {
    let used = uses.rewards.applies(2, true);
    let rewards = [row.take_reward(&CHOSEN_REWARDS, used)?, row.take_reward(&REJECTED_REWARDS, used)?];
    let missing = |column: &str| Err(RowProblem::MissingReward { column: column.to_owned() });
    match rewards {
        [Some(_), None] if used => missing("reward_rejected"),
        [None, Some(_)] if used => missing("reward_chosen"),
        [Some(_), Some(_)] => Ok(rewards),
        _ => Ok([None, None]),
    }
}

/// Returns the chosen and the rejected response with their rewards.
pub(super) fn labelled(messages: [Message; 2], rewards: [Option<f64>; 2]) -> Vec<Response> {
    let labels = [Label::Chosen, Label::Rejected];
    let all = messages.into_iter().zip(rewards).zip(labels);
    all.map(|((message, reward), label)| Response { message, reward, label: Some(label) }).collect()
}

fn from_texts(
    prompt: Option<Side>,
    chosen: String,
    rejected: String,
    rejected_used: bool,
) -> Result<(Prompt, Message, Message), RowProblem> {
    let (prompt, chosen, rejected) = match prompt {
        Some(Side::Text(prompt)) => (Prompt::Text(prompt), chosen, rejected),
        Some(Side::Messages(messages)) => (conversation_prompt(messages, "prompt")?, chosen, rejected),
        None => {
            let at = implicit_prompt(&chosen, &rejected);
            (Prompt::Text(chosen[..at].to_owned()), chosen[at..].to_owned(), rejected[at..].to_owned())
        }
    };
    let chosen = Message::assistant(response_text(chosen, "chosen")?);
    let rejected = if rejected_used { response_text(rejected, "rejected")? } else { rejected };
    let rejected = Message::assistant(rejected);
    Ok((prompt, chosen, rejected))
}

/// Length in bytes of the prompt that two texts share.
///
/// With hh-rlhf's turn markers, everything up to the last shared `\n\nAssistant:`. Otherwise the common prefix without the
/// space at its end, as in trl (the space belongs to the response's first token).
fn implicit_prompt(chosen: &str, rejected: &str) -> usize {
    const MARKER: &str = "\n\nAssistant:";
    let common: usize =
        chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let shared = &chosen[..common];
    match shared.rfind(MARKER) {
        Some(at) => at + MARKER.len(),
        None => shared.strip_suffix(' ').unwrap_or(shared).len(),
    }
}

fn from_messages(
    prompt: Option<Side>,
    chosen: Vec<Message>,
    rejected: Vec<Message>,
    rejected_used: bool,
) -> Result<(Prompt, Message, Message), RowProblem> {
    // The completions may hold the whole conversation (ultrafeedback_binarized, whatever stands in `prompt` beside it),
    // or only what follows the prompt.
    let complete = |messages: &[Message]| messages.iter().rev().skip(1).any(|m| m.role == "user");
    let before = match prompt {
        Some(Side::Messages(before)) if chosen.starts_with(&before) && chosen.len() > before.len() => Vec::new(),
        Some(Side::Messages(before)) => before,
        Some(Side::Text(_)) if complete(&chosen) => Vec::new(),
        Some(Side::Text(text)) => vec![Message::user(text)],
        None => Vec::new(),
    };
    let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    let counts = (chosen.len(), rejected.len());
    // Two equal answers share everything: the last turn is still the response.
    let split = shared.min(counts.0.saturating_sub(1));
    if counts.0 != counts.1 || split + 1 != counts.0 {
        return Err(RowProblem::NoCommonPrompt { shared, chosen: counts.0, rejected: counts.1 });
    }
    let last = |mut messages: Vec<Message>, column: &str| match messages.pop() {
        Some(last) if last.role == "assistant" && column == "rejected" && !rejected_used => Ok((messages, last)),
        Some(last) if last.role == "assistant" => Ok((messages, answer(last, column)?)),
        Some(last) => Err(RowProblem::BadConversation {
            column: column.to_owned(),
            reason: format!("the last message is of role `{}`", last.role),
        }),
        None => Err(RowProblem::BadConversation { column: column.to_owned(), reason: "no messages".into() }),
    };
    let (turns, chosen) = last(chosen, "chosen")?;
    let (_, rejected) = last(rejected, "rejected")?;
    let prompt = conversation_prompt(before.into_iter().chain(turns).collect(), "prompt")?;
    Ok((prompt, chosen, rejected))
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;

    fn texts(row: &str) -> (Prompt, String, String) {
        let record = parse("preference", row).unwrap();
        (record.prompt.clone(), record.chosen().unwrap().text().into(), record.rejected().unwrap().text().into())
    }

    fn problem(row: &str) -> RowProblem {
        parse("preference", row).unwrap_err()
    }

    #[test]
    fn explicit_prompts() {
        let expected = (Prompt::Text("The sky is".into()), " blue.".into(), " green.".into());
        assert_eq!(texts(r#"{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}"#), expected);
        let expected = (Prompt::Messages(vec![Message::user("Sky?")]), "Blue.".into(), "Green.".into());
        let row = r#"{"prompt": [{"role": "user", "content": "Sky?"}],
            "chosen": [{"role": "assistant", "content": "Blue."}], "rejected": [{"role": "assistant", "content": "Green."}]}"#;
        assert_eq!(texts(row), expected);
        let row = r#"{"prompt": [{"role": "user", "content": "Sky?"}], "chosen": "Blue.", "rejected": "Green."}"#;
        assert_eq!(texts(row), expected);
        let row = r#"{"prompt": "Sky?",
            "chosen": [{"role": "assistant", "content": "Blue."}], "rejected": [{"role": "assistant", "content": "Green."}]}"#;
        assert_eq!(texts(row), expected);
    }

    #[test]
    fn implicit_prompts() {
        let row = r#"{"chosen": "The sky is blue.", "rejected": "The sky is green."}"#;
        assert_eq!(texts(row), (Prompt::Text("The sky is".into()), " blue.".into(), " green.".into()));
        // hh-rlhf: both answers begin alike, the prompt still ends at the marker.
        let row = r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: I am well", "rejected": "\n\nHuman: Hi\n\nAssistant: I am ill"}"#;
        let expected = (Prompt::Text("\n\nHuman: Hi\n\nAssistant:".into()), " I am well".into(), " I am ill".into());
        assert_eq!(texts(row), expected);
        // The common prefix ends within a character of three bytes.
        let row = r#"{"chosen": "a 日", "rejected": "a 旧"}"#;
        assert_eq!(texts(row), (Prompt::Text("a".into()), " 日".into(), " 旧".into()));
        let row = r#"{"chosen": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}],
            "rejected": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Green."}]}"#;
        assert_eq!(texts(row), (Prompt::Messages(vec![Message::user("Sky?")]), "Blue.".into(), "Green.".into()));
    }

    #[test]
    fn ultrafeedback_binarized() {
        let row = r#"{"prompt": "Sky?", "prompt_id": "0ab", "messages": [], "score_chosen": 8.5, "score_rejected": 3,
            "chosen": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}],
            "rejected": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Green."}]}"#;
        let record = parse("preference", row).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("Sky?")]));
        assert_eq!(record.chosen().unwrap().reward, Some(8.5));
        assert_eq!(record.rejected().unwrap().reward, Some(3.0));
        assert_eq!(record.extra["prompt_id"], "0ab");
    }

    #[test]
    fn equal_answers_are_still_answers() {
        let side = r#"[{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}]"#;
        let row = format!(r#"{{"chosen": {side}, "rejected": {side}}}"#);
        assert_eq!(texts(&row), (Prompt::Messages(vec![Message::user("Sky?")]), "Blue.".into(), "Blue.".into()));
    }

    #[test]
    fn every_name_of_a_reward_column() {
        for (chosen, rejected) in CHOSEN_REWARDS.iter().zip(REJECTED_REWARDS) {
            let row =
                format!(r#"{{"prompt": "p", "chosen": "a", "rejected": "b", "{chosen}": 1.5, "{rejected}": -2}}"#);
            let record = parse("preference", &row).unwrap();
            assert_eq!(record.responses.iter().map(|r| r.reward).collect::<Vec<_>>(), [Some(1.5), Some(-2.0)]);
            assert!(record.extra.is_empty());
        }
    }

    #[test]
    fn bad_rows() {
        let missing = |column: &str| RowProblem::MissingReward { column: column.into() };
        let row = |rest: &str| format!(r#"{{"prompt": "p", "chosen": "a", "rejected": "b", {rest}}}"#);
        assert_eq!(problem(&row(r#""reward_chosen": 1"#)), missing("reward_rejected"));
        assert_eq!(problem(&row(r#""reward_chosen": null, "reward_rejected": 1"#)), missing("reward_chosen"));
        assert_eq!(
            problem(&row(r#""margin": "nan""#)),
            RowProblem::NotFinite { column: "margin".into(), found: "nan".into() }
        );
        assert_eq!(
            problem(r#"{"prompt": "p", "chosen": "", "rejected": "b"}"#),
            RowProblem::EmptyResponse { column: "chosen".into() }
        );
        assert!(matches!(
            problem(r#"{"prompt": "p", "chosen": "a", "rejected": [{"role": "assistant", "content": "b"}]}"#),
            RowProblem::WrongType { column, .. } if column == "rejected"
        ));
        assert_eq!(
            problem(
                r#"{"chosen": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "x"}],
                "rejected": [{"role": "user", "content": "B?"}, {"role": "assistant", "content": "y"}]}"#
            ),
            RowProblem::NoCommonPrompt { shared: 0, chosen: 2, rejected: 2 }
        );
        assert!(matches!(
            problem(r#"{"prompt": "p", "chosen": [{"role": "assistant"}], "rejected": []}"#),
            RowProblem::WrongType { column, .. } if column == "chosen[0].content"
        ));
    }
}
