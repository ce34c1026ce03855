//! A task whose examples are made anew at the beginning of each round.

use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock};

use setpoint_train::{BatchContext, Error, Forward, MicroBatch, Task};

/// The task of the present round: any other task, which is replaced when the next round begins.
///
/// It has as many examples as the fullest round can have. Where the present one has fewer, the rest weigh nothing and come last in every
/// order, so the batches of a full round are those of the task that it holds.
#[derive(Debug)]
pub struct Rolling<T> {
    examples: usize,
    passes: NonZeroU64,
    current: RwLock<Option<Arc<T>>>,
}

impl<T> Rolling<T> {
    /// Creates a task of at most `examples` examples in a round, each of which is visited `passes` times. There is no round yet.
    pub fn new(examples: usize, passes: NonZeroU64) -> Self {
        Self { examples, passes, current: RwLock::new(None) }
    }

    /// Replaces the round. `None`: it has no examples.
    pub fn replace(&self, task: Option<T>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = task.map(Arc::new);
    }

    /// Returns the task of the present round.
    fn current(&self) -> Option<Arc<T>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T: Task> Rolling<T> {
    /// Returns the task of the present round, if it has this example.
    fn holding(&self, example: usize) -> Option<Arc<T>> {
        self.current().filter(|task| example < task.len())
    }

    /// Returns the task that is asked about examples that it has.
    ///
    /// # Errors
    /// When there is none: examples of no weight are never computed.
    fn asked(&self) -> Result<Arc<T>, Error> {
        self.current().ok_or_else(|| Error::task("a step was computed before its round began"))
    }
}

impl<T: Task + Send> Task for Rolling<T> {
    type Model = T::Model;
    type Probe = T::Probe;
    type Survey = T::Survey;

    fn len(&self) -> usize {
        self.examples
    }

    fn weight(&self, example: usize) -> f64 {
        self.holding(example).map_or(0.0, |task| task.weight(example))
    }

    fn cost(&self, example: usize) -> usize {
        self.holding(example).map_or(0, |task| task.cost(example))
    }

    fn tokens(&self, example: usize) -> usize {
        self.holding(example).map_or(0, |task| task.tokens(example))
    }

    fn probe(&self, model: &T::Model, examples: &[usize], micro_batch: MicroBatch) -> Result<Vec<T::Probe>, Error> {
        self.asked()?.probe(model, examples, micro_batch)
    }

    fn survey(&self, batch: &[usize], probes: &[T::Probe]) -> Result<T::Survey, Error> {
        self.asked()?.survey(batch, probes)
    }

    fn forward(&self, model: &T::Model, examples: &[usize], batch: &BatchContext<T::Survey>) -> Result<Forward, Error> {
        self.asked()?.forward(model, examples, batch)
    }

    fn decoder(&self) -> &'static str {
        // Asked of a forward pass, which only a round has.
        self.current().map_or("model", |task| task.decoder())
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        let mut order = self.current().map_or_else(Vec::new, |task| task.order(seed, epoch));
        order.extend(order.len()..self.examples);
        order
    }

    fn passes_per_round(&self) -> Option<NonZeroU64> {
        Some(self.passes)
    }

    fn describe(&self, example: usize) -> String {
        self.holding(example).map_or_else(|| format!("example {example}"), |task| task.describe(example))
    }
}

#[cfg(test)]
mod tests {
    use setpoint_transformer::CausalLm;

    use super::*;

    /// A task that only knows its size.
    struct Counted(usize);

    impl Task for Counted {
        type Model = CausalLm;
        type Probe = ();
        type Survey = ();

        fn len(&self) -> usize {
            self.0
        }

        fn weight(&self, example: usize) -> f64 {
            assert!(example < self.0);
            2.0
        }

        fn cost(&self, example: usize) -> usize {
            10 + example
        }

        fn forward(&self, _: &CausalLm, _: &[usize], _: &BatchContext<()>) -> Result<Forward, Error> {
            Err(Error::task("not computed"))
        }
    }

    #[test]
    fn a_round_with_fewer_examples_is_filled_up_with_examples_that_weigh_nothing() {
        let rolling = Rolling::new(4, NonZeroU64::MIN);
        assert_eq!((rolling.len(), rolling.weight(0), rolling.order(3, 0)), (4, 0.0, vec![0, 1, 2, 3]));
        rolling.replace(Some(Counted(2)));
        assert_eq!([0, 1, 2, 3].map(|example| rolling.weight(example)), [2.0, 2.0, 0.0, 0.0]);
        assert_eq!((rolling.cost(1), rolling.cost(2)), (11, 0));
        for epoch in 0..5 {
            let order = rolling.order(7, epoch);
            assert_eq!(order[..2], Counted(2).order(7, epoch));
            assert_eq!(order[2..], [2, 3]);
        }
        rolling.replace(None);
        assert_eq!(rolling.weight(0), 0.0);
        assert!(rolling.asked().is_err());
    }
}
