//! Objectives on single rows, a prompt and one response each, as a task of the engine: KTO and QRPO.

use setpoint_align::{
    KtoSettings, Metrics, QrpoSettings, ResponsePoint, Role, constant_like, kto, kto_reference_point, qrpo,
};
use setpoint_train::{
    BatchContext, Error, Forward, MicroBatch, ResponseValues, ScoredSequence, Sequence, Task, score_sequences,
};
use setpoint_transformer::CausalLm;

use super::single::SingleResponses;
use super::{Place, ScoredPrompt, host, mean_loss, metric_sums, pass_tokens};

/// What rows are trained by.
#[derive(Debug, Clone, Copy)]
pub enum RowObjective {
    /// Rows with a role: chosen is desirable, rejected undesirable.
    Kto(KtoSettings),
    /// Rows whose reward is a quantile.
    Qrpo(QrpoSettings),
}

/// Single responses, and what they are trained by.
#[derive(Debug)]
pub struct RowTask {
    /// The data.
    pub rows: SingleResponses,
    /// The same prompts with another prompt's responses, response for response; for KTO's reference point, else empty.
    pub mismatched: Vec<ScoredPrompt>,
    /// The objective.
    pub objective: RowObjective,
}

/// The facts about a whole batch of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RowSurvey {
    /// KTO's reference point, nats; 0 for other objectives.
    pub reference_point: f64,
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
    /// The log-ratio of the row's mismatched response, nats; KTO alone asks for it.
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
        if let RowObjective::Qrpo(_) = self.objective {
            return Ok(vec![None; examples.len()]);
        }
        let rows = || examples.iter().map(|&e| self.rows.places[e]);
        let sequences: Vec<&Sequence> = rows().map(|(i, j)| &self.mismatched[i].sequences[j]).collect();
        let scored = score_sequences(model, &sequences, pass_tokens(micro_batch), &mut |_| ())?;
        let log_ratio =
            |((i, j), scored): (Place, &ScoredSequence)| Some(scored.response_logp - self.mismatched[i].ref_logps[j]);
        Ok(rows().zip(&scored).map(log_ratio).collect())
    }

    fn survey(&self, batch: &[usize], mismatched: &[Option<f64>]) -> Result<RowSurvey, Error> {
        let reference_point = match self.objective {
            RowObjective::Qrpo(_) => 0.0,
            RowObjective::Kto(_) => kto_reference_point(&mismatched.iter().flatten().copied().collect::<Vec<_>>()),
        };
        let (desirable, undesirable) = (self.count(batch, Role::Chosen), self.count(batch, Role::Rejected));
        Ok(RowSurvey { reference_point, desirable, undesirable })
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<RowSurvey>) -> Result<Forward, Error> {
        let RowSurvey { reference_point, desirable, undesirable } = batch.survey;
        let ref_logps = self.rows.each(examples, |prompt, j| prompt.ref_logps[j]);
        let found = self.rows.logps(model, examples)?;
        let logps = found.response.clone();
        let log_ratios = logps.clone() - constant_like(&ref_logps, &logps);
        // Targets are where QRPO's residual would be 0; KTO aims at no value.
        let (output, beta, targets) = match &self.objective {
            RowObjective::Kto(settings) => {
                let is_desirable: Vec<bool> =
                    examples.iter().map(|&e| self.rows.role(e) == Some(Role::Chosen)).collect();
                let output = kto(log_ratios, &is_desirable, reference_point, settings);
                (output, settings.beta, vec![f64::NAN; examples.len()])
            }
            RowObjective::Qrpo(settings) => {
                let quantiles = self.rows.each(examples, |prompt, j| prompt.rewards[j]);
                let targets = quantiles.iter().map(|q| q / settings.beta - settings.log_z()).collect();
                (qrpo(log_ratios, constant_like(&quantiles, &logps), settings), settings.beta, targets)
            }
        };

        let mut metrics = Metrics::default();
        let mut responses = ResponseValues::default();
        let mut totals = [0.0; 2];
        let logps = host(logps);
        for (i, &example) in examples.iter().enumerate() {
            let found = [("log_ratio", logps[i] - ref_logps[i]), ("target", targets[i])];
            responses.push(example, self.rows.known(example).into_iter().chain(found));
            let Some(role) = self.rows.role(example) else { continue };
            let point = ResponsePoint::with_reference(logps[i], ref_logps[i], beta);
            metrics.record_response(role, &point);
            totals[usize::from(role == Role::Rejected)] += point.reward;
        }
        let mut sums = metric_sums(&metrics);
        if desirable > 0 && undesirable > 0 {
            // trl's: the difference of the two means over the whole batch, which has no pairs.
            sums.sum("rewards/margins", totals[0] / desirable as f64 - totals[1] / undesirable as f64);
        }
        if let RowObjective::Kto(_) = self.objective {
            sums.mean("kl", reference_point * examples.len() as f64, examples.len() as f64);
        }
        Ok(mean_loss(output.losses, batch.denominator, sums, responses, found))
    }

    fn describe(&self, example: usize) -> String {
        self.rows.describe(example)
    }
}
