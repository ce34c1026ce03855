//! Responses are handed to a source of rewards, part by part.

use std::ops::Range;

use setpoint_data::{Example, Record};
use setpoint_reward::{RewardSource, Scored};

use super::{AnnotateConfig, fields, prompt_text};
use crate::failure::Outcome;
use crate::session::{Meter, Session};
use crate::sources;

/// Passes of a reward model after which the rows so far are written.
const PART: usize = 32;

/// A row as the tokens that a source reads.
#[derive(Debug, Default)]
pub(super) struct RowTokens {
    /// The prompt's.
    pub(super) prompt: Vec<u32>,
    /// The tokens of each response.
    pub(super) responses: Vec<Vec<u32>>,
}

impl From<Example> for RowTokens {
    fn from(example: Example) -> Self {
        let responses = example.responses.into_iter().map(|response| response.ids).collect();
        Self { prompt: example.prompt, responses }
    }
}

/// Rows to be scored.
pub(super) struct ToScore<'a> {
    /// The name of what is computed, for the progress.
    pub(super) what: &'a str,
    /// The rows.
    pub(super) records: &'a [Record],
    /// The rows as tokens; none for a source that reads none.
    pub(super) tokens: &'a [RowTokens],
    /// True if the source scores nothing after them.
    pub(super) is_last: bool,
}

/// Hands out the rewards of some rows, part by part after the first `done` rows: one per response, none where the source has none and may
/// leave it out. A part follows from the rows alone, so that a command that goes on forms the same batches.
pub(super) fn score(
    session: &Session,
    config: &AnnotateConfig,
    source: &dyn RewardSource,
    &ToScore { what, records, tokens, is_last }: &ToScore<'_>,
    mut done: usize,
    write: &mut dyn FnMut(Range<usize>, Vec<Option<f64>>) -> Outcome,
) -> Outcome {
    let rows = if source.reads_fields() { fields::of_rows(&config.data, records)? } else { Vec::new() };
    let prompts: Vec<String> = records.iter().map(|r| prompt_text(&r.prompt)).collect();
    let mut items = Vec::new();
    for (i, record) in records.iter().enumerate() {
        for (j, response) in record.responses.iter().enumerate() {
            let tokens = tokens.get(i).map(|row| (row.prompt.as_slice(), row.responses[j].as_slice()));
            items.push(Scored {
                row: record.source.row,
                response_index: j,
                prompt: &prompts[i],
                response: response.text(),
                prompt_ids: tokens.map_or(&[], |t| t.0),
                response_ids: tokens.map_or(&[], |t| t.1),
                recorded: response.reward,
                fields: rows.get(i).or(Some(&record.extra)),
            });
        }
    }
    // Of each row: where its items begin.
    let begin: Vec<usize> = std::iter::once(0)
        .chain(records.iter().scan(0, |sum, record| {
            *sum += record.responses.len();
            Some(*sum)
        }))
        .collect();
    let tokens = |row: usize| -> usize {
        items[begin[row]..begin[row + 1]].iter().map(|item| item.prompt_ids.len() + item.response_ids.len()).sum()
    };
    let first = begin[done];
    let mut meter = Meter::new(session, items.len() - first, what, "responses");
    while done < records.len() {
        let (start, mut sum) = (done, 0);
        // Sources that do not read tokens score all rows at once, unless they say otherwise.
        let fits = |row: usize, sum: usize| {
            sum + tokens(row) <= PART * config.batch_tokens
                && source.part_size().is_none_or(|most| begin[row + 1] - begin[start] <= most)
        };
        while done < records.len() && (done == start || fits(done, sum)) {
            sum += tokens(done);
            done += 1;
        }
        let part = &items[begin[start]..begin[done]];
        let mut rewards = source.score_available(part, &mut |scored| meter.reach(begin[start] - first + scored));
        if is_last && done == records.len() {
            rewards = rewards.and_then(|rewards| source.finish().map(|()| rewards));
        }
        if rewards.is_err() {
            meter.finish();
        }
        let scored = || records[start..done].iter();
        let rewards = rewards.map_err(|error| {
            // An endpoint that refuses everything is no matter of single responses.
            let single =
                matches!(&error, setpoint_reward::Error::Source { source, .. } if !source.is::<setpoint_eval::Error>());
            let failure = match error {
                setpoint_reward::Error::Field { row, column, expected, found } => {
                    let item = part.iter().find(|item| item.row == row);
                    let record = scored().find(|record| record.source.row == row);
                    fields::wrong_column(record, item.and_then(|item| item.fields), &column, &expected, &found)
                }
                error => sources::failure(session, error, scored().map(|record| &record.source)),
            };
            match source.remedy().filter(|_| single) {
                Some(remedy) => failure.hint(remedy),
                None => failure,
            }
        })?;
        write(start..done, rewards)?;
    }
    meter.finish();
    Ok(())
}
