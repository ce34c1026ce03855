use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};

use crate::attention::{Mask, attention};
use crate::config::ModelConfig;
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::rope::Rotation;

/// What all blocks of one pass share: where each token stands and which others it sees.
///
/// Made by [`Decoder::pass`](crate::Decoder::pass).
#[derive(Clone, Debug)]
pub struct Pass {
    pub(crate) rotation: Rotation,
    pub(crate) mask: Option<Mask>,
}

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

    /// Applies the layer.
    ///
    /// # Shapes
    ///
    /// `[b, s, d] -> [b, s, d]`
    pub fn forward(&self, x: Tensor<3>, pass: &Pass) -> Tensor<3> {
        let attended = self.self_attn.forward(self.input_layernorm.forward(x.clone()), pass);
        let x = x + attended;
        let fed = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()));
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
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl SelfAttention {
    fn zeros(config: &ModelConfig, device: &Device) -> Self {
        let (d, q, kv) = (
            config.hidden_size,
            config.num_attention_heads * config.head_dim,
            config.num_key_value_heads * config.head_dim,
        );
        Self {
            q_proj: Linear::zeros(d, q, config.qkv_bias(), device),
            k_proj: Linear::zeros(d, kv, config.qkv_bias(), device),
            v_proj: Linear::zeros(d, kv, config.qkv_bias(), device),
            o_proj: Linear::zeros(q, d, config.o_bias(), device),
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    fn forward(&self, x: Tensor<3>, pass: &Pass) -> Tensor<3> {
        let [b, s, _] = x.dims();
        let (h, g, n) = (self.heads, self.kv_heads, self.head_dim);
        // [b, s, h·n] -> [b, h, s, n]
        let split = |x: Tensor<3>, heads: usize| x.reshape([b, s, heads, n]).swap_dims(1, 2);
        let q = pass.rotation.apply(split(self.q_proj.forward(x.clone()), h));
        let k = pass.rotation.apply(split(self.k_proj.forward(x.clone()), g));
        let v = split(self.v_proj.forward(x), g);
        let mixed = attention(q, k, v, pass.mask.as_ref());
        // [b, h, s, n] -> [b, s, h·n]
        self.o_proj.forward(mixed.swap_dims(1, 2).reshape([b, s, h * n]))
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
        let (d, f, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        Self {
            gate_proj: Linear::zeros(d, f, bias, device),
            up_proj: Linear::zeros(d, f, bias, device),
            down_proj: Linear::zeros(f, d, bias, device),
        }
    }

    /// Applies the network to each token.
    ///
    /// # Shapes
    ///
    /// `[b, s, d] -> [b, s, d]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = activation::silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}
