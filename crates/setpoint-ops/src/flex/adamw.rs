//! The optimizer's passes.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use rayon::prelude::*;

use super::host::{Values, own, tensor};
use super::simd::vectorised;
use crate::adamw::{AdamWStep, OptimizerOps};

/// Elements that a thread takes at a time.
const PART: usize = 1 << 14;

impl OptimizerOps for Flex {
    fn adamw(
        weight: FloatTensor<Self>,
        exp_avg: FloatTensor<Self>,
        exp_avg_sq: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [decay, beta1, beta2] = [step.decay as f32, step.beta1 as f32, step.beta2 as f32];
        let first = (step.scale * (1.0 - step.beta1)) as f32;
        let second = (step.scale * step.scale * (1.0 - step.beta2)) as f32;
        let [rate, root, eps] = [step.rate as f32, step.root as f32, step.eps as f32];
        let (mut weight, mut exp_avg, mut exp_avg_sq) = (own(weight), own(exp_avg), own(exp_avg_sq));
        let gradient = Values::of(gradient);
        let state =
            exp_avg.storage_mut::<f32>().par_chunks_mut(PART).zip(exp_avg_sq.storage_mut::<f32>().par_chunks_mut(PART));
        weight.storage_mut::<f32>().par_chunks_mut(PART).zip(state).zip(gradient.f32().par_chunks(PART)).for_each(
            |((weight, (m, v)), gradient)| {
                vectorised(
                    #[inline(always)]
                    || {
                        for (((w, m), v), g) in weight.iter_mut().zip(m).zip(v).zip(gradient) {
                            *m = *m * beta1 + g * first;
                            *v = *v * beta2 + g * g * second;
                            *w = *w * decay - *m / (v.sqrt() / root + eps) * rate;
                        }
                    },
                );
            },
        );
        (weight, exp_avg, exp_avg_sq)
    }

    fn sum_of_squares(x: FloatTensor<Self>, _row: usize) -> FloatTensor<Self> {
        let x = Values::of(x);
        let parts: Vec<f64> = x
            .f32()
            .par_chunks(PART)
            .map(|part| {
                vectorised(
                    #[inline(always)]
                    || {
                        let mut lanes = [0.0f64; 16];
                        let whole = part.chunks_exact(16);
                        let rest = whole.remainder();
                        for part in whole {
                            for i in 0..16 {
                                lanes[i] += f64::from(part[i]) * f64::from(part[i]);
                            }
                        }
                        for (lane, &x) in lanes.iter_mut().zip(rest) {
                            *lane += f64::from(x) * f64::from(x);
                        }
                        lanes.into_iter().sum()
                    },
                )
            })
            .collect();
        tensor(vec![parts.into_iter().sum::<f64>() as f32], [1])
    }
}
