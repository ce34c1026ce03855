//! The forward pass over packed tokens: no padding, prompts computed once for all their responses, fused operations.
//!
//! It computes what [`Decoder::forward`] computes for each row alone, to rounding; that one stays as the reference it is tested against.

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor, TensorData, module};
use setpoint_ops::{Heads, Packing, attention, linear, rms_norm, rotate, swiglu};

use crate::block::{Block, Mlp, SelfAttention};
use crate::decoder::Decoder;
use crate::linear::{Embedding, Linear};
use crate::norm::RmsNorm;

/// What all blocks of one packed pass share: which tokens belong together, and where each stands in its text.
///
/// Made by [`Decoder::packed_pass`].
#[derive(Clone, Debug)]
pub struct PackedPass {
    /// `[t, n/2]`
    cos: Tensor<2>,
    /// `[t, n/2]`
    sin: Tensor<2>,
    packing: Packing,
}

impl Decoder {
    /// The hidden states after the final norm, for tokens packed without padding. Positions count from 0 in each text, a segment's prefix
    /// included.
    ///
    /// # Shapes
    ///
    /// `[t] -> [t, d]`
    ///
    /// # Panics
    ///
    /// If `ids` and `packing` differ in the number of tokens.
    pub fn forward_packed(&self, ids: Tensor<1, Int>, packing: &Packing) -> Tensor<2> {
        assert_eq!(ids.dims(), [packing.tokens()], "the tokens of the packing");
        let mut x = self.embed_tokens.forward_packed(ids);
        let pass = self.packed_pass(packing, &x.device());
        for layer in &self.layers {
            x = layer.forward_packed(x, &pass);
        }
        self.norm.forward_packed(x)
    }

    /// What [`Block::forward_packed`] needs beside the hidden states: for those who walk through the layers themselves, `embed_tokens`,
    /// each of `layers`, `norm`.
    pub fn packed_pass(&self, packing: &Packing, device: &Device) -> PackedPass {
        let (cos, sin) = self.rope.tables(&packing.positions(), device);
        PackedPass { cos, sin, packing: packing.clone() }
    }
}

impl Embedding {
    /// Looks packed tokens up.
    ///
    /// # Shapes
    ///
    /// `[t] -> [t, d]`
    pub fn forward_packed(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        // [t] -> [1, t] -> [1, t, d] -> [t, d]
        module::embedding(self.weight.val(), ids.unsqueeze()).squeeze_dim(0)
    }
}

impl Block {
    /// Applies the layer to packed tokens.
    ///
    /// # Shapes
    ///
    /// `[t, d] -> [t, d]`
    pub fn forward_packed(&self, x: Tensor<2>, pass: &PackedPass) -> Tensor<2> {
        let attended = self.self_attn.forward_packed(self.input_layernorm.forward_packed(x.clone()), pass);
        let x = x + attended;
        let fed = self.mlp.forward_packed(self.post_attention_layernorm.forward_packed(x.clone()));
        x + fed
    }
}

impl SelfAttention {
    fn forward_packed(&self, x: Tensor<2>, pass: &PackedPass) -> Tensor<2> {
        let heads = Heads { query: self.heads, kv: self.kv_heads, dim: self.head_dim };
        let turned = |x: Tensor<2>| rotate(x, pass.cos.clone(), pass.sin.clone());
        let q = turned(self.q_proj.forward_packed(x.clone()));
        let k = turned(self.k_proj.forward_packed(x.clone()));
        let v = self.v_proj.forward_packed(x);
        self.o_proj.forward_packed(attention(q, k, v, heads, &pass.packing))
    }
}

impl Mlp {
    pub(crate) fn forward_packed(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.gate_proj.forward_packed(x.clone());
        let up = self.up_proj.forward_packed(x);
        self.down_proj.forward_packed(swiglu(gate, up))
    }
}

impl Linear {
    /// Applies the map to rows: [`Linear::forward`] with a backward pass of its own.
    ///
    /// # Shapes
    ///
    /// `[t, in] -> [t, out]`
    pub fn forward_packed(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}

impl RmsNorm {
    /// Normalises rows: [`RmsNorm::forward`] with a backward pass of its own.
    ///
    /// # Shapes
    ///
    /// `[t, d] -> [t, d]`
    pub fn forward_packed(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, self.weight.val(), self.eps)
    }
}

/// Token ids one after the other as a tensor.
///
/// # Shapes
///
/// rows of any lengths, `t` tokens in all `-> [t]`
///
/// # Panics
///
/// If there are no tokens, or an id does not fit an `i32`.
pub fn pack<R: AsRef<[u32]>>(rows: &[R], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = rows
        .iter()
        .flat_map(|row| row.as_ref())
        .map(|&id| i32::try_from(id).unwrap_or_else(|_| panic!("token id {id} does not fit an i32")))
        .collect();
    assert!(!ids.is_empty(), "there must be a token");
    let count = ids.len();
    Tensor::from_data(TensorData::new(ids, [count]), device)
}
