//! Root mean square normalisation.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::host::{Fresh, Values, tensor};
use super::simd::{dot, vectorised};

/// Rows that a thread takes at a time: the gradient of the weight is summed within them first.
const ROWS: usize = 32;

pub(super) fn forward(x: FlexTensor, weight: FlexTensor, eps: f64) -> (FlexTensor, FlexTensor) {
    let (t, d) = (x.shape()[0], x.shape()[1]);
    let (x, weight) = (Values::of(x), Values::of(weight));
    let (x, weight) = (x.f32(), weight.f32());
    assert_eq!(weight.len(), d, "a weight for each element of a row");
    let mut y = Fresh::new(t * d);
    let mut scales = vec![0.0; t];
    let inputs = x.par_chunks(ROWS * d);
    y.slots().par_chunks_mut(ROWS * d).zip(scales.par_chunks_mut(ROWS)).zip(inputs).for_each(|((y, scales), x)| {
        vectorised(
            #[inline(always)]
            || {
                for ((y, scale), x) in y.chunks_exact_mut(d).zip(scales).zip(x.chunks_exact(d)) {
                    *scale = (dot(x, x) / d as f32 + eps as f32).sqrt().recip();
                    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                        y.write(x * *scale * w);
                    }
                }
            },
        );
    });
    // SAFETY: the parts are all rows.
    (unsafe { y.tensor([t, d]) }, tensor(scales, [t, 1]))
}

pub(super) fn backward(
    x: FlexTensor,
    weight: FlexTensor,
    scale: FlexTensor,
    gradient: FlexTensor,
    [_, wants_weight]: [bool; 2],
) -> [Option<FlexTensor>; 2] {
    let (t, d) = (x.shape()[0], x.shape()[1]);
    let (x, weight, scale, gradient) = (Values::of(x), Values::of(weight), Values::of(scale), Values::of(gradient));
    let weight = weight.f32();
    assert_eq!(
        [gradient.f32().len(), scale.f32().len()],
        [t * d, t],
        "a gradient of each element, a scale of each row"
    );
    let mut of_x = Fresh::new(t * d);
    let inputs =
        x.f32().par_chunks(ROWS * d).zip(gradient.f32().par_chunks(ROWS * d)).zip(scale.f32().par_chunks(ROWS));
    let parts: Vec<Vec<f32>> = of_x
        .slots()
        .par_chunks_mut(ROWS * d)
        .zip(inputs)
        .map(|(of_x, ((x, gradient), scales))| {
            let (mut of_weight, mut scaled) = (vec![0.0; if wants_weight { d } else { 0 }], vec![0.0; d]);
            let rows = of_x.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(gradient.chunks_exact(d)).zip(scales);
            vectorised(
                #[inline(always)]
                || {
                    for (((of_x, x), gradient), &scale) in rows {
                        // g·w and, for the weight, g·x̂.
                        for (scaled, (gradient, weight)) in scaled.iter_mut().zip(gradient.iter().zip(weight)) {
                            *scaled = gradient * weight;
                        }
                        for (of_weight, (gradient, x)) in of_weight.iter_mut().zip(gradient.iter().zip(x)) {
                            *of_weight += gradient * (x * scale);
                        }
                        let along = dot(&scaled, x) * scale / d as f32;
                        for ((of_x, scaled), x) in of_x.iter_mut().zip(&scaled).zip(x) {
                            of_x.write((scaled - x * scale * along) * scale);
                        }
                    }
                },
            );
            of_weight
        })
        .collect();
    let of_weight = wants_weight.then(|| {
        let mut of_weight = vec![0.0; d];
        for part in parts {
            for (sum, part) in of_weight.iter_mut().zip(part) {
                *sum += part;
            }
        }
        tensor(of_weight, [d])
    });
    // SAFETY: the parts are all rows.
    [Some(unsafe { of_x.tensor([t, d]) }), of_weight]
}
