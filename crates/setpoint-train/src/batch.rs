//! Cutting a step's batch into micro-batches.

use serde::{Deserialize, Serialize};

/// How much goes through one forward and backward pass. The gradient does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MicroBatch {
    /// At most this many examples.
    Examples(usize),
    /// At most this many tokens ([`Task::cost`](crate::Task::cost)); a longer example goes alone.
    Tokens(usize),
}

impl MicroBatch {
    /// Splits `batch`. Examples are sorted by falling cost, so that those of one micro-batch are of
    /// similar length, and a batch too large for the memory fails on its first pass.
    ///
    /// # Units
    /// `cost` is in tokens.
    pub fn split(self, batch: &[usize], cost: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
        let mut sorted: Vec<(usize, usize)> = batch.iter().map(|&e| (cost(e), e)).collect();
        // Stable, so that equal costs keep the data order.
        sorted.sort_by_key(|&(cost, _)| std::cmp::Reverse(cost));
        let mut split: Vec<Vec<usize>> = vec![];
        let mut tokens = 0;
        for (cost, example) in sorted {
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
}
