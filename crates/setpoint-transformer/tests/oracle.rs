//! The transformer as the papers write it: padded rows, one primitive after the other, Burn's own derivatives.
//!
//! It shares nothing with the crate's passes but the parameters, and is compared with what transformers computes as they are. Tests of other
//! crates include this file to compare with it.

use burn::module::Param;
use burn::tensor::{Bool, DType, Device, FloatDType, Int, Tensor, TensorData, activation, module};
use setpoint_transformer::{Block, Decoder, Linear, Mlp, ModelConfig, RmsNorm};

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
    let rotation = Rotation::new(config, length, &device);
    let mask = causal_mask(length, &device);
    let mut x = module::embedding(decoder.embed_tokens.weight.val(), ids);
    for layer in &decoder.layers {
        x = block(layer, config, x, &rotation, &mask);
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

/// Attention and feed-forward network, each after a norm and added to its input.
fn block(layer: &Block, config: &ModelConfig, x: Tensor<3>, rotation: &Rotation, mask: &Tensor<4>) -> Tensor<3> {
    let x = x.clone() + self_attention(layer, config, norm(&layer.input_layernorm, config, x), rotation, mask);
    x.clone() + feed_forward(&layer.mlp, norm(&layer.post_attention_layernorm, config, x))
}

fn self_attention(
    layer: &Block,
    config: &ModelConfig,
    x: Tensor<3>,
    rotation: &Rotation,
    mask: &Tensor<4>,
) -> Tensor<3> {
    let [b, s, _] = x.dims();
    let (h, g, n) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let weights = &layer.self_attn;
    // [b, s, h·n] -> [b, h, s, n]
    let split = |x: Tensor<3>, heads: usize| x.reshape([b, s, heads, n]).swap_dims(1, 2);
    let q = rotation.apply(split(linear(&weights.q_proj, x.clone()), h));
    let k = rotation.apply(split(linear(&weights.k_proj, x.clone()), g));
    let v = split(linear(&weights.v_proj, x), g);
    // [b, h, s, n] -> [b, s, h·n]
    let mixed = attention(q, k, v, mask).swap_dims(1, 2).reshape([b, s, h * n]);
    linear(&weights.o_proj, mixed)
}

/// The gated feed-forward network SwiGLU: Shazeer, <https://arxiv.org/abs/2002.05202>, equation 6.
fn feed_forward(mlp: &Mlp, x: Tensor<3>) -> Tensor<3> {
    let gate = activation::silu(linear(&mlp.gate_proj, x.clone()));
    linear(&mlp.down_proj, gate * linear(&mlp.up_proj, x))
}

/// `y = x · Wᵀ + b`
fn linear(map: &Linear, x: Tensor<3>) -> Tensor<3> {
    module::linear(x, map.weight.val().transpose(), map.bias.as_ref().map(Param::val))
}

/// Root mean square normalisation: Zhang and Sennrich, <https://arxiv.org/abs/1910.07467>, equation 4.
///
/// `y = w · x / sqrt(mean(x²) + eps)`, the fraction in f32 and rounded to the dtype of `x` before `w` is applied, as transformers does.
fn norm(norm: &RmsNorm, config: &ModelConfig, x: Tensor<3>) -> Tensor<3> {
    let dtype: FloatDType = x.dtype().into();
    let x = x.cast(FloatDType::F32);
    let scale = x.clone().square().mean_dim(2).add_scalar(config.rms_norm_eps).sqrt().recip();
    (x * scale).cast(dtype) * norm.weight.val().unsqueeze()
}

/// Rotary position embedding: Su et al., <https://arxiv.org/abs/2104.09864>, element `i` of a head paired with `i + n/2`.
struct Rotation {
    /// `[1, 1, s, n/2]`
    cos: Tensor<4>,
    /// `[1, 1, s, n/2]`
    sin: Tensor<4>,
}

impl Rotation {
    fn new(config: &ModelConfig, length: usize, device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let frequencies: Vec<f32> = config.rope.inv_freq(config.head_dim).into_iter().map(|f| f as f32).collect();
        let angles = || (0..length).flat_map(|at| frequencies.iter().map(move |f| f64::from(at as f32 * f)));
        let shape = [1, 1, length, frequencies.len()];
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32));
        Self {
            cos: tensor(angles().map(|angle| angle.cos() as f32).collect()),
            sin: tensor(angles().map(|angle| angle.sin() as f32).collect()),
        }
    }

    /// `(a, b) -> (a cos - b sin, b cos + a sin)`, in f32, rounded once to the dtype of `x`: `[b, h, s, n] -> [b, h, s, n]`
    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype: FloatDType = x.dtype().into();
        let half = x.dims()[3] / 2;
        let x = x.cast(FloatDType::F32);
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        let second = b * cos + a * sin;
        Tensor::cat(vec![first, second], 3).cast(dtype)
    }
}

/// Returns the term of the attention scores by which each of `length` positions sees itself and those before it, `[1, 1, s, s]`, f32.
pub fn causal_mask(length: usize, device: &Device) -> Tensor<4> {
    let device = device.clone().without_autodiff();
    let hidden = Tensor::<2, Bool>::tril_mask([length, length], 0, &device);
    // [s, s] -> [1, 1, s, s]
    Tensor::<2>::zeros([length, length], (&device, DType::F32)).mask_fill(hidden, HIDDEN).unsqueeze()
}

/// Scaled dot-product attention with grouped heads: Vaswani et al., <https://arxiv.org/abs/1706.03762>, equation 1; Ainslie et al.,
/// <https://arxiv.org/abs/2305.13245>.
///
/// `softmax(q kᵀ / sqrt(n) + mask) v`. Scores and softmax are f32 whatever the dtype of `q`.
///
/// # Shapes
///
/// `q [b, h, s, n]`, `k` and `v [b, g, s, n]` with `h` a multiple of `g`; the result is `[b, h, s, n]`. Query head `i` reads key head
/// `i · g / h`.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &Tensor<4>) -> Tensor<4> {
    let dtype: FloatDType = q.dtype().into();
    let [b, h, s, n] = q.dims();
    let g = k.dims()[1];
    let r = h / g;
    // The queries of a group are rows of one product with their common keys: [b, h, s, n] -> [b, g, r·s, n]
    let q = q.reshape([b, g, r * s, n]);
    let scores = q.matmul(k.transpose()).cast(FloatDType::F32).mul_scalar((n as f64).sqrt().recip());
    // [b, g, r·s, s] -> [b, g, r, s, s]
    let scores = scores.reshape([b, g, r, s, s]) + mask.clone().unsqueeze_dim::<5>(1);
    let weights = activation::softmax(scores, 4).reshape([b, g, r * s, s]);
    // [b, g, r·s, n] -> [b, h, s, n]
    weights.cast(dtype).matmul(v).reshape([b, h, s, n])
}
