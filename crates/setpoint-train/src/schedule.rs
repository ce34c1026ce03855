//! Learning-rate schedules: pure functions of the step, equal to transformers'
//! `get_{constant,linear,cosine}_schedule_with_warmup`.
//!
//! A factor between 0 and 1 multiplies the peak learning rate. Steps count from 0, as in torch's
//! `LambdaLR`: with a warm-up the very first step has a learning rate of 0. [`Warmup::Auto`] alone is not transformers': it leaves
//! short runs without a warm-up.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shape of the schedule after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// The peak learning rate to the end.
    Constant,
    /// A straight line to 0 at the last step.
    #[default]
    Linear,
    /// Half a cosine wave to 0 at the last step.
    Cosine,
}

/// Length of the linear warm-up from 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// A tenth of all optimizer steps, rounded down: a run of fewer than ten steps has none.
    Auto,
    /// A number of optimizer steps.
    Steps(u64),
    /// A share of all optimizer steps, rounded up.
    Ratio(f64),
}

impl Default for Warmup {
    fn default() -> Self {
        Self::Steps(0)
    }
}

impl Warmup {
    /// The number of warm-up steps of a run of `total_steps`.
    pub fn steps(self, total_steps: u64) -> u64 {
        match self {
            Self::Auto => total_steps / 10,
            Self::Steps(steps) => steps,
            Self::Ratio(ratio) => (total_steps as f64 * ratio).ceil() as u64,
        }
    }
}

/// A schedule: what follows the warm-up, and the warm-up.
///
/// ```
/// use setpoint_train::{Schedule, ScheduleKind, Warmup};
///
/// let schedule = Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Ratio(0.1) };
/// assert_eq!(schedule.factor(0, 20), 0.0); // 2 steps of warm-up
/// assert_eq!(schedule.factor(1, 20), 0.5);
/// assert_eq!(schedule.factor(2, 20), 1.0);
/// assert!((schedule.factor(11, 20) - 0.5).abs() < 1e-12); // half of the remaining 18 steps
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The schedule after the warm-up.
    pub kind: ScheduleKind,
    /// The length of the warm-up.
    pub warmup: Warmup,
}

impl Schedule {
    /// Factor of the learning rate at `step` (from 0) of `total_steps`.
    pub fn factor(&self, step: u64, total_steps: u64) -> f64 {
        let warmup = self.warmup.steps(total_steps);
        match self.kind {
            ScheduleKind::Constant => constant_with_warmup(step, warmup),
            ScheduleKind::Linear => linear_with_warmup(step, warmup, total_steps),
            ScheduleKind::Cosine => cosine_with_warmup(step, warmup, total_steps),
        }
    }
}

/// `min(step / warmup, 1)`: transformers' `get_constant_schedule_with_warmup`.
pub fn constant_with_warmup(step: u64, warmup: u64) -> f64 {
    ramp(step, warmup).unwrap_or(1.0)
}

/// After the warm-up `(total − step) / (total − warmup)`, at least 0: transformers'
/// `get_linear_schedule_with_warmup`.
pub fn linear_with_warmup(step: u64, warmup: u64, total: u64) -> f64 {
    ramp(step, warmup).unwrap_or_else(|| total.saturating_sub(step) as f64 / total.saturating_sub(warmup).max(1) as f64)
}

/// After the warm-up `½·(1 + cos(π·progress))` with `progress = (step − warmup) / (total − warmup)`:
/// transformers' `get_cosine_schedule_with_warmup` with its default of half a cycle.
pub fn cosine_with_warmup(step: u64, warmup: u64, total: u64) -> f64 {
    ramp(step, warmup).unwrap_or_else(|| {
        let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        // transformers computes `pi * 0.5 * 2.0 * progress`, which is the same number.
        (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
    })
}

/// The warm-up's factor, `None` when it is over.
fn ramp(step: u64, warmup: u64) -> Option<f64> {
    (step < warmup).then(|| step as f64 / warmup as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(kind: ScheduleKind, warmup: Warmup, total: u64) -> Vec<f64> {
        let schedule = Schedule { kind, warmup };
        (0..total).map(|step| schedule.factor(step, total)).collect()
    }

    #[test]
    fn constant_ramps_up_and_stays() {
        let expected = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0];
        assert_eq!(table(ScheduleKind::Constant, Warmup::Steps(4), 6), expected);
        assert_eq!(table(ScheduleKind::Constant, Warmup::Steps(0), 2), [1.0; 2]);
    }

    #[test]
    fn linear_falls_to_zero_at_the_end() {
        // 2 of 6 steps of warm-up, then 4/4, 3/4, 2/4, 1/4 and 0 at step 6.
        let expected = [0.0, 0.5, 1.0, 0.75, 0.5, 0.25];
        assert_eq!(table(ScheduleKind::Linear, Warmup::Steps(2), 6), expected);
        assert_eq!(linear_with_warmup(6, 2, 6), 0.0);
        assert_eq!(linear_with_warmup(9, 2, 6), 0.0);
    }

    #[test]
    fn cosine_takes_its_known_values() {
        // 6 steps without warm-up: cos at multiples of 30 degrees.
        let half_sqrt3 = 3f64.sqrt() / 2.0;
        let expected = [1.0, (1.0 + half_sqrt3) / 2.0, 0.75, 0.5, 0.25, (1.0 - half_sqrt3) / 2.0];
        let found = table(ScheduleKind::Cosine, Warmup::Steps(0), 6);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
        assert_eq!(cosine_with_warmup(6, 0, 6), 0.0);
    }

    #[test]
    fn a_ratio_is_rounded_up() {
        assert_eq!(Warmup::Ratio(0.1).steps(61), 7);
        assert_eq!(Warmup::Ratio(0.1).steps(60), 6);
        assert_eq!(Warmup::Ratio(0.0).steps(60), 0);
    }

    #[test]
    fn auto_is_rounded_down() {
        assert_eq!([1, 9, 10, 19, 20, 61, 380].map(|total| Warmup::Auto.steps(total)), [0, 0, 1, 1, 2, 6, 38]);
        // No step of a short run is lost to a learning rate of 0.
        let schedule = Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Auto };
        assert!((1..10).all(|total| (0..total).all(|step| schedule.factor(step, total) > 0.0)));
    }

    #[test]
    fn auto_is_a_word() {
        let json = |warmup: Warmup| serde_json::to_string(&warmup).unwrap();
        assert_eq!(json(Warmup::Auto), "\"auto\"");
        for warmup in [Warmup::Auto, Warmup::Steps(3), Warmup::Ratio(0.1)] {
            assert_eq!(serde_json::from_str::<Warmup>(&json(warmup)).unwrap(), warmup);
        }
        // As checkpoints and settings of before have it.
        assert_eq!(serde_json::from_str::<Warmup>("{\"ratio\":0.1}").unwrap(), Warmup::Ratio(0.1));
    }

    #[test]
    fn a_warmup_longer_than_the_run_does_not_divide_by_zero() {
        assert_eq!(linear_with_warmup(5, 10, 6), 0.5);
        assert_eq!(cosine_with_warmup(10, 10, 10), 1.0);
    }
}
