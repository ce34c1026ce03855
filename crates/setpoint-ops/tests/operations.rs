//! Every operation and its gradients, on every CPU backend, against Burn's own autodiff through the textbook formula.

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use setpoint_ops::{
    AdamWStep, Heads, Logits, LowRank, Packing, attention, linear, linear_lora, rms_norm, rotate, swiglu, token_logps,
};

#[path = "operations/dora.rs"]
mod dora;
#[path = "operations/dropout.rs"]
mod dropout;
#[path = "operations/gates.rs"]
mod gates;
#[path = "operations/head.rs"]
mod head;

#[allow(deprecated)]
fn devices() -> [Device; 2] {
    [Device::flex(), Device::ndarray()]
}

/// Numbers in [-1, 1).
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}

fn tensor<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(seed, shape.iter().product()), shape), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec::<f32>().unwrap()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1.0f32, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * size, "{what}[{i}]: {found} against {expected}");
    }
}

/// Compares `f` on every device with `reference` on the first, in values and in the gradients of all inputs.
fn check<const N: usize>(
    shapes: [[usize; 2]; N],
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    reference: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    let run = |device: &Device, f: &dyn Fn([Tensor<2>; N]) -> Tensor<2>| {
        let mut seed = 0;
        let leaves = shapes.map(|shape| {
            seed += 1;
            tensor(seed, shape, device).autodiff().require_grad()
        });
        let y = f(leaves.clone());
        let coefficients = tensor(99, y.dims(), device).autodiff();
        let gradients = (y.clone() * coefficients).sum().backward();
        let plain = f(leaves.clone().map(Tensor::inner));
        assert_close(&values(plain), &values(y.clone().inner()), 1e-6, "without a graph");
        (values(y.inner()), leaves.map(|leaf| values(leaf.grad(&gradients).unwrap())))
    };
    let (expected, expected_gradients) = run(&devices()[0], &reference);
    for device in devices() {
        let (found, gradients) = run(&device, &f);
        assert_close(&found, &expected, 1e-5, &format!("{device:?}"));
        for (i, (found, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
            assert_close(found, expected, 1e-5, &format!("{device:?}, gradient of input {i}"));
        }
    }
}

#[test]
fn linear_maps() {
    check([[5, 3], [4, 3]], |[x, w]| linear(x, w, None), |[x, w]| x.matmul(w.transpose()));
    // One row; more outputs than a thread takes at a time; more rows than are few.
    for (rows, outputs) in [(1, 5), (67, 1000), (300, 7)] {
        check([[rows, 37], [outputs, 37]], |[x, w]| linear(x, w, None), |[x, w]| x.matmul(w.transpose()));
    }
    check(
        [[5, 3], [4, 3], [1, 4]],
        |[x, w, b]| linear(x, w, Some(b.reshape([4]))),
        |[x, w, b]| x.matmul(w.transpose()) + b,
    );
}

/// A frozen weight and bias of a map, with autodiff where `like` has it.
fn frozen(like: &Tensor<2>, [outputs, inputs]: [usize; 2]) -> (Tensor<2>, Tensor<1>) {
    let device = like.device().without_autodiff();
    let (weight, bias) = (tensor(11, [outputs, inputs], &device), tensor(12, [outputs, 1], &device));
    let (weight, bias) = (lift(like, weight), lift(like, bias));
    (weight, bias.reshape([outputs]))
}

#[test]
fn low_rank_updates() {
    // One row; few rows and many; more outputs and inputs than a thread takes at a time; one rank, and one that no vector divides; first
    // factors that threads share.
    for (t, inputs, outputs, rank) in [
        (1, 37, 9, 4),
        (9, 5, 30, 1),
        (67, 37, 1000, 16),
        (300, 70, 7, 3),
        (900, 130, 400, 16),
        (1, 4100, 30, 65),
        (100, 300, 60, 17),
    ] {
        let scale = 2.0;
        check(
            [[t, inputs], [rank, inputs], [outputs, rank]],
            |[x, a, b]| {
                let (weight, bias) = frozen(&x, [outputs, inputs]);
                linear_lora(x, weight, Some(bias), LowRank { a, b, scale })
            },
            |[x, a, b]| {
                let (weight, bias) = frozen(&x, [outputs, inputs]);
                let update = x.clone().matmul(a.transpose()).matmul(b.transpose()).mul_scalar(scale);
                x.matmul(weight.transpose()) + bias.unsqueeze() + update
            },
        );
    }
}

#[test]
fn an_update_of_zero_changes_no_bit() {
    for (device, t) in devices().into_iter().flat_map(|device| [1, 40, 300].map(|t| (device.clone(), t))) {
        let x = tensor::<2>(1, [t, 33], &device);
        let (weight, bias) = frozen(&x, [50, 33]);
        let b = Tensor::zeros([50, 4], &device);
        let update = LowRank { a: tensor(2, [4, 33], &device), b, scale: 2.0 };
        let found = linear_lora(x.clone(), weight.clone(), Some(bias.clone()), update);
        assert_eq!(values(found), values(linear(x, weight, Some(bias))), "{device:?}, {t} rows");
    }
}

/// The formulas themselves, in f64: a central difference is then right to nine digits.
#[test]
#[allow(deprecated)]
fn low_rank_gradients_are_differences_in_f64() {
    let device = Device::ndarray();
    let of = |values: &[f64], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), (&device, DType::F64))
    };
    let draw = |seed, [m, n]: [usize; 2]| -> Vec<f64> { numbers(seed, m * n).into_iter().map(f64::from).collect() };
    let (weight, coefficients) = (of(&draw(4, [5, 7]), [5, 7]), of(&draw(5, [6, 5]), [6, 5]));
    let shapes = [[6, 7], [3, 7], [5, 3]];
    let leaves = [0, 1, 2].map(|i| draw(i as u64 + 1, shapes[i]));
    let value = |leaves: &[Vec<f64>; 3]| -> f64 {
        let [x, a, b] = [0, 1, 2].map(|i| of(&leaves[i], shapes[i]));
        let y = linear_lora(x, weight.clone(), None, LowRank { a, b, scale: 1.5 });
        (y * coefficients.clone()).sum().into_data().iter::<f64>().sum()
    };
    let [x, a, b] = [0, 1, 2].map(|i| of(&leaves[i], shapes[i]).autodiff().require_grad());
    let update = LowRank { a: a.clone(), b: b.clone(), scale: 1.5 };
    let y = linear_lora(x.clone(), weight.clone().autodiff(), None, update);
    let gradients = (y * coefficients.clone().autodiff()).sum().backward();
    for (which, leaf) in [x, a, b].into_iter().enumerate() {
        let gradient: Vec<f64> = leaf.grad(&gradients).unwrap().into_data().iter::<f64>().collect();
        for (i, gradient) in gradient.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut leaves = leaves.clone();
                leaves[which][i] += by;
                value(&leaves)
            };
            let difference = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!((gradient - difference).abs() < 1e-9 * (1.0 + difference.abs()), "input {which}, element {i}");
        }
    }
}

#[test]
#[should_panic(expected = "factors of an update of [4, 3]")]
fn factors_of_another_shape_are_refused() {
    let device = &devices()[0];
    let update = LowRank { a: tensor(3, [2, 3], device), b: tensor(4, [5, 2], device), scale: 1.0 };
    linear_lora(tensor(1, [6, 3], device), tensor(2, [4, 3], device), None, update);
}

#[test]
fn norms() {
    // More rows than a thread takes at a time, and a width that no vector divides.
    check(
        [[70, 37], [1, 37]],
        |[x, w]| rms_norm(x, w.reshape([37]), 1e-3),
        |[x, w]| x.clone() * x.square().mean_dim(1).add_scalar(1e-3).sqrt().recip() * w,
    );
}

#[test]
fn rotations() {
    let angles = |device: &Device| tensor::<2>(50, [6, 4], device).mul_scalar(3.0);
    let tables = |x: &Tensor<2>| {
        let angles = angles(&x.device().without_autodiff());
        (angles.clone().cos(), angles.sin())
    };
    check(
        [[6, 16]],
        |[x]| {
            let (cos, sin) = tables(&x);
            rotate(x, cos, sin)
        },
        |[x]| {
            let (cos, sin) = tables(&x);
            let heads = x.split(8, 1).into_iter().map(|head| {
                let (a, b) = (head.clone().narrow(1, 0, 4), head.narrow(1, 4, 4));
                let (cos, sin) = (lift(&a, cos.clone()), lift(&a, sin.clone()));
                Tensor::cat(vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin], 1)
            });
            Tensor::cat(heads.collect(), 1)
        },
    );
}

/// `x` with autodiff where `like` has it.
fn lift(like: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
    if like.device().is_autodiff() { x.autodiff() } else { x }
}

/// Attention row by row: each segment behind its prefix, as if it stood alone.
fn attention_by_rows(q: &Tensor<2>, k: &Tensor<2>, v: &Tensor<2>, heads: Heads, packing: &Packing) -> Tensor<2> {
    let rows = packing.segments().iter().map(|segment| {
        let prefix = segment.prefix.map_or(0..0, |prefix| packing.segments()[prefix].tokens());
        let with_prefix = |x: &Tensor<2>| {
            let own = x.clone().slice([segment.tokens()]);
            if prefix.is_empty() { own } else { Tensor::cat(vec![x.clone().slice([prefix.clone()]), own], 0) }
        };
        let (keys, values) = (with_prefix(k), with_prefix(v));
        let outputs = (0..heads.query).map(|head| {
            let head_of = |x: &Tensor<2>, head: usize| x.clone().narrow(1, head * heads.dim, heads.dim);
            let kv = head * heads.kv / heads.query;
            let queries = head_of(&q.clone().slice([segment.tokens()]), head);
            let scores = queries.matmul(head_of(&keys, kv).transpose()).mul_scalar(heads.scale);
            let scores = match heads.soft_cap {
                None => scores,
                Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
            };
            let hidden: Vec<f32> = (0..segment.len)
                .flat_map(|i| {
                    let last = prefix.len() + i;
                    let first = heads.window.map_or(0, |window| (last + 1).saturating_sub(window));
                    (0..prefix.len() + segment.len).map(move |j| if j > last || j < first { -1e9 } else { 0.0 })
                })
                .collect();
            let mask = TensorData::new(hidden, [segment.len, prefix.len() + segment.len]);
            let mask = Tensor::<2>::from_data(mask, &q.device().without_autodiff());
            activation::softmax(scores.clone() + lift(&scores, mask), 1).matmul(head_of(&values, kv))
        });
        Tensor::cat(outputs.collect(), 1)
    });
    Tensor::cat(rows.collect(), 0)
}

#[test]
fn attention_over_segments() {
    let mut batch = Packing::builder();
    let prompt = batch.push(5, None);
    batch.push(3, Some(prompt));
    batch.push(1, Some(prompt));
    // Longer than a tile of queries, behind a prompt and alone.
    batch.push(70, Some(prompt));
    batch.push(67, None);
    let batch = batch.build();
    let t = batch.tokens();
    let plain = Heads::new(4, 2, 6);
    for heads in [
        Heads::new(4, 1, 6),
        plain,
        Heads::new(4, 4, 6),
        Heads { scale: 0.3, ..plain },
        // Windows of a token, within the segments, across the end of the prompt and longer than most texts.
        Heads { window: Some(1), ..plain },
        Heads { window: Some(4), ..plain },
        Heads { window: Some(66), ..plain },
        Heads { soft_cap: Some(0.8), ..plain },
        Heads { soft_cap: Some(50.0), ..plain },
        Heads { soft_cap: Some(1.5), window: Some(7), scale: 0.9, ..plain },
    ] {
        let Heads { query, kv, .. } = heads;
        check(
            [[t, query * 6], [t, kv * 6], [t, kv * 6]],
            |[q, k, v]| attention(q, k, v, heads, &batch),
            |[q, k, v]| attention_by_rows(&q, &k, &v, heads, &batch),
        );
    }
}

#[test]
fn attention_to_huge_scores_stays_finite() {
    let heads = Heads::new(1, 1, 4);
    for device in devices() {
        let x = || tensor::<2>(1, [3, 4], &device).mul_scalar(1e4).autodiff().require_grad();
        let (q, k, v) = (x(), x(), x());
        let y = attention(q.clone(), k, v, heads, &Packing::rows([3]));
        let gradients = y.clone().sum().backward();
        assert!(values(y.inner()).into_iter().chain(values(q.grad(&gradients).unwrap())).all(f32::is_finite));
    }
}

fn indices(x: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(x, &device.clone().without_autodiff())
}

/// The logits of `chunk` positions at a time, and none kept.
fn chunked(chunk: usize) -> Logits {
    Logits { chunk, keep: false, soft_cap: None }
}

#[test]
fn entropies() {
    for device in devices() {
        let (x, w) = (tensor::<2>(1, [3, 6], &device), tensor::<2>(2, [11, 6], &device));
        let all = activation::log_softmax(x.clone().matmul(w.clone().transpose()), 1);
        let expected = values((all.clone().exp() * all).sum_dim(1).neg());
        let found = token_logps(x, w, indices(&[0, 1, 2], &device), indices(&[0, 0, 0], &device), chunked(2)).entropy;
        assert_close(&values(found), &expected, 1e-5, "entropy");
    }
}

#[test]
fn certain_and_impossible_tokens_are_finite() {
    for device in devices() {
        let x = Tensor::<2>::from_data([[1e3f32, 0.0]], &device).autodiff().require_grad();
        let w = Tensor::<2>::from_data([[10f32, 0.0], [-10.0, 1.0]], &device).autodiff().require_grad();
        let scores = token_logps(x.clone(), w, indices(&[0, 0], &device), indices(&[0, 1], &device), chunked(8));
        assert_close(&values(scores.logps.clone().inner()), &[0.0, -2e4], 1e-6, "log-probability");
        let gradients = scores.logps.sum().backward();
        assert!(values(x.grad(&gradients).unwrap()).into_iter().all(f32::is_finite));
    }
}

#[test]
fn nan_is_not_lost() {
    for device in devices() {
        let x = Tensor::<2>::from_data([[f32::NAN, 0.0]], &device);
        let w = Tensor::<2>::from_data([[1f32, 0.0], [0.0, 1.0]], &device);
        let scores = token_logps(x.clone(), w, indices(&[0], &device), indices(&[0], &device), chunked(8));
        assert!(values(scores.logps)[0].is_nan(), "log-probability on {device:?}");
        let heads = Heads::new(1, 1, 2);
        let mixed = attention(x.clone(), x.clone(), x.clone(), heads, &Packing::rows([1]));
        assert!(values(mixed)[0].is_nan(), "attention on {device:?}");
        assert!(values(swiglu(x.clone(), x))[0].is_nan(), "gate on {device:?}");
    }
}

#[test]
fn a_step_of_adamw_is_the_algorithm() {
    let step = AdamWStep {
        decay: 0.99,
        beta1: 0.9,
        beta2: 0.999,
        scale: 0.5,
        rate: 1e-2 / 0.1,
        root: 0.001f64.sqrt(),
        eps: 1e-8,
    };
    let n = 20_000;
    let (w, g) = (numbers(1, n), numbers(2, n));
    for device in devices() {
        let flat = |x: &[f32]| Tensor::<1>::from_data(x, &device);
        let (weight, m, v) = setpoint_ops::adamw(flat(&w), flat(&vec![0.1; n]), flat(&vec![0.2; n]), flat(&g), step);
        let (weight, m, v) = (values(weight), values(m), values(v));
        for i in 0..n {
            let gradient = 0.5 * f64::from(g[i]);
            let first = 0.9 * f64::from(0.1f32) + 0.1 * gradient;
            let second = 0.999 * f64::from(0.2f32) + 0.001 * gradient * gradient;
            let moved = 0.99 * f64::from(w[i]) - step.rate * first / (second.sqrt() / step.root + step.eps);
            assert!((f64::from(m[i]) - first).abs() < 1e-7);
            assert!((f64::from(v[i]) - second).abs() < 1e-7);
            assert!((f64::from(weight[i]) - moved).abs() < 1e-6, "{} against {moved}", weight[i]);
        }
        let expected: f64 = g.iter().map(|&g| f64::from(g).powi(2)).sum();
        let found = f64::from(values(setpoint_ops::sum_of_squares(flat(&g), 100))[0]);
        assert!((found - expected).abs() < 1e-5 * expected, "{found} against {expected}");
    }
}

/// The CPU's kernels write into memory that is not cleared: what does not fit together must not get that far.
#[test]
#[should_panic(expected = "whole heads of twice 2 elements in rows of 6")]
fn a_row_of_half_a_head_is_refused() {
    let device = &devices()[0];
    rotate(tensor(1, [3, 6], device), tensor(2, [3, 2], device), tensor(3, [3, 2], device));
}
