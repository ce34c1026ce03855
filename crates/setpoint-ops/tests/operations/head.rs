//! The log-probabilities of tokens.

use burn::tensor::{Device, Tensor, TensorData, activation};
use setpoint_ops::{Logits, token_logps};

use super::{check, devices, indices, numbers, values};

#[test]
fn log_probabilities() {
    // A position that predicts two tokens, one that predicts none, and chunks of unequal length.
    let (rows, targets) = ([0, 2, 2, 4, 1], [3, 0, 10, 7, 7]);
    let chunks = [1, 2, 100].into_iter().flat_map(|chunk| [(chunk, false), (chunk, true)]);
    for ((chunk, keep), soft_cap) in chunks.flat_map(|chunk| [(chunk, None), (chunk, Some(0.9))]) {
        let logits = Logits { chunk, keep, soft_cap };
        check(
            [[5, 6], [11, 6]],
            |[x, w]| {
                let device = x.device();
                let scores = token_logps(x, w, indices(&rows, &device), indices(&targets, &device), logits);
                scores.logps.reshape([5, 1])
            },
            |[x, w]| {
                let device = x.device();
                let all = x.matmul(w.transpose());
                let all = match soft_cap {
                    None => all,
                    Some(cap) => all.div_scalar(cap).tanh().mul_scalar(cap),
                };
                let all = activation::log_softmax(all, 1);
                let all = all.select(0, indices(&rows, &device));
                all.gather(1, indices(&targets, &device).reshape([5, 1]))
            },
        );
    }
}

#[test]
fn bounded_logits_of_a_large_vocabulary() {
    // Several blocks of the vocabulary, the last one not whole, with targets in the first, in the last and at an edge.
    let (rows, targets) = ([0, 2, 2, 4, 1], [3, 699, 256, 255, 512]);
    for (chunk, keep) in [(1, false), (3, true), (100, false), (100, true)] {
        // Where nearly all logits are bent, and where hardly any is.
        for cap in [0.4, 30.0] {
            let logits = Logits { chunk, keep, soft_cap: Some(cap) };
            check(
                [[5, 6], [700, 6]],
                |[x, w]| {
                    let device = x.device();
                    let scores = token_logps(x, w, indices(&rows, &device), indices(&targets, &device), logits);
                    scores.logps.reshape([5, 1])
                },
                |[x, w]| {
                    let device = x.device();
                    let all = x.matmul(w.transpose()).div_scalar(cap).tanh().mul_scalar(cap);
                    let all = activation::log_softmax(all, 1).select(0, indices(&rows, &device));
                    all.gather(1, indices(&targets, &device).reshape([5, 1]))
                },
            );
        }
    }
}

#[test]
fn bounded_logits_are_the_formula_in_f64() {
    let (d, v, target, cap) = (8, 300, 271, 2.5);
    let (x, w) = (numbers(1, d), numbers(2, v * d));
    // Large hidden states, so that some logits are near the bound.
    let x: Vec<f32> = x.into_iter().map(|x| 4.0 * x).collect();
    let logp = |x: &[f64]| -> (f64, f64) {
        let logits = w.chunks_exact(d).map(|w| {
            let z: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
            cap * (z / cap).tanh()
        });
        let logits: Vec<f64> = logits.collect();
        let log_sum = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
        let entropy = -logits.iter().map(|z| (z - log_sum).exp() * (z - log_sum)).sum::<f64>();
        (logits[target] - log_sum, entropy)
    };
    let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let (expected, entropy) = logp(&wide);
    for (device, keep) in devices().into_iter().flat_map(|device| [(device.clone(), false), (device, true)]) {
        let of = |x: &[f32], shape: [usize; 2], device: &Device| {
            Tensor::<2>::from_data(TensorData::new(x.to_vec(), shape), device).autodiff().require_grad()
        };
        let (states, weight) = (of(&x, [1, d], &device), of(&w, [v, d], &device));
        let logits = Logits { chunk: 1, keep, soft_cap: Some(cap) };
        let at = |i: i32| indices(&[i], &device);
        let scores = token_logps(states.clone(), weight, at(0), at(target as i32), logits);
        let found = f64::from(values(scores.logps.clone().inner())[0]);
        assert!((found - expected).abs() < 2e-6 * expected.abs(), "{device:?}: {found} against {expected}");
        let found = f64::from(values(scores.entropy)[0]);
        assert!((found - entropy).abs() < 2e-6 * entropy, "{device:?}: entropy {found} against {entropy}");
        let gradients = scores.logps.sum().backward();
        for (i, found) in values(states.grad(&gradients).unwrap()).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut x = wide.clone();
                x[i] += by;
                logp(&x).0
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((f64::from(found) - difference).abs() < 2e-6, "{device:?}, {i}: {found} against {difference}");
        }
    }
}
