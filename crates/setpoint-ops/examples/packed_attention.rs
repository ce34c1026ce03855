//! Attention over a packed batch: a prompt that is computed once for two responses, forward and backward.
//!
//! Run it from the repository's root with the features of the whole workspace, so that nothing is built twice:
//! `cargo run --example packed_attention --features ndarray,wgpu,remote --workspace`.

#![allow(clippy::print_stdout, reason = "the program prints its result")]

use burn::tensor::{Device, Distribution, Tensor};
use setpoint_ops::{Heads, Packing, attention};

fn main() {
    let device = Device::flex().autodiff();
    // A prompt of four tokens, and behind it responses of two and of three. Nothing is padded, and the prompt is there once.
    let mut batch = Packing::builder();
    let prompt = batch.push(4, None);
    batch.push(2, Some(prompt));
    batch.push(3, Some(prompt));
    let batch = batch.build();
    println!("{} tokens at the positions {:?}", batch.tokens(), batch.positions());

    // Two query heads read one key head, as in grouped-query attention.
    let heads = Heads::new(2, 1, 8);
    let random = |width| Tensor::<2>::random([batch.tokens(), width], Distribution::Normal(0.0, 1.0), &device);
    let q = random(heads.query * heads.dim);
    let k = random(heads.kv * heads.dim).require_grad();
    let v = random(heads.kv * heads.dim);
    let mixed = attention(q, k.clone(), v, heads, &batch);

    // The responses alone are in the loss, yet the prompt's keys have a gradient: both responses look at them.
    let [t, width] = mixed.dims();
    let gradients = mixed.slice([4..t, 0..width]).sum().backward();
    let size = k.grad(&gradients).map(|gradient| gradient.narrow(0, 0, 4).abs().sum().into_scalar::<f32>());
    println!("the gradient of the prompt's keys has size {:.3}", size.unwrap_or_default());
}
