//! The thoughts in the text of a turn, for SFT that learns the answers alone.

use std::ops::Range;

use super::TextEncoder;
use super::kept::prints_thoughts;
use crate::error::EncodeProblem;
use crate::record::Message;

/// The marks between which templates and texts hold a thought: those of DeepSeek, Qwen and SmolLM, and those of Mistral.
const MARKS: [(&str, &str); 2] = [("<think>", "</think>"), ("[THINK]", "[/THINK]")];

/// A thought in a text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thought {
    /// The place of its opening mark; the beginning of the text where the prompt has opened it.
    start: usize,
    /// The place behind its closing mark; the end of the text where it is not closed.
    end: usize,
    /// The first place behind it that is no whitespace.
    answer: usize,
}

/// The thoughts of a turn, in the order of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Thoughts(Vec<Thought>);

impl Thoughts {
    /// Finds the thoughts in the rendered text of a turn; `None` where the template prints those of the message without known marks.
    pub(super) fn find(text: &str, message: &Message) -> Option<Self> {
        let found = Self::in_text(text);
        (!found.0.is_empty() || !prints_thoughts(text, message)).then_some(found)
    }

    /// Finds the thoughts between marks, the marks included. A closing mark alone ends a thought that the prompt has opened.
    pub(super) fn in_text(text: &str) -> Self {
        let mut found = Vec::new();
        let (mut behind, mut open) = (0, None);
        let push = |found: &mut Vec<Thought>, start: usize, end: usize| {
            let answer = text.len() - text[end..].trim_start().len();
            found.push(Thought { start, end, answer });
        };
        for (at, _) in text.match_indices(['<', '[']) {
            let mark = |mark: &str| text[at..].starts_with(mark);
            if open.is_none() && MARKS.iter().any(|(opening, _)| mark(opening)) {
                open = Some(at);
            } else if let Some((_, closing)) = MARKS.iter().find(|(_, closing)| mark(closing)) {
                let end = at + closing.len();
                push(&mut found, open.take().unwrap_or(behind), end);
                behind = end;
            }
        }
        if let Some(start) = open {
            push(&mut found, start, text.len());
        }
        Self(found)
    }

    /// Returns the tokens that hold a part of a thought or the whitespace behind it, as ranges of indices. `offsets` are places of a text in
    /// which this one begins at `place`.
    pub(super) fn tokens(&self, offsets: &[(usize, usize)], place: usize) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (i, &(from, to)) in offsets.iter().enumerate() {
            let (from, to) = (from.saturating_sub(place), to.saturating_sub(place));
            let first = self.0.partition_point(|thought| thought.answer <= from);
            // A token that reaches a later thought holds a part of the second as well.
            let mut near = self.0[first..].iter().take(2);
            let holds = |t: &Thought| (from < t.end && t.start < to) || (t.end <= from && from < to && to <= t.answer);
            if !near.any(holds) {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.end == i => last.end = i + 1,
                _ => ranges.push(i..i + 1),
            }
        }
        ranges
    }
}

/// Returns ranges without the parts that are in other ones. Both are in order and do not overlap.
pub(super) fn without(ranges: &[Range<usize>], holes: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut left = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut start = range.start;
        let first = holes.partition_point(|hole| hole.end <= range.start);
        for hole in holes[first..].iter().take_while(|hole| hole.start < range.end) {
            if start < hole.start {
                left.push(start..hole.start);
            }
            start = hole.end;
        }
        if start < range.end {
            left.push(start..range.end);
        }
    }
    left
}

impl TextEncoder {
    /// Fails if a turn has nothing but thoughts before its stop token.
    pub(super) fn check_answered(
        &self,
        ids: &[u32],
        thoughts: &[Range<usize>],
        turn: impl Fn() -> String,
    ) -> Result<(), EncodeProblem> {
        let learned = without(std::slice::from_ref(&(0..ids.len())), thoughts);
        let answered = learned.into_iter().flat_map(|range| &ids[range]).any(|id| !self.stop_ids.contains(id));
        if answered || thoughts.is_empty() { Ok(()) } else { Err(EncodeProblem::OnlyThoughts { turn: turn() }) }
    }

    /// Says that a template prints thoughts which cannot be told from the answer.
    pub(super) fn unmarked(&self, turn: String) -> EncodeProblem {
        let template = self.template.as_ref().map_or_else(String::new, |template| template.name().to_owned());
        EncodeProblem::UnmarkedThoughts { template, turn }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        Thoughts::in_text(text).0.iter().map(|thought| &text[thought.start..thought.end]).collect()
    }

    /// Ranges as pairs.
    fn pairs(ranges: &[Range<usize>]) -> Vec<(usize, usize)> {
        ranges.iter().map(|range| (range.start, range.end)).collect()
    }

    fn tokens_of(text: &str, offsets: &[(usize, usize)], place: usize) -> Vec<(usize, usize)> {
        pairs(&Thoughts::in_text(text).tokens(offsets, place))
    }

    fn left_of(ranges: &[(usize, usize)], holes: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let [ranges, holes] = [ranges, holes].map(|all| all.iter().map(|&(start, end)| start..end).collect::<Vec<_>>());
        pairs(&without(&ranges, &holes))
    }

    #[test]
    fn thoughts_are_between_marks() {
        assert_eq!(found("<think>\na < b\n</think>\n\nYes."), ["<think>\na < b\n</think>"]);
        assert_eq!(found("[THINK]hm[/THINK]Yes."), ["[THINK]hm[/THINK]"]);
        assert_eq!(found("the prompt has opened it</think>Yes."), ["the prompt has opened it</think>"]);
        assert_eq!(found("<think>1</think>x<think>2</think>y"), ["<think>1</think>", "<think>2</think>"]);
        assert_eq!(found("x <think>never ends"), ["<think>never ends"]);
        assert_eq!(found("<think>a <think> b</think>c"), ["<think>a <think> b</think>"]);
        assert!(found("a < b, [1], <b>").is_empty());
    }

    #[test]
    fn tokens_of_a_thought_and_the_space_behind_it() {
        let text = "ab<think>c</think>\n\n d";
        let tokens = |offsets: &[(usize, usize)]| tokens_of(text, offsets, 0);
        // ab | <think> | c | </think> | \n\n | " d"
        assert_eq!(tokens(&[(0, 2), (2, 9), (9, 10), (10, 18), (18, 20), (20, 22)]), [(1, 5)]);
        // A token that holds a part of the thought and another text belongs to the thought: "b<" and ">\n\n".
        assert_eq!(tokens(&[(0, 1), (1, 3), (3, 17), (17, 20), (20, 22)]), [(1, 4)]);
        let moved = [(100, 102), (102, 118), (118, 122)];
        assert_eq!(tokens_of(text, &moved, 100), [(1, 2)]);
    }

    #[test]
    fn a_token_may_reach_the_next_thought() {
        let text = "<think>1</think>x<think>2</think>y";
        assert_eq!(tokens_of(text, &[(0, 16), (16, 18), (18, 33), (33, 34)], 0), [(0, 3)]);
        assert_eq!(tokens_of(text, &[(0, 16), (16, 17), (17, 33), (33, 34)], 0), [(0, 1), (2, 3)]);
    }

    #[test]
    fn ranges_without_holes() {
        assert_eq!(left_of(&[(0, 4), (6, 9)], &[(1, 2), (6, 8)]), [(0, 1), (2, 4), (8, 9)]);
        assert!(left_of(&[(3, 5)], &[(3, 5)]).is_empty());
        assert_eq!(left_of(&[(3, 5)], &[]), [(3, 5)]);
    }
}
