//! Which turns a row excludes from training, in the spellings of the common tools.

use serde_json::Value;

use super::options::EncodeOptions;
use crate::error::EncodeProblem;
use crate::format::describe;
use crate::record::{Message, Record};

/// Fields of a message that say whether it is trained: `weight` (OpenAI, Mistral), `train` and `training` (axolotl), `loss` (ms-swift).
const LEARNED: [&str; 4] = ["weight", "train", "training", "loss"];
/// The same the other way round (torchtune).
const MASKED: &str = "masked";
/// Parts of a turn (axolotl).
const DETAIL: &str = "train_detail";

/// Returns whether SFT learns a turn: always, unless one of its fields says no.
fn learned(message: &Message, turn: impl Fn() -> String) -> Result<bool, EncodeProblem> {
    let mut learned = true;
    for field in LEARNED.into_iter().chain([MASKED]) {
        let said = match message.extra.get(field) {
            None | Some(Value::Null) => continue,
            Some(Value::Bool(yes)) => *yes,
            Some(Value::Number(n)) if n.as_f64() == Some(0.0) => false,
            Some(Value::Number(n)) if n.as_f64() == Some(1.0) => true,
            Some(other) => {
                return Err(EncodeProblem::BadWeight {
                    turn: turn(),
                    field,
                    expected: if field == "weight" { "0 or 1" } else { "true or false" },
                    found: describe(other),
                });
            }
        };
        learned &= said != (field == MASKED);
    }
    match message.extra.get(DETAIL) {
        None | Some(Value::Null) => {}
        Some(Value::Array(parts)) if parts.iter().all(|part| part.get("train") == Some(&Value::Bool(true))) => {}
        Some(other) => {
            return Err(EncodeProblem::BadWeight {
                turn: turn(),
                field: DETAIL,
                expected: "nothing, since turns are trained as a whole or not at all (`\"train\": false`)",
                found: describe(other),
            });
        }
    }
    Ok(learned)
}

/// The assistant turns among the messages that SFT learns.
pub(super) fn learned_turns(messages: &[Message]) -> Result<Vec<usize>, EncodeProblem> {
    let mut turns = Vec::new();
    for (i, message) in messages.iter().enumerate().filter(|(_, message)| message.role == "assistant") {
        if learned(message, || format!("assistant turn in message {i}"))? {
            turns.push(i);
        }
    }
    Ok(turns)
}

/// Of each response, whether SFT learns it. Other jobs look at all of them.
pub(super) fn learned_responses(record: &Record, options: &EncodeOptions) -> Result<Vec<bool>, EncodeProblem> {
    if !options.assistant_spans && !options.weighted_turns {
        return Ok(vec![true; record.responses.len()]);
    }
    record.responses.iter().enumerate().map(|(i, r)| learned(&r.message, || format!("answer {i}"))).collect()
}
