//! Direct Reward Optimization as a task of the engine.

use burn::tensor::{Int, Tensor, TensorData};
use setpoint_align::{
    Aggregate, DroBatch, DroSettings, Metrics, PromptIndex, PromptTerm, ResponsePoint, constant_like, dro, weighted_sum,
};
use setpoint_train::{
    BatchContext, Error, Forward, PromptLogps, ResponseValues, Sequence, Task, sequence_logps, shared_tokens,
};
use setpoint_transformer::CausalLm;

use super::{ScoredPrompt, metric_sums, record_entropy};

/// Prompts with rewarded responses, and the objective's settings.
#[derive(Debug)]
pub struct DroTask {
    /// The data.
    pub prompts: Vec<ScoredPrompt>,
    /// β, log_z0 and the rest, resolved.
    pub settings: DroSettings,
    /// How prompts of unequal numbers of responses are averaged.
    pub aggregate: Aggregate,
    /// `log Σ π_ref(y|x)·exp(r/β)` of each prompt, for `dro/infeasible_frac`.
    pub log_mass: Vec<f64>,
}

impl Task for DroTask {
    type Model = CausalLm;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        self.prompts.len()
    }

    fn weight(&self, example: usize) -> f64 {
        self.aggregate.weight(self.prompts[example].sequences.len())
    }

    fn cost(&self, example: usize) -> usize {
        shared_tokens(&self.prompts[example].sequences)
    }

    fn tokens(&self, example: usize) -> usize {
        self.prompts[example].tokens()
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<()>) -> Result<Forward, Error> {
        let prompts: Vec<&ScoredPrompt> = examples.iter().map(|&e| &self.prompts[e]).collect();
        let counts: Vec<usize> = prompts.iter().map(|p| p.sequences.len()).collect();
        let index = PromptIndex::from_counts(&counts).map_err(Error::task)?;
        let sequences: Vec<&Sequence> = prompts.iter().flat_map(|p| &p.sequences).collect();
        let scored = self.settings.prompt_term != PromptTerm::Off;
        let prompt = if scored { PromptLogps::Detached } else { PromptLogps::Skip };
        let logps = sequence_logps(model, &sequences, prompt)?;
        // D_x is the same for every response of a prompt: take it from the first.
        let firsts: Vec<i64> = counts
            .iter()
            .scan(0, |next, &count| {
                let first = *next;
                *next += count as i64;
                Some(first)
            })
            .collect();
        let firsts = TensorData::new(firsts, [prompts.len()]);
        let firsts = Tensor::<1, Int>::from_data(firsts, &logps.prompt.device());
        let prompt_logps = logps.prompt.clone().select(0, firsts); // [n] -> [p]

        let flat = |value: fn(&ScoredPrompt) -> &[f64]| -> Vec<f64> {
            prompts.iter().flat_map(|p| value(p).iter().copied()).collect()
        };
        let ref_prompt_logps: Vec<f64> = prompts.iter().map(|p| p.ref_prompt_logp).collect();
        let output = dro(
            DroBatch {
                ref_logps: constant_like(&flat(|p| &p.ref_logps), &logps.response),
                rewards: constant_like(&flat(|p| &p.rewards), &logps.response),
                ref_prompt_logps: constant_like(&ref_prompt_logps, &prompt_logps),
                logps: logps.response.clone(),
                prompt_logps,
            },
            &index,
            &self.settings,
        );
        let mut values = output.to_host(&index);
        if !scored {
            // Nothing is known of D_x.
            values.prompt_log_ratios.clear();
        }
        let weights = self.aggregate.response_weights(&index, batch.denominator);
        let loss = weighted_sum(output.errors, &weights);

        let mut metrics = Metrics::default();
        let log_masses: Vec<f64> = examples.iter().map(|&e| self.log_mass[e]).collect();
        metrics.record_dro(&values, Some(&log_masses));
        let mut per_example = Vec::with_capacity(prompts.len());
        let mut responses = ResponseValues::default();
        let mut at = 0;
        for (prompt, &example) in prompts.into_iter().zip(examples) {
            let points: Vec<ResponsePoint> = prompt
                .ref_logps
                .iter()
                .zip(&values.log_ratios[at..])
                .map(|(ref_logp, log_ratio)| {
                    ResponsePoint::with_reference(ref_logp + log_ratio, *ref_logp, self.settings.beta)
                })
                .collect();
            for (j, role) in prompt.roles.iter().enumerate() {
                let found = [("log_ratio", values.log_ratios[at + j]), ("target", values.targets[at + j])];
                responses.push(example, prompt.known(j, *role).into_iter().chain(found));
            }
            for (point, role) in points.iter().zip(&prompt.roles) {
                if let Some(role) = role {
                    metrics.record_response(*role, point);
                }
            }
            for &(w, l) in &prompt.pairs {
                metrics.record_comparison(points[w].reward, points[l].reward);
            }
            let own = &values.errors[at..at + points.len()];
            per_example.push((own.iter().sum::<f64>() / own.len() as f64) as f32);
            at += points.len();
        }
        let mut metrics = metric_sums(&metrics);
        record_entropy(&mut metrics, &logps);
        Ok(Forward { loss, metrics, per_example, responses, tape: logps.tape })
    }

    fn describe(&self, example: usize) -> String {
        self.prompts[example].name.clone()
    }
}
