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
#[derive(Clone, Debug)]
pub(crate) struct PackedPass {
    /// `[t, n/2]`
    cos: Tensor<2>,
    /// `[t, n/2]`
    sin: Tensor<2>,
    packing: Packing,
}

impl Decoder {
    /// The hidden states after the final norm, for tokens packed without padding: of all of them, or of those in the places `wanted`, in
    /// that order. Positions count from 0 in each text, a segment's prefix included.
    ///
    /// # Shapes
    ///
    /// `[t] -> [t, d]`, or `[wanted, d]`
    ///
    /// # Panics
    ///
    /// If `ids` and `packing` differ in the number of tokens, or a place is not among them.
    pub fn forward_packed(&self, ids: Tensor<1, Int>, packing: &Packing, wanted: Option<&[usize]>) -> Tensor<2> {
        assert_eq!(ids.dims(), [packing.tokens()], "the tokens of the packing");
        let mut x = self.embed_tokens.forward_packed(ids);
        let pass = self.packed_pass(packing, &x.device());
        let wanted = places(wanted, packing, &x.device());
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward_packed(x, &pass, self.wanted_of(i, wanted.as_ref()));
        }
        self.norm.forward_packed(x)
    }

    /// What [`Block::forward_packed`] needs beside the hidden states.
    pub(crate) fn packed_pass(&self, packing: &Packing, device: &Device) -> PackedPass {
        let (cos, sin) = self.rope.tables(&packing.positions(), device);
        PackedPass { cos, sin, packing: packing.clone() }
    }

    /// Which tokens layer `i` need answer: behind the last attention nothing passes from one token to another, so there the wanted ones do.
    pub(crate) fn wanted_of<'a>(&self, i: usize, wanted: Option<&'a Tensor<1, Int>>) -> Option<&'a Tensor<1, Int>> {
        wanted.filter(|_| i + 1 == self.layers.len())
    }
}

/// Places of a packed batch as a tensor.
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
    /// Applies the layer to packed tokens; answers all of them or those in the places `wanted`.
    ///
    /// # Shapes
    ///
    /// `[t, d] -> [t, d]`, or `[wanted, d]`
    pub(crate) fn forward_packed(&self, x: Tensor<2>, pass: &PackedPass, wanted: Option<&Tensor<1, Int>>) -> Tensor<2> {
        let mixed = self.self_attn.mix_packed(self.input_layernorm.forward_packed(x.clone()), pass);
        self.finish_packed(x, mixed, wanted)
    }

    /// What follows attention: from the layer's input and what each token gathered, `[t, h·n]`, to the layer's output.
    pub(crate) fn finish_packed(&self, x: Tensor<2>, mixed: Tensor<2>, wanted: Option<&Tensor<1, Int>>) -> Tensor<2> {
        let pick = |x: Tensor<2>| match wanted {
            Some(wanted) => x.select(0, wanted.clone()),
            None => x,
        };
        let x = pick(x) + self.self_attn.o_proj.forward_packed(pick(mixed));
        let fed = self.mlp.forward_packed(self.post_attention_layernorm.forward_packed(x.clone()));
        x + fed
    }
}

impl SelfAttention {
    /// What each token gathers from its text, by head, `[t, h·n]`.
    fn mix_packed(&self, x: Tensor<2>, pass: &PackedPass) -> Tensor<2> {
        let heads = Heads { query: self.heads, kv: self.kv_heads, dim: self.head_dim };
        let turned = |x: Tensor<2>| rotate(x, pass.cos.clone(), pass.sin.clone());
        let q = turned(self.q_proj.forward_packed(x.clone()));
        let k = turned(self.k_proj.forward_packed(x.clone()));
        attention(q, k, self.v_proj.forward_packed(x), heads, &pass.packing)
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
