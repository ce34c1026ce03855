//! What became of the records: nothing is dropped, cut or merged without being counted.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::example::Example;
use crate::counted::counted;

/// The reason for which a row was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The prompt has more than `max_prompt_length` tokens.
    PromptTooLong,
    /// Prompt and longest response have more than `max_length` tokens.
    TooLong,
    /// The response leaves no room for any prompt within `max_length`.
    ResponseTooLong,
    /// Prompt and longest response have more tokens than the model has positions.
    BeyondModel,
    /// All turns that were to be learned were cut off.
    NothingLearned,
    /// The record cannot be encoded exactly; see the report's examples.
    Invalid,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PromptTooLong => "prompt too long",
            Self::TooLong => "too long",
            Self::ResponseTooLong => "response too long",
            Self::BeyondModel => "longer than the model's max_position_embeddings",
            Self::NothingLearned => "nothing left to learn",
            Self::Invalid => "invalid",
        })
    }
}

/// Smallest, median, 95th percentile (nearest rank) and largest of some lengths.
///
/// # Units
/// Tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Lengths {
    /// Smallest.
    pub min: usize,
    /// The value that half of them do not exceed.
    pub median: usize,
    /// The value that 95 of 100 do not exceed.
    pub p95: usize,
    /// Largest.
    pub max: usize,
}

impl Lengths {
    /// Of these lengths; zeros when there are none.
    pub fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut counts = LengthCounts::default();
        lengths.into_iter().for_each(|length| counts.add(length));
        counts.lengths()
    }
}

/// How often each length occurs: lengths repeat, so this stays small however many there are.
#[derive(Debug, Default)]
struct LengthCounts(BTreeMap<usize, usize>);

impl LengthCounts {
    fn add(&mut self, length: usize) {
        *self.0.entry(length).or_insert(0) += 1;
    }

    fn lengths(&self) -> Lengths {
        let all: usize = self.0.values().sum();
        let rank = |percent: usize| {
            let mut left = (all * percent).div_ceil(100).max(1);
            let found = self.0.iter().find(|(_, count)| {
                let is_here = left <= **count;
                left -= left.min(**count);
                is_here
            });
            found.map_or(0, |(length, _)| *length)
        };
        Lengths { min: rank(0), median: rank(50), p95: rank(95), max: rank(100) }
    }
}

/// Counts of the records by the result of encoding them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EncodeReport {
    /// Records seen.
    pub rows: usize,
    /// Examples made.
    pub kept: usize,
    /// Records left out, by reason.
    pub dropped: BTreeMap<DropReason, usize>,
    /// The errors of the first few invalid records.
    pub examples_of_invalid: Vec<String>,
    /// Prompts that were cut.
    pub cut: usize,
    /// Boundaries between a prompt or turn and what follows at which tokens would have merged, so that the two sides were
    /// tokenised apart.
    pub merged: usize,
    /// Records of which the template drops a part of a response, where that is allowed.
    pub lost: usize,
    /// The place of the first of them, and what it loses.
    pub first_lost: Option<String>,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens of all responses.
    pub response_tokens: usize,
    /// Lengths of the prompts.
    pub prompts: Lengths,
    /// Lengths of the responses.
    pub responses: Lengths,
    /// Lengths of prompt and longest response together.
    pub longest: Lengths,
    /// Counts of each data set, up to the last with an example.
    pub sets: Vec<SetCounts>,
}

/// Counts of one of the data sets that a job reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SetCounts {
    /// Examples made.
    pub examples: usize,
    /// Tokens of their prompts and responses.
    pub tokens: usize,
}

/// Adds up what becomes of the records of a data set, part by part.
#[derive(Debug, Default)]
pub struct EncodeTally {
    pub(super) report: EncodeReport,
    /// The lengths of prompts, of responses, and of each prompt with its longest response.
    lengths: [LengthCounts; 3],
}

impl EncodeTally {
    /// Takes an example in.
    pub(super) fn measure(&mut self, example: &Example) {
        let [prompts, responses, longest] = &mut self.lengths;
        let report = &mut self.report;
        report.kept += 1;
        report.prompt_tokens += example.prompt.len();
        prompts.add(example.prompt.len());
        for response in &example.responses {
            report.response_tokens += response.ids.len();
            responses.add(response.ids.len());
        }
        longest.add(example.longest());
        let set = example.source.set;
        if report.sets.len() <= set {
            report.sets.resize(set + 1, SetCounts::default());
        }
        report.sets[set].examples += 1;
        report.sets[set].tokens += example.tokens();
    }

    /// Returns the report on all parts.
    #[must_use]
    pub fn report(self) -> EncodeReport {
        let [prompts, responses, longest] = self.lengths.map(|lengths| lengths.lengths());
        EncodeReport { prompts, responses, longest, ..self.report }
    }
}

/// A few lines for people.
impl fmt::Display for EncodeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} kept", self.kept, counted(self.rows, "row"))?;
        for (reason, count) in &self.dropped {
            write!(f, ", {count} dropped ({reason})")?;
        }
        if self.cut > 0 {
            write!(f, ", {} cut", counted(self.cut, "prompt"))?;
        }
        if self.merged > 0 {
            write!(f, ", {} tokenised apart", counted(self.merged, "boundary"))?;
        }
        if let Some(first) = self.examples_of_invalid.first() {
            write!(f, "\nfirst invalid row: {first}")?;
        }
        for (name, lengths, total) in
            [("prompt", self.prompts, self.prompt_tokens), ("response", self.responses, self.response_tokens)]
        {
            let Lengths { min, median, p95, max } = lengths;
            write!(f, "\n{name} tokens: {total} (min {min}, median {median}, p95 {p95}, max {max})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_ranks() {
        assert_eq!(Lengths::of(1..=100), Lengths { min: 1, median: 50, p95: 95, max: 100 });
        assert_eq!(Lengths::of([3, 1, 2]), Lengths { min: 1, median: 2, p95: 3, max: 3 });
        assert_eq!(Lengths::of([4, 8]), Lengths { min: 4, median: 4, p95: 8, max: 8 });
        assert_eq!(Lengths::of([]), Lengths::default());
    }
}
