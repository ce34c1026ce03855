//! The formulas as one writes them with Burn's operations.

use burn::tensor::{Bool, Int, Tensor, activation};
use setpoint_ops::{AdamWStep, Heads, Packing};

/// `[t, d]`, `[1, d]` -> `[t, d]`
pub fn rms_norm(x: Tensor<2>, weight: Tensor<2>, eps: f64) -> Tensor<2> {
    let mean = x.clone().powi_scalar(2).mean_dim(1);
    x * (mean + eps).sqrt().recip() * weight
}

/// `[t, h·n]`, `[t, n/2]` twice -> `[t, h·n]`
pub fn rotate(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<2> {
    let ([t, width], [_, half]) = (x.dims(), cos.dims());
    // [t, h·n] -> [t, h, n]
    let x = x.reshape([t, width / (2 * half), 2 * half]);
    let (a, b) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let lift = |angle: Tensor<2>| -> Tensor<3> {
        let angle: Tensor<3> = angle.unsqueeze_dim(1);
        if a.device().is_autodiff() { angle.autodiff() } else { angle }
    };
    let (cos, sin) = (lift(cos), lift(sin));
    let turned = [a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin];
    // [t, h, n/2] twice -> [t, h·n]
    Tensor::cat(turned.into(), 2).reshape([t, width])
}

/// `[t, f]` twice -> `[t, f]`
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

/// Segment by segment: `[t, h·n]`, `[t, g·n]` twice -> `[t, h·n]`
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, heads: Heads, packing: &Packing) -> Tensor<2> {
    let Heads { query: h, kv: g, dim: n, .. } = heads;
    let r = h / g;
    let mixed = packing.segments().iter().map(|segment| {
        let (prefix, s) = (packing.prefix(segment), segment.len);
        let seen = |x: &Tensor<2>| {
            let own = x.clone().narrow(0, segment.start, s);
            let all = match prefix.len() {
                0 => own,
                len => Tensor::cat(vec![x.clone().narrow(0, prefix.start, len), own], 0),
            };
            let width = prefix.len() + s;
            // [p + s, g·n] -> [g, p + s, n] -> [h, p + s, n]
            let all = all.reshape([width, g, n]).swap_dims(0, 1);
            all.unsqueeze_dim::<4>(1).repeat_dim(1, r).reshape([h, width, n])
        };
        // [s, h·n] -> [h, s, n]
        let queries = q.clone().narrow(0, segment.start, s).reshape([s, h, n]).swap_dims(0, 1);
        let scores = queries.matmul(seen(&k).transpose()).div_scalar((n as f64).sqrt());
        let plain = scores.device().without_autodiff();
        let hidden = Tensor::<2, Bool>::tril_mask([s, prefix.len() + s], prefix.len() as i64, &plain);
        let weights = activation::softmax(scores.mask_fill(hidden.unsqueeze(), f32::NEG_INFINITY), 2);
        // [h, s, n] -> [s, h·n]
        weights.matmul(seen(&v)).swap_dims(0, 1).reshape([s, h * n])
    });
    Tensor::cat(mixed.collect(), 0)
}

/// All positions: `[t, d]`, `[v, d]`, `[t]` -> `[t]`
pub fn token_logps(x: Tensor<2>, weight: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let all = activation::log_softmax(x.matmul(weight.transpose()), 1);
    all.gather(1, targets.unsqueeze_dim(1)).squeeze_dim(1)
}

/// Weights and both moments, `[n]` each.
pub fn adamw([weight, m, v]: [Tensor<1>; 3], gradient: Tensor<1>, step: AdamWStep) -> [Tensor<1>; 3] {
    let gradient = gradient.mul_scalar(step.scale);
    let m = m.mul_scalar(step.beta1) + gradient.clone().mul_scalar(1.0 - step.beta1);
    let v = v.mul_scalar(step.beta2) + gradient.powi_scalar(2).mul_scalar(1.0 - step.beta2);
    let root = v.clone().sqrt().div_scalar(step.root).add_scalar(step.eps);
    let weight = weight.mul_scalar(step.decay) - m.clone().div(root).mul_scalar(step.rate);
    [weight, m, v]
}
