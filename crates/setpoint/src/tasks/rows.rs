//! Any objective on single rows, a prompt and one response each, as a task of the engine.

use std::sync::Arc;

use setpoint_align::{Baseline, Metrics, ResponsePoint, Role, RowBatch, RowObjective, constant_like};
use setpoint_train::{
    BatchContext, Error, Forward, MicroBatch, ResponseValues, ScoredSequence, Sequence, Task, score_sequences,
};
use setpoint_transformer::CausalLm;

use super::single::SingleResponses;
use super::stages::{RowPrompt, WithReference};
use super::{Place, host, mean_loss, metric_sums, pass_tokens};

/// Single responses, and the objective that they are trained by.
#[derive(Debug)]
pub struct RowTask {
    /// The data.
    pub rows: SingleResponses,
    /// The same prompts with another prompt's responses, response for response, for objectives with a baseline.
    pub mismatched: Option<Vec<WithReference<RowPrompt>>>,
    /// The objective.
    pub objective: Arc<dyn RowObjective>,
}

/// The facts about a whole batch of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RowSurvey {
    /// The objective's baseline, nats; 0 for objectives without one.
    pub baseline: f64,
    /// Number of desirable rows.
    pub desirable: usize,
    /// Number of undesirable rows.
    pub undesirable: usize,
}

impl RowTask {
    /// Counts the batch's rows on a side.
    fn count(&self, batch: &[usize], side: Role) -> usize {
        batch.iter().filter(|&&e| self.rows.role(e) == Some(side)).count()
    }
}

impl Task for RowTask {
    type Model = CausalLm;
    /// The log-ratio of the row's mismatched response, nats, for objectives with a baseline.
    type Probe = Option<f64>;
    type Survey = RowSurvey;

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn weight(&self, _example: usize) -> f64 {
        1.0
    }

    fn cost(&self, example: usize) -> usize {
        self.rows.sequence(example).ids.len()
    }

    fn probe(&self, model: &CausalLm, examples: &[usize], micro_batch: MicroBatch) -> Result<Vec<Option<f64>>, Error> {
        let Some(mismatched) = &self.mismatched else { return Ok(vec![None; examples.len()]) };
        let rows = || examples.iter().map(|&e| self.rows.places[e]);
        let sequences: Vec<&Sequence> = rows().map(|(i, j)| &mismatched[i].prompt.sequences[j]).collect();
        let scored = score_sequences(model, &sequences, pass_tokens(micro_batch), &mut |_| ())?;
        let log_ratio =
            |((i, j), scored): (Place, &ScoredSequence)| Some(scored.response_logp - mismatched[i].ref_logps[j]);
        Ok(rows().zip(&scored).map(log_ratio).collect())
    }

    fn survey(&self, batch: &[usize], mismatched: &[Option<f64>]) -> Result<RowSurvey, Error> {
        let log_ratios = || mismatched.iter().flatten().copied().collect::<Vec<_>>();
        let baseline = self.objective.baseline().map_or(0.0, |baseline| (baseline.of)(&log_ratios()));
        let (desirable, undesirable) = (self.count(batch, Role::Chosen), self.count(batch, Role::Rejected));
        Ok(RowSurvey { baseline, desirable, undesirable })
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<RowSurvey>) -> Result<Forward, Error> {
        let RowSurvey { baseline, desirable, undesirable } = batch.survey;
        let ref_logps: Vec<f64> = examples.iter().map(|&e| self.rows.ref_logp(e)).collect();
        let found = self.rows.logps(model, examples)?;
        let logps = found.response.clone();
        let log_ratios = logps.clone() - constant_like(&ref_logps, &logps);
        let rewards: Vec<f64> = examples.iter().map(|&e| self.rows.reward(e).unwrap_or(f64::NAN)).collect();
        let targets: Vec<f64> = rewards.iter().map(|&reward| self.objective.target(reward)).collect();
        let output = self.objective.losses(&RowBatch {
            log_ratios,
            rewards,
            desirable: examples.iter().map(|&e| self.rows.role(e) == Some(Role::Chosen)).collect(),
            baseline,
        });

        let mut metrics = Metrics::default();
        let mut responses = ResponseValues::default();
        let mut totals = [0.0; 2];
        let logps = host(logps);
        for (i, &example) in examples.iter().enumerate() {
            let found = [("log_ratio", logps[i] - ref_logps[i]), ("target", targets[i])];
            responses.push(example, self.rows.logged(example).into_iter().chain(found));
            let Some(role) = self.rows.role(example) else { continue };
            let point = ResponsePoint::with_reference(logps[i], ref_logps[i], self.objective.beta());
            metrics.record_response(role, &point);
            totals[usize::from(role == Role::Rejected)] += point.reward;
        }
        let mut sums = metric_sums(&metrics);
        if desirable > 0 && undesirable > 0 {
            // trl's: the difference of the two means over the whole batch, which has no pairs.
            sums.sum("rewards/margins", totals[0] / desirable as f64 - totals[1] / undesirable as f64);
        }
        if let Some(Baseline { name, .. }) = self.objective.baseline() {
            sums.mean(name, baseline * examples.len() as f64, examples.len() as f64);
        }
        Ok(mean_loss(output.losses, batch.denominator, sums, responses, found))
    }

    fn describe(&self, example: usize) -> String {
        self.rows.describe(example)
    }
}
