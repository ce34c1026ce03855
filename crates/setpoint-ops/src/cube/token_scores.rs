//! Log-probabilities and entropies of a chunk of logits, a row in each cube, which reads it once.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{UNITS, cubes, element, fresh, in_order, largest_of_cube, sum_of_cube, units};

/// Less than any logit.
const LOWEST: f32 = -1e30;

/// Returns a logit within its bound, if there is one.
#[cube]
fn bounded(logit: f32, cap: f32, #[comptime] is_capped: bool) -> f32 {
    if comptime!(is_capped) { (logit / cap).tanh() * cap } else { logit }
}

/// Computes `z_y − log Σ e^z`, the entropy `log Σ e^z − Σ p z` and `log Σ e^z` of a row of logits.
///
/// Each unit follows the highest of its logits and takes the sums of `e^(z − highest)` and `e^(z − highest) · (z − highest)` along when it rises.
#[cube(launch)]
fn forward_kernel<F: Float, I: Int>(
    logits: &[F],
    targets: &[I],
    scores: &mut [f32],
    log_sums: &mut [f32],
    width: usize,
    cap: f32,
    #[comptime] is_capped: bool,
    #[comptime] units: usize,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let row = CUBE_POS;
    if row >= log_sums.len() {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(units);
    let start = row * width;
    let mut highest = comptime!(LOWEST).runtime();
    let mut sum = 0.0f32;
    let mut along = 0.0f32;
    let mut i = unit;
    while i < width {
        let logit = bounded(f32::cast_from(logits[start + i]), cap, is_capped);
        if logit > highest {
            let step = highest - logit;
            let factor = step.exp();
            along = factor * (along + step * sum);
            sum *= factor;
            highest = logit;
        }
        let below = logit - highest;
        let weight = below.exp();
        sum += weight;
        along += weight * below;
        i += units;
    }
    let top = largest_of_cube(highest, &mut shared, units);
    let step = highest - top;
    let factor = step.exp();
    let total = sum_of_cube(factor * sum, &mut shared, units);
    let total_along = sum_of_cube(factor * (along + step * sum), &mut shared, units);
    if unit == 0 {
        let log = total.ln();
        let target = usize::cast_from(targets[row]);
        let logit = bounded(f32::cast_from(logits[start + target]), cap, is_capped);
        scores[row * 2] = logit - top - log;
        scores[row * 2 + 1] = log - total_along / total;
        log_sums[row] = top + log;
    }
}

/// `∂z = s · (onehot(y) − softmax(z))`, with a bound `c` times its derivative `1 − (z/c)²`.
#[cube(launch)]
fn backward_kernel<F: Float, I: Int>(
    logits: &[F],
    targets: &[I],
    log_sums: &[f32],
    seeds: &[f32],
    in_logits: &mut [F],
    width: usize,
    cap: f32,
    #[comptime] is_capped: bool,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let place = ABSOLUTE_POS;
    if place >= in_logits.len() {
        terminate!();
    }
    let row = place / width;
    let logit = bounded(f32::cast_from(logits[place]), cap, is_capped);
    let mut found = -((logit - log_sums[row]).exp());
    if place % width == usize::cast_from(targets[row]) {
        found += 1.0f32;
    }
    found *= seeds[row];
    if comptime!(is_capped) {
        let bent = logit / cap;
        found *= 1.0f32 - bent * bent;
    }
    in_logits[place] = F::cast_from(found);
}

/// Answers log-probabilities and entropies `[c, 2]`, and the log-sum-exp of each row `[c, 1]`.
pub(super) fn forward(logits: CubeTensor, targets: CubeTensor, cap: Option<f64>) -> (CubeTensor, CubeTensor) {
    let [logits, targets] = [logits, targets].map(in_order);
    let (client, elements) = (logits.client.clone(), [element(&logits), element(&targets)]);
    let [rows, width] = logits.shape().dims();
    let (scores, log_sums) = (fresh(&logits, [rows, 2], DType::F32), fresh(&logits, [rows, 1], DType::F32));
    forward_kernel::launch(
        &client,
        cubes(&client, rows),
        CubeDim::new_1d(UNITS as u32),
        logits.into_buffer_arg(),
        targets.into_buffer_arg(),
        scores.clone().into_buffer_arg(),
        log_sums.clone().into_buffer_arg(),
        width,
        cap.unwrap_or(1.0) as f32,
        cap.is_some(),
        UNITS,
        elements,
    );
    (scores, log_sums)
}

/// Answers the gradient of the logits from that of the log-probabilities, `[c, 1]`.
pub(super) fn backward(
    logits: CubeTensor,
    targets: CubeTensor,
    log_sums: CubeTensor,
    seeds: CubeTensor,
    cap: Option<f64>,
) -> CubeTensor {
    let [logits, targets, log_sums, seeds] = [logits, targets, log_sums, seeds].map(in_order);
    let (client, elements) = (logits.client.clone(), [element(&logits), element(&targets)]);
    let [rows, width] = logits.shape().dims();
    let in_logits = fresh(&logits, [rows, width], logits.dtype);
    let (count, dim) = units(&client, rows * width);
    backward_kernel::launch(
        &client,
        count,
        dim,
        logits.into_buffer_arg(),
        targets.into_buffer_arg(),
        log_sums.into_buffer_arg(),
        seeds.into_buffer_arg(),
        in_logits.clone().into_buffer_arg(),
        width,
        cap.unwrap_or(1.0) as f32,
        cap.is_some(),
        elements,
    );
    in_logits
}
