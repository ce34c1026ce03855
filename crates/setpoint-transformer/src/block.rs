use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use setpoint_ops::{DropoutMask, Heads, Packing, attention, swiglu};

use crate::config::{ModelConfig, size};
use crate::linear::Linear;
use crate::lora::Masks;
use crate::norm::RmsNorm;
use crate::rope::Rotation;

/// One layer: attention and feed-forward network, each after a norm and added to its input.
#[derive(Module, Debug)]
pub struct Block {
    /// The norm before attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: SelfAttention,
    /// The norm before the feed-forward network.
    pub post_attention_layernorm: RmsNorm,
    /// The feed-forward network.
    pub mlp: Mlp,
}

/// Queries, keys and values of some tokens, ready for attention.
pub(crate) struct Projections {
    /// `[t, h·n]`
    pub(crate) q: Tensor<2>,
    /// `[t, g·n]`
    pub(crate) k: Tensor<2>,
    /// `[t, g·n]`
    pub(crate) v: Tensor<2>,
}

/// Positions and packing of the tokens of one pass, which all blocks share.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    pub(crate) rotation: Rotation,
    pub(crate) packing: Packing,
    /// What the dropout of an adapter drops, if it does.
    pub(crate) masks: Option<Masks>,
}

impl Block {
    pub(crate) fn zeros(config: &ModelConfig, device: &Device) -> Self {
        let norm = || RmsNorm::ones(config.hidden_size, config.rms_norm_eps, device);
        Self {
            input_layernorm: norm(),
            self_attn: SelfAttention::zeros(config, device),
            post_attention_layernorm: norm(),
            mlp: Mlp::zeros(config, device),
        }
    }

    /// Applies the layer to whole texts; returns all tokens or those in the places `wanted`.
    ///
    /// # Shapes
    ///
    /// `[t, d] -> [t, d]`, or `[wanted, d]`
    pub(crate) fn forward(&self, x: Tensor<2>, pass: &Pass, wanted: Option<&Tensor<1, Int>>) -> Tensor<2> {
        let masks = pass.masks.as_ref();
        let Projections { q, k, v } = self.project(x.clone(), &pass.rotation, masks.map(|masks| &masks.all));
        let mixed = attention(q, k, v, self.self_attn.heads(), &pass.packing);
        self.finish(x, mixed, wanted, masks.map(|masks| masks.answered(wanted.is_some())))
    }

    /// Returns the linear maps with their paths in the layer.
    pub(crate) fn linear_maps(&mut self) -> [(&'static str, &mut Linear); 7] {
        let Self { self_attn: SelfAttention { q_proj, k_proj, v_proj, o_proj, .. }, mlp, .. } = self;
        [
            ("self_attn.q_proj", q_proj),
            ("self_attn.k_proj", k_proj),
            ("self_attn.v_proj", v_proj),
            ("self_attn.o_proj", o_proj),
            ("mlp.gate_proj", &mut mlp.gate_proj),
            ("mlp.up_proj", &mut mlp.up_proj),
            ("mlp.down_proj", &mut mlp.down_proj),
        ]
    }

    /// Computes what attention needs of the layer's input: the part before it, for whole texts and for generation.
    pub(crate) fn project(&self, x: Tensor<2>, rotation: &Rotation, mask: Option<&DropoutMask>) -> Projections {
        self.self_attn.project(self.input_layernorm.forward(x), rotation, mask)
    }

    /// Computes the layer's output from its input and what each token gathered by attention, `[t, h·n]`: the part behind it, for whole
    /// texts and for generation.
    pub(crate) fn finish(
        &self,
        x: Tensor<2>,
        mixed: Tensor<2>,
        wanted: Option<&Tensor<1, Int>>,
        mask: Option<&DropoutMask>,
    ) -> Tensor<2> {
        let pick = |x: Tensor<2>| match wanted {
            Some(wanted) => x.select(0, wanted.clone()),
            None => x,
        };
        let x = pick(x) + self.self_attn.o_proj.forward_masked(pick(mixed), mask);
        let fed = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()), mask);
        x + fed
    }
}

/// Causal self-attention with grouped heads and rotary positions.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// `[h·n, d]`
    pub q_proj: Linear,
    /// `[g·n, d]`
    pub k_proj: Linear,
    /// `[g·n, d]`
    pub v_proj: Linear,
    /// `[d, h·n]`
    pub o_proj: Linear,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl SelfAttention {
    fn zeros(config: &ModelConfig, device: &Device) -> Self {
        let (d, q, kv) = (
            config.hidden_size,
            config.num_attention_heads * config.head_dim,
            config.num_key_value_heads * config.head_dim,
        );
        let biases = config.biases;
        Self {
            q_proj: Linear::zeros(d, q, biases.qkv, device),
            k_proj: Linear::zeros(d, kv, biases.qkv, device),
            v_proj: Linear::zeros(d, kv, biases.qkv, device),
            o_proj: Linear::zeros(q, d, biases.output, device),
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    /// Returns the shape of the heads.
    pub(crate) fn heads(&self) -> Heads {
        Heads { query: self.heads, kv: self.kv_heads, dim: self.head_dim }
    }

    /// Computes queries, keys and values: the one place where a model family's attention may differ.
    fn project(&self, x: Tensor<2>, rotation: &Rotation, mask: Option<&DropoutMask>) -> Projections {
        let q = rotation.apply(self.q_proj.forward_masked(x.clone(), mask));
        let k = rotation.apply(self.k_proj.forward_masked(x.clone(), mask));
        Projections { q, k, v: self.v_proj.forward_masked(x, mask) }
    }
}

/// The gated feed-forward network SwiGLU: Shazeer, <https://arxiv.org/abs/2002.05202>, equation 6.
///
/// `down(silu(gate(x)) · up(x))`
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[f, d]`
    pub gate_proj: Linear,
    /// `[f, d]`
    pub up_proj: Linear,
    /// `[d, f]`
    pub down_proj: Linear,
}

impl Mlp {
    fn zeros(config: &ModelConfig, device: &Device) -> Self {
        let (d, f, bias) = (config.hidden_size, config.intermediate_size, config.biases.mlp);
        Self {
            gate_proj: Linear::zeros(d, f, bias, device),
            up_proj: Linear::zeros(d, f, bias, device),
            down_proj: Linear::zeros(f, d, bias, device),
        }
    }

    fn forward(&self, x: Tensor<2>, mask: Option<&DropoutMask>) -> Tensor<2> {
        let gate = self.gate_proj.forward_masked(x.clone(), mask);
        let up = self.up_proj.forward_masked(x, mask);
        self.down_proj.forward_masked(swiglu(gate, up), mask)
    }
}

/// Returns the shapes of the linear maps of a layer.
pub(crate) fn map_shapes(config: &ModelConfig) -> [[usize; 2]; 7] {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    [[q, d], [kv, d], [kv, d], [d, q], [f, d], [f, d], [d, f]]
}

/// Counts the parameters of a layer.
pub(crate) fn count_parameters(config: &ModelConfig) -> u128 {
    let (d, f) = (size(config.hidden_size), size(config.intermediate_size));
    let head = size(config.head_dim);
    let (q, kv) = (size(config.num_attention_heads) * head, size(config.num_key_value_heads) * head);
    let mut count = 2 * q * d + 2 * kv * d + 3 * d * f + 2 * d;
    if config.biases.qkv {
        count += q + 2 * kv;
    }
    if config.biases.output {
        count += d;
    }
    if config.biases.mlp {
        count += 2 * f + d;
    }
    count
}
