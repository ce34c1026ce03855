//! Objectives on single rows, a prompt and one response each, as a task of the engine: KTO and QRPO.

use setpoint_align::{
    KtoSettings, Metrics, QrpoSettings, ResponsePoint, Role, constant_like, kto, kto_reference_point, qrpo,
};
use setpoint_train::{
    Error, ExampleNumbers, Forward, MicroBatch, ResponseValues, ScoredSequence, Sequence, Survey, Task, score_sequences,
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

impl RowTask {
    /// The batch's rows on a side.
    fn count(&self, batch: &[usize], side: Role) -> f64 {
        batch.iter().filter(|&&e| self.rows.role(e) == Some(side)).count() as f64
    }
}

impl Task for RowTask {
    type Model = CausalLm;

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn weight(&self, _example: usize) -> f64 {
        1.0
    }

    fn cost(&self, example: usize) -> usize {
        self.rows.sequence(example).ids.len()
    }

    /// KTO's log-ratios of mismatched responses.
    fn probe(&self, model: &CausalLm, examples: &[usize], micro_batch: MicroBatch) -> Result<ExampleNumbers, Error> {
        if let RowObjective::Qrpo(_) = self.objective {
            return Ok(ExampleNumbers::new());
        }
        let rows = || examples.iter().map(|&e| self.rows.places[e]);
        let sequences: Vec<&Sequence> = rows().map(|(i, j)| &self.mismatched[i].sequences[j]).collect();
        let scored = score_sequences(model, &sequences, pass_tokens(micro_batch), &mut |_| ())?;
        let log_ratio =
            |((i, j), scored): (Place, &ScoredSequence)| vec![scored.response_logp - self.mismatched[i].ref_logps[j]];
        Ok(examples.iter().copied().zip(rows().zip(&scored).map(log_ratio)).collect())
    }

    /// KTO's reference point, and the numbers of desirable and undesirable rows.
    fn survey(&self, batch: &[usize], probed: &ExampleNumbers) -> Result<Survey, Error> {
        let reference_point = match self.objective {
            RowObjective::Qrpo(_) => 0.0,
            RowObjective::Kto(_) => kto_reference_point(&batch.iter().map(|e| probed[e][0]).collect::<Vec<_>>()),
        };
        let counts = [Role::Chosen, Role::Rejected].map(|side| self.count(batch, side));
        Ok(Survey { batch: vec![reference_point, counts[0], counts[1]], ..Survey::default() })
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], denominator: f64) -> Result<Forward, Error> {
        let probed = self.probe(model, examples, MicroBatch::Examples(examples.len()))?;
        let survey = self.survey(examples, &probed)?;
        self.forward_surveyed(model, examples, denominator, &survey)
    }

    fn forward_surveyed(
        &self,
        model: &CausalLm,
        examples: &[usize],
        denominator: f64,
        survey: &Survey,
    ) -> Result<Forward, Error> {
        let ref_logps = self.rows.each(examples, |prompt, j| prompt.ref_logps[j]);
        let found = self.rows.logps(model, examples)?;
        let logps = found.response.clone();
        let log_ratios = logps.clone() - constant_like(&ref_logps, &logps);
        // Targets are where QRPO's residual would be 0; KTO aims at no value.
        let (output, beta, targets) = match &self.objective {
            RowObjective::Kto(settings) => {
                let desirable: Vec<bool> = examples.iter().map(|&e| self.rows.role(e) == Some(Role::Chosen)).collect();
                let output = kto(log_ratios, &desirable, survey.batch[0], settings);
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
        let [desirable, undesirable] = [survey.batch[1], survey.batch[2]];
        if desirable > 0.0 && undesirable > 0.0 {
            // trl's: the difference of the two means over the whole batch, which has no pairs.
            sums.sum("rewards/margins", totals[0] / desirable - totals[1] / undesirable);
        }
        if let RowObjective::Kto(_) = self.objective {
            sums.mean("kl", survey.batch[0] * examples.len() as f64, examples.len() as f64);
        }
        Ok(mean_loss(output.losses, denominator, sums, responses, found))
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        setpoint_data::Order::new(seed).epoch(epoch, self.len())
    }

    fn describe(&self, example: usize) -> String {
        self.rows.describe(example)
    }
}
