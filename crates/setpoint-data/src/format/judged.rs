//! Two responses, and a column that says which of them is preferred: common to several formats.

use serde_json::Value;

use super::columns::{Columns, describe, response_text, wrong_type};
use crate::config::{DatasetConfig, Ties, Uses};
use crate::error::RowProblem;
use crate::record::{Label, Message, Response};

/// The preferred one of two responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preferred {
    First,
    Second,
    Neither,
}

/// The columns of two responses and of the judgment about them.
pub(super) struct Judged {
    pub(super) responses: [&'static str; 2],
    pub(super) preference: &'static str,
    /// The values of the preference, for messages.
    pub(super) expected: &'static str,
    /// Returns the meaning of a value, if it is one of them.
    pub(super) meaning: fn(&Value) -> Option<Preferred>,
}

impl Judged {
    /// Takes the two texts and labels them, with their rewards in the file's order. The chosen response comes first.
    pub(super) fn take(
        &self,
        row: &mut Columns,
        rewards: [Option<f64>; 2],
        uses: Uses,
        config: &DatasetConfig,
    ) -> Result<Vec<Response>, RowProblem> {
        let texts = [row.need_text(self.responses[0])?, row.need_text(self.responses[1])?];
        let used = uses.labels.applies(2, false);
        if used && !row.has(self.preference) {
            return Err(wrong_type(self.preference, self.expected, &Value::Null));
        }
        let preferred = row.take_parsed(self.preference, used, |value| match (self.meaning)(value) {
            None => Err(wrong_type(self.preference, self.expected, value)),
            Some(Preferred::Neither) if config.ties != Ties::Keep => {
                Err(RowProblem::Tie { column: self.preference.to_owned(), found: describe(value) })
            }
            Some(preferred) => Ok(preferred),
        })?;
        let labels = match preferred {
            Some(Preferred::First) => [Some(Label::Chosen), Some(Label::Rejected)],
            Some(Preferred::Second) => [Some(Label::Rejected), Some(Label::Chosen)],
            Some(Preferred::Neither) | None => [None, None],
        };
        let mut responses = Vec::with_capacity(2);
        for (i, text) in texts.into_iter().enumerate() {
            let needed = labels[i] != Some(Label::Rejected) || uses.rejected;
            let text = if needed { response_text(text, self.responses[i])? } else { text };
            responses.push(Response { message: Message::assistant(text), reward: rewards[i], label: labels[i] });
        }
        responses.sort_by_key(|response| response.label == Some(Label::Rejected));
        Ok(responses)
    }
}
