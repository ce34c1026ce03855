//! Any objective on single rows, a prompt and one response each, as a task of the engine.

use std::sync::Arc;

use setpoint_align::{Baseline, Metrics, ResponsePoint, Role, RowBatch, RowObjective, constant_like};
use setpoint_train::{
    BatchContext, Error, Forward, MicroBatch, OnDemand, ResponseValues, Sequence, Task, Unread, score_sequences,
};
use setpoint_transformer::CausalLm;

use super::single::{self, Single, SingleResponses};
use super::stages::{RowPrompt, WithReference};
use super::{mean_loss, metric_sums, pass_tokens};

/// Single responses, and the objective that they are trained by.
#[derive(Debug)]
pub struct RowTask {
    /// The data.
    pub rows: SingleResponses,
    /// The same prompts with another prompt's responses, response for response, for objectives with a baseline.
    pub mismatched: Option<OnDemand<WithReference<RowPrompt>>>,
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
        self.rows.tokens(example).0
    }

    fn probe(&self, model: &CausalLm, examples: &[usize], micro_batch: MicroBatch) -> Result<Vec<Option<f64>>, Error> {
        let Some(mismatched) = &self.mismatched else { return Ok(vec![None; examples.len()]) };
        let other = |&example: &usize| {
            let (prompt, response) = self.rows.place(example);
            let prompt = mismatched.get(prompt)?;
            Ok((prompt.prompt.sequences[response].clone(), prompt.ref_logps[response]))
        };
        let (sequences, ref_logps): (Vec<Sequence>, Vec<f64>) =
            examples.iter().map(other).collect::<Result<Vec<_>, Error>>()?.into_iter().unzip();
        let scored = score_sequences(model, &sequences, pass_tokens(micro_batch), &mut |_| ())?;
        Ok(scored.iter().zip(ref_logps).map(|(scored, ref_logp)| Some(scored.response_logp - ref_logp)).collect())
    }

    fn survey(&self, batch: &[usize], mismatched: &[Option<f64>]) -> Result<RowSurvey, Error> {
        let log_ratios = || mismatched.iter().flatten().copied().collect::<Vec<_>>();
        let baseline = self.objective.baseline().map_or(0.0, |baseline| (baseline.of)(&log_ratios()));
        let rows = self.rows.read(batch)?;
        let count = |side| rows.iter().filter(|row| row.role() == Some(side)).count();
        let (desirable, undesirable) = (count(Role::Chosen), count(Role::Rejected));
        Ok(RowSurvey { baseline, desirable, undesirable })
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<RowSurvey>) -> Result<Forward, Error> {
        let RowSurvey { baseline, desirable, undesirable } = batch.survey;
        let rows = self.rows.read(examples)?;
        let ref_logps: Vec<f64> = rows.iter().map(Single::ref_logp).collect();
        let found = single::logps(model, &rows)?;
        let logps = found.response.clone();
        let log_ratios = logps.clone() - constant_like(&ref_logps, &logps);
        let rewards: Vec<f64> = rows.iter().map(|row| row.reward().unwrap_or(f64::NAN)).collect();
        let targets: Vec<f64> = rewards.iter().map(|&reward| self.objective.target(reward)).collect();
        let output = self.objective.losses(&RowBatch {
            log_ratios,
            rewards,
            desirable: rows.iter().map(|row| row.role() == Some(Role::Chosen)).collect(),
            baseline,
        });

        let (examples, objective) = (examples.to_vec(), self.objective.clone());
        let logged = Unread::of(logps).map(move |logps| {
            let mut metrics = Metrics::default();
            let mut responses = ResponseValues::default();
            let mut totals = [0.0; 2];
            for (i, (&example, row)) in examples.iter().zip(&rows).enumerate() {
                let found = [("log_ratio", logps[i] - ref_logps[i]), ("target", targets[i])];
                responses.push(example, row.logged().into_iter().chain(found));
                let Some(role) = row.role() else { continue };
                let point = ResponsePoint::with_reference(logps[i], ref_logps[i], objective.beta());
                metrics.record_response(role, &point);
                totals[usize::from(role == Role::Rejected)] += point.reward;
            }
            let mut sums = metric_sums(&metrics);
            if desirable > 0 && undesirable > 0 {
                // trl's: the difference of the two means over the whole batch, which has no pairs.
                sums.sum("rewards/margins", totals[0] / desirable as f64 - totals[1] / undesirable as f64);
            }
            if let Some(Baseline { name, .. }) = objective.baseline() {
                sums.mean(name, baseline * examples.len() as f64, examples.len() as f64);
            }
            (sums, responses)
        });
        Ok(mean_loss(output.losses, batch.denominator, logged, found))
    }

    fn describe(&self, example: usize) -> String {
        self.rows.describe(example)
    }
}
