//! One response for a prompt, with an optional label and reward: common to several formats.

use serde_json::Value;

use super::columns::{Columns, wrong_type};
use crate::config::Uses;
use crate::error::RowProblem;
use crate::record::{Label, Message, Prompt, Response};

/// Adds the optional label and reward.
pub(super) fn finish(
    row: &mut Columns,
    prompt: Prompt,
    message: Message,
    uses: Uses,
) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let column = if row.has("kto_tag") && !row.has("label") { "kto_tag" } else { "label" };
    let label = row.take_parsed(column, uses.labels.applies(1, false), |value| match value {
        Value::Bool(true) => Ok(Label::Desirable),
        Value::Bool(false) => Ok(Label::Undesirable),
        other => Err(wrong_type(column, "true or false", other)),
    })?;
    let reward = row.take_reward(&["reward", "score"], uses.rewards.applies(1, label.is_some()))?;
    Ok((prompt, vec![Response { message, reward, label }]))
}
