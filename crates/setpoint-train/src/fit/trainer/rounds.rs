//! Rounds of a run whose examples are made on the way.

use burn::module::Module;

use super::{Pending, Team, Trainer};
use crate::fit::{Fitted, StopReason, fitted};
use crate::hooks::Hooks;
use crate::{Error, Task};

impl<T: Task> Trainer<'_, T> {
    /// Has the examples of the next step's round made, unless the task has them.
    ///
    /// # Errors
    /// When the hook fails.
    pub(super) fn begin_round(&mut self, model: &T::Model, hooks: &mut dyn Hooks<T::Model>) -> Result<(), Error> {
        let Some(passes) = self.task.passes_per_round() else { return Ok(()) };
        let steps = passes.get().saturating_mul(self.plan.steps_per_epoch).max(1);
        let (round, fresh) = (self.state.step / steps, self.state.step.is_multiple_of(steps));
        if self.round == Some(round) {
            return Ok(());
        }
        let metrics = hooks.begin_round(&model.valid(), round, fresh)?;
        // The line of a round that is gone on with is in the log already.
        if fresh && !metrics.is_empty() {
            self.logs.round(self.state.step, self.epoch(), round, &metrics);
        }
        self.round = Some(round);
        Ok(())
    }

    /// Ends a run whose next round could not begin. The steps before it are saved first.
    ///
    /// # Errors
    /// The error of the round, unless it was told to stop; then that of saving.
    pub(super) fn leave(
        mut self,
        team: Team<T>,
        error: Error,
        hooks: &mut dyn Hooks<T::Model>,
    ) -> Result<Fitted<T::Model>, Error> {
        let saved = self.save(&team, hooks);
        self.warn(hooks);
        if matches!(error, Error::Interrupted) {
            saved?;
            return Ok(fitted(self.run, team.into_model(), self.state, StopReason::Requested));
        }
        if let Err(unsaved) = saved {
            hooks.warning(&format!("step {} is not saved: {unsaved}", self.state.step));
        }
        Err(error)
    }

    /// Returns whether no example of a batch weighs anything, as in a round with fewer examples than the fullest one.
    pub(super) fn is_idle(&self, batch: &[usize]) -> bool {
        self.task.passes_per_round().is_some() && batch.iter().all(|&example| self.task.weight(example) == 0.0)
    }

    /// Counts a step that has nothing to learn from: the schedule goes on, and the model stays as it is.
    pub(super) fn rest(&mut self, hooks: &mut dyn Hooks<T::Model>) {
        self.state.step += 1;
        self.unsaved = true;
        let last = self.note_pending();
        if (last || self.due(Some(self.config.logging_steps))) && self.state.window.steps > 0 {
            let index = self.state.step - 1;
            let factor = self.config.schedule.factor(index, self.plan.total_steps);
            self.log(0.0, self.config.learning_rate * factor);
        }
        self.warn(hooks);
    }

    /// Notes what is due after the step that is done. Returns whether it is the last one.
    pub(super) fn note_pending(&mut self) -> bool {
        let last = self.state.step == self.plan.total_steps;
        self.state.pending = Pending {
            evaluation: last || self.due(self.config.eval_steps),
            samples: last || self.due(self.config.sample_steps),
        };
        last
    }
}
