//! The linear map of few rows. A general product would first bring the weights into an order of its own, which costs as much as some sixty
//! rows of the product itself; here they are read once and as they lie.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::host::{Matrix, Shared, Threads, Values, multiply, tensor};

/// Rows from which on the general product is as good.
pub(super) const FEW: usize = 256;

/// Outputs that a thread computes at a time, whatever the number of threads: an eighth of them, within bounds.
fn block(outputs: usize) -> usize {
    (outputs / 8).next_multiple_of(48).clamp(96, 384)
}

/// `[t, in]`, `[out, in]` -> `[t, out]`
pub(super) fn forward(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (t, inputs, outputs) = (x.shape()[0], x.shape()[1], weight.shape()[0]);
    let (x, weight) = (Values::of(x), Values::of(weight));
    let x = Matrix::new(x.f32(), t, inputs, inputs).transposed();
    let block = block(outputs);
    let mut y = vec![0.0; t * outputs];
    let to = Shared::new(&mut y);
    weight.f32().par_chunks(block * inputs).enumerate().for_each_init(
        || vec![0.0; block * t],
        |product, (i, weight)| {
            let (start, count) = (i * block, weight.len() / inputs);
            // [count, in] · [in, t] -> [count, t]: in this order the product keeps `x` in the cache and the weights stream by.
            let product = &mut product[..count * t];
            multiply(product, t, false, Matrix::new(weight, count, inputs, inputs), x, 1.0, Threads::One);
            for row in 0..t {
                // SAFETY: no other task has these outputs.
                let to = unsafe { to.part(row * outputs + start, count) };
                for (to, product) in to.iter_mut().zip(product[row..].iter().step_by(t)) {
                    *to = *product;
                }
            }
        },
    );
    tensor(y, [t, outputs])
}
