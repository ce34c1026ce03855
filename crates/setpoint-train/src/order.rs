//! The order in which examples are visited.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// A shuffled order for each epoch, a pure function of seed, epoch and number of examples.
///
/// ChaCha8 keyed by a hash of the seed, one stream for each epoch; Fisher–Yates with unbiased draws. Nothing here depends on
/// a library's choice of shuffle, so the order of an old run can be computed again.
///
/// ```
/// use setpoint_train::Order;
///
/// let order = Order::new(7);
/// let mut first = order.epoch(0, 5);
/// assert_eq!(first, Order::new(7).epoch(0, 5));
/// first.sort();
/// assert_eq!(first, [0, 1, 2, 3, 4]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    seed: u64,
}

impl Order {
    /// The orders that belong to a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A permutation of `0..n` for this epoch.
    #[must_use]
    pub fn epoch(&self, epoch: u64, n: usize) -> Vec<usize> {
        // The prefix keeps this use of the seed apart from every other in the program.
        let key = Sha256::new().chain_update(b"setpoint data order").chain_update(self.seed.to_le_bytes()).finalize();
        let mut rng = ChaCha8Rng::from_seed(key.into());
        rng.set_stream(epoch);
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, below(&mut rng, i as u64 + 1) as usize);
        }
        order
    }
}

/// A uniform number in `0..bound` (Lemire, "Fast random integer generation in an interval", 2019, algorithm 5).
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        // The low half tells whether this draw is one of the 2^64 mod bound that would favour some numbers.
        if product as u64 >= bound.wrapping_neg() % bound {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_order_is_a_permutation(seed: u64, epoch: u64, n in 0usize..200) {
            let mut order = Order::new(seed).epoch(epoch, n);
            prop_assert_eq!(&order, &Order::new(seed).epoch(epoch, n));
            order.sort_unstable();
            prop_assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn seeds_and_epochs_differ() {
        let base = Order::new(1).epoch(0, 50);
        assert_ne!(base, Order::new(2).epoch(0, 50));
        assert_ne!(base, Order::new(1).epoch(1, 50));
    }

    #[test]
    fn every_permutation_is_as_likely() {
        // 6 permutations of 3 rows over 6000 epochs: 1000 each, standard deviation √(6000·⅙·⅚) = 28.9. The draw is fixed by the
        // seed; five deviations would be a bias.
        let mut counts = std::collections::HashMap::new();
        for epoch in 0..6000 {
            *counts.entry(Order::new(3).epoch(epoch, 3)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&c| (855..=1145).contains(&c)), "{counts:?}");
    }
}
