//! What a training does between its steps: the progress bar, evaluations, samples, the model at its end.

use indicatif::ProgressBar;
use setpoint_align::ChosenStep;
use setpoint_train::{
    DeviceGroup, Error, Evaluation, ExampleNumbers, Hooks, Measurement, MetricSums, MicroBatch, ResponseValues, Sample,
    StepReport, Survey, Task, distribute,
};

use super::Companions;
use crate::failure::Failure;
use crate::{interrupt, progress};

/// Tokens and time of the steps of this process.
#[derive(Default)]
pub(super) struct Speed {
    tokens: u64,
    seconds: f64,
}

impl Speed {
    /// Takes a step into account. Returns the tokens a second so far.
    fn add(&mut self, report: &StepReport) -> f64 {
        self.tokens += report.tokens;
        self.seconds += report.seconds;
        self.tokens as f64 / self.seconds.max(1e-3)
    }
}

/// The hooks of [`train`](super::train).
pub(super) struct TrainingHooks<'a, T: Task> {
    pub(super) devices: &'a DeviceGroup,
    pub(super) companions: Companions<'a, T>,
    pub(super) micro_batch: MicroBatch,
    pub(super) total_steps: u64,
    pub(super) bar: ProgressBar,
    /// A warning to be given if the run is new.
    pub(super) few_steps: Option<String>,
    pub(super) speed: Speed,
    /// Why the model could not be saved, with its hint.
    pub(super) failed: Option<Failure>,
}

impl<T: Task> Hooks<T::Model> for TrainingHooks<'_, T> {
    fn evaluate(&mut self, model: &T::Model, step: u64) -> Result<Measurement, Error> {
        match self.companions.eval {
            Some(task) => evaluate(task, self.devices, model, self.micro_batch, step as f64 / self.total_steps as f64),
            None => Ok(Measurement::default()),
        }
    }

    fn sample(&mut self, model: &T::Model, step: u64) -> Result<Vec<Sample>, Error> {
        match &mut self.companions.sampler {
            Some(sampler) => sampler(model, step),
            None => Ok(Vec::new()),
        }
    }

    fn begin(&mut self, step: u64, _total_steps: u64) {
        self.bar.set_position(step);
        // Steps of an earlier process say nothing of the time that is left.
        self.bar.reset_eta();
        if let Some(warning) = self.few_steps.take().filter(|_| step == 0) {
            self.warning(&warning);
        }
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
        interrupt::requested()
    }

    fn progress(&mut self, report: &StepReport) {
        let speed = self.speed.add(report);
        self.bar.set_position(report.step);
        self.bar.set_message(format!(
            "loss {:.4}  |grad| {:.2}  lr {:.1e}  {speed:.0} tokens/s",
            report.loss, report.grad_norm, report.learning_rate,
        ));
        let chosen = report.metrics.iter().find(|(name, _)| name == "logratios/chosen");
        if let (Some(detector), Some((_, log_ratio))) = (&mut self.companions.displacement, chosen) {
            let step = ChosenStep { step: report.step, log_ratio: *log_ratio, tokens: self.companions.chosen_tokens };
            if let Some(warning) = detector.observe(step) {
                self.bar.suspend(|| progress::note(format!("warning: {warning}")));
            }
        }
    }

    fn evaluated(&mut self, evaluation: &Evaluation) {
        let metrics: Vec<String> =
            evaluation.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        if !metrics.is_empty() && !self.bar.is_hidden() {
            let best = if evaluation.best { " (best)" } else { "" };
            self.bar.suspend(|| progress::note(format!("step {}{best}: {}", evaluation.step, metrics.join("  "))));
        }
    }

    fn warning(&mut self, message: &str) {
        self.bar.suspend(|| progress::note(format!("warning: {message}")));
    }
}

/// Loss and metrics of a task over all its examples, without a graph, under names with `eval_` before them; and the numbers of its responses.
/// `model` is on the first of the devices. `progress`: the share of the training that is done.
fn evaluate<T: Task>(
    task: &T,
    devices: &DeviceGroup,
    model: &T::Model,
    micro_batch: MicroBatch,
    progress: f64,
) -> Result<Measurement, Error> {
    let all: Vec<usize> = (0..task.len()).collect();
    let denominator: f64 = all.iter().map(|&e| task.weight(e)).sum();
    let micro_batches: Vec<_> = micro_batch.split(&all, |e| task.cost(e)).into_iter().enumerate().collect();
    let mut probed = ExampleNumbers::new();
    let probe = |model: &T::Model, (_, micro): &(usize, Vec<usize>)| {
        go_on()?;
        task.probe(model, micro, micro_batch)
    };
    distribute(devices, model, &micro_batches, probe, &mut |_, found| {
        probed.extend(found);
        Ok::<_, Error>(())
    })?;
    let survey = Survey { progress, ..task.survey(&all, &probed)? };
    let mut parts: Vec<_> = micro_batches.iter().map(|_| None).collect();
    let compute = |model: &T::Model, (_, micro): &(usize, Vec<usize>)| {
        go_on()?;
        let forward = task.forward_surveyed(model, micro, denominator, &survey)?;
        Ok((f64::from(forward.loss.into_scalar::<f32>()), forward.metrics, forward.responses))
    };
    distribute(devices, model, &micro_batches, compute, &mut |&(at, _), part| {
        parts[at] = Some(part);
        Ok::<_, Error>(())
    })?;
    // In their order, whichever device was first: another order of the sums would have other last digits.
    let mut loss = 0.0;
    let mut metrics = MetricSums::new();
    let mut responses = ResponseValues::default();
    for (part, own, values) in parts.into_iter().flatten() {
        loss += part;
        metrics.merge(&own);
        responses.append(values);
    }
    let mut values = vec![("eval_loss".to_owned(), loss)];
    values.extend(metrics.values().into_iter().map(|(name, value)| (format!("eval_{name}"), value)));
    Ok(Measurement { metrics: values, responses })
}

/// Fails if a stop is asked for.
fn go_on() -> Result<(), Error> {
    if interrupt::requested() { Err(Error::Interrupted) } else { Ok(()) }
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
        assert_eq!(speed.add(&step(7, 100, 1_000_100, 0.5)), 200.0);
        assert_eq!(speed.add(&step(8, 300, 1_000_400, 0.5)), 400.0);
    }
}
