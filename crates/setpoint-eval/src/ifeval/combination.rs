//! Instructions about a response as a whole.

use super::arguments::Arguments;
use super::instruction::Check;
use crate::python_text::strip;

/// Two different responses, divided by six asterisks. Only the first and the last part may be empty.
pub(super) fn two_responses(_: &Arguments<'_>) -> Result<Check, String> {
    Ok(Box::new(|response| {
        let parts: Vec<&str> = response.split("******").map(strip).collect();
        let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
        let filled: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
        inner.iter().all(|part| !part.is_empty()) && matches!(filled[..], [first, second] if first != second)
    }))
}

pub(super) fn repeat_prompt(arguments: &Arguments<'_>) -> Result<Check, String> {
    let prompt = strip(arguments.text("prompt_to_repeat")?).to_lowercase();
    Ok(Box::new(move |response| strip(response).to_lowercase().starts_with(&prompt)))
}
