//! Attention over random packings.

use super::*;
use crate::composed;
use crate::cube::attention;
use crate::generation::{Span, Spans};
use crate::heads::Heads;
use crate::packing::Packing;

/// Attention and its gradients in f64, one query at a time.
struct Exact {
    o: Vec<f64>,
    log_sums: Vec<f64>,
    in_q: Vec<f64>,
    in_k: Vec<f64>,
    in_v: Vec<f64>,
}

impl Exact {
    fn new([q, k, v, g]: [&[f64]; 4], heads: Heads, packing: &Packing) -> Self {
        let (n, t) = (heads.dim, packing.tokens());
        let zeros = |x: &[f64]| vec![0.0; x.len()];
        let mut all =
            Self { o: zeros(q), log_sums: vec![0.0; heads.query * t], in_q: zeros(q), in_k: zeros(k), in_v: zeros(v) };
        for segment in packing.segments() {
            let prefix = packing.prefix(segment);
            for (token, head) in segment.tokens().flat_map(|token| (0..heads.query).map(move |head| (token, head))) {
                let seen: Vec<usize> = prefix.clone().chain(segment.start..token + 1).collect();
                let first = heads.window.map_or(0, |window| seen.len().saturating_sub(window));
                let kv = head * heads.kv / heads.query;
                let query = (token * heads.query + head) * n;
                let keys: Vec<usize> = seen[first..].iter().map(|key| (key * heads.kv + kv) * n).collect();
                all.query(query, &keys, [q, k, v, g], heads, head * t + token);
            }
        }
        all
    }

    fn query(&mut self, at: usize, keys: &[usize], [q, k, v, g]: [&[f64]; 4], heads: Heads, row: usize) {
        let n = heads.dim;
        let dot = |a: &[f64], i: usize, b: &[f64], j: usize| (0..n).map(|d| a[i + d] * b[j + d]).sum::<f64>();
        let scores: Vec<f64> = keys
            .iter()
            .map(|&key| {
                let score = dot(q, at, k, key) * heads.scale;
                heads.soft_cap.map_or(score, |cap| (score / cap).tanh() * cap)
            })
            .collect();
        let highest = scores.iter().fold(f64::MIN, |highest, &score| highest.max(score));
        let log_sum = highest + scores.iter().map(|score| (score - highest).exp()).sum::<f64>().ln();
        self.log_sums[row] = log_sum;
        for (&key, score) in keys.iter().zip(&scores) {
            let weight = (score - log_sum).exp();
            (0..n).for_each(|d| self.o[at + d] += weight * v[key + d]);
        }
        let along = dot(g, at, &self.o, at);
        for (&key, score) in keys.iter().zip(&scores) {
            let weight = (score - log_sum).exp();
            let slope = heads.soft_cap.map_or(1.0, |cap| 1.0 - (score / cap).powi(2));
            let in_score = weight * (dot(g, at, v, key) - along) * slope * heads.scale;
            for d in 0..n {
                self.in_q[at + d] += in_score * k[key + d];
                self.in_k[key + d] += in_score * q[at + d];
                self.in_v[key + d] += weight * g[at + d];
            }
        }
    }
}

fn check(heads: Heads, packing: &Packing) {
    let t = packing.tokens();
    assert_eq!(attention::problem(heads, t, packing.segments().len()), None);
    let (wide_q, wide_k) = ([t, heads.query * heads.dim], [t, heads.kv * heads.dim]);
    let shapes = [wide_q, wide_k, wide_k, wide_q];
    let [q, k, v, g] = [1, 2, 3, 4].map(|seed| numbers(seed, shapes[seed as usize - 1].iter().product()));
    // Scores that differ.
    let q: Vec<f32> = q.into_iter().map(|x| x * 4.0).collect();
    let [fq, fk, fv, fg] = [&q, &k, &v, &g].map(|x| wide(x));
    let exact = Exact::new([&fq, &fk, &fv, &fg], heads, packing);
    let what = format!("{heads:?} over {:?}", packing.segments());
    let (q, g) = (tensor(&q, wide_q), tensor(&g, wide_q));
    let (k, v) = (tensor(&k, wide_k), tensor(&v, wide_k));
    let (o, log_sums) = attention::forward(q.clone(), k.clone(), v.clone(), heads, packing);
    let composed = composed::attention::forward::<Cube>(q.clone(), k.clone(), v.clone(), heads, packing);
    assert_result(&what, o.clone(), composed.0.clone(), &exact.o);
    assert_result(&format!("log-sum-exp, {what}"), log_sums.clone(), composed.1.clone(), &exact.log_sums);
    let found = attention::backward([q.clone(), k.clone(), v.clone(), o, log_sums], g.clone(), heads, packing);
    let composed = composed::attention::backward::<Cube>([q, k, v, composed.0, composed.1], g, heads, packing);
    let exact = [exact.in_q, exact.in_k, exact.in_v];
    for (((found, composed), exact), of) in found.into_iter().zip(composed).zip(&exact).zip(["q", "k", "v"]) {
        // Tokens that see only themselves have no gradient of queries and keys.
        if norm(exact.iter().copied()) > 1e-9 {
            assert_gradient(&format!("gradient of {of}, {what}"), found, composed, exact);
        }
    }
}

/// A packing of 1 to 9 segments, some of which continue an earlier one.
fn random_packing(rng: &mut ChaCha8Rng, longest: u32) -> Packing {
    let mut packing = Packing::builder();
    let mut prefixes = vec![];
    for _ in 0..1 + rng.next_u32() % 9 {
        let prefix = (!prefixes.is_empty() && rng.next_u32().is_multiple_of(2))
            .then(|| prefixes[rng.next_u32() as usize % prefixes.len()]);
        // A quarter of the segments are single tokens.
        let len = if rng.next_u32().is_multiple_of(4) { 1 } else { 1 + rng.next_u32() % longest };
        let segment = packing.push(len as usize, prefix);
        if prefix.is_none() {
            prefixes.push(segment);
        }
    }
    packing.build()
}

#[test]
fn random_packings_and_heads() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let layouts = [(1, 1, 16), (2, 1, 64), (4, 2, 80), (8, 1, 128), (3, 1, 96), (6, 2, 24), (1, 1, 5), (5, 5, 33)];
    for (query, kv, dim) in layouts {
        check(Heads::new(query, kv, dim), &random_packing(&mut rng, 70));
    }
}

#[test]
fn windows_and_bounds() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let plain = Heads::new(4, 2, 16);
    for heads in [
        Heads { window: Some(1), ..plain },
        Heads { window: Some(4), ..plain },
        Heads { window: Some(33), scale: 0.3, ..plain },
        Heads { window: Some(1000), ..plain },
        Heads { soft_cap: Some(0.8), ..plain },
        Heads { soft_cap: Some(50.0), window: Some(40), ..plain },
    ] {
        check(heads, &random_packing(&mut rng, 90));
    }
}

#[test]
fn a_prompt_longer_than_tiles_with_many_responses() {
    let mut packing = Packing::builder();
    let prompt = packing.push(131, None);
    for len in [65, 1, 64, 33] {
        packing.push(len, Some(prompt));
    }
    check(Heads::new(4, 1, 64), &packing.build());
}

#[test]
fn single_tokens_full_tiles_and_one_more() {
    for (prompt, response) in [(1, 1), (1, 65), (64, 1), (32, 32), (33, 31)] {
        let mut packing = Packing::builder();
        let first = packing.push(prompt, None);
        packing.push(response, Some(first));
        check(Heads::new(1, 1, 16), &packing.build());
    }
}

#[test]
fn the_largest_heads() {
    check(Heads::new(2, 1, 256), &Packing::rows([40, 3]));
}

#[test]
fn huge_scores_stay_finite_and_nan_is_not_lost() {
    let heads = Heads::new(1, 1, 4);
    let packing = Packing::rows([3]);
    let x: Vec<f32> = numbers(1, 12).into_iter().map(|x| x * 1e4).collect();
    let x = tensor(&x, [3, 4]);
    let (o, log_sums) = attention::forward(x.clone(), x.clone(), x.clone(), heads, &packing);
    assert!(values(o.clone()).into_iter().all(f64::is_finite));
    let inputs = [x.clone(), x.clone(), x.clone(), o, log_sums];
    let gradients = attention::backward(inputs, tensor(&[1.0; 12], [3, 4]), heads, &packing);
    assert!(gradients.into_iter().flat_map(values).all(f64::is_finite));
    let x = tensor(&[f32::NAN, 0.0, 0.0, 0.0], [1, 4]);
    assert!(values(attention::forward(x.clone(), x.clone(), x, heads, &Packing::rows([1])).0)[0].is_nan());
}

#[test]
fn heads_that_no_tile_holds_go_through_the_composition() {
    let problem = |heads, tokens, segments| attention::problem(heads, tokens, segments).unwrap();
    let found = problem(Heads::new(1, 1, 257), 1, 1);
    assert_eq!(found, "it takes heads of at most 256 elements, and finds 257");
    let found = problem(Heads::new(65, 1, 16), 1, 1);
    assert_eq!(found, "it takes at most 64 query heads for a key head, and finds 65 for 1");
    let found = problem(Heads::new(1, 1, 16), 70_000, 70_000);
    assert_eq!(found, "70000 tokens in 70000 segments have more tiles than fit into a grid");
    // Sixteen rows of 2048 tokens of Llama-3-8B.
    assert_eq!(attention::problem(Heads::new(32, 8, 128), 16 * 2048, 16), None);

    let (heads, packing) = (Heads::new(1, 1, 257), Packing::rows([3]));
    let [q, k, v] = [1, 2, 3].map(|seed| tensor(&numbers(seed, 3 * 257), [3, 257]));
    let found = Cube::attention_forward(q.clone(), k.clone(), v.clone(), heads, &packing);
    let composed = composed::attention::forward::<Cube>(q, k, v, heads, &packing);
    assert_eq!([found.0, found.1].map(values), [composed.0, composed.1].map(values));
}

#[test]
fn texts_in_a_cache() {
    let (slots, capacity) = (4, 150);
    for heads in [
        Heads::new(4, 2, 64),
        Heads::new(8, 1, 16),
        Heads { soft_cap: Some(0.8), window: Some(40), ..Heads::new(3, 3, 80) },
    ] {
        let (g, n) = (heads.kv, heads.dim);
        let [keys, stored] =
            [1, 2].map(|seed| tensor(&numbers(seed, slots * g * capacity * n), [slots, g, capacity, n]));
        let span = |slot, start, len| Span { slot, start, len };
        // Single tokens; a prompt longer than a tile next to a token far into its text; slots out of order.
        for spans in [vec![span(0, 0, 1), span(2, 149, 1)], vec![span(3, 0, 100), span(1, 70, 1), span(0, 5, 66)]] {
            let spans = Spans::new(spans);
            let q: Vec<f32> = numbers(3, spans.tokens() * heads.query * n).into_iter().map(|x| x * 4.0).collect();
            let q = tensor(&q, [spans.tokens(), heads.query * n]);
            let found = attention::cached(q.clone(), keys.clone(), stored.clone(), heads, &spans);
            let composed = composed::cache::attention::<Cube>(q.clone(), keys.clone(), stored.clone(), heads, &spans);
            let exact = cached(&values(q), [&values(keys.clone()), &values(stored.clone())], capacity, heads, &spans);
            assert_result(&format!("{heads:?}, {spans:?}"), found, composed, &exact);
        }
    }
}

/// Attention to a cache in f64.
fn cached(q: &[f64], [keys, values]: [&[f64]; 2], capacity: usize, heads: Heads, spans: &Spans) -> Vec<f64> {
    let tokens = spans.spans().iter().flat_map(|span| (span.start..span.end()).map(|position| (span.slot, position)));
    let n = heads.dim;
    let queries = tokens.flat_map(|token| (0..heads.query).map(move |head| (token, head)));
    let mixed = queries.zip(q.chunks(n)).flat_map(|(((slot, position), head), query)| {
        let first = heads.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let kv = slot * heads.kv + head * heads.kv / heads.query;
        let row = move |x: &'_ [f64], key: usize| x[(kv * capacity + key) * n..][..n].to_vec();
        let weights: Vec<f64> = (first..=position)
            .map(|key| {
                let score = row(keys, key).iter().zip(query).map(|(k, q)| k * q).sum::<f64>() * heads.scale;
                heads.soft_cap.map_or(score, |cap| (score / cap).tanh() * cap).exp()
            })
            .collect();
        let sum: f64 = weights.iter().sum();
        let mut mixed = vec![0.0; n];
        for (key, weight) in (first..=position).zip(weights) {
            mixed.iter_mut().zip(row(values, key)).for_each(|(mixed, value)| *mixed += weight / sum * value);
        }
        mixed
    });
    mixed.collect()
}
