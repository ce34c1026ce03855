//! Which prompts begin alike, and are worth computing their beginning once for all of them.

use std::ops::Range;

use super::batch::shared_tokens;
use super::sequence::Sequence;

/// Equal tokens at the beginning of two prompts from which on they are worth a segment of their own.
const SHARED: usize = 16;

/// Neighbours that go through the model together: prompts with their responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// The sequences.
    pub(super) members: Range<usize>,
    /// Tokens at the beginning of every prompt that are computed once. 0 where there is one prompt.
    pub(super) shared: usize,
    /// Tokens that go through the model.
    pub(super) cost: usize,
}

/// Finds the families of sequences in their order. None costs more than `budget`, but for a single prompt that does.
///
/// Neighbours with the same prompt are one family. Different prompts share their beginning if no more than one token is asked of each
/// response, and none of the prompt: then the beginning is the only prefix, and the rest of a prompt a segment behind it. So the few-shot
/// examples of a subject of MMLU are read once for all its questions.
pub(super) fn families(sequences: &[&Sequence], budget: usize) -> Vec<Family> {
    let mut families: Vec<Growing> = vec![];
    let mut start = 0;
    while start < sequences.len() {
        let first = sequences[start];
        let same = sequences[start..].iter().take_while(|other| first.same_prompt(other)).count();
        let group = start..start + same;
        start = group.end;
        let single = sequences[group.clone()].iter().all(|s| s.ids.len() == s.prompt_len + 1 && s.prompt().is_empty());
        let next = Growing {
            prompts: 1,
            tokens: shared_tokens(&sequences[group.clone()]),
            family: Family { members: group, shared: 0, cost: 0 },
            single,
        };
        if !families.last_mut().is_some_and(|last| last.takes(&next, sequences, budget)) {
            families.push(next);
        }
    }
    families.into_iter().map(|growing| Family { cost: growing.cost(), ..growing.family }).collect()
}

struct Growing {
    family: Family,
    prompts: usize,
    /// Tokens of all its prompts and responses, each prompt whole.
    tokens: usize,
    /// Whether prompts may share their beginning.
    single: bool,
}

impl Growing {
    fn cost(&self) -> usize {
        self.tokens - (self.prompts - 1) * self.family.shared
    }

    /// Takes in the prompt `next`, if that saves tokens.
    fn takes(&mut self, next: &Growing, sequences: &[&Sequence], budget: usize) -> bool {
        if !(self.single && next.single) {
            return false;
        }
        let (a, b) = (sequences[self.family.members.start], sequences[next.family.members.start]);
        // Every prompt keeps a token of its own: the one whose hidden state predicts the response.
        let most = a.prompt_len.min(b.prompt_len) - 1;
        let most = if self.prompts > 1 { most.min(self.family.shared) } else { most };
        let shared = a.ids[..most].iter().zip(&b.ids).take_while(|(a, b)| a == b).count();
        let (saved, would_save) = ((self.prompts - 1) * self.family.shared, self.prompts * shared);
        let tokens = self.tokens + next.tokens;
        if shared < SHARED || would_save <= saved || tokens - would_save > budget {
            return false;
        }
        self.family = Family { members: self.family.members.start..next.family.members.end, shared, cost: 0 };
        self.prompts += 1;
        self.tokens = tokens;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prompt of `common` tokens that depend on `subject` alone and 3 of its own, with a response of `answer` tokens.
    fn sequence(subject: u32, common: usize, own: u32, answer: usize) -> Sequence {
        let mut ids = vec![subject; common];
        ids.extend([own, own, own]);
        let prompt_len = ids.len();
        ids.extend(vec![9; answer]);
        Sequence { ids, prompt_len, scored_from: prompt_len }
    }

    fn found(sequences: &[Sequence], budget: usize) -> Vec<(Range<usize>, usize, usize)> {
        let sequences: Vec<&Sequence> = sequences.iter().collect();
        families(&sequences, budget).into_iter().map(|f| (f.members, f.shared, f.cost)).collect()
    }

    #[test]
    fn prompts_of_a_subject_share_their_beginning() {
        let (one, two) = (|own| sequence(1, 40, own, 1), |own| sequence(2, 30, own, 1));
        let all = [one(5), one(5), one(6), one(7), two(5), two(6)];
        // Three prompts of 43 tokens and four responses, two prompts of 33 and two responses.
        assert_eq!(found(&all, 1000), [(0..4, 40, 40 + 3 * 3 + 4), (4..6, 30, 30 + 2 * 3 + 2)]);
        // A budget that holds two prompts of the first subject.
        let split = found(&all, 50);
        assert_eq!(split, [(0..3, 40, 49), (3..4, 0, 44), (4..6, 30, 38)]);
    }

    #[test]
    fn a_shorter_beginning_is_taken_only_where_it_saves() {
        // Prompts of the second kind have 20 tokens in common with those of the first.
        let short = |own: u32| {
            let mut sequence = sequence(1, 20, 8, 1);
            sequence.ids[20] = own;
            sequence
        };
        let long = |own| sequence(1, 60, own, 1);
        assert_eq!(found(&[long(5), long(6), long(7), short(5)], 1000).len(), 2, "3 * 20 is less than 2 * 60");
        assert_eq!(found(&[long(5), short(6)], 1000), [(0..2, 20, 64 + 24 - 20)]);
    }

    #[test]
    fn longer_answers_scored_prompts_and_short_beginnings_stay_apart() {
        let all = [sequence(1, 40, 5, 1), sequence(1, 40, 6, 2), sequence(1, 40, 7, 1)];
        assert_eq!(found(&all, 1000).len(), 3);
        let scored = |own| Sequence { scored_from: 1, ..sequence(1, 40, own, 1) };
        assert_eq!(found(&[scored(5), scored(6)], 1000).len(), 2);
        assert_eq!(found(&[sequence(1, SHARED - 1, 5, 1), sequence(1, SHARED - 1, 6, 1)], 1000).len(), 2);
    }
}
