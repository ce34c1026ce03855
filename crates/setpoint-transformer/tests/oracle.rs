//! The transformer as the papers write it: padded rows, one primitive after the other, Burn's own derivatives.
//!
//! It shares nothing with the crate's passes but the parameters, and is compared with what transformers computes as they are. Tests of other
//! crates include this file to compare with it.

use burn::module::Param;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData, activation, module};
use setpoint_transformer::{
    Activation, Block, Decoder, HeadNorms, LayerRope, Linear, Maps, Mlp, ModelConfig, NormPlacement, NormWeight,
    RmsNorm, RopeConfig, RopeScaling,
};

/// Added to the score of a position that must not be seen. Large, yet finite: a row of nothing else yields a uniform distribution, not NaN.
const HIDDEN: f32 = -1e30;

/// Computes the hidden states after the final norm. Shorter rows are filled up on the right with token 0; as attention is causal, what
/// stands there changes nothing before it. Positions count from 0 in each row.
///
/// # Shapes
///
/// `b` rows of at most `s` tokens `-> [b, s, d]`
pub fn hidden_states<R: AsRef<[u32]>>(decoder: &Decoder, config: &ModelConfig, rows: &[R]) -> Tensor<3> {
    let device = decoder.device();
    let ids = pad_right(rows, &device);
    let [_, length] = ids.dims();
    let lengths: Vec<usize> = rows.iter().map(|row| row.as_ref().len()).collect();
    let x = module::embedding(decoder.embed_tokens.weight.val(), ids);
    let mut x = x.mul_scalar(config.design.multipliers.embeddings);
    for (i, layer) in decoder.layers.iter().enumerate() {
        let design = config.design.layer(i);
        let rope = match design.rope {
            LayerRope::Global => Some(&config.rope),
            LayerRope::Local => config.design.local_rope.as_ref(),
            LayerRope::Absent => None,
        };
        let rotation = rope.map(|rope| Rotation::new(rope, config.head_dim, &lengths, &device));
        let mask = causal_mask(length, design.window, &device);
        x = block(layer, config, x, rotation.as_ref(), &mask);
    }
    norm(&decoder.norm, config, x)
}

/// Returns rows of token ids as one tensor, shorter rows filled up on the right with token 0.
fn pad_right<R: AsRef<[u32]>>(rows: &[R], device: &Device) -> Tensor<2, Int> {
    let length = rows.iter().map(|row| row.as_ref().len()).max().unwrap();
    let mut ids: Vec<i32> = Vec::with_capacity(rows.len() * length);
    for row in rows {
        ids.extend(row.as_ref().iter().map(|&id| id as i32));
        ids.resize(ids.len() + length - row.as_ref().len(), 0);
    }
    Tensor::from_data(TensorData::new(ids, [rows.len(), length]), device)
}

/// Attention and feed-forward network, each added to its input, with norms before them, after them or both.
fn block(
    layer: &Block,
    config: &ModelConfig,
    x: Tensor<3>,
    rotation: Option<&Rotation>,
    mask: &Tensor<4>,
) -> Tensor<3> {
    let apply = |which: &Option<RmsNorm>, x| norm(which.as_ref().unwrap(), config, x);
    let attend = |x| self_attention(layer, config, x, rotation, mask);
    let feed = |x| feed_forward(&layer.mlp, config, x);
    let residual = config.design.multipliers.residual;
    let second = |x| norm(&layer.post_attention_layernorm, config, x);
    match config.design.norms {
        NormPlacement::Before => {
            let x = x.clone() + attend(apply(&layer.input_layernorm, x)).mul_scalar(residual);
            x.clone() + feed(second(x)).mul_scalar(residual)
        }
        NormPlacement::After => {
            let x = x.clone() + second(attend(x)).mul_scalar(residual);
            x.clone() + apply(&layer.post_feedforward_layernorm, feed(x)).mul_scalar(residual)
        }
        NormPlacement::Both => {
            let x = x.clone() + second(attend(apply(&layer.input_layernorm, x))).mul_scalar(residual);
            let fed = feed(apply(&layer.pre_feedforward_layernorm, x.clone()));
            x + apply(&layer.post_feedforward_layernorm, fed).mul_scalar(residual)
        }
    }
}

fn self_attention(
    layer: &Block,
    config: &ModelConfig,
    x: Tensor<3>,
    rotation: Option<&Rotation>,
    mask: &Tensor<4>,
) -> Tensor<3> {
    let [b, s, _] = x.dims();
    let (h, g, n) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let weights = &layer.self_attn;
    let [q, k, v] = match config.design.maps {
        Maps::Separate => {
            [&weights.q_proj, &weights.k_proj, &weights.v_proj].map(|map| linear(map.as_ref().unwrap(), x.clone()))
        }
        Maps::Fused => {
            let all = linear(weights.qkv_proj.as_ref().unwrap(), x);
            [(0, h), (h, g), (h + g, g)].map(|(first, heads)| all.clone().narrow(2, first * n, heads * n))
        }
    };
    // [b, s, h·n] -> [b, h, s, n]
    let split = |x: Tensor<3>, heads: usize| x.reshape([b, s, heads, n]).swap_dims(1, 2);
    let normed = |x: Tensor<3>, which: &Option<RmsNorm>, heads: usize| match config.design.head_norms {
        HeadNorms::Absent => x,
        HeadNorms::Whole => norm(which.as_ref().unwrap(), config, x),
        HeadNorms::PerHead => {
            norm(which.as_ref().unwrap(), config, x.reshape([b, s * heads, n])).reshape([b, s, heads * n])
        }
    };
    let turn = |x: Tensor<4>| match rotation {
        Some(rotation) => rotation.apply(x),
        None => x,
    };
    let q = grown(turn(split(normed(q, &weights.q_norm, h), h)), config);
    let k = turn(split(normed(k, &weights.k_norm, g), g));
    let scale = config.design.multipliers.attention.unwrap_or((n as f64).sqrt().recip());
    // [b, h, s, n] -> [b, s, h·n]
    let mixed = attention(q, k, split(v, g), mask, scale, config.design.attention_cap);
    linear(&weights.o_proj, mixed.swap_dims(1, 2).reshape([b, s, h * n]))
}

/// Multiplies each query by `1 + beta · ln(1 + floor(position / context))`, rounded to its dtype, in models that do so.
fn grown(q: Tensor<4>, config: &ModelConfig) -> Tensor<4> {
    let RopeScaling::Yarn { query_beta: Some(beta), original_max_position_embeddings: context, .. } =
        config.rope.scaling
    else {
        return q;
    };
    let dtype: FloatDType = q.dtype().into();
    let length = q.dims()[2];
    let factors = (0..length).map(|at| (1.0 + beta * (1.0 + (at as f64 / context as f64).floor()).ln()) as f32);
    let factors = TensorData::new(factors.collect::<Vec<f32>>(), [1, 1, length, 1]);
    let device = q.device().without_autodiff();
    q * Tensor::<4>::from_data(factors, (&device, DType::F32)).cast(dtype)
}

/// The gated feed-forward network: Shazeer, <https://arxiv.org/abs/2002.05202>, equation 6.
fn feed_forward(mlp: &Mlp, config: &ModelConfig, x: Tensor<3>) -> Tensor<3> {
    let f = config.intermediate_size;
    let [gate, up] = match config.design.maps {
        Maps::Separate => [&mlp.gate_proj, &mlp.up_proj].map(|map| linear(map.as_ref().unwrap(), x.clone())),
        Maps::Fused => {
            let both = linear(mlp.gate_up_proj.as_ref().unwrap(), x);
            [0, f].map(|first| both.clone().narrow(2, first, f))
        }
    };
    let gate = match config.design.activation {
        Activation::Silu => activation::silu(gate),
        Activation::GeluTanh => activation::gelu_approximate(gate),
    };
    linear(&mlp.down_proj, gate * up)
}

/// `y = x · Wᵀ + b`
fn linear(map: &Linear, x: Tensor<3>) -> Tensor<3> {
    module::linear(x, map.weight.val().transpose(), map.bias.as_ref().map(Param::val))
}

/// Root mean square normalisation: Zhang and Sennrich, <https://arxiv.org/abs/1910.07467>, equation 4.
///
/// `y = w · x / sqrt(mean(x²) + eps)`, the fraction in f32 and rounded to the dtype of `x` before `w` is applied or afterwards, as
/// transformers does.
fn norm(norm: &RmsNorm, config: &ModelConfig, x: Tensor<3>) -> Tensor<3> {
    let dtype: FloatDType = x.dtype().into();
    let x = x.cast(FloatDType::F32);
    let scale = x.clone().square().mean_dim(2).add_scalar(config.rms_norm_eps).sqrt().recip();
    let weight: Tensor<3> = norm.weight.val().unsqueeze();
    match config.design.norm_weight {
        NormWeight::Rounded => (x * scale).cast(dtype) * weight,
        NormWeight::Wide => (x * scale * weight.cast(FloatDType::F32)).cast(dtype),
        NormWeight::OnePlus => (x * scale * weight.cast(FloatDType::F32).add_scalar(1.0)).cast(dtype),
    }
}

/// Rotary position embedding: Su et al., <https://arxiv.org/abs/2104.09864>, element `i` of the first `m` of a head paired with `i + m/2`.
struct Rotation {
    /// `[b, 1, s, m/2]`
    cos: Tensor<4>,
    /// `[b, 1, s, m/2]`
    sin: Tensor<4>,
}

impl Rotation {
    /// The rotation of rows of these lengths. With LongRoPE the length of a row decides on the frequencies of all its tokens.
    fn new(rope: &RopeConfig, head_dim: usize, lengths: &[usize], device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let longest = lengths.iter().copied().max().unwrap();
        let frequencies = |length: usize| -> Vec<f32> {
            let long = rope.long_inv_freq(head_dim).filter(|_| rope.switch().tokens().unwrap() < length);
            long.unwrap_or_else(|| rope.inv_freq(head_dim)).into_iter().map(|f| f as f32).collect()
        };
        let angles = || {
            lengths.iter().flat_map(|&length| {
                let frequencies = frequencies(length);
                (0..longest).flat_map(move |at| frequencies.clone().into_iter().map(move |f| f64::from(at as f32 * f)))
            })
        };
        let shape = [lengths.len(), 1, longest, rope.rotary_width(head_dim) / 2];
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32));
        Self {
            cos: tensor(angles().map(|angle| (angle.cos() * rope.magnitude()) as f32).collect()),
            sin: tensor(angles().map(|angle| (angle.sin() * rope.magnitude()) as f32).collect()),
        }
    }

    /// `(a, b) -> (a cos - b sin, b cos + a sin)`, in f32, rounded once to the dtype of `x`: `[b, h, s, n] -> [b, h, s, n]`
    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype: FloatDType = x.dtype().into();
        let (n, half) = (x.dims()[3], self.cos.dims()[3]);
        let x = x.cast(FloatDType::F32);
        let (a, b) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        let second = b * cos + a * sin;
        let mut parts = vec![first, second];
        if 2 * half < n {
            parts.push(x.narrow(3, 2 * half, n - 2 * half));
        }
        Tensor::cat(parts, 3).cast(dtype)
    }
}

/// Returns the term of the attention scores by which each of `length` positions sees itself and those before it, with a window of `n` no more
/// than the last `n` of them; `[1, 1, s, s]`, f32.
pub fn causal_mask(length: usize, window: Option<usize>, device: &Device) -> Tensor<4> {
    let window = window.unwrap_or(length);
    let hidden = |i: usize, j: usize| j > i || i - j >= window;
    let mask = (0..length).flat_map(|i| (0..length).map(move |j| if hidden(i, j) { HIDDEN } else { 0.0 }));
    let mask = TensorData::new(mask.collect::<Vec<f32>>(), [1, 1, length, length]);
    Tensor::from_data(mask, (&device.clone().without_autodiff(), DType::F32))
}

/// Scaled dot-product attention with grouped heads: Vaswani et al., <https://arxiv.org/abs/1706.03762>, equation 1; Ainslie et al.,
/// <https://arxiv.org/abs/2305.13245>.
///
/// `softmax(scale · q kᵀ + mask) v`. Scores and softmax are f32 whatever the dtype of `q`. With a bound `c`, a scaled score `s` becomes
/// `c · tanh(s / c)`.
///
/// # Shapes
///
/// `q [b, h, s, n]`, `k` and `v [b, g, s, n]` with `h` a multiple of `g`; the result is `[b, h, s, n]`. Query head `i` reads key head
/// `i · g / h`.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &Tensor<4>,
    scale: f64,
    cap: Option<f64>,
) -> Tensor<4> {
    let dtype: FloatDType = q.dtype().into();
    let [b, h, s, n] = q.dims();
    let g = k.dims()[1];
    let r = h / g;
    // The queries of a group are rows of one product with their common keys: [b, h, s, n] -> [b, g, r·s, n]
    let q = q.reshape([b, g, r * s, n]);
    let scores = q.matmul(k.transpose()).cast(FloatDType::F32).mul_scalar(scale);
    let scores = match cap {
        Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
        None => scores,
    };
    // [b, g, r·s, s] -> [b, g, r, s, s]
    let scores = scores.reshape([b, g, r, s, s]) + mask.clone().unsqueeze_dim::<5>(1);
    let weights = activation::softmax(scores, 4).reshape([b, g, r * s, s]);
    // [b, g, r·s, n] -> [b, h, s, n]
    weights.cast(dtype).matmul(v).reshape([b, h, s, n])
}
