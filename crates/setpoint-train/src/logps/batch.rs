//! Sequences as a packed batch: a prompt stands there once for all the responses behind it.

use std::borrow::Borrow;

use burn::tensor::{Device, Int, Tensor};
use setpoint_ops::Packing;
use setpoint_transformer::pack;

use super::head::Positions;
use super::sequence::Sequence;

/// The tokens of some sequences, and where their log-probabilities are found.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    texts: Vec<&'a [u32]>,
    /// Which tokens belong together.
    pub(super) packing: Packing,
    /// The scored positions of each prompt.
    pub(super) prompts: Positions,
    /// The prompt of each sequence.
    pub(super) prompt_of: Vec<usize>,
    /// The positions of each sequence's response.
    pub(super) responses: Positions,
}

impl<'a> Batch<'a> {
    /// Packs sequences that have been checked; neighbours with the same prompt share it.
    pub(super) fn of(sequences: &[&'a Sequence]) -> Self {
        let mut builder = Packing::builder();
        let mut texts: Vec<&[u32]> = vec![];
        let (mut prompts, mut responses) = (Positions::default(), Positions::default());
        let mut prompt_of = vec![];
        let mut next = 0;
        // The last prompt's segment, its first place in the batch and a sequence that has it.
        let mut last: Option<(usize, usize, &Sequence)> = None;
        for &sequence in sequences {
            let (prompt, response) = sequence.ids.split_at(sequence.prompt_len);
            let (segment, start) = match last {
                Some((segment, start, other)) if other.same_prompt(sequence) => (segment, start),
                _ => {
                    let segment = builder.push(prompt.len(), None);
                    prompts.push_text(next, prompt, sequence.prompt());
                    texts.push(prompt);
                    last = Some((segment, next, sequence));
                    next += prompt.len();
                    (segment, next - prompt.len())
                }
            };
            prompt_of.push(prompts.counts.len() - 1);
            // Nothing is predicted by a response's last token, so it need not be computed.
            let (_, seen) = response.split_last().unwrap_or((&0, &[]));
            if !seen.is_empty() {
                builder.push(seen.len(), Some(segment));
                texts.push(seen);
            }
            let first = (start + prompt.len() - 1, response[0]);
            let rest = response[1..].iter().enumerate().map(|(i, &token)| (next + i, token));
            responses.push_run(std::iter::once(first).chain(rest));
            next += seen.len();
        }
        Self { texts, packing: builder.build(), prompts, prompt_of, responses }
    }

    /// The tokens, `[t]`.
    pub(super) fn ids(&self, device: &Device) -> Tensor<1, Int> {
        pack(&self.texts, device)
    }
}

/// Tokens that go through the model for some sequences: a prompt that neighbours share counts once.
///
/// For a task's [`cost`](crate::Task::cost).
pub fn shared_tokens<S: Borrow<Sequence>>(sequences: &[S]) -> usize {
    let mut tokens = 0;
    let mut last: Option<&Sequence> = None;
    for sequence in sequences.iter().map(Borrow::borrow) {
        let shared = last.is_some_and(|last| last.same_prompt(sequence));
        tokens += sequence.ids.len() - if shared { sequence.prompt_len } else { 0 };
        last = Some(sequence);
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
        let batch = Batch::of(&sequences.iter().collect::<Vec<_>>());
        assert_eq!(batch.prompt_of, [0, 0, 1, 2]);
        assert_eq!(batch.prompts.counts, [2, 2, 2]);
        assert_eq!(batch.responses.counts, [2, 1, 1, 1]);
        // The prompt, 4 of the first response, then two prompts whose responses have one token, which is only predicted.
        assert_eq!(shared_tokens(&sequences), 5 + 1 + 4 + 4);
        assert_eq!(batch.packing.tokens(), 3 + 1 + 3 + 3);
        assert_eq!(batch.packing.positions(), [0, 1, 2, 3, 0, 1, 2, 0, 1, 2]);
    }
}
