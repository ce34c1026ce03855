//! Evaluations and samples of a run.

use burn::module::Module;

use super::Trainer;
use crate::hooks::{Evaluation, Hooks, Measurement};
use crate::{Error, Task};

impl<T: Task> Trainer<'_, T> {
    /// Evaluates if that is pending, and tells whether the model is the best so far.
    ///
    /// # Errors
    /// When the evaluation fails and decides something.
    pub(super) fn evaluate(&mut self, model: &T::Model, hooks: &mut dyn Hooks<T::Model>) -> Result<bool, Error> {
        if !self.state.pending.evaluation {
            return Ok(false);
        }
        let step = self.state.step;
        let decides = (self.config.best.is_some() || hooks.evaluation_decides()) && step < self.plan.total_steps;
        let best = match self.measure(model, hooks) {
            Err(error) if !decides && !matches!(error, Error::Interrupted) => {
                hooks.warning(&format!("the evaluation after step {step} failed and is left out: {error}"));
                false
            }
            measured => measured?,
        };
        self.state.pending.evaluation = false;
        // Known only now: a run that ends here takes its last samples.
        self.state.pending.samples |= self.out_of_patience() || self.state.ended;
        self.unsaved = true;
        Ok(best)
    }

    fn measure(&mut self, model: &T::Model, hooks: &mut dyn Hooks<T::Model>) -> Result<bool, Error> {
        let step = self.state.step;
        let Measurement { metrics, responses, ends } = hooks.evaluate(&model.valid(), step)?;
        let first = self.state.last_evaluation.is_empty();
        let value = |metric: &str| metrics.iter().find(|(name, _)| name == metric).map(|&(_, value)| value);
        let decisive = match &self.config.best {
            None => None,
            Some(config) => Some((
                config,
                value(&config.metric).ok_or_else(|| Error::Metric {
                    step,
                    metric: config.metric.clone(),
                    measured: metrics.iter().map(|(name, _)| name.clone()).collect(),
                })?,
            )),
        };
        if !metrics.is_empty() {
            self.logs.evaluation(step, self.epoch(), &metrics);
        }
        self.state.last_evaluation = Default::default();
        for (name, value) in &metrics {
            self.state.last_evaluation.sum(name, *value);
        }
        self.state.ended |= ends;
        let best = decisive.is_some_and(|(config, value)| self.state.judge(config, value));
        let last = step == self.plan.total_steps || self.out_of_patience() || self.state.ended;
        if self.config.logs_evaluation(first, last) {
            self.logs.responses("eval", step, self.epoch(), &responses);
        }
        hooks.evaluated(&Evaluation { step, metrics, best });
        Ok(best)
    }

    /// Takes samples if that is pending.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(super) fn sample(&mut self, model: &T::Model, hooks: &mut dyn Hooks<T::Model>) -> Result<(), Error> {
        if !self.state.pending.samples {
            return Ok(());
        }
        let step = self.state.step;
        match hooks.sample(&model.valid(), step) {
            Ok(samples) => self.logs.samples(step, &samples),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => hooks.warning(&format!("there are no samples of step {step}: {error}")),
        }
        self.state.pending.samples = false;
        self.unsaved = true;
        Ok(())
    }
}
