use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use setpoint_ops::{DropoutMask, Heads, Packing, attention, geglu, swiglu};

use crate::config::{ModelConfig, size};
use crate::design::{Activation, HeadNorms, LayerRope, Maps, NormPlacement};
use crate::linear::Linear;
use crate::lora::Masks;
use crate::norm::RmsNorm;
use crate::optional::OptionalLinear;
use crate::rope::Rotations;

/// One layer: attention and feed-forward network, each added to its input, with norms before them, after them, or both.
#[derive(Module, Debug)]
pub struct Block {
    /// The norm before attention, unless norms are only after.
    pub input_layernorm: Option<RmsNorm>,
    /// Attention.
    pub self_attn: SelfAttention,
    /// The norm before the feed-forward network; the one after attention in families that have one there.
    pub post_attention_layernorm: RmsNorm,
    /// The norm before the feed-forward network in families with norms on both sides.
    pub pre_feedforward_layernorm: Option<RmsNorm>,
    /// The norm after the feed-forward network, if there is one.
    pub post_feedforward_layernorm: Option<RmsNorm>,
    /// The feed-forward network.
    pub mlp: Mlp,
    /// The factor of what is added to the input.
    residual: f64,
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
    pub(crate) rotations: Rotations,
    pub(crate) packing: Packing,
    /// The masks of an adapter's dropout, if it has one.
    pub(crate) masks: Option<Masks>,
}

impl Block {
    /// Creates layer `i` of a model.
    pub(crate) fn zeros(config: &ModelConfig, i: usize, device: &Device) -> Self {
        let norm = || RmsNorm::fresh(config.hidden_size, config, device);
        let placement = config.design.norms;
        Self {
            input_layernorm: (placement != NormPlacement::After).then(norm),
            self_attn: SelfAttention::zeros(config, i, device),
            post_attention_layernorm: norm(),
            pre_feedforward_layernorm: (placement == NormPlacement::Both).then(norm),
            post_feedforward_layernorm: (placement != NormPlacement::Before).then(norm),
            mlp: Mlp::zeros(config, device),
            residual: config.design.multipliers.residual,
        }
    }

    /// Applies the layer to whole texts; returns all tokens or those in the places `wanted`.
    ///
    /// # Shapes
    ///
    /// `[t, d] -> [t, d]`, or `[wanted, d]`
    pub(crate) fn forward(&self, x: Tensor<2>, pass: &Pass, wanted: Option<&Tensor<1, Int>>) -> Tensor<2> {
        let masks = pass.masks.as_ref();
        let Projections { q, k, v } = self.project(x.clone(), &pass.rotations, masks.map(|masks| &masks.all));
        let mixed = attention(q, k, v, self.self_attn.heads(), &pass.packing);
        self.finish(x, mixed, wanted, masks.map(|masks| masks.answered(wanted.is_some())))
    }

    /// Returns the linear maps with their paths in the layer.
    pub(crate) fn linear_maps(&mut self) -> Vec<(&'static str, &mut Linear)> {
        let Self { self_attn: SelfAttention { q_proj, k_proj, v_proj, qkv_proj, o_proj, .. }, mlp, .. } = self;
        let maps = [
            ("self_attn.q_proj", q_proj.as_mut()),
            ("self_attn.k_proj", k_proj.as_mut()),
            ("self_attn.v_proj", v_proj.as_mut()),
            ("self_attn.qkv_proj", qkv_proj.as_mut()),
            ("self_attn.o_proj", Some(o_proj)),
            ("mlp.gate_proj", mlp.gate_proj.as_mut()),
            ("mlp.up_proj", mlp.up_proj.as_mut()),
            ("mlp.gate_up_proj", mlp.gate_up_proj.as_mut()),
            ("mlp.down_proj", Some(&mut mlp.down_proj)),
        ];
        maps.into_iter().filter_map(|(name, map)| Some((name, map?))).collect()
    }

    /// Computes what attention needs of the layer's input: the part before it, for whole texts and for generation.
    pub(crate) fn project(&self, x: Tensor<2>, rotations: &Rotations, mask: Option<&DropoutMask>) -> Projections {
        self.self_attn.project(normalised(x, &self.input_layernorm), rotations, mask)
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
        let x = pick(x);
        let gathered = self.self_attn.o_proj.forward_masked(pick(mixed), mask);
        let Some(after) = &self.post_feedforward_layernorm else {
            let x = x + self.scaled(gathered);
            let fed = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()), mask);
            return x + self.scaled(fed);
        };
        let x = x + self.scaled(self.post_attention_layernorm.forward(gathered));
        let fed = self.mlp.forward(normalised(x.clone(), &self.pre_feedforward_layernorm), mask);
        x + self.scaled(after.forward(fed))
    }

    /// Multiplies what is added to the layer's input by its factor.
    fn scaled(&self, part: Tensor<2>) -> Tensor<2> {
        if self.residual == 1.0 { part } else { part.mul_scalar(self.residual) }
    }
}

/// Applies a norm, if there is one.
fn normalised(x: Tensor<2>, norm: &Option<RmsNorm>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

/// Applies linear maps of one input: separate ones, or the one that holds them all, whose output is cut into these `widths`.
fn apply<const N: usize>(
    x: Tensor<2>,
    mask: Option<&DropoutMask>,
    fused: &OptionalLinear,
    separate: [&OptionalLinear; N],
    widths: [usize; N],
) -> [Tensor<2>; N] {
    let Some(fused) = fused.as_ref() else {
        return separate.map(|map| {
            let map = map.as_ref().expect("a layer has separate maps or a fused one");
            map.forward_masked(x.clone(), mask)
        });
    };
    let all = fused.forward_masked(x, mask);
    let mut start = 0;
    widths.map(|width| {
        start += width;
        all.clone().narrow(1, start - width, width)
    })
}

/// Causal self-attention with grouped heads and rotary positions.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// `[h·n, d]`, unless [`qkv_proj`](Self::qkv_proj) holds it; so are the next two.
    pub q_proj: OptionalLinear,
    /// `[g·n, d]`
    pub k_proj: OptionalLinear,
    /// `[g·n, d]`
    pub v_proj: OptionalLinear,
    /// Queries, keys and values in one matrix, `[(h + 2g)·n, d]`, if the checkpoint has them so.
    pub qkv_proj: OptionalLinear,
    /// `[d, h·n]`
    pub o_proj: Linear,
    /// The norm of the queries, if there is one.
    pub q_norm: Option<RmsNorm>,
    /// The norm of the keys, if there is one.
    pub k_norm: Option<RmsNorm>,
    #[module(skip)]
    heads: Heads,
    #[module(skip)]
    head_norms: HeadNorms,
    #[module(skip)]
    rope: LayerRope,
}

impl SelfAttention {
    fn zeros(config: &ModelConfig, i: usize, device: &Device) -> Self {
        let (design, layer) = (&config.design, config.design.layer(i));
        let heads = Heads::new(config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let heads = Heads {
            scale: design.multipliers.attention.unwrap_or(heads.scale),
            soft_cap: design.attention_cap,
            window: layer.window,
            ..heads
        };
        let (d, q, kv) = (config.hidden_size, heads.query * heads.dim, heads.kv * heads.dim);
        let fused = design.maps == Maps::Fused;
        let map = |is_there: bool, width| {
            OptionalLinear(is_there.then(|| Linear::zeros(d, width, design.biases.qkv, device)))
        };
        let norm = |whole| match design.head_norms {
            HeadNorms::Absent => None,
            HeadNorms::PerHead => Some(RmsNorm::fresh(heads.dim, config, device)),
            HeadNorms::Whole => Some(RmsNorm::fresh(whole, config, device)),
        };
        Self {
            q_proj: map(!fused, q),
            k_proj: map(!fused, kv),
            v_proj: map(!fused, kv),
            qkv_proj: map(fused, q + 2 * kv),
            o_proj: Linear::zeros(q, d, design.biases.output, device),
            q_norm: norm(q),
            k_norm: norm(kv),
            heads,
            head_norms: design.head_norms,
            rope: layer.rope,
        }
    }

    /// Returns the shape of the heads, and how their scores become weights.
    pub(crate) fn heads(&self) -> Heads {
        self.heads
    }

    /// Computes queries, keys and values, for whole texts and for generation.
    fn project(&self, x: Tensor<2>, rotations: &Rotations, mask: Option<&DropoutMask>) -> Projections {
        let Heads { query, kv, dim, .. } = self.heads;
        let separate = [&self.q_proj, &self.k_proj, &self.v_proj];
        let [q, k, v] = apply(x, mask, &self.qkv_proj, separate, [query * dim, kv * dim, kv * dim]);
        let (q, k) = (self.normalised(q, &self.q_norm), self.normalised(k, &self.k_norm));
        match rotations.of(self.rope) {
            Some(rotation) => Projections { q: rotation.apply_to_queries(q), k: rotation.apply(k), v },
            None => Projections { q, k, v },
        }
    }

    /// Applies the norm of queries or keys: `[t, heads·n] -> [t, heads·n]`
    fn normalised(&self, x: Tensor<2>, norm: &Option<RmsNorm>) -> Tensor<2> {
        if self.head_norms != HeadNorms::PerHead {
            return normalised(x, norm);
        }
        let ([t, width], n) = (x.dims(), self.heads.dim);
        // [t, heads·n] -> [t·heads, n]
        normalised(x.reshape([t * width / n, n]), norm).reshape([t, width])
    }
}

/// The gated feed-forward network: Shazeer, <https://arxiv.org/abs/2002.05202>, equation 6.
///
/// `down(f(gate(x)) · up(x))`, with silu for `f` (SwiGLU) or GELU (GeGLU)
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[f, d]`, unless [`gate_up_proj`](Self::gate_up_proj) holds it; so is the next one.
    pub gate_proj: OptionalLinear,
    /// `[f, d]`
    pub up_proj: OptionalLinear,
    /// Both in one matrix, `[2f, d]`, if the checkpoint has them so.
    pub gate_up_proj: OptionalLinear,
    /// `[d, f]`
    pub down_proj: Linear,
    width: usize,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn zeros(config: &ModelConfig, device: &Device) -> Self {
        let (d, f, bias) = (config.hidden_size, config.intermediate_size, config.design.biases.mlp);
        let fused = config.design.maps == Maps::Fused;
        let map = |is_there: bool, width| OptionalLinear(is_there.then(|| Linear::zeros(d, width, bias, device)));
        Self {
            gate_proj: map(!fused, f),
            up_proj: map(!fused, f),
            gate_up_proj: map(fused, 2 * f),
            down_proj: Linear::zeros(f, d, bias, device),
            width: f,
            activation: config.design.activation,
        }
    }

    fn forward(&self, x: Tensor<2>, mask: Option<&DropoutMask>) -> Tensor<2> {
        let separate = [&self.gate_proj, &self.up_proj];
        let [gate, up] = apply(x, mask, &self.gate_up_proj, separate, [self.width, self.width]);
        let fed = match self.activation {
            Activation::Silu => swiglu(gate, up),
            Activation::GeluTanh => geglu(gate, up),
        };
        self.down_proj.forward_masked(fed, mask)
    }
}

/// Returns the shapes of the linear maps of a layer.
pub(crate) fn map_shapes(config: &ModelConfig) -> Vec<[usize; 2]> {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    match config.design.maps {
        Maps::Separate => vec![[q, d], [kv, d], [kv, d], [d, q], [f, d], [f, d], [d, f]],
        Maps::Fused => vec![[q + 2 * kv, d], [d, q], [2 * f, d], [d, f]],
    }
}

/// Counts the parameters of a layer.
pub(crate) fn count_parameters(config: &ModelConfig) -> u128 {
    let (d, f) = (size(config.hidden_size), size(config.intermediate_size));
    let head = size(config.head_dim);
    let (q, kv) = (size(config.num_attention_heads) * head, size(config.num_key_value_heads) * head);
    let norms = match config.design.norms {
        NormPlacement::Before | NormPlacement::After => 2 * d,
        NormPlacement::Both => 4 * d,
    };
    let head_norms = match config.design.head_norms {
        HeadNorms::Absent => 0,
        HeadNorms::PerHead => 2 * head,
        HeadNorms::Whole => q + kv,
    };
    let mut count = 2 * q * d + 2 * kv * d + 3 * d * f + norms + head_norms;
    let biases = config.design.biases;
    if biases.qkv {
        count += q + 2 * kv;
    }
    if biases.output {
        count += d;
    }
    if biases.mlp {
        count += 2 * f + d;
    }
    count
}
