//! The sequences that go through the model together.

use setpoint_transformer::{PrefixGroup, RopeSwitch, Text, group_by_prefix};

use super::batch::shared_tokens;
use super::sequence::Sequence;

/// Finds the groups of sequences in their order. None costs more than `budget`, but for a single prompt that does.
///
/// Neighbours with the same prompt are in one group. Different prompts share their beginning if no more than one token is asked of each
/// response, and none of the prompt: then the beginning is the only prefix, and the rest of a prompt a segment behind it. So the few-shot
/// examples of a subject of MMLU are read once for all its questions.
pub(super) fn sequence_groups(sequences: &[&Sequence], budget: usize, switch: RopeSwitch) -> Vec<PrefixGroup> {
    let prompts: Vec<&[&Sequence]> = sequences.chunk_by(|a, b| a.same_prompt(b)).collect();
    let texts: Vec<Text<'_>> = prompts
        .iter()
        .map(|prompt| {
            let single = prompt.iter().all(|s| s.ids.len() == s.prompt_len + 1 && s.prompt().is_empty());
            // Every prompt keeps a token of its own: the one whose hidden state predicts the response.
            let most = if single { prompt[0].prompt_len - 1 } else { 0 };
            Text {
                beginning: &prompt[0].ids[..most],
                tokens: shared_tokens(prompt, switch),
                // Of responses of one token all texts are equally long.
                is_long: switch.is_long(prompt[0].ids.len()),
            }
        })
        .collect();
    let mut start = 0;
    let in_sequences = |group: PrefixGroup| {
        let end = start + prompts[group.members.clone()].iter().map(|prompt| prompt.len()).sum::<usize>();
        let members = start..end;
        start = end;
        PrefixGroup { members, ..group }
    };
    group_by_prefix(&texts, budget).into_iter().map(in_sequences).collect()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

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
        let switch = RopeSwitch::at(60);
        sequence_groups(&sequences, budget, switch).into_iter().map(|f| (f.members, f.shared, f.cost)).collect()
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
    fn long_texts_stay_apart() {
        let all = [sequence(1, 40, 5, 1), sequence(1, 40, 6, 1), sequence(1, 56, 7, 1), sequence(1, 57, 7, 1)];
        // Texts of 44, 44, 60 and 61 tokens.
        assert_eq!(found(&all, 1000), [(0..3, 40, 40 + 2 * 4 + 20), (3..4, 0, 61)]);
    }

    #[test]
    fn longer_answers_and_scored_prompts_stay_apart() {
        let all = [sequence(1, 40, 5, 1), sequence(1, 40, 6, 2), sequence(1, 40, 7, 1)];
        assert_eq!(found(&all, 1000).len(), 3);
        let scored = |own| Sequence { scored_from: 1, ..sequence(1, 40, own, 1) };
        assert_eq!(found(&[scored(5), scored(6)], 1000).len(), 2);
    }
}
