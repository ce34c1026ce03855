//! Examples of several data sets, in shares that weights decide.

use std::num::NonZeroU64;

use sha2::{Digest, Sha256};

use crate::{BatchContext, Error, Forward, MicroBatch, Order, Task};

/// The longest epoch, in examples: its order is held in memory.
const LONGEST: f64 = (1u64 << 28) as f64;

/// The end of an epoch of a [`Mixture`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochEnd {
    /// When the data set that is the shortest for its weight was seen once.
    FirstExhausted,
    /// When the data set that is the longest for its weight was seen once.
    AllExhausted,
}

/// The reason for which data sets cannot be mixed.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MixtureError {
    /// A data set has no example.
    #[error("data set {set} has no example")]
    Empty {
        /// Its index.
        set: usize,
    },
    /// An epoch would be too long.
    #[error("an epoch would have {examples:.0} examples, since data set {set} has so small a share")]
    TooLong {
        /// The data set with the smallest share for its examples.
        set: usize,
        /// The examples of an epoch.
        examples: f64,
    },
}

/// The orders of an epoch over several data sets, each of which has a share of it.
///
/// With the shares `p` (the weights divided by their sum) and `c` examples in each data set, an epoch has `N = min c/p` examples if it ends
/// with the [first](EpochEnd::FirstExhausted) data set, and `N = max c/p` if it ends with the [last](EpochEnd::AllExhausted). A data set is
/// seen `p·N` times in it, to the nearest whole number and at least once. Each data set is visited in shuffled passes of its own, one after
/// the other: an epoch goes on where the last one ended, so no example is seen again before all others of its data set were.
///
/// Everything follows from seed, epoch and the numbers of examples, as for [`Order`].
///
/// ```
/// use setpoint_train::{EpochEnd, Mixture};
///
/// // Six examples of a first data set and two of a second one, half and half.
/// let mixture = Mixture::new(&[0, 0, 0, 0, 0, 0, 1, 1], &[1.0, 1.0], EpochEnd::FirstExhausted)?;
/// let epoch = mixture.epoch(7, 0);
/// assert_eq!(epoch.len(), 4);
/// assert_eq!(epoch.iter().filter(|&&example| example >= 6).count(), 2);
/// # Ok::<(), setpoint_train::MixtureError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    shares: Vec<Share>,
    /// The visits of an epoch.
    visits: usize,
    /// The numbers that visits may have.
    numbers: usize,
}

/// The part of a data set in an epoch.
#[derive(Debug, Clone, PartialEq)]
struct Share {
    examples: Vec<usize>,
    /// The visits of an epoch.
    visits: usize,
    /// The first number of its visits. There is a block of numbers for each pass that an epoch may touch.
    start: usize,
}

impl Share {
    /// The passes that an epoch may touch: whole ones, and parts of one at either end.
    fn passes(&self) -> usize {
        self.visits.div_ceil(self.examples.len()) + 1
    }
}

impl Mixture {
    /// Mixes examples. `sets`: the data set of each example; `weights`: those of the data sets, above 0.
    ///
    /// # Errors
    /// When a data set has no example, or an epoch would be too long.
    pub fn new(sets: &[usize], weights: &[f64], end: EpochEnd) -> Result<Self, MixtureError> {
        let mut examples = vec![Vec::new(); weights.len()];
        for (example, &set) in sets.iter().enumerate() {
            if let Some(examples) = examples.get_mut(set) {
                examples.push(example);
            }
        }
        if let Some(set) = examples.iter().position(Vec::is_empty) {
            return Err(MixtureError::Empty { set });
        }
        let total: f64 = weights.iter().sum();
        let lengths = examples.iter().zip(weights).map(|(examples, weight)| examples.len() as f64 * (total / weight));
        let lengths: Vec<f64> = lengths.collect();
        let by_length = |a: &usize, b: &usize| lengths[*a].total_cmp(&lengths[*b]);
        let sets = 0..lengths.len();
        let last = match end {
            EpochEnd::FirstExhausted => sets.min_by(by_length),
            EpochEnd::AllExhausted => sets.max_by(by_length),
        };
        let last = last.unwrap_or_default();
        let length = lengths.get(last).copied().unwrap_or_default();
        if length.is_nan() || length > LONGEST {
            return Err(MixtureError::TooLong { set: last, examples: length });
        }
        let mut mixture = Self { shares: Vec::new(), visits: 0, numbers: 0 };
        for (set, examples) in examples.into_iter().enumerate() {
            let visits = match set == last {
                true => examples.len(),
                false => ((length * (weights[set] / total)).round() as usize).max(1),
            };
            let visits = if end == EpochEnd::FirstExhausted { visits.min(examples.len()) } else { visits };
            let share = Share { examples, visits, start: mixture.numbers };
            mixture.visits += visits;
            mixture.numbers += share.passes() * share.examples.len();
            mixture.shares.push(share);
        }
        Ok(mixture)
    }

    /// Returns the number of examples that an epoch visits. One that is visited twice counts twice.
    #[must_use]
    pub fn visits(&self) -> usize {
        self.visits
    }

    /// Returns the number of examples of each data set, and how many of them an epoch visits.
    pub fn shares(&self) -> impl Iterator<Item = (usize, usize)> {
        self.shares.iter().map(|share| (share.examples.len(), share.visits))
    }

    /// Returns the examples that an epoch visits, in their order.
    #[must_use]
    pub fn epoch(&self, seed: u64, epoch: u64) -> Vec<usize> {
        self.order(seed, epoch).into_iter().map(|number| self.example(number)).collect()
    }

    /// Returns the numbers of an epoch's visits in their order. No two visits have the same, whichever example they visit.
    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        let mut visits = Vec::with_capacity(self.visits);
        for (set, share) in self.shares.iter().enumerate() {
            let (order, count) = (Order::new(seed_of(seed, set)), share.examples.len() as u64);
            let begin = u128::from(epoch) * share.visits as u128;
            let first_pass = (begin / u128::from(count)) as u64;
            let mut within = (begin % u128::from(count)) as usize;
            let mut left = share.visits;
            for pass in 0.. {
                let of_pass = order.epoch(first_pass.wrapping_add(pass), share.examples.len());
                let numbers = of_pass[within..].iter().take(left);
                let before = visits.len();
                visits.extend(numbers.map(|place| share.start + pass as usize * share.examples.len() + place));
                left -= visits.len() - before;
                within = 0;
                if left == 0 {
                    break;
                }
            }
        }
        Order::new(seed).epoch(epoch, visits.len()).into_iter().map(|place| visits[place]).collect()
    }

    /// Returns the example that a visit is to.
    fn example(&self, number: usize) -> usize {
        let set = self.shares.partition_point(|share| share.start <= number) - 1;
        let share = &self.shares[set];
        share.examples[(number - share.start) % share.examples.len()]
    }
}

/// The seed of a data set's own passes.
fn seed_of(seed: u64, set: usize) -> u64 {
    let hash = Sha256::new()
        .chain_update(b"setpoint data source")
        .chain_update(seed.to_le_bytes())
        .chain_update((set as u64).to_le_bytes())
        .finalize();
    u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
}

/// A task whose examples are visited as a mixture says, or as the task itself says if there is none.
///
/// Its examples are visits: an epoch may visit an example of the task more than once.
#[derive(Debug)]
pub struct Mixed<'t, T> {
    task: &'t T,
    mixture: Option<Mixture>,
}

impl<'t, T: Task> Mixed<'t, T> {
    /// Creates the task. The mixture is one of the task's examples.
    pub fn new(task: &'t T, mixture: Option<Mixture>) -> Self {
        Self { task, mixture }
    }

    fn example(&self, visit: usize) -> usize {
        self.mixture.as_ref().map_or(visit, |mixture| mixture.example(visit))
    }

    fn examples(&self, visits: &[usize]) -> Vec<usize> {
        visits.iter().map(|&visit| self.example(visit)).collect()
    }
}

impl<T: Task> Task for Mixed<'_, T> {
    type Model = T::Model;
    type Probe = T::Probe;
    type Survey = T::Survey;

    fn len(&self) -> usize {
        self.mixture.as_ref().map_or_else(|| self.task.len(), |mixture| mixture.numbers)
    }

    fn visits(&self) -> usize {
        self.mixture.as_ref().map_or_else(|| self.task.visits(), Mixture::visits)
    }

    fn weight(&self, visit: usize) -> f64 {
        self.task.weight(self.example(visit))
    }

    fn cost(&self, visit: usize) -> usize {
        self.task.cost(self.example(visit))
    }

    fn tokens(&self, visit: usize) -> usize {
        self.task.tokens(self.example(visit))
    }

    fn probe(&self, model: &T::Model, visits: &[usize], micro_batch: MicroBatch) -> Result<Vec<T::Probe>, Error> {
        self.task.probe(model, &self.examples(visits), micro_batch)
    }

    fn survey(&self, visits: &[usize], probes: &[T::Probe]) -> Result<T::Survey, Error> {
        self.task.survey(&self.examples(visits), probes)
    }

    fn forward(&self, model: &T::Model, visits: &[usize], batch: &BatchContext<T::Survey>) -> Result<Forward, Error> {
        self.task.forward(model, &self.examples(visits), batch)
    }

    fn decoder(&self) -> &'static str {
        self.task.decoder()
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        match &self.mixture {
            Some(mixture) => mixture.order(seed, epoch),
            None => self.task.order(seed, epoch),
        }
    }

    fn passes_per_round(&self) -> Option<NonZeroU64> {
        self.task.passes_per_round()
    }

    fn describe(&self, visit: usize) -> String {
        self.task.describe(self.example(visit))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data sets of examples, `counts` of each, one after the other.
    fn sets(counts: &[usize]) -> Vec<usize> {
        counts.iter().enumerate().flat_map(|(set, &count)| vec![set; count]).collect()
    }

    fn mixture(counts: &[usize], weights: &[f64], end: EpochEnd) -> Mixture {
        Mixture::new(&sets(counts), weights, end).unwrap()
    }

    fn visits(counts: &[usize], weights: &[f64], end: EpochEnd) -> Vec<usize> {
        mixture(counts, weights, end).shares().map(|(_, visits)| visits).collect()
    }

    #[test]
    fn an_epoch_ends_with_the_first_or_the_last_data_set() {
        use EpochEnd::{AllExhausted, FirstExhausted};
        // Shares 0.9 and 0.1 of 1000 and 50 examples: 50 / 0.1 = 500 and 1000 / 0.9 = 1111.1.
        assert_eq!(visits(&[1000, 50], &[9.0, 1.0], FirstExhausted), [450, 50]);
        assert_eq!(visits(&[1000, 50], &[9.0, 1.0], AllExhausted), [1000, 111]);
        // Weights as the sizes: each example once, either way.
        for end in [FirstExhausted, AllExhausted] {
            assert_eq!(visits(&[30, 20, 50], &[0.3, 0.2, 0.5], end), [30, 20, 50]);
        }
        assert_eq!(visits(&[3, 1_000_000], &[1.0, 1e-9], FirstExhausted), [3, 1], "at least once");
        assert_eq!(visits(&[7], &[0.2], FirstExhausted), [7]);
    }

    #[test]
    fn an_epoch_goes_on_where_the_last_one_ended() {
        // 2 of 5 and 2 of 2 an epoch: five epochs are two passes over the first data set.
        let mixture = mixture(&[5, 2], &[1.0, 1.0], EpochEnd::FirstExhausted);
        let epochs: Vec<Vec<usize>> = (0..5).map(|epoch| mixture.epoch(3, epoch)).collect();
        for epoch in &epochs {
            let mut second: Vec<usize> = epoch.iter().copied().filter(|&example| example >= 5).collect();
            second.sort_unstable();
            assert_eq!((epoch.len(), second), (4, vec![5, 6]));
        }
        let first = |epochs: &[Vec<usize>]| {
            let mut seen: Vec<usize> = epochs.iter().flatten().copied().filter(|&example| example < 5).collect();
            seen.sort_unstable();
            seen
        };
        assert_eq!(first(&epochs), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        let mut distinct = first(&epochs[..2]);
        distinct.dedup();
        assert_eq!(distinct.len(), 4, "no example again before all were seen");
    }

    #[test]
    fn data_sets_without_examples_and_endless_epochs_are_refused() {
        let new = |counts: &[usize], weights: &[f64], end| Mixture::new(&sets(counts), weights, end);
        assert_eq!(new(&[2, 0], &[1.0, 1.0], EpochEnd::FirstExhausted), Err(MixtureError::Empty { set: 1 }));
        let error = new(&[2, 2], &[1.0, 1e-12], EpochEnd::AllExhausted).unwrap_err();
        assert!(matches!(error, MixtureError::TooLong { set: 1, .. }), "{error}");
        assert!(new(&[2, 2], &[1.0, 1e-12], EpochEnd::FirstExhausted).is_ok());
    }

    #[test]
    fn examples_of_data_sets_may_be_mingled() {
        let mixture = Mixture::new(&[1, 0, 1, 0, 0], &[1.0, 3.0], EpochEnd::AllExhausted).unwrap();
        // 3 / 0.25 = 12 visits: 3 of the first, 9 of the second.
        let epoch = mixture.epoch(1, 4);
        assert_eq!(epoch.iter().filter(|&&example| [0, 2].contains(&example)).count(), 9);
        assert_eq!(epoch.len(), 12);
    }

    proptest! {
        #[test]
        fn visits_have_numbers_of_their_own(seed: u64, epoch in 0u64..1000, a in 1usize..20, b in 1usize..20, w in 0.05f64..20.0, all: bool) {
            let end = if all { EpochEnd::AllExhausted } else { EpochEnd::FirstExhausted };
            let mixture = mixture(&[a, b], &[w, 1.0], end);
            let mut order = mixture.order(seed, epoch);
            prop_assert_eq!(&order, &mixture.order(seed, epoch));
            prop_assert_eq!(order.len(), mixture.visits());
            let of_first = order.iter().filter(|&&number| mixture.example(number) < a).count();
            let shares: Vec<_> = mixture.shares().collect();
            prop_assert_eq!(of_first, shares[0].1);
            prop_assert!(all || shares.iter().all(|(examples, visits)| visits <= examples));
            prop_assert!(!all || shares.iter().all(|(examples, visits)| visits >= examples));
            prop_assert!(order.iter().all(|&number| number < mixture.numbers));
            order.sort_unstable();
            order.dedup();
            prop_assert_eq!(order.len(), mixture.visits());
        }
    }
}
