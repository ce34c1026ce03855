//! The time and memory of a value network that is trained next to the policy.

use super::RunPlan;

impl RunPlan {
    /// The plan of a training of a policy and a value network, of which `value` is the plan. `shares_weights`: the frozen weights of both are
    /// the same.
    pub fn with_value(mut self, value: &Self, shares_weights: bool) -> Self {
        let (memory, own) = (&mut self.memory, &value.memory);
        memory.weights += own.weights - if shares_weights { value.frozen } else { 0.0 };
        memory.gradients += own.gradients;
        memory.head_gradient += own.head_gradient;
        memory.optimizer += own.optimizer;
        memory.activations += own.activations;
        memory.head += own.head;
        memory.other = memory.other.max(own.other);
        self.peak = memory.peak();
        self.operations += value.operations;
        self.trained += value.trained;
        self.parameters += value.parameters;
        self.compared()
    }
}
