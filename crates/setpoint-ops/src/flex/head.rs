//! Log-probabilities of tokens, chunk by chunk.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::host::{Matrix, Threads, Values, indices, multiply, tensor};
use super::simd::{exp_moments, exp_sum, highest, vectorised};
use crate::composed::head::Kept;

/// Copies rows of `x`.
fn gather(to: &mut [f32], x: &[f32], rows: &[usize], d: usize) {
    for (to, &row) in to.chunks_exact_mut(d).zip(rows) {
        to.copy_from_slice(&x[row * d..(row + 1) * d]);
    }
}

pub(super) fn forward(
    x: FlexTensor,
    weight: FlexTensor,
    rows: FlexTensor,
    targets: FlexTensor,
    chunk: usize,
) -> (FlexTensor, FlexTensor) {
    let (v, d) = (weight.shape()[0], weight.shape()[1]);
    let (x, weight) = (Values::of(x), Values::of(weight));
    let (rows, targets) = (indices(rows), indices(targets));
    let n = rows.len();
    let chunk = chunk.min(n);
    let weight = Matrix::new(weight.f32(), v, d, d).transposed();
    let mut hidden = vec![0.0; chunk * d];
    let mut logits = vec![0.0; chunk * v];
    let mut scores = vec![0.0; n * 2];
    let mut log_sums = vec![0.0; n];
    let outputs = scores.chunks_mut(2 * chunk).zip(log_sums.chunks_mut(chunk));
    for ((rows, targets), (scores, log_sums)) in rows.chunks(chunk).zip(targets.chunks(chunk)).zip(outputs) {
        let c = rows.len();
        gather(&mut hidden, x.f32(), rows, d);
        multiply(&mut logits, v, false, Matrix::new(&hidden, c, d, d), weight, 1.0, Threads::All);
        let outputs = scores.par_chunks_exact_mut(2).zip(log_sums.par_iter_mut());
        logits.par_chunks_exact(v).zip(targets).zip(outputs).for_each(|((logits, &target), (score, log_sum))| {
            vectorised(
                #[inline(always)]
                || {
                    let shift = highest(logits);
                    let (sum, moment) = exp_moments(logits, shift);
                    let log = sum.ln();
                    score[0] = logits[target] - shift - log;
                    // −Σ p log p = log Σ e^s − Σ p s, with s the shifted logits.
                    score[1] = log - moment / sum;
                    *log_sum = shift + log;
                },
            );
        });
    }
    (tensor(scores, [n, 2]), tensor(log_sums, [n, 1]))
}

/// Positions whose log-probability has no gradient are left out.
pub(super) fn backward(
    kept: Kept<burn::backend::Flex>,
    gradient: FlexTensor,
    chunk: usize,
    wanted: [bool; 2],
) -> [Option<FlexTensor>; 2] {
    let (t, v, d) = (kept.x.shape()[0], kept.weight.shape()[0], kept.weight.shape()[1]);
    let (x, weight, log_sums, gradient) =
        (Values::of(kept.x), Values::of(kept.weight), Values::of(kept.log_sums), Values::of(gradient));
    let seeds: Vec<f32> = gradient.f32().iter().copied().step_by(2).collect();
    let live: Vec<usize> = (0..seeds.len()).filter(|&i| seeds[i] != 0.0).collect();
    let (rows, targets) = (indices(kept.rows), indices(kept.targets));
    let chunk = chunk.min(live.len().max(1));
    let matrix = Matrix::new(weight.f32(), v, d, d);
    let mut places = vec![0; chunk];
    let mut hidden = vec![0.0; chunk * d];
    let mut in_hidden = vec![0.0; chunk * d];
    let mut logits = vec![0.0; chunk * v];
    let mut in_x = wanted[0].then(|| vec![0.0; t * d]);
    let mut in_weight = wanted[1].then(|| vec![0.0; v * d]);
    for live in live.chunks(chunk) {
        let c = live.len();
        for (place, &i) in places.iter_mut().zip(live) {
            *place = rows[i];
        }
        let places = &places[..c];
        gather(&mut hidden, x.f32(), places, d);
        let states = Matrix::new(&hidden, c, d, d);
        multiply(&mut logits, v, false, states, matrix.transposed(), 1.0, Threads::All);
        logits.par_chunks_exact_mut(v).zip(live).for_each(|(logits, &i)| {
            vectorised(
                #[inline(always)]
                || {
                    exp_sum(logits, log_sums.f32()[i]);
                    let seed = seeds[i];
                    for logit in logits.iter_mut() {
                        *logit *= -seed;
                    }
                    logits[targets[i]] += seed;
                },
            );
        });
        let slopes = Matrix::new(&logits, c, v, v);
        if let Some(sum) = &mut in_x {
            multiply(&mut in_hidden, d, false, slopes, matrix, 1.0, Threads::All);
            // A position may predict several tokens: the first ones of the responses behind one prompt.
            for (part, &row) in in_hidden.chunks_exact(d).zip(places) {
                for (sum, part) in sum[row * d..(row + 1) * d].iter_mut().zip(part) {
                    *sum += part;
                }
            }
        }
        if let Some(sum) = &mut in_weight {
            multiply(sum, d, true, slopes.transposed(), states, 1.0, Threads::All);
        }
    }
    [in_x.map(|sum| tensor(sum, [t, d])), in_weight.map(|sum| tensor(sum, [v, d]))]
}
