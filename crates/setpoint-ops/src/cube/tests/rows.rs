//! Normalisation, the gate, rotation and token scores.

use super::*;
use crate::composed;
use crate::cube::{dropout, rms_norm, rotate, swiglu, token_scores};
use crate::dropout::{DropoutMask, extend_key};

/// Widths below, at and beyond the units of a cube, and more rows than a unit adds up.
const SHAPES: [[usize; 2]; 5] = [[1, 1], [3, 37], [70, 256], [131, 300], [5, 1031]];

#[test]
fn root_mean_square_normalisation() {
    for [t, d] in SHAPES {
        let (x, w, g) = (numbers(1, t * d), numbers(2, d), numbers(3, t * d));
        let eps = 1e-5;
        let [fx, fw, fg] = [wide(&x), wide(&w), wide(&g)];
        let (mut y, mut in_x, mut in_w) = (vec![], vec![], vec![0.0; d]);
        for row in 0..t {
            let of = |x: &[f64]| x[row * d..(row + 1) * d].to_vec();
            let (x, g) = (of(&fx), of(&fg));
            let r = (x.iter().map(|x| x * x).sum::<f64>() / d as f64 + eps).sqrt().recip();
            let along = (0..d).map(|i| g[i] * fw[i] * x[i] * r).sum::<f64>() / d as f64;
            for i in 0..d {
                y.push(fw[i] * x[i] * r);
                in_x.push(r * (g[i] * fw[i] - x[i] * r * along));
                in_w[i] += g[i] * x[i] * r;
            }
        }
        let what = format!("{t} rows of {d}");
        let (x, w, g) = (tensor(&x, [t, d]), tensor(&w, [d]), tensor(&g, [t, d]));
        let (found, scales) = rms_norm::forward(x.clone(), w.clone(), eps);
        let (composed, scales_composed) = composed::rms_norm::forward::<Cube>(x.clone(), w.clone(), eps);
        assert_result(&what, found, composed, &y);
        let found = rms_norm::backward(x.clone(), w.clone(), scales, g.clone(), [true; 2]);
        let composed = composed::rms_norm::backward::<Cube>(x, w, scales_composed, g, [true; 2]);
        for (((found, composed), exact), of) in found.into_iter().zip(composed).zip([in_x, in_w]).zip(["x", "w"]) {
            // The gradient of a single number is the difference of equal ones.
            if d > 1 || of == "w" {
                assert_gradient(&format!("{what}, gradient of {of}"), found.unwrap(), composed.unwrap(), &exact);
            }
        }
    }
}

#[test]
fn a_gradient_that_nobody_wants_is_not_computed() {
    let (x, w) = (tensor(&numbers(1, 6), [2, 3]), tensor(&numbers(2, 3), [3]));
    let (_, scales) = rms_norm::forward(x.clone(), w.clone(), 1e-5);
    let [in_x, in_w] = rms_norm::backward(x.clone(), w, scales, x, [true, false]);
    assert!(in_x.is_some() && in_w.is_none());
}

#[test]
fn the_gate() {
    for [t, d] in SHAPES {
        let [gate, up, g] = [1, 2, 3].map(|seed| numbers(seed, t * d));
        let gate: Vec<f32> = gate.into_iter().map(|x| x * 20.0).collect();
        let (mut y, mut in_gate, mut in_up) = (vec![], vec![], vec![]);
        for ((a, b), g) in wide(&gate).into_iter().zip(wide(&up)).zip(wide(&g)) {
            let sigmoid = 1.0 / (1.0 + (-a).exp());
            y.push(a * sigmoid * b);
            in_gate.push(g * b * sigmoid * (1.0 + a * (1.0 - sigmoid)));
            in_up.push(g * a * sigmoid);
        }
        let [gate, up, g] = [gate, up, g].map(|x| tensor(&x, [t, d]));
        let found = swiglu::forward(gate.clone(), up.clone());
        assert_result("gate", found, composed::swiglu::forward::<Cube>(gate.clone(), up.clone()), &y);
        let found = swiglu::backward(gate.clone(), up.clone(), g.clone());
        let composed = composed::swiglu::backward::<Cube>(gate, up, g);
        assert_gradient("gradient of the gate", found.0, composed.0, &in_gate);
        assert_gradient("gradient of the value", found.1, composed.1, &in_up);
    }
}

#[test]
fn extreme_gates_stay_finite() {
    let gate = tensor(&[-1e30, -200.0, 200.0, 1e30], [1, 4]);
    let one = tensor(&[1.0; 4], [1, 4]);
    assert_eq!(values(swiglu::forward(gate.clone(), one.clone())), [0.0, 0.0, 200.0, f64::from(1e30f32)]);
    let (in_gate, _) = swiglu::backward(gate, one.clone(), one);
    assert_eq!(values(in_gate), [0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn rotation() {
    for (t, heads, half) in [(1, 1, 1), (7, 3, 5), (65, 4, 32), (33, 9, 40)] {
        let width = heads * 2 * half;
        let (x, angles) = (numbers(1, t * width), numbers(2, t * half));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| ((a * 3.0).cos(), (a * 3.0).sin())).unzip();
        for back in [false, true] {
            let sign = if back { -1.0 } else { 1.0 };
            let (wide, mut y) = (wide(&x), vec![0.0; t * width]);
            for (token, head, i) in (0..t * heads * half).map(|at| (at / half / heads, at / half % heads, at % half)) {
                let (first, angle) = (token * width + head * 2 * half + i, token * half + i);
                let (a, b) = (wide[first], wide[first + half]);
                let (c, s) = (f64::from(cos[angle]), sign * f64::from(sin[angle]));
                (y[first], y[first + half]) = (a * c - b * s, b * c + a * s);
            }
            let (x, cos, sin) = (tensor(&x, [t, width]), tensor(&cos, [t, half]), tensor(&sin, [t, half]));
            let found = rotate::rotate(x.clone(), cos.clone(), sin.clone(), back);
            assert_result("rotation", found, composed::rotate::<Cube>(x, cos, sin, back), &y);
        }
    }
}

/// Log-probability, entropy, log-sum-exp and the gradient of the logits with seed `s`, in f64.
fn scores(logits: &[f64], target: usize, s: f64, cap: Option<f64>) -> ([f64; 2], f64, Vec<f64>) {
    let bounded: Vec<f64> = logits.iter().map(|z| cap.map_or(*z, |cap| (z / cap).tanh() * cap)).collect();
    let log_sum = bounded.iter().map(|z| z.exp()).sum::<f64>().ln();
    let entropy = bounded.iter().map(|z| (log_sum - z) * (z - log_sum).exp()).sum();
    let in_logits = bounded.iter().enumerate().map(|(i, z)| {
        let slope = cap.map_or(1.0, |cap| 1.0 - (z / cap).powi(2));
        s * (f64::from(u8::from(i == target)) - (z - log_sum).exp()) * slope
    });
    ([bounded[target] - log_sum, entropy], log_sum, in_logits.collect())
}

#[test]
fn token_log_probabilities() {
    for (c, v, cap) in [(1, 1, None), (3, 100, None), (5, 1031, Some(2.5)), (2, 40_000, None), (4, 256, Some(30.0))] {
        let logits: Vec<f32> = numbers(1, c * v).into_iter().map(|z| z * 9.0).collect();
        let targets: Vec<i32> = (0..c).map(|i| ((i * 7919) % v) as i32).collect();
        let seeds = numbers(2, c);
        let (mut pairs, mut sums, mut in_logits) = (vec![], vec![], vec![]);
        for (row, logits) in wide(&logits).chunks(v).enumerate() {
            let (pair, sum, gradient) = scores(logits, targets[row] as usize, f64::from(seeds[row]), cap);
            pairs.extend(pair);
            sums.push(sum);
            in_logits.extend(gradient);
        }
        let (logits, targets, seeds) = (tensor(&logits, [c, v]), indices(&targets), tensor(&seeds, [c, 1]));
        let (found, log_sums) = token_scores::forward(logits.clone(), targets.clone(), cap);
        let composed = composed::head::scores_of_logits::<Cube>(logits.clone(), targets.clone(), cap);
        assert_result("scores", found, composed.0, &pairs);
        assert_result("log-sum-exp", log_sums.clone(), composed.1.clone(), &sums);
        let found = token_scores::backward(logits.clone(), targets.clone(), log_sums, seeds.clone(), cap);
        let composed = composed::head::gradient_of_logits::<Cube>(logits, targets, composed.1, seeds, cap);
        if v > 1 {
            assert_gradient("gradient of the logits", found, composed, &in_logits);
        }
    }
}

#[test]
fn certain_and_impossible_tokens() {
    let logits = tensor(&[1e4, -1e4, 0.0, 1e4, -1e4, 0.0], [2, 3]);
    let (found, _) = token_scores::forward(logits, indices(&[0, 1]), None);
    assert_eq!(values(found), [0.0, 0.0, -2e4, 0.0]);
}

#[test]
fn nan_is_not_lost() {
    let x = || tensor(&[f32::NAN, 0.0, 1.0, 2.0], [1, 4]);
    assert!(values(Cube::swiglu_forward(x(), x()))[0].is_nan());
    assert!(values(Cube::rms_norm_forward(x(), tensor(&[1.0; 4], [4]), 1e-5).0)[1].is_nan());
    assert!(values(Cube::logit_scores(x(), indices(&[1]), None).0)[0].is_nan());
}

#[test]
fn numbers_are_stored_in_half_precision() {
    if !<Cube as burn::backend::Backend>::supports_dtype(&CubeDevice::default(), burn::tensor::DType::F16) {
        return;
    }
    let (x, w) = (half(tensor(&numbers(1, 600), [2, 300])), half(tensor(&numbers(2, 300), [300])));
    let (found, composed) =
        (rms_norm::forward(x.clone(), w.clone(), 1e-5), composed::rms_norm::forward::<Cube>(x, w, 1e-5));
    assert_eq!(found.0.dtype, burn::tensor::DType::F16);
    for (found, composed) in values(found.0).into_iter().zip(values(composed.0)) {
        assert!((found - composed).abs() <= 2e-3, "{found} against {composed}");
    }
}

/// The mask is that of the host to the last element, whichever keys were on the device before.
#[test]
fn dropout_by_keys() {
    for (rate, [t, d]) in [0.9, 0.0, 0.1, 0.5, 0.3].into_iter().zip(SHAPES) {
        let keys = |seed: u64| (0..t as u64).map(|row| extend_key(seed, row)).collect::<Vec<u64>>().into();
        let masks = [1, 2, 3].map(|seed| DropoutMask::new(keys(seed), rate));
        let x = numbers(4, t * d);
        for mask in masks.iter().cycle().take(5) {
            for matrix in [0, u64::MAX, 0x0123_4567_89ab_cdef] {
                let mask = mask.for_matrix(matrix);
                let kept = |i: usize| if mask.keeps(i / d, i % d) { f64::from(x[i]) * mask.scale() } else { 0.0 };
                let exact: Vec<f64> = (0..t * d).map(kept).collect();
                let found = values(dropout::drop_elements(tensor(&x, [t, d]), &mask));
                for (i, (found, exact)) in found.iter().zip(&exact).enumerate() {
                    assert_eq!(*found == 0.0, *exact == 0.0, "{rate}, {t} rows of {d}: element {i}");
                    assert!((found - exact).abs() <= 1e-6 * exact.abs(), "{found} {exact}");
                }
                let composed = values(composed::dropout::on_device::<Cube>(tensor(&x, [t, d]), &mask));
                assert_eq!(found, composed);
            }
        }
    }
}

/// A row has a cube, and a grid has at most 65,535 of them along an axis.
#[test]
fn more_rows_than_an_axis_has_cubes() {
    let t = 70_001;
    let keys: Vec<u64> = (0..t as u64).map(|row| extend_key(5, row)).collect();
    let mask = DropoutMask::new(keys.into(), 0.5).for_matrix(3);
    let x = numbers(4, t);
    let found = values(dropout::drop_elements(tensor(&x, [t, 1]), &mask));
    assert_eq!(found.len(), t);
    for (row, (found, x)) in found.iter().zip(&x).enumerate() {
        let exact = if mask.keeps(row, 0) { f64::from(*x) * mask.scale() } else { 0.0 };
        assert!((found - exact).abs() <= 1e-6, "row {row}: {found} against {exact}");
    }
}
