//! The decoder's part of a backward pass, which its engine runs block by block.
//!
//! With [`Recompute::Block`] the forward pass keeps each block's input and no graph; the backward pass computes one block at a time again,
//! with a graph, and frees it. Memory is one block's graph and the inputs (Chen et al., <https://arxiv.org/abs/1604.06174>). In both modes the
//! gradient of the embeddings stays what it is, a few rows of a large table.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Int, Tensor};
use setpoint_ops::Packing;

use crate::block::{Block, Pass};
use crate::decoder::{Decoder, PackedIds, places, scaled};

/// The source of the forward pass's values for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// The graph of all blocks is kept.
    #[default]
    None,
    /// Each block is computed again when its turn comes.
    Block,
}

/// The record that a forward pass on an autodiff device leaves for its backward pass.
///
/// Whoever takes a loss of the hidden states backward hands its gradients to [`backward`](Self::backward).
#[derive(Clone, Debug)]
pub struct Tape {
    ids: Tensor<1, Int>,
    vocab_size: usize,
    /// True if the embeddings are trained.
    embeddings: bool,
    /// The factor by which they enter the first block.
    embedding_scale: f64,
    /// The first block's input, a leaf of the loss's graph; none where blocks are computed again.
    embedded: Option<Tensor<2>>,
    /// The blocks, where they are computed again.
    blocks: Option<Blocks>,
}

/// Blocks that are computed again: those from the lowest on that something is trained in or below.
#[derive(Clone, Debug)]
struct Blocks {
    /// The number of the first of them.
    first: usize,
    layers: Vec<Block>,
    pass: Pass,
    /// The tokens that the last block answers; all of them if none is named.
    wanted: Option<Tensor<1, Int>>,
    /// `[t, d]` each, without a graph.
    inputs: Vec<Tensor<2>>,
    /// The last block's output: a leaf of the loss's graph.
    output: Tensor<2>,
}

/// Gradients that are complete.
#[derive(Debug)]
pub enum Part<'a> {
    /// The gradients of `layers.{0}`, among those that come with it.
    Block(usize, &'a Block),
    /// The gradient of `embed_tokens.weight`, without the part that a tied head adds.
    Embeddings {
        /// Number of the table's rows.
        vocab_size: usize,
        /// The rows that have a gradient, some of them more than once; `[t]`.
        ids: &'a Tensor<1, Int>,
        /// The summand of each row; `[t, d]`, without a graph.
        rows: &'a Tensor<2>,
    },
}

impl Decoder {
    /// [`Decoder::forward`] for an engine: on an autodiff device the backward pass of the embeddings and, as
    /// [`Decoder::recompute`] says, that of the blocks is left to the tape.
    ///
    /// # Shapes
    ///
    /// `[t] -> [t, d]`, or `[wanted, d]`
    ///
    /// # Panics
    ///
    /// As [`Decoder::forward`].
    pub fn forward_taped(
        &self,
        ids: PackedIds,
        packing: &Packing,
        wanted: Option<&[usize]>,
    ) -> (Tensor<2>, Option<Tape>) {
        if !self.device().is_autodiff() {
            return (self.forward(ids, packing, wanted), None);
        }
        ids.check(packing);
        let pass = self.pass(ids.on_host(), packing, wanted, &self.device().without_autodiff());
        let ids = ids.into_tensor().inner();
        let embedded = self.scaled(self.embed_tokens.valid().forward(ids.clone()));
        let wanted = places(wanted, packing, &embedded.device());
        let embeddings = self.embed_tokens.weight.is_require_grad();
        // Below it there is nothing that a gradient is wanted for.
        let first = if embeddings { 0 } else { self.layers.iter().position(trains).unwrap_or(self.layers.len()) };
        let vocab_size = self.vocab_size();
        let embedding_scale = self.embedding_scale();
        let mut tape = Tape { ids, vocab_size, embeddings, embedding_scale, embedded: None, blocks: None };
        let layers = self.layers.iter().enumerate().map(|(i, layer)| (layer, self.wanted_of(i, wanted.as_ref())));
        let last = match self.recompute {
            Recompute::None => {
                let leaf = embedded.autodiff().set_require_grad(embeddings);
                tape.embedded = embeddings.then(|| leaf.clone());
                layers.fold(leaf, |x, (layer, wanted)| layer.forward(x, &pass, wanted))
            }
            Recompute::Block => {
                let mut x = embedded;
                let mut inputs = Vec::with_capacity(self.layers.len());
                for (i, (layer, wanted)) in layers.enumerate() {
                    if i >= first {
                        inputs.push(x.clone());
                    }
                    x = layer.valid().forward(x, &pass, wanted);
                }
                let output = x.autodiff().set_require_grad(first < self.layers.len());
                let layers = self.layers[first..].to_vec();
                tape.blocks = Some(Blocks { first, layers, pass, wanted, inputs, output: output.clone() });
                output
            }
        };
        (self.norm.forward(last), Some(tape))
    }
}

impl Tape {
    /// Finishes the backward pass that began with a loss, whose `gradients` these are. `accept` receives each part, with the gradients of
    /// its parameters where it is a block.
    ///
    /// A loss that does not depend on the hidden states moves nothing.
    pub fn backward(self, gradients: &mut Gradients, accept: &mut dyn FnMut(Part<'_>, &mut Gradients)) {
        let Self { ids, vocab_size, embeddings, embedding_scale, embedded, blocks } = self;
        let of_embedded = match blocks {
            None => embedded.and_then(|embedded| embedded.grad_remove(gradients)),
            Some(blocks) => blocks.backward(embeddings, gradients, accept),
        };
        if let Some(rows) = of_embedded.filter(|_| embeddings) {
            let rows = scaled(rows, embedding_scale);
            accept(Part::Embeddings { vocab_size, ids: &ids, rows: &rows }, gradients);
        }
    }
}

impl Blocks {
    /// Runs the blocks backward, the last first, and returns the gradient of the first one's input if the `embeddings` are trained.
    fn backward(
        self,
        embeddings: bool,
        gradients: &mut Gradients,
        accept: &mut dyn FnMut(Part<'_>, &mut Gradients),
    ) -> Option<Tensor<2>> {
        let Self { first, mut layers, pass, mut wanted, mut inputs, output } = self;
        let mut gradient = output.grad_remove(gradients)?;
        drop(output);
        while let (Some(layer), Some(input)) = (layers.pop(), inputs.pop()) {
            let passes_on = embeddings || !layers.is_empty();
            let x = input.autodiff().set_require_grad(passes_on);
            // Of the last block, which comes first.
            let wanted = wanted.take();
            let y = layer.forward(x.clone(), &pass, wanted.as_ref());
            // The derivative of this sum is that of y with the gradient from above as its seed.
            let mut found = (y * gradient.autodiff()).sum().backward();
            let of_input = x.grad_remove(&mut found);
            accept(Part::Block(first + layers.len(), &layer), &mut found);
            gradient = of_input?;
        }
        Some(gradient)
    }
}

/// Returns whether a parameter of a module is trained.
fn trains<M: Module>(module: &M) -> bool {
    struct Any(bool);

    impl ModuleVisitor for Any {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.is_require_grad();
        }
    }

    let mut any = Any(false);
    module.visit(&mut any);
    any.0
}
