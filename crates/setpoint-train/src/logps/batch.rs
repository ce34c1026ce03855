//! Sequences as a packed batch: a prompt stands there once for all the responses behind it.

use std::borrow::Borrow;

use setpoint_ops::Packing;
use setpoint_transformer::{CausalLm, RopeSwitch, Tape};

use super::head::{Hidden, Positions};
use super::sequence::Sequence;

/// The tokens of some sequences, and where their log-probabilities are found.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    texts: Vec<&'a [u32]>,
    /// The tokens that belong together.
    pub(super) packing: Packing,
    /// The scored positions of each prompt.
    pub(super) prompts: Positions,
    /// The prompt of each sequence.
    pub(super) prompt_of: Vec<usize>,
    /// The positions of each sequence's response.
    pub(super) responses: Positions,
}

/// A prompt in the batch that is being packed.
#[derive(Clone, Copy)]
struct LastPrompt<'a> {
    sequence: &'a Sequence,
    segment: usize,
    /// Where it would begin in the batch if it stood there whole.
    start: usize,
    number: usize,
}

impl<'a> Batch<'a> {
    /// Packs sequences that have been checked; neighbours with the same prompt share it if both texts are short, or both long, for a model
    /// with this switch.
    pub(super) fn of(sequences: &[&'a Sequence], switch: RopeSwitch) -> Self {
        Self::of_groups([(0, sequences)], switch)
    }

    /// [`of`](Self::of) with prompts that begin alike: `(tokens that all prompts of these sequences begin with, sequences)`. Where there
    /// are such tokens, nothing of the prompts is scored and each response has one token.
    pub(super) fn of_groups<'s>(
        groups: impl IntoIterator<Item = (usize, &'s [&'a Sequence])>,
        switch: RopeSwitch,
    ) -> Self
    where
        'a: 's,
    {
        let mut builder = Packing::builder();
        let mut texts: Vec<&[u32]> = vec![];
        let (mut prompts, mut responses) = (Positions::default(), Positions::default());
        let mut prompt_of = vec![];
        let mut next = 0;
        let is_long = |sequence: &Sequence| switch.is_long(sequence.ids.len());
        for (shared, group) in groups {
            let Some(&head) = group.first() else { continue };
            // What was divided for another model may have both kinds.
            let shared = if group.iter().all(|sequence| is_long(sequence) == is_long(head)) { shared } else { 0 };
            // The segment of what the prompts of the group begin with.
            let beginning = (shared > 0).then(|| {
                texts.push(&head.ids[..shared]);
                next += shared;
                builder.push_of(shared, None, head.ids.len())
            });
            // The last prompt of a short text, and of a long one.
            let mut last: [Option<LastPrompt<'a>>; 2] = [None; 2];
            for &sequence in group {
                let (prompt, response) = sequence.ids.split_at(sequence.prompt_len);
                let last = &mut last[usize::from(is_long(sequence))];
                let LastPrompt { segment, start, number, .. } = match *last {
                    Some(other) if other.sequence.same_prompt(sequence) => other,
                    _ => {
                        let own = &prompt[shared..];
                        let segment = builder.push_of(own.len(), beginning, sequence.ids.len());
                        let start = next - shared;
                        prompts.push_text(start, prompt, sequence.prompt());
                        texts.push(own);
                        next += own.len();
                        *last.insert(LastPrompt { sequence, segment, start, number: prompts.counts.len() - 1 })
                    }
                };
                prompt_of.push(number);
                // Nothing is predicted by a response's last token, so it need not be computed.
                let (_, seen) = response.split_last().unwrap_or((&0, &[]));
                if !seen.is_empty() {
                    builder.push_of(seen.len(), Some(segment), sequence.ids.len());
                    texts.push(seen);
                }
                let first = (start + prompt.len() - 1, response[0]);
                let rest = response[1..].iter().enumerate().map(|(i, &token)| (next + i, token));
                responses.push_run(std::iter::once(first).chain(rest));
                next += seen.len();
            }
        }
        Self { texts, packing: builder.build(), prompts, prompt_of, responses }
    }

    /// The hidden states of its responses, and of its prompts where they are `scored`; and what their pass leaves for its backward pass.
    pub(super) fn hidden(&self, model: &CausalLm, scored: bool) -> (Hidden, Option<Tape>) {
        let positions: &[&Positions] = if scored { &[&self.prompts, &self.responses] } else { &[&self.responses] };
        Hidden::of(model, &self.texts, &self.packing, positions)
    }
}

/// Tokens that go through a model with this switch for some sequences: a prompt that neighbours share counts once.
///
/// For a task's [`cost`](crate::Task::cost).
pub fn shared_tokens<S: Borrow<Sequence>>(sequences: &[S], switch: RopeSwitch) -> usize {
    let mut tokens = 0;
    let mut last: [Option<&Sequence>; 2] = [None; 2];
    for sequence in sequences.iter().map(Borrow::borrow) {
        let last = &mut last[usize::from(switch.is_long(sequence.ids.len()))];
        let shared = last.is_some_and(|last| last.same_prompt(sequence));
        tokens += sequence.ids.len() - if shared { sequence.prompt_len } else { 0 };
        *last = Some(sequence);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(ids: &[u32], prompt_len: usize) -> Sequence {
        Sequence { ids: ids.to_vec(), prompt_len, scored_from: 1 }
    }

    #[test]
    fn neighbours_share_their_prompt() {
        let sequences = [
            sequence(&[1, 2, 3, 4, 5], 3),
            sequence(&[1, 2, 3, 6], 3),
            sequence(&[1, 2, 9, 4], 3),
            sequence(&[1, 2, 3, 4], 3),
        ];
        let batch = Batch::of(&sequences.iter().collect::<Vec<_>>(), RopeSwitch::default());
        assert_eq!(batch.prompt_of, [0, 0, 1, 2]);
        assert_eq!(batch.prompts.counts, [2, 2, 2]);
        assert_eq!(batch.responses.counts, [2, 1, 1, 1]);
        // The prompt, 4 of the first response, then two prompts whose responses have one token, which is only predicted.
        assert_eq!(shared_tokens(&sequences, RopeSwitch::default()), 5 + 1 + 4 + 4);
        assert_eq!(batch.packing.tokens(), 3 + 1 + 3 + 3);
        assert_eq!(batch.packing.positions(), [0, 1, 2, 3, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn prompts_of_a_group_share_their_beginning() {
        let asked = |ids: &[u32]| Sequence { scored_from: ids.len() - 1, ..sequence(ids, ids.len() - 1) };
        let group = [asked(&[1, 2, 3, 7]), asked(&[1, 2, 3, 8]), asked(&[1, 2, 4, 5, 7])];
        let alone = [sequence(&[1, 2, 6], 2)];
        let (group, alone): (Vec<_>, Vec<_>) = (group.iter().collect(), alone.iter().collect());
        let batch = Batch::of_groups([(2, group.as_slice()), (0, alone.as_slice())], RopeSwitch::default());
        assert_eq!(batch.texts, [&[1, 2][..], &[3], &[4, 5], &[1, 2]]);
        assert_eq!(batch.packing.positions(), [0, 1, 2, 2, 3, 0, 1]);
        assert_eq!((batch.prompts.counts.as_slice(), batch.prompt_of.as_slice()), (&[0, 0, 1][..], &[0, 0, 1, 2][..]));
        // Both responses of the first prompt are predicted at its end.
        assert_eq!(batch.responses, {
            let mut positions = Positions::default();
            [(2, 7), (2, 8), (4, 7), (6, 6)].into_iter().for_each(|position| positions.push_run([position]));
            positions
        });
    }

    #[test]
    fn long_texts_share_their_prompt_among_themselves() {
        // Long with their last token, which is not computed.
        let sequences = [
            sequence(&[1, 2, 3, 4, 5], 3),
            sequence(&[1, 2, 3, 4], 3),
            sequence(&[1, 2, 3, 6, 7, 8], 3),
            sequence(&[1, 2, 3, 9], 3),
        ];
        let switch = RopeSwitch::at(4);
        let batch = Batch::of(&sequences.iter().collect::<Vec<_>>(), switch);
        assert_eq!(batch.prompt_of, [0, 1, 0, 1]);
        assert_eq!(batch.texts, [&[1, 2, 3][..], &[4], &[1, 2, 3], &[6, 7]]);
        assert_eq!(batch.packing.text_lengths(), [6, 6, 6, 6, 4, 4, 4, 6, 6]);
        assert_eq!(batch.packing.positions(), [0, 1, 2, 3, 0, 1, 2, 3, 4]);
        assert_eq!(shared_tokens(&sequences, switch), 5 + 4 + 3 + 1);
        // A group that was divided for a model without the switch.
        let asked = |ids: &[u32]| Sequence { scored_from: ids.len() - 1, ..sequence(ids, ids.len() - 1) };
        let group = [asked(&[1, 2, 3, 7]), asked(&[1, 2, 4, 5, 7])];
        let batch = Batch::of_groups([(2, group.iter().collect::<Vec<_>>().as_slice())], switch);
        assert_eq!(batch.texts, [&[1, 2, 3][..], &[1, 2, 4, 5]]);
    }
}
