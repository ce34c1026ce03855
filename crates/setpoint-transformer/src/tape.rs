//! Backward by blocks: the forward pass keeps each block's input and no graph; the backward pass computes one block at a time again, with a
//! graph, and frees it. Memory is one block's graph and the inputs (Chen et al., <https://arxiv.org/abs/1604.06174>).

use burn::tensor::{Gradients, Int, Tensor};
use setpoint_ops::Packing;

use crate::block::Block;
use crate::decoder::Decoder;
use crate::linear::Embedding;
use crate::packed::PackedPass;

/// How the backward pass gets at what the forward pass computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// The graph of the whole decoder is kept.
    #[default]
    None,
    /// Each block is computed again when its turn comes.
    Block,
}

/// A forward pass through the blocks that has kept their inputs instead of a graph.
///
/// Whoever takes a loss of the hidden states backward hands its gradients to [`backward`](Self::backward).
#[derive(Clone, Debug)]
pub struct Tape {
    layers: Vec<Block>,
    embedding: Embedding,
    pass: PackedPass,
    /// `[t, d]` each, without a graph.
    inputs: Vec<Tensor<2>>,
    /// The first block's input, with the graph of the embeddings.
    embedded: Tensor<2>,
    /// The last block's output: a leaf of the loss's graph.
    output: Tensor<2>,
}

/// A part of the decoder whose gradients are complete.
#[derive(Debug)]
pub enum Part<'a> {
    /// `layers.{0}`.
    Block(usize, &'a Block),
    /// `embed_tokens`, without what a tied head adds: that is among the loss's own gradients.
    Embedding(&'a Embedding),
}

impl Decoder {
    /// [`Decoder::forward_packed`] as [`Decoder::recompute`] says. Without autodiff, or where the graph is kept, there is no tape.
    ///
    /// # Shapes
    ///
    /// `[t] -> [t, d]`
    pub fn forward_taped(&self, ids: Tensor<1, Int>, packing: &Packing) -> (Tensor<2>, Option<Tape>) {
        if self.recompute == Recompute::None || !self.device().is_autodiff() {
            return (self.forward_packed(ids, packing), None);
        }
        let embedded = self.embed_packed(ids);
        let pass = self.packed_pass(packing, &embedded.device());
        let mut x = embedded.clone().inner();
        let mut inputs = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            inputs.push(x.clone());
            x = layer.valid_forward(x, &pass);
        }
        let output = x.autodiff().require_grad();
        let hidden = self.norm.forward_packed(output.clone());
        let (layers, embedding) = (self.layers.clone(), self.embed_tokens.clone());
        (hidden, Some(Tape { layers, embedding, pass, inputs, embedded, output }))
    }
}

impl Tape {
    /// Takes the gradient of the hidden states out of `gradients`, a loss's, and runs the blocks backward, the last first. `accept` receives
    /// each part with the gradients of its parameters.
    pub fn backward(self, gradients: &mut Gradients, accept: &mut dyn FnMut(Part<'_>, &mut Gradients)) {
        let Self { mut layers, embedding, pass, mut inputs, embedded, output } = self;
        // A loss that does not depend on the hidden states moves nothing.
        let Some(mut gradient) = output.grad_remove(gradients) else {
            return;
        };
        drop(output);
        while let (Some(layer), Some(input)) = (layers.pop(), inputs.pop()) {
            let x = input.autodiff().require_grad();
            let y = layer.forward_packed(x.clone(), &pass);
            // The derivative of this sum is that of y with the gradient from above as its seed.
            let mut found = (y * gradient.autodiff()).sum().backward();
            gradient = match x.grad_remove(&mut found) {
                Some(gradient) => gradient,
                None => return,
            };
            accept(Part::Block(layers.len(), &layer), &mut found);
        }
        let mut found = (embedded * gradient.autodiff()).sum().backward();
        accept(Part::Embedding(&embedding), &mut found);
    }
}
