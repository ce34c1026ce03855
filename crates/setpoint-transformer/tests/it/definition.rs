//! The oracle's attention is its definition.

use burn::tensor::Tensor;

use crate::finite_difference::{check, devices, tensor};
use crate::oracle::{attention, causal_mask};

/// How scores become weights: their factor, their bound and the window.
#[derive(Clone, Copy, Debug)]
struct Scores {
    scale: f64,
    cap: Option<f64>,
    window: Option<usize>,
}

const SCORES: [Scores; 4] = [
    Scores { scale: 0.4, cap: None, window: None },
    Scores { scale: 0.4, cap: None, window: Some(1) },
    Scores { scale: 1.3, cap: None, window: Some(3) },
    Scores { scale: 0.9, cap: Some(0.7), window: Some(4) },
];

/// Attention head by head, token by token, in f64.
fn reference(q: &[f32], k: &[f32], v: &[f32], [b, h, g, s, n]: [usize; 5], how: Scores) -> Vec<f64> {
    let mut out = vec![0.0; b * h * s * n];
    for (b, h_i, i) in (0..b).flat_map(|b| (0..h).flat_map(move |h| (0..s).map(move |i| (b, h, i)))) {
        let g_i = h_i * g / h;
        let row = |j: usize| ((b * g + g_i) * s + j) * n;
        let at = ((b * h + h_i) * s + i) * n;
        let first = how.window.map_or(0, |window| (i + 1).saturating_sub(window));
        let score = |j: usize| {
            let score = how.scale * (0..n).map(|e| f64::from(q[at + e]) * f64::from(k[row(j) + e])).sum::<f64>();
            how.cap.map_or(score, |cap| cap * (score / cap).tanh())
        };
        let scores: Vec<(usize, f64)> = (first..=i).map(|j| (j, score(j))).collect();
        let total: f64 = scores.iter().map(|(_, score)| score.exp()).sum();
        for (j, score) in scores {
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
        for (g, how) in [1, 2, 4].into_iter().flat_map(|g| SCORES.map(|how| (g, how))) {
            let shape @ [b, h, _, s, n] = [2, 4, g, 5, 6];
            let q = tensor(1, [b, h, s, n], &device);
            let (k, v) = (tensor(2, [b, g, s, n], &device), tensor(3, [b, g, s, n], &device));
            let values = |x: &Tensor<4>| x.to_data().try_into_vec::<f32>().unwrap();
            let expected = reference(&values(&q), &values(&k), &values(&v), shape, how);
            let mask = causal_mask(s, how.window, &device);
            let found = values(&attention(q, k, v, &mask, how.scale, how.cap));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn gradients() {
    for device in devices() {
        let mask = causal_mask(3, Some(2), &device);
        let attention = |q, k, v| attention(q, k, v, &mask, 0.5, Some(1.5));
        let q = || tensor(11, [2, 4, 3, 4], &device);
        let kv = |seed| tensor(seed, [2, 2, 3, 4], &device);
        check([2, 4, 3, 4], &device, |q| attention(q, kv(12), kv(13)));
        check([2, 2, 3, 4], &device, |k| attention(q(), k, kv(13)));
        check([2, 2, 3, 4], &device, |v| attention(q(), kv(12), v));
    }
}

#[test]
fn huge_scores_stay_finite() {
    for device in devices() {
        let x = || tensor(1, [1, 1, 3, 4], &device).mul_scalar(1e4);
        let out = attention(x(), x(), x(), &causal_mask(3, None, &device), 0.5, None);
        assert!(out.into_data().try_into_vec::<f32>().unwrap().iter().all(|value| value.is_finite()));
    }
}
