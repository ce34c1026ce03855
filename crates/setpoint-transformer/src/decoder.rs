use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use half::{bf16, f16};
use setpoint_ops::Packing;

use crate::block::{Block, Pass};
use crate::config::{ModelConfig, RopeSwitch};
use crate::linear::Embedding;
use crate::lora::Dropout;
use crate::norm::RmsNorm;
use crate::rope::{Ropes, Rotations};
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
    /// The factor of the embeddings.
    embedding_scale: f64,
    #[module(skip)]
    ropes: Ropes,
    /// The way in which [`forward_taped`](Self::forward_taped) prepares the backward pass.
    #[module(skip)]
    pub recompute: Recompute,
    /// The dropout of the adapter, if it has one.
    #[module(skip)]
    pub(crate) dropout: Dropout,
}

impl Decoder {
    /// A decoder of the given shape with norms of one and zeros elsewhere; no memory is taken until a value is read or loaded.
    pub fn zeros(config: &ModelConfig, device: &Device) -> Self {
        Self {
            embed_tokens: Embedding::zeros(config.vocab_size, config.hidden_size, device),
            layers: (0..config.num_hidden_layers).map(|i| Block::zeros(config, i, device)).collect(),
            norm: RmsNorm::fresh(config.hidden_size, config, device),
            max_positions: config.max_position_embeddings,
            embedding_scale: config.design.multipliers.embeddings,
            ropes: Ropes::new(config),
            recompute: Recompute::None,
            dropout: Dropout::default(),
        }
    }

    /// Computes the hidden states after the final norm, for tokens packed without padding: of all of them, or of those in the places
    /// `wanted`, in that order. Prompts are computed once for all their responses. Positions count from 0 in each text, a segment's prefix
    /// included. Each text has the rotary frequencies of its length; those of a prefix and of all that continue it are those of the longest
    /// of these texts, so what is to be computed as if alone shares a prefix only with texts on the same side of the
    /// [`rope_switch`](Self::rope_switch).
    ///
    /// # Shapes
    ///
    /// `[t] -> [t, d]`, or `[wanted, d]`
    ///
    /// # Panics
    ///
    /// If `ids` and `packing` differ in the number of tokens, or a place is not among them.
    pub fn forward(&self, ids: PackedIds, packing: &Packing, wanted: Option<&[usize]>) -> Tensor<2> {
        ids.check(packing);
        let pass = self.pass(ids.on_host(), packing, wanted, &self.device());
        let mut x = self.scaled(self.embed_tokens.forward(ids.into_tensor()));
        let wanted = places(wanted, packing, &x.device());
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, &pass, self.wanted_of(i, wanted.as_ref()));
        }
        self.norm.forward(x)
    }

    /// Prepares what [`Block::forward`] needs besides the hidden states.
    pub(crate) fn pass(&self, ids: &[i32], packing: &Packing, wanted: Option<&[usize]>, device: &Device) -> Pass {
        let rotations = self.rotations(&packing.positions(), &packing.text_lengths(), device);
        Pass { rotations, packing: packing.clone(), masks: self.dropout.masks(ids, packing, wanted) }
    }

    /// Returns the rotations of queries and keys at `positions` of texts of `texts` tokens.
    pub(crate) fn rotations(&self, positions: &[i32], texts: &[usize], device: &Device) -> Rotations {
        self.ropes.at(positions, texts, device)
    }

    /// Returns the length beyond which texts have other rotary frequencies.
    pub fn rope_switch(&self) -> RopeSwitch {
        self.ropes.switch()
    }

    /// Multiplies embeddings by their factor.
    pub(crate) fn scaled(&self, embedded: Tensor<2>) -> Tensor<2> {
        scaled(embedded, self.embedding_scale)
    }

    /// Returns the factor of the embeddings.
    pub(crate) fn embedding_scale(&self) -> f64 {
        self.embedding_scale
    }

    /// Returns the tokens that layer `i` need answer: behind the last attention nothing passes from one token to another, so the last layer
    /// answers only the wanted ones.
    pub(crate) fn wanted_of<'a>(&self, i: usize, wanted: Option<&'a Tensor<1, Int>>) -> Option<&'a Tensor<1, Int>> {
        wanted.filter(|_| i + 1 == self.layers.len())
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

/// Multiplies numbers by a factor that is rounded to their format first.
pub(crate) fn scaled(x: Tensor<2>, factor: f64) -> Tensor<2> {
    let rounded = match x.dtype() {
        DType::BF16 => bf16::from_f64(factor).to_f64(),
        DType::F16 => f16::from_f64(factor).to_f64(),
        _ => factor,
    };
    if rounded == 1.0 { x } else { x.mul_scalar(rounded) }
}

/// Returns places of a packed batch as a tensor.
///
/// # Panics
///
/// If a place is not in the batch.
pub(crate) fn places(wanted: Option<&[usize]>, packing: &Packing, device: &Device) -> Option<Tensor<1, Int>> {
    wanted.map(|wanted| {
        assert!(wanted.iter().all(|&place| place < packing.tokens()), "places of the batch");
        // i32 holds every index that fits a tensor.
        let wanted: Vec<i32> = wanted.iter().map(|&place| place as i32).collect();
        Tensor::from_data(wanted.as_slice(), &device.clone().without_autodiff())
    })
}

/// The tokens of a packed batch, on a device and on the host.
#[derive(Clone, Debug)]
pub struct PackedIds {
    /// `[t]`
    tensor: Tensor<1, Int>,
    ids: Arc<[i32]>,
}

impl PackedIds {
    /// Returns the tensor, `[t]`.
    pub fn into_tensor(self) -> Tensor<1, Int> {
        self.tensor
    }

    /// Returns the tokens without asking the device.
    pub(crate) fn on_host(&self) -> &[i32] {
        &self.ids
    }

    /// # Panics
    ///
    /// If the packing has another number of tokens.
    pub(crate) fn check(&self, packing: &Packing) {
        assert_eq!(self.ids.len(), packing.tokens(), "the tokens of the packing");
    }
}

/// Packs token ids one after the other.
///
/// # Shapes
///
/// rows of any lengths, `t` tokens in all `-> [t]`
///
/// # Panics
///
/// If there are no tokens, or an id does not fit an `i32`.
pub fn pack<R: AsRef<[u32]>>(rows: &[R], device: &Device) -> PackedIds {
    let ids: Arc<[i32]> = rows
        .iter()
        .flat_map(|row| row.as_ref())
        .map(|&id| i32::try_from(id).unwrap_or_else(|_| panic!("token id {id} does not fit an i32")))
        .collect();
    assert!(!ids.is_empty(), "there must be a token");
    PackedIds { tensor: Tensor::from_data(TensorData::new(ids.to_vec(), [ids.len()]), device), ids }
}
