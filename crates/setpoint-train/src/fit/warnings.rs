//! What a person should know of a run before it begins.

use super::RunState;
use crate::{DeviceGroup, Plan, TrainConfig};

/// Fewer steps than these are worth a warning.
const FEW_STEPS: u64 = 10;

/// Returns warnings about a run and its devices. The run goes on from `earlier` if it is not new.
pub(super) fn warnings(devices: &DeviceGroup, config: &TrainConfig, earlier: Option<&RunState>) -> Vec<String> {
    let (count, batch) = (devices.len(), config.batch_size);
    let mut warnings = vec![];
    if batch < count {
        let idle = count - batch;
        let have = if idle == 1 { "has" } else { "have" };
        warnings.push(format!(
            "{idle} of {count} devices {have} nothing to do: a batch has {batch} example{}",
            plural(batch as u64)
        ));
    }
    if let Some(earlier) = earlier.map(|state| state.devices).filter(|&earlier| earlier != count) {
        warnings.push(format!(
            "the run began on {earlier} device{} and goes on with {count}: its gradients are added up in another order, so the last digits differ",
            plural(earlier as u64)
        ));
    }
    warnings
}

impl TrainConfig {
    /// Returns a warning for a run of fewer than ten steps, which is rarely meant.
    pub fn few_steps(&self, plan: &Plan) -> Option<String> {
        let Plan { examples, total_steps: steps, .. } = *plan;
        if steps >= FEW_STEPS {
            return None;
        }
        let at_zero = match self.schedule.warmup.steps(steps) {
            0 => "",
            _ if steps == 1 => ", at a learning rate of 0 (`train.schedule.warmup`), so the model does not change",
            _ => ", the first of them at a learning rate of 0 (`train.schedule.warmup`)",
        };
        let remedy = match self.max_steps {
            Some(_) => "set a larger `train.max_steps`",
            None => "for more, set a smaller `train.batch_size` or more `train.epochs`",
        };
        Some(format!(
            "the run has only {steps} step{}{at_zero} ({examples} example{} in batches of {}); {remedy}",
            plural(steps),
            plural(examples as u64),
            self.batch_size
        ))
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
