//! Long rows. A response is never cut.

use std::ops::Range;

use super::Parts;
use super::options::{EncodeOptions, LongRows};
use super::report::DropReason;
use crate::error::EncodeProblem;

/// The effect of the limits on a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Whole,
    Cut,
    Drop(DropReason),
}

/// Holds a row against the limits, and cuts its prompt where that is the policy.
pub(super) fn fit(parts: &mut Parts, options: &EncodeOptions) -> Result<Fit, EncodeProblem> {
    let prompt = parts.prompt.len();
    let longest = parts.responses.iter().map(Vec::len).max().unwrap_or(0);
    let for_prompt = options.max_prompt_length.unwrap_or(usize::MAX);
    let positions = options.positions.unwrap_or(usize::MAX);
    let for_row = options.max_length.unwrap_or(usize::MAX).min(positions);
    if prompt <= for_prompt && prompt.saturating_add(longest) <= for_row {
        return Ok(Fit::Whole);
    }
    match options.long_rows {
        LongRows::Drop if prompt > for_prompt => Ok(Fit::Drop(DropReason::PromptTooLong)),
        LongRows::Drop if for_row == positions => Ok(Fit::Drop(DropReason::BeyondModel)),
        LongRows::Drop => Ok(Fit::Drop(DropReason::TooLong)),
        LongRows::Error => Err(if prompt > for_prompt {
            too_long("the prompt", prompt, for_prompt, "encode.max_prompt_length")
        } else if for_row == positions {
            EncodeProblem::BeyondModel { found: prompt + longest, positions }
        } else {
            too_long("prompt and longest response together", prompt + longest, for_row, "encode.max_length")
        }),
        LongRows::CutPrompt => {
            let room = for_prompt.min(for_row.saturating_sub(longest));
            // With nothing but t0 left there is no prompt.
            if room <= options.keep_first {
                return Ok(Fit::Drop(DropReason::ResponseTooLong));
            }
            cut(parts, options.keep_first, room);
            Ok(Fit::Cut)
        }
    }
}

fn too_long(what: &'static str, found: usize, limit: usize, setting: &'static str) -> EncodeProblem {
    EncodeProblem::TooLong { what, found, limit, setting }
}

/// Cuts the prompt to `room` tokens: the first `keep` and the last `room - keep`.
fn cut(parts: &mut Parts, keep: usize, room: usize) {
    let removed = keep..keep + parts.prompt.len() - room;
    parts.prompt.drain(removed.clone());
    // A turn that lost tokens lost its context: it is not learned.
    let moved = |span: &Range<usize>| {
        if span.end <= removed.start {
            Some(span.clone())
        } else if span.start >= removed.end {
            Some(span.start - removed.len()..span.end - removed.len())
        } else {
            None
        }
    };
    parts.spans = parts.spans.iter().filter_map(moved).collect();
    parts.unlearned = parts.unlearned.iter().filter_map(moved).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            spans: vec![2..4, 7..9],
            unlearned: vec![2..3, 7..8],
            responses: vec![vec![0; 3], vec![0; 5]],
            learned: vec![true; 2],
            ..Parts::of_prompt((0..10).collect())
        }
    }

    fn options(max_length: Option<usize>, max_prompt_length: Option<usize>, long_rows: LongRows) -> EncodeOptions {
        EncodeOptions { max_length, max_prompt_length, long_rows, ..EncodeOptions::default() }
    }

    #[test]
    fn the_models_positions_are_a_limit_of_their_own() {
        let within = |max_length, positions, policy| {
            let options = EncodeOptions { positions: Some(positions), ..options(max_length, None, policy) };
            fit(&mut parts(), &options)
        };
        assert_eq!(within(Some(2048), 15, LongRows::Drop).unwrap(), Fit::Whole);
        assert_eq!(within(Some(2048), 14, LongRows::Drop).unwrap(), Fit::Drop(DropReason::BeyondModel));
        assert_eq!(within(Some(14), 2048, LongRows::Drop).unwrap(), Fit::Drop(DropReason::TooLong));
        assert_eq!(within(None, 14, LongRows::CutPrompt).unwrap(), Fit::Cut);
        assert_eq!(
            within(None, 14, LongRows::Error).unwrap_err(),
            EncodeProblem::BeyondModel { found: 15, positions: 14 }
        );
    }

    #[test]
    fn limits_are_inclusive() {
        for policy in [LongRows::Drop, LongRows::Error, LongRows::CutPrompt] {
            assert_eq!(fit(&mut parts(), &options(Some(15), Some(10), policy)).unwrap(), Fit::Whole);
        }
        let drop = |a, b| fit(&mut parts(), &options(a, b, LongRows::Drop)).unwrap();
        assert_eq!(drop(Some(14), None), Fit::Drop(DropReason::TooLong));
        assert_eq!(drop(None, Some(9)), Fit::Drop(DropReason::PromptTooLong));
        let error = |a, b| fit(&mut parts(), &options(a, b, LongRows::Error)).unwrap_err();
        assert!(matches!(error(Some(14), None), EncodeProblem::TooLong { found: 15, limit: 14, .. }));
        assert!(matches!(error(None, Some(9)), EncodeProblem::TooLong { found: 10, limit: 9, .. }));
    }

    #[test]
    fn a_cut_keeps_t0_and_the_end() {
        let mut row = parts();
        // 12 - 5 leaves 7 tokens for the prompt: the first and the last six.
        assert_eq!(fit(&mut row, &options(Some(12), None, LongRows::CutPrompt)).unwrap(), Fit::Cut);
        assert_eq!(row.prompt, [0, 4, 5, 6, 7, 8, 9]);
        assert_eq!(row.spans, vec![4..6; 1], "the first turn lost tokens, the second moved by three");
        assert_eq!(row.unlearned, vec![4..5; 1], "with its thought");
        assert_eq!(row.responses, parts().responses);
        let mut row = parts();
        let keep = EncodeOptions { keep_first: 4, ..options(None, Some(7), LongRows::CutPrompt) };
        assert_eq!(fit(&mut row, &keep).unwrap(), Fit::Cut);
        assert_eq!(row.prompt, [0, 1, 2, 3, 7, 8, 9]);
        assert_eq!(row.spans, [2..4, 4..6]);
    }

    #[test]
    fn a_cut_that_leaves_no_prompt_drops_the_row() {
        let fit = |max| fit(&mut parts(), &options(Some(max), None, LongRows::CutPrompt)).unwrap();
        assert_eq!(fit(6), Fit::Drop(DropReason::ResponseTooLong), "room for t0 only");
        assert_eq!(fit(3), Fit::Drop(DropReason::ResponseTooLong));
        assert_eq!(fit(7), Fit::Cut);
    }
}
