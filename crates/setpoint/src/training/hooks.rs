//! The work between the steps of a training: the progress bar, evaluations, samples, the model at its end.

use std::path::Path;
use std::time::{Duration, Instant};

use setpoint_align::ChosenStep;
use setpoint_train::{Error, Evaluation, Hooks, Measurement, MicroBatch, Sample, StepReport, Task, evaluate};

use super::history::Ending;
use super::tracker::Tracker;
use super::{Companions, KL, RoundSummary, history};
use crate::failure::Failure;
use crate::session::{Bar, Lines, Pace, Session};

/// Tokens, steps and time of this process.
#[derive(Default)]
pub(super) struct Speed {
    tokens: u64,
    steps: u64,
    /// Of the steps alone, without evaluations.
    seconds: f64,
}

impl Speed {
    /// Takes a step into account. Returns the tokens a second so far and the time that the steps left will take.
    fn add(&mut self, report: &StepReport) -> String {
        self.tokens += report.tokens;
        self.steps += 1;
        self.seconds += report.seconds;
        let left = report.total_steps.saturating_sub(report.step);
        let pace = Pace { amount: self.tokens as f64, left: left as f64, spent: self.steps as f64 };
        pace.text("tokens", Duration::from_secs_f64(self.seconds.max(0.0)))
    }
}

/// The hooks of [`train`](super::train).
pub(super) struct TrainingHooks<'a, T: Task> {
    pub(super) session: &'a Session,
    /// The name of the training, which the bar has.
    pub(super) what: &'a str,
    pub(super) companions: Companions<'a, T>,
    /// The micro-batch of evaluations.
    pub(super) micro_batch: MicroBatch,
    pub(super) total_steps: u64,
    /// The bar; hidden until the engine says at which step the run begins.
    pub(super) bar: Box<dyn Bar>,
    /// The lines in its place, where there is no terminal.
    pub(super) lines: Lines,
    /// The folder of the run.
    pub(super) folder: &'a Path,
    /// A warning to be given if the run is new.
    pub(super) few_steps: Option<String>,
    pub(super) speed: Speed,
    /// The tool that the metrics are copied for, once the run has begun.
    pub(super) tracker: Option<Tracker>,
    /// The metric that decides which evaluation is the best, if one does.
    pub(super) best_metric: Option<&'a str>,
    /// The reason for which the model could not be saved, with its hint.
    pub(super) failed: Option<Failure>,
}

impl<T: Task> TrainingHooks<'_, T> {
    /// Measures the model on the held-out examples, if there are any.
    fn evaluate_task(&mut self, model: &T::Model, step: u64) -> Result<Measurement, Error> {
        let Some(task) = self.companions.eval else { return Ok(Measurement::default()) };
        let (progress, host) = (step as f64 / self.total_steps as f64, &self.session.host);
        let before = self.micro_batch;
        let measured =
            evaluate(task, &self.session.devices, model, &mut self.micro_batch, progress, &|| host.should_stop())?;
        if self.micro_batch != before {
            self.warning(&before.lowered(self.micro_batch, "an evaluation"));
        }
        Ok(measured)
    }

    /// Starts the tool that the metrics are copied for, if there is one. A tool that cannot be started is a warning.
    fn start_tracker(&mut self) {
        let Some(section) = self.companions.tracker else { return };
        match Tracker::start(section, self.folder) {
            Ok(tracker) => self.tracker = Some(tracker),
            Err(warning) => self.warning(&warning),
        }
    }

    /// Tells the tool how the run ended, and waits for it to end as well.
    pub(super) fn end_tracker(&mut self, ending: Ending) {
        if let Some(warning) = self.tracker.take().and_then(|tracker| tracker.finish(ending)) {
            self.warning(&warning);
        }
    }
}

impl<T: Task> Hooks<T::Model> for TrainingHooks<'_, T> {
    fn evaluate(&mut self, model: &T::Model, step: u64) -> Result<Measurement, Error> {
        let mut measured = self.evaluate_task(model, step)?;
        if let Some(limit) = &mut self.companions.limit {
            let kl = (limit.measure)(model)?;
            let found = kl.best();
            measured.metrics.extend([
                (KL.to_owned(), found.mean),
                (format!("{KL}_std_error"), found.std_error),
                (format!("{KL}_sampled"), kl.k1.mean),
            ]);
            measured.ends = found.mean > limit.max;
        }
        Ok(measured)
    }

    fn evaluation_decides(&self) -> bool {
        self.companions.limit.is_some()
    }

    fn sample(&mut self, model: &T::Model, step: u64) -> Result<Vec<Sample>, Error> {
        match &mut self.companions.sampler {
            Some(sampler) => sampler(model, step),
            None => Ok(Vec::new()),
        }
    }

    fn begin_round(&mut self, model: &T::Model, round: u64, fresh: bool) -> Result<Vec<(String, f64)>, Error> {
        let Some(make) = &mut self.companions.maker else { return Ok(Vec::new()) };
        self.bar.message(format!("round {round}"));
        let RoundSummary { metrics, line, warnings } = make(model, round, fresh).map_err(|failure| match failure {
            Failure::Stopped { .. } => Error::Interrupted,
            failure => {
                let error = Error::task(failure.to_string());
                self.failed = Some(failure);
                error
            }
        })?;
        if fresh && !line.is_empty() && !self.session.quiet {
            self.bar.above(&mut || log::info!("{line}"));
        }
        warnings.iter().for_each(|warning| self.warning(warning));
        Ok(metrics)
    }

    fn begin(&mut self, step: u64, total_steps: u64) {
        self.bar = self.session.bar(self.what, step, total_steps);
        self.lines = Lines::from(Instant::now());
        // Those of the preparation.
        history::append_warnings(self.folder, self.session.host.as_ref());
        if let Some(warning) = self.few_steps.take().filter(|_| step == 0) {
            self.warning(&warning);
        }
        // `metrics.jsonl` holds what the checkpoint vouches for, and no more.
        self.start_tracker();
    }

    fn save_model(&mut self, model: &T::Model, _step: u64) -> Result<(), Error> {
        let Some(save) = &mut self.companions.saver else { return Ok(()) };
        save(model).map_err(|failure| {
            let error = Error::task(failure.to_string());
            self.failed = Some(failure);
            error
        })
    }

    fn should_stop(&mut self) -> bool {
        self.session.host.should_stop()
    }

    fn progress(&mut self, report: &StepReport) {
        if let Some(warning) = self.tracker.as_mut().and_then(Tracker::take_warning) {
            self.warning(&warning);
        }
        let speed = self.speed.add(report);
        self.bar.reach(report.step);
        let text = format!("loss {:.4}, {speed}", report.loss);
        if self.bar.is_hidden() && !self.session.quiet && self.lines.are_due(Instant::now()) {
            log::info!("{}: step {} of {}, {text}", self.what, report.step, report.total_steps);
        }
        self.bar.message(text);
        let chosen = report.metrics.iter().find(|(name, _)| name == "logratios/chosen");
        if let (Some(detector), Some((_, log_ratio))) = (&mut self.companions.displacement, chosen) {
            let step = ChosenStep { step: report.step, log_ratio: *log_ratio, tokens: self.companions.chosen_tokens };
            if let Some(warning) = detector.observe(step) {
                self.warning(&warning.to_string());
            }
        }
        if let Some(warning) = self.companions.step_guard.as_mut().and_then(|guard| guard(report)) {
            self.warning(&warning);
        }
    }

    fn evaluated(&mut self, evaluation: &Evaluation) {
        let metrics = main_metrics(&evaluation.metrics, self.best_metric);
        if !metrics.is_empty() && !self.session.quiet {
            let best = if evaluation.best { " (best)" } else { "" };
            self.bar.above(&mut || log::info!("step {}{best}: {metrics}", evaluation.step));
        }
    }

    fn warning(&mut self, message: &str) {
        self.bar.above(&mut || log::warn!("{message}"));
        history::append_warnings(self.folder, self.session.host.as_ref());
    }
}

/// Returns the metrics of an evaluation that fit one line of a terminal: the loss, the metric that decides which evaluation is the best,
/// and the accuracy. `metrics.jsonl` has all of them.
fn main_metrics(metrics: &[(String, f64)], best: Option<&str>) -> String {
    /// Nats below which log-ratios are rounding, as before the first step.
    const ROUNDING: f64 = 1e-3;
    // Where no log-ratio differs from zero, rounding decides which of two responses comes first.
    let log_ratio = |name: &str| metrics.iter().find(|(other, _)| other == name).map(|(_, value)| value.abs());
    let sides = ["eval_logratios/chosen", "eval_logratios/rejected"].map(log_ratio);
    let is_reference = sides.iter().all(|side| side.is_some_and(|nats| nats < ROUNDING));
    let is_main = |name: &str| {
        let is_accuracy = matches!(name.rsplit(['/', '_']).next(), Some("accuracy" | "accuracies"));
        name == "eval_loss" || Some(name) == best || is_accuracy && !is_reference
    };
    let main = metrics.iter().filter(|(name, _)| is_main(name)).map(|(name, value)| format!("{name} {value:.4}"));
    main.collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_that_of_this_process() {
        let step = |step, tokens, num_tokens, seconds| StepReport {
            step,
            total_steps: 9,
            epoch: 0.0,
            loss: 0.0,
            grad_norm: 0.0,
            learning_rate: 0.0,
            tokens,
            num_tokens,
            micro_batches: 1,
            seconds,
            metrics: vec![],
        };
        // A million tokens were trained on before the run was resumed.
        let mut speed = Speed::default();
        assert_eq!(speed.add(&step(7, 100, 1_000_100, 0.5)), "200 tokens/s, 1.0 s left");
        assert_eq!(speed.add(&step(8, 300, 1_000_400, 0.5)), "400 tokens/s, 0.5 s left");
    }

    #[test]
    fn an_evaluation_takes_one_line() {
        let metrics = [
            ("eval_loss", 0.5),
            ("eval_rewards/accuracies", 0.75),
            ("eval_rewards/margins", 1.25),
            ("eval_logps/chosen", -90.0),
            ("eval_kl", 2.0),
        ];
        let metrics = metrics.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(main_metrics(&metrics, None), "eval_loss 0.5000  eval_rewards/accuracies 0.7500");
        let with_best = main_metrics(&metrics, Some("eval_kl"));
        assert_eq!(with_best, "eval_loss 0.5000  eval_rewards/accuracies 0.7500  eval_kl 2.0000");
        assert_eq!(main_metrics(&metrics[2..4], None), "");
        // Before the first step, the accuracy is chance.
        let log_ratios = |chosen: f64| {
            let names = ["eval_loss", "eval_rewards/accuracies", "eval_logratios/chosen", "eval_logratios/rejected"];
            let values = [0.7031, 0.225, chosen, 2e-6];
            names.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value)).collect::<Vec<_>>()
        };
        assert_eq!(main_metrics(&log_ratios(-1e-6), None), "eval_loss 0.7031");
        assert!(main_metrics(&log_ratios(0.02), None).ends_with("eval_rewards/accuracies 0.2250"));
    }
}
