use burn::tensor::{Bool, DType, Device, FloatDType, Tensor, activation};

/// Added to the score of a position that must not be seen. Large, yet finite: a row of nothing else yields a uniform distribution, not NaN.
const HIDDEN: f32 = -1e30;

/// Who may see whom, as a term added to the attention scores.
#[derive(Clone, Debug)]
pub(crate) struct Mask {
    /// `[1, 1, s, t]`: 0 or [`HIDDEN`], f32.
    bias: Tensor<4>,
}

impl Mask {
    /// Each of `length` positions sees itself and those before it. `None` where that hides nothing.
    pub(crate) fn causal(length: usize, device: &Device) -> Option<Self> {
        (length > 1).then(|| {
            let device = device.clone().without_autodiff();
            let hidden = Tensor::<2, Bool>::tril_mask([length, length], 0, &device);
            // [s, s] -> [1, 1, s, s]
            let bias = Tensor::<2>::zeros([length, length], (&device, DType::F32)).mask_fill(hidden, HIDDEN);
            Self { bias: bias.unsqueeze() }
        })
    }
}

/// Scaled dot-product attention with grouped heads: Vaswani et al., <https://arxiv.org/abs/1706.03762>, equation 1; Ainslie et al.,
/// <https://arxiv.org/abs/2305.13245>.
///
/// `softmax(q kᵀ / sqrt(n) + mask) v`. Scores and softmax are f32 whatever the dtype of `q`. The same function serves passes with and without
/// a graph, so that both compute the same numbers.
///
/// # Shapes
///
/// `q [b, h, s, n]`, `k` and `v [b, g, t, n]` with `h` a multiple of `g`; the result is `[b, h, s, n]`. Query head `i` reads key head
/// `i · g / h`.
pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: Option<&Mask>) -> Tensor<4> {
    let dtype: FloatDType = q.dtype().into();
    let [b, h, s, n] = q.dims();
    let [_, g, t, _] = k.dims();
    let r = h / g;
    // The queries of a group are rows of one product with their common keys; nothing is repeated.
    // [b, h, s, n] -> [b, g, r·s, n]
    let q = q.reshape([b, g, r * s, n]);
    let scores = q.matmul(k.transpose()).cast(FloatDType::F32).mul_scalar((n as f64).sqrt().recip());
    let weights = match mask {
        Some(mask) => {
            // [b, g, r·s, t] -> [b, g, r, s, t]
            let scores = scores.reshape([b, g, r, s, t]) + mask.bias.clone().unsqueeze_dim::<5>(1);
            activation::softmax(scores, 4).reshape([b, g, r * s, t])
        }
        None => activation::softmax(scores, 3),
    };
    // [b, g, r·s, n] -> [b, h, s, n]
    weights.cast(dtype).matmul(v).reshape([b, h, s, n])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finite_difference::{check, devices, tensor};

    /// Attention head by head, token by token, in f64.
    fn reference(q: &[f32], k: &[f32], v: &[f32], [b, h, g, s, n]: [usize; 5]) -> Vec<f64> {
        let mut out = vec![0.0; b * h * s * n];
        for (b, h_i, i) in (0..b).flat_map(|b| (0..h).flat_map(move |h| (0..s).map(move |i| (b, h, i)))) {
            let g_i = h_i * g / h;
            let row = |j: usize| ((b * g + g_i) * s + j) * n;
            let at = ((b * h + h_i) * s + i) * n;
            let scores: Vec<f64> = (0..=i)
                .map(|j| {
                    (0..n).map(|e| f64::from(q[at + e]) * f64::from(k[row(j) + e])).sum::<f64>() / (n as f64).sqrt()
                })
                .collect();
            let total: f64 = scores.iter().map(|score| score.exp()).sum();
            for (j, score) in scores.iter().enumerate() {
                for e in 0..n {
                    out[at + e] += score.exp() / total * f64::from(v[row(j) + e]);
                }
            }
        }
        out
    }

    #[test]
    fn grouped_heads_equal_the_definition() {
        for device in devices() {
            for g in [1, 2, 4] {
                let shape @ [b, h, _, s, n] = [2, 4, g, 5, 6];
                let q = tensor(1, [b, h, s, n], &device);
                let (k, v) = (tensor(2, [b, g, s, n], &device), tensor(3, [b, g, s, n], &device));
                let values = |x: &Tensor<4>| x.to_data().try_into_vec::<f32>().unwrap();
                let expected = reference(&values(&q), &values(&k), &values(&v), shape);
                let found = values(&attention(q, k, v, Mask::causal(s, &device).as_ref()));
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn gradients() {
        for device in devices() {
            let mask = Mask::causal(3, &device);
            let q = || tensor(11, [2, 4, 3, 4], &device);
            let kv = |seed| tensor(seed, [2, 2, 3, 4], &device);
            check([2, 4, 3, 4], &device, |q| attention(q, kv(12), kv(13), mask.as_ref()));
            check([2, 2, 3, 4], &device, |k| attention(q(), k, kv(13), mask.as_ref()));
            check([2, 2, 3, 4], &device, |v| attention(q(), kv(12), v, mask.as_ref()));
        }
    }

    #[test]
    fn huge_scores_stay_finite() {
        for device in devices() {
            let x = || tensor(1, [1, 1, 3, 4], &device).mul_scalar(1e4);
            let out = attention(x(), x(), x(), Mask::causal(3, &device).as_ref());
            assert!(out.into_data().try_into_vec::<f32>().unwrap().iter().all(|value| value.is_finite()));
        }
    }
}
