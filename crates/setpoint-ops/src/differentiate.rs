//! From a forward and a backward pass to an operation that autodiff knows.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

/// An operation on `N` float tensors with its derivative.
pub(crate) trait Operation<B: Backend, const N: usize>: Clone + Debug + Send + 'static {
    /// The tensors that the forward pass keeps for the backward pass.
    type Kept: Clone + Debug + Send + 'static;

    /// Computes the result, and what the backward pass will need: it will be asked for the gradients of the inputs that are `wanted`.
    fn forward(&self, inputs: [FloatTensor<B>; N], wanted: [bool; N]) -> (FloatTensor<B>, Self::Kept);

    /// The gradients of the inputs that are `wanted`, from that of the result.
    fn backward(&self, kept: Self::Kept, gradient: FloatTensor<B>, wanted: [bool; N]) -> [Option<FloatTensor<B>>; N];
}

/// The backward step of an operation.
#[derive(Clone, Debug)]
struct Step<O>(O);

impl<B: Backend, O: Operation<B, N>, const N: usize> Backward<B, N> for Step<O> {
    type State = O::Kept;

    fn backward(self, ops: Ops<O::Kept, N>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = self.0.backward(ops.state, gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Applies an operation to tensors with a graph.
pub(crate) fn tracked<B: Backend, C: CheckpointStrategy, O: Operation<B, N>, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let wanted = inputs.each_ref().map(|input| input.is_tracked());
    let inputs = inputs.map(|input| input.into_primitive());
    let (output, kept) = operation.forward(inputs, wanted);
    match Step(operation).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(kept, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}
