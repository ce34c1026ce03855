//! A task on language models that the tests of the engine and of the devices share.

use burn::tensor::Tensor;
use setpoint_train::{BatchContext, Error, Forward, PassNumbers, PromptLogps, Sequence, Task, Unread, sequence_logps};
use setpoint_transformer::CausalLm;

/// Sequences as examples, each with its seed as the slope of its response's log-probability.
pub struct Seeded {
    pub sequences: Vec<Sequence>,
    pub seeds: Vec<f32>,
    pub prompt: PromptLogps,
}

impl Task for Seeded {
    type Model = CausalLm;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        self.sequences.len()
    }

    fn weight(&self, _example: usize) -> f64 {
        1.0
    }

    fn cost(&self, example: usize) -> usize {
        self.sequences[example].ids.len()
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<()>) -> Result<Forward, Error> {
        let chosen: Vec<&Sequence> = examples.iter().map(|&i| &self.sequences[i]).collect();
        let found = sequence_logps(model, &chosen, self.prompt)?;
        let seeds: Vec<f32> = examples.iter().map(|&i| self.seeds[i]).collect();
        let plain = model.decoder().device().without_autodiff();
        let losses = found.response * Tensor::<1>::from_data(seeds.as_slice(), &plain).autodiff();
        let numbers = Unread::of(losses.clone()).map(|losses| PassNumbers {
            per_example: losses.into_iter().map(|loss| loss as f32).collect(),
            ..PassNumbers::default()
        });
        let loss = losses.sum().div_scalar(batch.denominator);
        Ok(Forward { loss, numbers, tape: found.tape, second_tape: None })
    }

    fn order(&self, _seed: u64, _epoch: u64) -> Vec<usize> {
        (0..self.len()).collect()
    }
}
