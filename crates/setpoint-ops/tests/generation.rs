//! The passes of generation, on every CPU backend and in both number formats, against attention over whole texts.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use setpoint_ops::{Heads, Packing, Span, Spans, attention, cache_copy, cache_write, cached_attention, likeliest};

#[allow(deprecated)]
fn devices() -> [Device; 2] {
    [Device::flex(), Device::ndarray()]
}

/// Numbers in [-1, 1).
fn tensor<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product();
    let numbers: Vec<f32> = (0..count).map(|_| rng.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.try_into_vec_as::<f32>().unwrap()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{what}[{i}]: {found} against {expected}");
    }
}

/// Texts, each with its own queries, keys and values.
struct Texts {
    lengths: Vec<usize>,
    q: Vec<Tensor<2>>,
    k: Vec<Tensor<2>>,
    v: Vec<Tensor<2>>,
}

impl Texts {
    fn new(lengths: &[usize], heads: Heads, dtype: FloatDType, device: &Device) -> Self {
        let rows = |seed: u64, heads: usize, width: usize| -> Vec<Tensor<2>> {
            let row = |(i, &len): (usize, &usize)| tensor(seed + i as u64, [len, heads * width], device).cast(dtype);
            lengths.iter().enumerate().map(row).collect()
        };
        let (q, kv, n) = (heads.query, heads.kv, heads.dim);
        Self { lengths: lengths.to_vec(), q: rows(10, q, n), k: rows(20, kv, n), v: rows(30, kv, n) }
    }

    /// Attention over each whole text, f32.
    fn expected(&self, heads: Heads) -> Vec<Tensor<2>> {
        let f32 = |x: &Tensor<2>| x.clone().cast(FloatDType::F32);
        let texts = self.q.iter().zip(&self.k).zip(&self.v).zip(&self.lengths);
        texts.map(|(((q, k), v), &len)| attention(f32(q), f32(k), f32(v), heads, &Packing::rows([len]))).collect()
    }
}

/// The parts of `x` that belong to the spans, one after the other; slot `i` holds text `texts[i]`.
fn parts(x: &[Tensor<2>], texts: &[usize], spans: &Spans) -> Tensor<2> {
    let part = |span: &Span| x[texts[span.slot]].clone().narrow(0, span.start, span.len);
    Tensor::cat(spans.spans().iter().map(part).collect(), 0)
}

fn check(devices: &[Device], heads: Heads, dtype: FloatDType, tolerance: f32) {
    // The slots of three texts: not in their order, and one slot that is never used.
    let texts = [1, 0, 9, 2];
    let span = |slot, start, len| Span { slot, start, len };
    // Prompts of unequal length and one token; a prompt's rest beside next tokens; single tokens in slots with and without gaps; several
    // texts with as many new tokens each, longer than a tile.
    let passes = [
        vec![span(0, 0, 5), span(1, 0, 1), span(3, 0, 70)],
        vec![span(3, 70, 3), span(0, 5, 1), span(1, 1, 1)],
        vec![span(0, 6, 1), span(1, 2, 1)],
        vec![span(0, 7, 1), span(1, 3, 1), span(3, 73, 1)],
        vec![span(1, 4, 66), span(3, 74, 66)],
    ];
    for device in devices {
        let all = Texts::new(&[70, 8, 140], heads, dtype, device);
        let expected = all.expected(heads);
        // What stands in a slot before is another text's and must not be seen.
        let full = || Tensor::<4>::full([4, heads.kv, 150, heads.dim], 7.0, device).cast(dtype);
        let (mut keys, mut stored) = (full(), full());
        for spans in passes.clone().map(Spans::new) {
            keys = cache_write(keys, parts(&all.k, &texts, &spans), &spans);
            stored = cache_write(stored, parts(&all.v, &texts, &spans), &spans);
            let q = parts(&all.q, &texts, &spans);
            let found = values(cached_attention(q, keys.clone(), stored.clone(), heads, &spans));
            let what = format!("{dtype:?} {heads:?} on {device:?}, {spans:?}");
            assert_close(&found, &values(parts(&expected, &texts, &spans)), tolerance, &what);
        }
    }
}

#[test]
fn attention_over_a_cache_is_that_over_whole_texts() {
    for (query, kv, dim) in [(4, 4, 6), (4, 2, 6), (6, 2, 64), (3, 1, 128)] {
        check(&devices(), Heads::new(query, kv, dim), FloatDType::F32, 2e-6);
    }
    let plain = Heads::new(4, 2, 6);
    for heads in [
        Heads { scale: 0.3, ..plain },
        Heads { window: Some(1), ..plain },
        Heads { window: Some(3), ..plain },
        Heads { window: Some(71), ..plain },
        Heads { soft_cap: Some(0.8), ..plain },
        Heads { soft_cap: Some(50.0), window: Some(9), ..plain },
    ] {
        check(&devices(), heads, FloatDType::F32, 2e-6);
    }
}

#[test]
fn bf16_goes_the_same_way() {
    // Weights are rounded to 8 bits, and so is the result; ndarray has no such numbers.
    check(
        &[Device::flex()],
        Heads { soft_cap: Some(2.0), window: Some(40), ..Heads::new(4, 2, 6) },
        FloatDType::BF16,
        0.02,
    );
}

#[test]
fn a_shared_beginning_is_copied() {
    let [flex, ndarray] = devices();
    for (device, dtype) in [(&flex, FloatDType::F32), (&flex, FloatDType::BF16), (&ndarray, FloatDType::F32)] {
        let before: Tensor<4> = tensor(1, [3, 2, 5, 4], device).cast(dtype);
        let after = cache_copy(before.clone(), 2, 0, 3);
        // The first three tokens of slot 0 are those of slot 2, all else is as before.
        let changed = before.clone().narrow(0, 2, 1).narrow(2, 0, 3);
        let slot_0 = Tensor::cat(vec![changed, before.clone().narrow(0, 0, 1).narrow(2, 3, 2)], 2);
        let expected = Tensor::cat(vec![slot_0, before.narrow(0, 1, 2)], 0);
        after.into_data().assert_eq(&expected.into_data(), true);
    }
}

#[test]
fn a_cache_that_someone_holds_is_not_changed() {
    for device in devices() {
        let before = tensor(1, [1, 1, 2, 4], &device);
        let copy = values(before.clone());
        let spans = Spans::new(vec![Span { slot: 0, start: 1, len: 1 }]);
        let after = cache_write(before.clone(), tensor(2, [1, 4], &device), &spans);
        assert_eq!(values(before), copy);
        assert_ne!(values(after), copy);
    }
}

#[test]
fn the_likeliest_token_and_what_makes_probabilities() {
    for device in devices() {
        let (b, v) = (5, 1000);
        let logits = tensor(3, [b, v], &device).mul_scalar(8.0);
        // The first of equals.
        let logits = logits.slice_assign([2..3, 300..302], Tensor::full([1, 2], 9.0, &device));
        let rows = values(logits.clone());
        let found = likeliest(logits);
        let ids: Vec<i64> = found.ids.into_data().iter::<i64>().collect();
        let norms = values(found.norms);
        for (i, row) in rows.chunks(v).enumerate() {
            let best = (0..v).fold(0, |best, id| if row[id] > row[best] { id } else { best });
            let sum: f64 = row.iter().map(|&z| f64::from(z - row[best]).exp()).sum();
            assert_eq!((ids[i], norms[2 * i]), (best as i64, row[best]), "row {i} on {device:?}");
            assert!((f64::from(norms[2 * i + 1]) - sum.ln()).abs() < 1e-6, "row {i} on {device:?}");
        }
        assert_eq!(ids[2], 300);
    }
}

#[test]
#[should_panic(expected = "a slot has one span in a pass")]
fn a_slot_has_one_span() {
    let _ = Spans::new(vec![Span { slot: 1, start: 0, len: 2 }, Span { slot: 1, start: 2, len: 1 }]);
}

#[test]
#[should_panic(expected = "4 tokens in a cache for 3")]
fn spans_fit_the_cache() {
    let device = Device::flex();
    let spans = Spans::new(vec![Span { slot: 0, start: 3, len: 1 }]);
    let _ = cache_write(Tensor::zeros([1, 1, 3, 2], &device), Tensor::zeros([1, 2], &device), &spans);
}
