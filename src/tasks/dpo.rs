//! Direct Preference Optimization as a task of the engine.

use setpoint_align::{DpoSettings, Metrics, Pair, ResponsePoint, constant_like, dpo, weighted_sum};
use setpoint_train::{Error, Forward, HeadOptions, PromptLogps, Sequence, Task, sequence_logps_with, shared_tokens};
use setpoint_transformer::CausalLm;

use super::{ScoredPrompt, metric_sums};

/// Prompts with a chosen and a rejected response each, and the objective's settings.
#[derive(Debug)]
pub struct DpoTask {
    /// The data.
    pub prompts: Vec<ScoredPrompt>,
    /// `(prompt, chosen response, rejected response)`.
    pub pairs: Vec<(usize, usize, usize)>,
    /// β and label smoothing.
    pub settings: DpoSettings,
}

impl Task for DpoTask {
    type Model = CausalLm;

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn weight(&self, _example: usize) -> f64 {
        1.0
    }

    fn cost(&self, example: usize) -> usize {
        let (prompt, chosen, rejected) = self.pairs[example];
        let sequences = &self.prompts[prompt].sequences;
        shared_tokens(&[&sequences[chosen], &sequences[rejected]])
    }

    fn tokens(&self, example: usize) -> usize {
        let (prompt, chosen, rejected) = self.pairs[example];
        let sequences = &self.prompts[prompt].sequences;
        sequences[chosen].ids.len() + sequences[rejected].ids.len()
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], denominator: f64) -> Result<Forward, Error> {
        // Chosen and rejected of a pair stand side by side.
        let sides: Vec<(&ScoredPrompt, usize)> = examples
            .iter()
            .flat_map(|&e| {
                let (prompt, chosen, rejected) = self.pairs[e];
                [(&self.prompts[prompt], chosen), (&self.prompts[prompt], rejected)]
            })
            .collect();
        let sequences: Vec<&Sequence> = sides.iter().map(|&(prompt, side)| &prompt.sequences[side]).collect();
        let ref_logps: Vec<f64> = sides.iter().map(|&(prompt, side)| prompt.ref_logps[side]).collect();
        let found = sequence_logps_with(model, &sequences, PromptLogps::Skip, &HeadOptions::default())?;
        let logps = found.response;
        let log_ratios = logps.clone() - constant_like(&ref_logps, &logps);
        let pairs: Vec<(usize, usize)> = (0..examples.len()).map(|i| (2 * i, 2 * i + 1)).collect();
        let output = dpo(Pair::gather(log_ratios, &pairs), &self.settings);
        let loss = weighted_sum(output.losses.clone(), &vec![1.0 / denominator; examples.len()]);

        let logps: Vec<f64> = logps.into_data().iter::<f64>().collect();
        let mut metrics = Metrics::default();
        for &(w, l) in &pairs {
            let point = |i: usize| ResponsePoint::with_reference(logps[i], ref_logps[i], self.settings.beta);
            metrics.record_pair(&point(w), &point(l));
        }
        let per_example = output.losses.into_data().iter::<f32>().collect();
        Ok(Forward { loss, metrics: metric_sums(&metrics), per_example, tape: found.tape })
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        setpoint_data::Order::new(seed).epoch(epoch, self.len())
    }

    fn describe(&self, example: usize) -> String {
        self.prompts[self.pairs[example].0].name.clone()
    }
}
