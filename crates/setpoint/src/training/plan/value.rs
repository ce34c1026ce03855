//! The time and memory of a value network that is trained next to the policy.

use std::iter::once;

use super::RunPlan;

impl RunPlan {
    /// The plan of a training of a policy and a value network, of which `value` is the plan. `shares_weights`: the frozen weights of both are
    /// the same.
    pub fn with_value(mut self, value: &Self, shares_weights: bool) -> Self {
        let shared = if shares_weights { value.frozen } else { 0.0 };
        let others = value.on_devices.iter().map(|on| &on.memory);
        for ((memory, peak), own) in self.memories().zip(once(&value.memory).chain(others)) {
            memory.weights += own.weights - shared;
            memory.gradients += own.gradients;
            memory.head_gradient += own.head_gradient;
            memory.optimizer += own.optimizer;
            memory.activations += own.activations;
            memory.head += own.head;
            memory.other = memory.other.max(own.other);
            *peak = memory.peak();
        }
        self.operations += value.operations;
        self.trained += value.trained;
        self.parameters += value.parameters;
        self.compared()
    }
}
