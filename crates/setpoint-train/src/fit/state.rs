//! What a checkpoint has to remember besides the model and the optimizer.

use serde::{Deserialize, Serialize};

use crate::MicroBatch;
use crate::best::BestConfig;
use crate::config::TrainConfig;
use crate::metrics::MetricSums;

/// The reason for the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// All steps are done.
    Completed,
    /// The metric has not improved for `patience` evaluations.
    Patience,
    /// An evaluation has found something beyond a limit ([`Measurement::ends`](crate::Measurement::ends)).
    Limit,
    /// [`Hooks::should_stop`](crate::Hooks::should_stop) said so; the run can be resumed.
    Requested,
}

/// The best model so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Optimizer steps it had done.
    pub step: u64,
    /// Value of the metric.
    pub value: f64,
}

/// Where a run stands. Epoch and position in the data follow from `step`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// Optimizer steps done.
    pub(crate) step: u64,
    pub(crate) num_tokens: u64,
    /// Steps since the last line of the metrics file.
    pub(crate) window: Window,
    pub(crate) best: Option<Best>,
    /// Evaluations in a row that were not better by `min_delta`.
    pub(crate) stale_evaluations: u32,
    pub(crate) last_evaluation: MetricSums,
    /// An evaluation has found something beyond a limit.
    #[serde(default)]
    pub(crate) ended: bool,
    /// The work that is still to be done after the step; nothing in checkpoints of before it was noted.
    #[serde(default)]
    pub(crate) pending: Pending,
    /// Set when the run is over and nothing is pending.
    pub(crate) stop: Option<StopReason>,
    /// Length of the logs when the checkpoint was made; a resumed run cuts them there.
    pub(crate) metrics_bytes: u64,
    pub(crate) samples_bytes: u64,
    /// Absent in checkpoints of before there was this log.
    #[serde(default)]
    pub(crate) responses_bytes: u64,
    /// Checksums of the logs up to these lengths; absent in checkpoints of before there were any.
    #[serde(default)]
    pub(crate) metrics_crc32c: Option<u32>,
    #[serde(default)]
    pub(crate) samples_crc32c: Option<u32>,
    #[serde(default)]
    pub(crate) responses_crc32c: Option<u32>,
    /// Devices that the step was computed on; absent in checkpoints of before there could be several.
    #[serde(default = "one")]
    pub(crate) devices: usize,
    /// The micro-batch that the memory sufficed for, if it is smaller than that of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) micro_batch: Option<MicroBatch>,
    /// The norm of the last step's gradient before clipping, if the next step is clipped by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) grad_norm: Option<f64>,
}

fn one() -> usize {
    1
}

/// Work that belongs to the step that is done. A checkpoint may be saved before it, so that nothing that happens there costs the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pending {
    pub(crate) evaluation: bool,
    pub(crate) samples: bool,
}

/// Sums over the steps between two lines of the metrics file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) steps: u64,
    pub(crate) loss: f64,
    pub(crate) metrics: MetricSums,
}

impl RunState {
    /// The state before the first step.
    pub(crate) fn new(config: &TrainConfig) -> Self {
        Self { pending: Pending { evaluation: config.eval_on_start, samples: false }, ..Self::default() }
    }

    /// Takes an evaluation into account and tells whether the model is the best so far.
    ///
    /// A first value is the best so far; one that is not finite never is.
    pub(crate) fn judge(&mut self, config: &BestConfig, value: f64) -> bool {
        let gain = |best: f64| {
            if config.greater_is_better { value - best } else { best - value }
        };
        let gain = self.best.as_ref().map_or(f64::INFINITY, |best| gain(best.value));
        let better = value.is_finite() && gain > 0.0;
        if value.is_finite() && gain > config.min_delta {
            self.stale_evaluations = 0;
        } else {
            self.stale_evaluations += 1;
        }
        if better {
            self.best = Some(Best { step: self.step, value });
        }
        better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(config: &BestConfig, values: &[f64]) -> (Vec<bool>, Vec<u32>) {
        let mut state = RunState::default();
        values.iter().map(|&value| (state.judge(config, value), state.stale_evaluations)).unzip()
    }

    fn config(greater_is_better: bool, min_delta: f64) -> BestConfig {
        BestConfig { metric: "eval_loss".into(), greater_is_better, restore: false, patience: None, min_delta }
    }

    #[test]
    fn a_state_of_before_the_log_of_responses_is_read() {
        let mut state = serde_json::to_value(RunState { step: 3, ..RunState::default() }).unwrap();
        assert!(state.as_object_mut().unwrap().remove("responses_bytes").is_some());
        let state: RunState = serde_json::from_value(state).unwrap();
        assert_eq!((state.step, state.responses_bytes), (3, 0));
    }

    #[test]
    fn less_is_better() {
        let (better, stale) = judged(&config(false, 0.0), &[3.0, 2.0, 2.0, f64::NAN, 1.0]);
        assert_eq!(better, [true, true, false, false, true]);
        assert_eq!(stale, [0, 0, 1, 2, 0]);
    }

    #[test]
    fn a_small_gain_is_the_best_and_still_stale() {
        let (better, stale) = judged(&config(true, 0.5), &[1.0, 1.25, 2.0]);
        assert_eq!(better, [true, true, true]);
        assert_eq!(stale, [0, 1, 0]);
    }

    #[test]
    fn a_first_value_that_is_not_finite_is_not_the_best() {
        assert_eq!(judged(&config(true, 0.0), &[f64::NAN, -1.0]).0, [false, true]);
    }
}
