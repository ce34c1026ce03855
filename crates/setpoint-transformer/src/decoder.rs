use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::attention::Mask;
use crate::block::{Block, Pass};
use crate::config::ModelConfig;
use crate::linear::Embedding;
use crate::norm::RmsNorm;
use crate::rope::Rope;
use crate::tape::Recompute;

/// The transformer without its head: tokens in, hidden states out.
#[derive(Module, Debug)]
pub struct Decoder {
    /// The token embeddings.
    pub embed_tokens: Embedding,
    /// The layers.
    pub layers: Vec<Block>,
    /// The norm after the last layer.
    pub norm: RmsNorm,
    /// The longest sequence the model was trained for.
    max_positions: usize,
    #[module(skip)]
    pub(crate) rope: Rope,
    /// How [`forward_taped`](Self::forward_taped) prepares the backward pass.
    #[module(skip)]
    pub recompute: Recompute,
}

impl Decoder {
    /// A decoder of the given shape with norms of one and zeros elsewhere; no memory is taken until a value is read or loaded.
    pub fn zeros(config: &ModelConfig, device: &Device) -> Self {
        Self {
            embed_tokens: Embedding::zeros(config.vocab_size, config.hidden_size, device),
            layers: (0..config.num_hidden_layers).map(|_| Block::zeros(config, device)).collect(),
            norm: RmsNorm::ones(config.hidden_size, config.rms_norm_eps, device),
            max_positions: config.max_position_embeddings,
            rope: Rope::new(&config.rope, config.head_dim),
            recompute: Recompute::None,
        }
    }

    /// The hidden states after the final norm.
    ///
    /// Rows are filled up on the right ([`pad_right`]); as attention is causal, what stands there changes nothing before it. Positions count
    /// from 0 in each row.
    ///
    /// # Shapes
    ///
    /// `[b, s] -> [b, s, d]`
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, length] = ids.dims();
        let mut x = self.embed_tokens.forward(ids);
        let pass = self.pass(length, &x.device());
        for layer in &self.layers {
            x = layer.forward(x, &pass);
        }
        self.norm.forward(x)
    }

    /// What [`Block::forward`] needs beside the hidden states, for rows of `length` tokens at positions from 0: for those who walk through
    /// the layers themselves, `embed_tokens`, each of `layers`, `norm`.
    pub fn pass(&self, length: usize, device: &Device) -> Pass {
        Pass { rotation: self.rope.range(0, length, device), mask: Mask::causal(length, device) }
    }

    /// The longest sequence the model was trained for, in tokens.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// Number of token embeddings.
    pub fn vocab_size(&self) -> usize {
        self.embed_tokens.weight.lazy_shape()[0]
    }

    /// The device of the parameters, with autodiff where they have it.
    pub fn device(&self) -> Device {
        self.embed_tokens.weight.lazy_device()
    }
}

/// Rows of token ids as one tensor, shorter rows filled up on the right with token 0.
///
/// # Shapes
///
/// `b` rows of at most `s` tokens `-> [b, s]`
///
/// # Panics
///
/// If there are no rows or all are empty, or an id does not fit an `i32`.
pub fn pad_right<R: AsRef<[u32]>>(rows: &[R], device: &Device) -> Tensor<2, Int> {
    let length = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    assert!(length > 0, "there must be a token");
    let mut ids = Vec::with_capacity(rows.len() * length);
    for row in rows {
        let row = row.as_ref();
        ids.extend(
            row.iter().map(|&id| i32::try_from(id).unwrap_or_else(|_| panic!("token id {id} does not fit an i32"))),
        );
        ids.resize(ids.len() + length - row.len(), 0);
    }
    Tensor::from_data(TensorData::new(ids, [rows.len(), length]), device)
}
