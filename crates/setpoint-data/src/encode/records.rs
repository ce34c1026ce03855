//! Whole records as examples, one or many in parallel.

use rayon::prelude::*;

use super::{
    DropReason, EncodeOptions, EncodeReport, EncodeTally, EncodedResponse, Example, LongRows, LostText, TextEncoder,
    different, limits, thoughts,
};
use crate::config::BadRows;
use crate::error::{EncodeProblem, Error};
use crate::record::{Prompt, Record};

/// The result of encoding one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// The example, or why there is none.
    pub outcome: Result<Example, DropReason>,
    /// Boundaries at which the text was tokenised apart because tokens would have merged.
    pub merged: usize,
    /// True if the prompt was cut.
    pub cut: bool,
    /// The text of a response that the template drops, with [`LostText::Count`].
    pub lost: Option<EncodeProblem>,
}

impl TextEncoder {
    /// Encodes one record; `row` is its index in the data set.
    ///
    /// # Errors
    /// [`Error::Encode`], naming the row: where the record cannot be encoded exactly and
    /// [`EncodeOptions::on_bad_row`] says so, at a merge with [`Boundary::Error`](super::Boundary::Error), beyond a limit
    /// with [`LongRows::Error`].
    pub fn encode(&self, row: usize, record: &Record, options: &EncodeOptions) -> Result<Encoded, Error> {
        match self.try_encode(row, record, options) {
            Ok(encoded) => Ok(encoded),
            Err(EncodeProblem::TextTooLong { .. }) if options.long_rows == LongRows::Drop => {
                Ok(Encoded { outcome: Err(DropReason::TooLong), merged: 0, cut: false, lost: None })
            }
            Err(problem) => Err(Error::Encode { at: record.source.clone(), problem: Box::new(problem) }),
        }
    }

    fn try_encode(&self, row: usize, record: &Record, options: &EncodeOptions) -> Result<Encoded, EncodeProblem> {
        let mut parts = match &record.prompt {
            Prompt::Text(prompt) => self.plain(prompt, record, options)?,
            Prompt::Messages(messages) => self.chat(messages, record, options)?,
        };
        if options.lost_text == LostText::Bad {
            different::check_different(record, &parts.responses)?;
        }
        let merged = parts.merged;
        let lost = parts.lost.take();
        let fitted = limits::fit(&mut parts, options)?;
        let outcome = match fitted {
            limits::Fit::Drop(reason) => Err(reason),
            // What was learned of it was cut off.
            limits::Fit::Cut if parts.spans.is_empty() && parts.learned.iter().all(|learned| !learned) => {
                Err(DropReason::NothingLearned)
            }
            limits::Fit::Whole | limits::Fit::Cut => Ok(Example {
                row,
                source: record.source.clone(),
                prompt: parts.prompt,
                responses: parts
                    .responses
                    .into_iter()
                    .zip(parts.thoughts)
                    .zip(&record.responses)
                    .zip(parts.learned)
                    .enumerate()
                    .map(|(index, (((ids, thoughts), r), learned))| EncodedResponse {
                        index,
                        ids,
                        reward: r.reward,
                        label: r.label,
                        learned,
                        thoughts,
                    })
                    .collect(),
                margin: record.margin,
                assistant_spans: thoughts::without(&parts.spans, &parts.unlearned),
            }),
        };
        Ok(Encoded { outcome, merged, cut: matches!(fitted, limits::Fit::Cut), lost })
    }

    /// Encodes records in parallel. The examples come in the records' order whatever the number of threads.
    ///
    /// # Errors
    /// As [`TextEncoder::encode`], for the first record at fault.
    pub fn encode_all(
        &self,
        records: &[Record],
        options: &EncodeOptions,
    ) -> Result<(Vec<Example>, EncodeReport), Error> {
        let mut tally = EncodeTally::default();
        let examples = self.encode_part(records, 0, options, &mut tally)?;
        Ok((examples, tally.report()))
    }

    /// Encodes a part of the records of a data set. `first`: the index of its first record in all.
    ///
    /// # Errors
    /// As [`TextEncoder::encode_all`].
    pub fn encode_part(
        &self,
        records: &[Record],
        first: usize,
        options: &EncodeOptions,
        tally: &mut EncodeTally,
    ) -> Result<Vec<Example>, Error> {
        const EXAMPLES: usize = 5;
        let encode = |(row, record): (usize, &Record)| self.encode(first + row, record, options);
        let encoded: Vec<_> = records.par_iter().enumerate().map(encode).collect();
        let mut examples = Vec::with_capacity(records.len());
        tally.report.rows += records.len();
        for (record, encoded) in records.iter().zip(encoded) {
            let report = &mut tally.report;
            let dropped = match encoded {
                Ok(encoded) => {
                    if let Some(problem) = encoded.lost {
                        report.lost += 1;
                        report.first_lost.get_or_insert_with(|| format!("{}: {problem}", record.source));
                    }
                    report.merged += encoded.merged;
                    report.cut += usize::from(encoded.cut);
                    encoded.outcome.map(|example| examples.push(example)).err()
                }
                Err(error) if options.on_bad_row == BadRows::Drop && skippable(&error) => {
                    if report.examples_of_invalid.len() < EXAMPLES {
                        report.examples_of_invalid.push(error.to_string());
                    }
                    Some(DropReason::Invalid)
                }
                Err(error) => return Err(error),
            };
            if let Some(reason) = dropped {
                *report.dropped.entry(reason).or_insert(0) += 1;
            }
        }
        examples.iter().for_each(|example| tally.measure(example));
        Ok(examples)
    }
}

/// Returns whether an error is about the content of the row. Merges and lengths have settings of their own, and without a template no
/// conversation can be encoded.
fn skippable(error: &Error) -> bool {
    use EncodeProblem::{BeyondModel, Merged, NoDefaultTemplate, NoTemplate, TextTooLong, Tokenizer, TooLong};
    match error {
        Error::Encode { problem, .. } => !matches!(
            **problem,
            Merged { .. }
                | TooLong { .. }
                | TextTooLong { .. }
                | BeyondModel { .. }
                | NoTemplate { .. }
                | NoDefaultTemplate { .. }
                | Tokenizer { .. }
        ),
        _ => false,
    }
}
