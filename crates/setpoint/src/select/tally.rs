//! Counts of the rows, for the lines at the end.

use setpoint_data::{Error, ReadReport, Source, counted};

use super::{Keep, RowForm, SelectConfig};
use crate::failure::Failure;

/// Errors of bad rows that are kept.
const EXAMPLES: usize = 5;

/// The reason for which nothing of a prompt is selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The row has no responses.
    Unanswered,
    /// Pairs need two different responses.
    Single,
    /// No response has a score above the bound.
    Below,
    /// No two responses have scores that differ by the margin.
    Close,
}

impl Reason {
    const ALL: [Self; 4] = [Self::Unanswered, Self::Single, Self::Below, Self::Close];

    /// Describes the prompts, after their number.
    fn of_prompts(self, config: &SelectConfig) -> String {
        match (self, config.keep) {
            (Self::Unanswered, _) => "without responses".to_owned(),
            (Self::Single, _) => "with a single response".to_owned(),
            (Self::Below, Keep::Above(least)) => format!("without a reward above {least}"),
            (Self::Below, _) => "without a response".to_owned(),
            (Self::Close, _) if config.min_margin > 0.0 => {
                format!("without two rewards that differ by {}", config.min_margin)
            }
            (Self::Close, _) => "with equal rewards".to_owned(),
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Unanswered => {
                "`setpoint generate` writes responses for prompts, and `setpoint annotate` their rewards"
            }
            Self::Single => {
                "a pair needs two different responses in one row: draw several for each prompt, as in `setpoint generate --set \
                 generate.samples=4`"
            }
            Self::Below => "lower the bound, as in --set keep.above=0",
            Self::Close => "lower `min_margin`, or draw more responses for each prompt",
        }
    }
}

/// Counts of the rows by the result of selecting.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The rows, and those that are bad.
    pub(super) read: ReadReport,
    /// The responses of all rows.
    pub(super) responses: usize,
    /// Responses that repeat another one of their row.
    pub(super) repeated: usize,
    /// Rows of which something is selected.
    pub(super) selected: usize,
    /// Rows that are written.
    pub(super) written: usize,
    /// Rows of which nothing is selected, for each reason in the order of [`Reason::ALL`].
    unselected: [usize; 4],
    /// The first of them.
    first: Option<Source>,
}

impl Tally {
    /// Counts a bad row.
    pub(super) fn leave_out(&mut self, error: &Error) {
        self.read.dropped += 1;
        if self.read.examples.len() < EXAMPLES {
            self.read.examples.push(error.to_string());
        }
    }

    /// Counts a row of which nothing is selected.
    pub(super) fn select_none(&mut self, reason: Reason, source: &Source) {
        self.unselected[reason as usize] += 1;
        self.first.get_or_insert_with(|| source.clone());
    }

    /// Returns how many rows nothing is selected of, and why.
    fn reasons(&self, config: &SelectConfig) -> String {
        let counts = Reason::ALL.into_iter().zip(self.unselected).filter(|(_, count)| *count > 0);
        let parts = counts.map(|(reason, count)| format!("{} {}", counted(count, "prompt"), reason.of_prompts(config)));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// Fails if nothing is selected of any row.
    pub(super) fn require_any(&self, config: &SelectConfig) -> Result<(), Failure> {
        if self.written > 0 {
            return Ok(());
        }
        let (rows, path) = (counted(self.read.rows, "row"), config.data.name());
        if let (None, Some(bad)) = (&self.first, self.read.examples.first()) {
            return Err(Failure::run(format!("none of the {rows} of {path} is left; the first bad one: {bad}")));
        }
        let failure = Failure::run(format!("nothing is selected of the {rows} of {path}: {}", self.reasons(config)));
        // Of several reasons, the commonest has the remedy.
        let commonest = Reason::ALL.into_iter().max_by_key(|reason| self.unselected[*reason as usize]);
        Err(match commonest {
            Some(reason) => failure.hint(reason.remedy()),
            None => failure,
        })
    }

    /// Returns the lines about what is left out.
    pub(super) fn left_out(&self, config: &SelectConfig) -> Vec<String> {
        let mut lines = Vec::new();
        if self.repeated > 0 {
            let (repeated, all) = (self.repeated, counted(self.responses, "response"));
            lines.push(format!("{repeated} of {all} repeat another one of their prompt and are left out"));
        }
        if let Some(first) = &self.first {
            lines.push(format!("nothing is selected of {}; the first: {first}", self.reasons(config)));
        }
        lines
    }

    /// Returns what is written: `12 SFT rows from 10 of 14 prompts`.
    pub(super) fn written(&self, form: RowForm) -> String {
        let (written, all) = (counted(self.written, form.noun()), counted(self.read.kept, "prompt"));
        format!("{written} from {} of {all}", self.selected)
    }
}
