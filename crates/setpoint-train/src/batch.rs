//! Cutting a step's batch: into the shares of devices, and these into micro-batches.

use std::fmt::{Display, Formatter};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The part of a batch that goes through one forward and backward pass. The gradient does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MicroBatch {
    /// At most this many examples.
    Examples(usize),
    /// At most this many tokens; a longer example goes alone.
    Tokens(usize),
}

impl MicroBatch {
    /// Splits `batch`. Examples are sorted by falling cost, so that those of one micro-batch are of
    /// similar length, and a batch too large for the memory fails on its first pass.
    ///
    /// # Units
    /// `cost` is in tokens.
    pub fn split(self, batch: &[usize], cost: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
        let mut split: Vec<Vec<usize>> = vec![];
        let mut tokens = 0;
        for (cost, example) in by_falling_cost(batch, cost) {
            let fits = |current: &Vec<usize>| match self {
                Self::Examples(limit) => current.len() < limit,
                Self::Tokens(limit) => tokens + cost <= limit,
            };
            match split.last_mut() {
                Some(current) if fits(current) => {
                    current.push(example);
                    tokens += cost;
                }
                _ => {
                    split.push(vec![example]);
                    tokens = cost;
                }
            }
        }
        split
    }

    /// Halves the size until some of `shares` are split in another way. `None` if every example goes alone already.
    ///
    /// # Units
    /// `cost` is in tokens.
    pub(crate) fn smaller(self, shares: &[Vec<usize>], cost: impl Fn(usize) -> usize) -> Option<Self> {
        let split = |size: Self| shares.iter().map(|share| size.split(share, &cost)).collect::<Vec<_>>();
        let before = split(self);
        let mut size = self;
        while let Some(half) = size.half() {
            if split(half) != before {
                return Some(half);
            }
            size = half;
        }
        None
    }

    fn half(self) -> Option<Self> {
        match self {
            Self::Examples(0..=1) | Self::Tokens(0..=1) => None,
            Self::Examples(examples) => Some(Self::Examples(examples / 2)),
            Self::Tokens(tokens) => Some(Self::Tokens(tokens / 2)),
        }
    }

    /// Describes that memory ran out during some `work` with this size, and that `smaller` is used from now on.
    pub fn lowered(self, smaller: Self, work: &str) -> String {
        format!(
            "out of memory in {work}: train.micro_batch is now {smaller} instead of {self}; set it in the next run to avoid the failed attempt"
        )
    }
}

impl Display for MicroBatch {
    /// Writes the size as in a configuration file.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Examples(examples) => write!(f, "{{ examples = {examples} }}"),
            Self::Tokens(tokens) => write!(f, "{{ tokens = {tokens} }}"),
        }
    }
}

/// Costs and examples, the longest first; equal costs keep the data order.
fn by_falling_cost(batch: &[usize], cost: impl Fn(usize) -> usize) -> Vec<(usize, usize)> {
    let mut sorted: Vec<(usize, usize)> = batch.iter().map(|&e| (cost(e), e)).collect();
    sorted.sort_by_key(|&(cost, _)| std::cmp::Reverse(cost));
    sorted
}

/// Deals a batch out to a number of devices so that each has about the same to do: the longest example first, each to the device that has
/// least. A batch of at least as many examples leaves no device without.
///
/// # Units
/// `cost` is in tokens.
pub(crate) fn deal(batch: &[usize], devices: usize, cost: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    // Of each device: tokens so far, and its examples.
    let mut shares = vec![(0, vec![]); devices];
    for (cost, example) in by_falling_cost(batch, cost) {
        let least = shares.iter_mut().min_by_key(|(tokens, examples)| (*tokens, examples.len()));
        if let Some((tokens, examples)) = least {
            *tokens += cost;
            examples.push(example);
        }
    }
    shares.into_iter().map(|(_, examples)| examples).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: [usize; 6] = [3, 9, 1, 4, 4, 20];

    fn split(rule: MicroBatch) -> Vec<Vec<usize>> {
        rule.split(&[0, 1, 2, 3, 4, 5], |example| COSTS[example])
    }

    #[test]
    fn by_examples() {
        assert_eq!(split(MicroBatch::Examples(4)), [vec![5, 1, 3, 4], vec![0, 2]]);
        assert_eq!(split(MicroBatch::Examples(1)).len(), 6);
    }

    #[test]
    fn by_tokens_the_budget_holds_except_for_a_single_long_example() {
        // 20 alone although above 12; 9; 4 + 4 + 3 + 1.
        let expected = [vec![5], vec![1], vec![3, 4, 0, 2]];
        assert_eq!(split(MicroBatch::Tokens(12)), expected);
    }

    #[test]
    fn an_empty_batch_has_no_micro_batches() {
        assert!(MicroBatch::Examples(2).split(&[], |_| 1).is_empty());
    }

    #[test]
    fn a_smaller_size_splits_in_another_way() {
        use MicroBatch::{Examples, Tokens};
        let all = vec![0, 1, 2, 3, 4, 5];
        let smaller = |size: MicroBatch, shares: &[Vec<usize>]| size.smaller(shares, |example| COSTS[example]);
        // 41 tokens.
        assert_eq!(smaller(Tokens(1000), std::slice::from_ref(&all)), Some(Tokens(31)));
        assert_eq!(smaller(Examples(64), std::slice::from_ref(&all)), Some(Examples(4)));
        assert_eq!(smaller(Examples(3), std::slice::from_ref(&all)), Some(Examples(1)));
        assert_eq!(smaller(Examples(1), std::slice::from_ref(&all)), None);
        // 20 goes alone, and two examples of 4 and 3 together.
        assert_eq!(smaller(Tokens(12), &[vec![5], vec![3, 0]]), Some(Tokens(6)));
        assert_eq!(smaller(Tokens(6), &[vec![5], vec![3, 0]]), None);
        assert_eq!(smaller(Tokens(8), &[vec![]]), None);
    }

    #[test]
    fn a_size_is_written_as_in_a_configuration_file() {
        assert_eq!(MicroBatch::Tokens(4096).to_string(), "{ tokens = 4096 }");
        assert_eq!(MicroBatch::Examples(1).to_string(), "{ examples = 1 }");
    }

    #[test]
    fn devices_get_about_the_same_number_of_tokens() {
        let deal = |devices| deal(&[0, 1, 2, 3, 4, 5], devices, |example| COSTS[example]);
        // 20; 9 + 4 + 4 + 3 + 1 = 21, of which the last goes to the 20.
        assert_eq!(deal(2), [vec![5, 2], vec![1, 3, 4, 0]]);
        assert_eq!(deal(1).concat().len(), 6);
        // More devices than examples: the last have nothing to do.
        assert_eq!(deal(8).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn examples_that_cost_nothing_are_dealt_out_as_well() {
        assert_eq!(deal(&[7, 8, 9], 3, |_| 0), [vec![7], vec![8], vec![9]]);
    }
}
