//! Log-probabilities of tokens. The logits of a block of the vocabulary exist at a time, for each thread: a block stays in the cache between
//! the product that makes it and those that use it up, and each weight's gradient is written once. Where logits are kept for the backward pass
//! they are kept block by block.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use rayon::prelude::*;

use super::host::{Fresh, Matrix, Shared, Values, indices, multiply, multiply_into, share_out, tensor};
use super::simd::{
    bound, exp_moments, exp_scaled, exp_scaled_to, exp_scaled_within, highest, slope_of_bound, vectorised,
};
use crate::composed::head::{Kept, Scores};
use crate::functions::Logits;

/// Tokens of a block of the vocabulary.
const BLOCK: usize = 256;

/// Positions that go through the head at a time at most: a block of their logits fits into the second-level cache.
const POSITIONS: usize = 1024;

/// Parts of the vocabulary that have a sum of their own for the gradient of the hidden states; so many threads have work.
const PARTS: usize = 16;

/// Positions at a time where `chunk · v` logits may exist.
fn positions(chunk: usize, v: usize) -> usize {
    (chunk.saturating_mul(v) / (PARTS * BLOCK)).clamp(1, POSITIONS)
}

/// The blocks of a part of the vocabulary.
fn blocks(tokens: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    tokens.clone().step_by(BLOCK).map(move |start| start..(start + BLOCK).min(tokens.end))
}

/// The vocabulary in parts of whole blocks.
fn parts(v: usize) -> Vec<Range<usize>> {
    let width = v.div_ceil(BLOCK).div_ceil(PARTS) * BLOCK;
    (0..v).step_by(width).map(|start| start..(start + width).min(v)).collect()
}

/// Where the logits of a block stand among those that are kept of `c` positions: block after block, each as it was made, `[c, width]`.
fn kept_block(c: usize, block: &Range<usize>) -> Range<usize> {
    c * block.start..c * block.end
}

/// Copies rows of `x`.
fn gather(x: &[f32], rows: &[usize], d: usize) -> Vec<f32> {
    let mut copies = Vec::with_capacity(rows.len() * d);
    rows.iter().for_each(|&row| copies.extend_from_slice(&x[row * d..(row + 1) * d]));
    copies
}

fn add(to: &mut [f32], x: &[f32]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
}

/// The weights of a block.
fn rows_of<'a>(weight: &'a [f32], block: &Range<usize>, d: usize) -> Matrix<'a> {
    Matrix::new(&weight[block.start * d..block.end * d], block.len(), d, d)
}

/// The contribution of a block of logits to one position.
#[derive(Clone, Copy)]
struct Moments {
    /// The largest logit.
    shift: f32,
    /// `Σ e^(z − shift)`.
    sum: f32,
    /// `Σ e^(z − shift) · (z − shift)`.
    moment: f32,
}

/// Log-probability and entropy, and the log-sum-exp, of a position whose logits are all counted.
fn score(blocks: impl Iterator<Item = Moments> + Clone, target: f32) -> ([f32; 2], f32) {
    let shift =
        blocks.clone().fold(f32::NEG_INFINITY, |shift, block| if block.shift > shift { block.shift } else { shift });
    let (mut sum, mut moment) = (0.0, 0.0);
    for block in blocks {
        let below = f64::from(block.shift - shift);
        let factor = below.exp();
        sum += factor * f64::from(block.sum);
        moment += factor * (f64::from(block.moment) + below * f64::from(block.sum));
    }
    let log = sum.ln();
    // −Σ p log p = log Σ e^s − Σ p s, with s the shifted logits.
    let scores = [(f64::from(target - shift) - log) as f32, (log - moment / sum) as f32];
    (scores, (f64::from(shift) + log) as f32)
}

pub(super) fn forward(
    x: FlexTensor,
    weight: FlexTensor,
    rows: FlexTensor,
    targets: FlexTensor,
    logits: Logits,
) -> Scores<Flex> {
    let (v, d) = (weight.shape()[0], weight.shape()[1]);
    let (x, weight) = (Values::of(x), Values::of(weight));
    let (rows, targets) = (indices(rows), indices(targets));
    let n = rows.len();
    let chunk = positions(logits.chunk, v).min(n);
    let cap = logits.soft_cap.map(|cap| cap as f32);
    let mut kept = vec![];
    let mut scores = Vec::with_capacity(n * 2);
    let mut log_sums = Vec::with_capacity(n);
    let all: Vec<Range<usize>> = blocks(0..v).collect();
    for (rows, targets) in rows.chunks(chunk).zip(targets.chunks(chunk)) {
        let c = rows.len();
        let hidden = gather(x.f32(), rows, d);
        let states = Matrix::new(&hidden, c, d, d);
        let mut found = vec![f32::NAN; c];
        let of_targets = Shared::new(&mut found);
        let mut keep = logits.keep.then(|| Fresh::new(c * v));
        let to_keep = keep.as_mut().map(Fresh::shared);
        let moments: Vec<Vec<Moments>> = share_out(
            all.len(),
            || vec![0.0; if to_keep.is_some() { 0 } else { c * BLOCK }],
            |buffer, block| {
                let block = &all[block];
                let width = block.len();
                let weight = rows_of(weight.f32(), block, d).transposed();
                let logits = match to_keep {
                    Some(keep) => {
                        let place = kept_block(c, block);
                        // SAFETY: no other task has this block, and the product writes all of it before it is read.
                        unsafe {
                            multiply_into(keep, place.start, width, false, states, weight, 1.0);
                            keep.part(place.start, place.len())
                        }
                    }
                    None => {
                        let logits = &mut buffer[..c * width];
                        multiply(logits, width, false, states, weight, 1.0);
                        logits
                    }
                };
                if let Some(cap) = cap {
                    vectorised(
                        #[inline(always)]
                        || bound(logits, cap),
                    );
                }
                for (i, target) in targets.iter().enumerate().filter(|(_, target)| block.contains(target)) {
                    // SAFETY: a target is in one block.
                    unsafe { of_targets.part(i, 1)[0] = logits[i * width + target - block.start] };
                }
                let mut moments = Vec::with_capacity(c);
                vectorised(
                    #[inline(always)]
                    || {
                        for logits in logits.chunks_exact(width) {
                            let shift = highest(logits);
                            let (sum, moment) = exp_moments(logits, shift);
                            moments.push(Moments { shift, sum, moment });
                        }
                    },
                );
                moments
            },
        );
        let merged: Vec<([f32; 2], f32)> = found
            .par_iter()
            .enumerate()
            .map(|(i, &target)| score(moments.iter().map(|block| block[i]), target))
            .collect();
        for (both, log_sum) in merged {
            scores.extend(both);
            log_sums.push(log_sum);
        }
        // SAFETY: every block was written.
        kept.extend(keep.map(|keep| unsafe { keep.tensor([c, v]) }));
    }
    Scores { scores: tensor(scores, [n, 2]), log_sums: tensor(log_sums, [n, 1]), logits: kept }
}

/// Replaces logits by the gradient of the log-probability of a token, times `seed`: `seed · (onehot − softmax)`. With a bound, it is that of
/// the logits before they were bounded.
#[inline(always)]
fn slopes(logits: &mut [f32], kept: Option<&[f32]>, cap: Option<f32>, log_sum: f32, target: Option<usize>, seed: f32) {
    let Some(cap) = cap else {
        match kept {
            Some(kept) => exp_scaled_to(logits, kept, log_sum, -seed),
            None => exp_scaled(logits, log_sum, -seed),
        }
        if let Some(target) = target {
            logits[target] += seed;
        }
        return;
    };
    // Those that are kept have been bounded.
    match kept {
        Some(kept) => logits.copy_from_slice(kept),
        None => bound(logits, cap),
    }
    let of_target = target.map(|target| (target, seed * slope_of_bound(logits[target], cap)));
    exp_scaled_within(logits, log_sum, -seed, cap);
    if let Some((target, slope)) = of_target {
        logits[target] += slope;
    }
}

/// Where logits are computed again, positions whose log-probability has no gradient are left out.
pub(super) fn backward(
    kept: Kept<Flex>,
    gradient: FlexTensor,
    Logits { chunk, soft_cap, .. }: Logits,
    wanted: [bool; 2],
) -> [Option<FlexTensor>; 2] {
    let cap = soft_cap.map(|cap| cap as f32);
    let (t, v, d) = (kept.x.shape()[0], kept.weight.shape()[0], kept.weight.shape()[1]);
    let (x, weight, log_sums, gradient) =
        (Values::of(kept.x), Values::of(kept.weight), Values::of(kept.log_sums), Values::of(gradient));
    let seeds: Vec<f32> = gradient.f32().iter().copied().step_by(2).collect();
    let (rows, targets) = (indices(kept.rows), indices(kept.targets));
    let kept: Vec<Values> = kept.logits.into_iter().map(Values::of).collect();
    let live: Vec<usize> = (0..seeds.len()).filter(|&i| !kept.is_empty() || seeds[i] != 0.0).collect();
    let chunk = positions(chunk, v);
    let mut in_x = wanted[0].then(|| vec![0.0; t * d]);
    let mut in_weight = wanted[1].then(|| Fresh::new(v * d));
    let parts = parts(v);
    for (round, live) in live.chunks(chunk).enumerate() {
        let (c, kept) = (live.len(), kept.get(round));
        let places: Vec<usize> = live.iter().map(|&i| rows[i]).collect();
        let hidden = gather(x.f32(), &places, d);
        let states = Matrix::new(&hidden, c, d, d);
        let to_weight = in_weight.as_mut().map(Fresh::shared);
        let mut sums: Vec<Vec<f32>> = share_out(
            parts.len(),
            || vec![0.0; c * BLOCK],
            |buffer, part| {
                let part = &parts[part];
                let mut in_hidden = vec![0.0; if wanted[0] { c * d } else { 0 }];
                for block in blocks(part.clone()) {
                    let width = block.len();
                    let logits = &mut buffer[..c * width];
                    let weight = rows_of(weight.f32(), &block, d);
                    let kept = kept.map(|kept| &kept.f32()[kept_block(c, &block)]);
                    if kept.is_none() {
                        multiply(logits, width, false, states, weight.transposed(), 1.0);
                    }
                    vectorised(
                        #[inline(always)]
                        || {
                            for (n, (logits, &i)) in logits.chunks_exact_mut(width).zip(live).enumerate() {
                                let kept = kept.map(|kept| &kept[n * width..(n + 1) * width]);
                                let target = block.contains(&targets[i]).then(|| targets[i] - block.start);
                                slopes(logits, kept, cap, log_sums.f32()[i], target, seeds[i]);
                            }
                        },
                    );
                    let slopes = Matrix::new(logits, c, width, width);
                    if wanted[0] {
                        multiply(&mut in_hidden, d, block.start > part.start, slopes, weight, 1.0);
                    }
                    if let Some(to) = to_weight {
                        let slopes = slopes.transposed();
                        // SAFETY: no other task has these tokens; the first round overwrites what the memory held.
                        unsafe { multiply_into(to, block.start * d, d, round > 0, slopes, states, 1.0) };
                    }
                }
                in_hidden
            },
        );
        let (Some(in_x), Some((sum, others))) = (&mut in_x, sums.split_first_mut()) else { continue };
        sum.par_chunks_mut(d).enumerate().for_each(|(i, sum)| {
            for part in others.iter() {
                add(sum, &part[i * d..(i + 1) * d]);
            }
        });
        // A position may predict several tokens: the first ones of the responses behind one prompt.
        for (sum, &row) in sum.chunks_exact(d).zip(&places) {
            add(&mut in_x[row * d..(row + 1) * d], sum);
        }
    }
    let in_weight = in_weight.map(|sum| {
        if live.is_empty() {
            return tensor(vec![0.0; v * d], [v, d]);
        }
        // SAFETY: the first round wrote every block.
        unsafe { sum.tensor([v, d]) }
    });
    [in_x.map(|sum| tensor(sum, [t, d])), in_weight]
}
