//! Gradients against central differences, on every CPU backend.

use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

#[allow(deprecated)]
pub(crate) fn devices() -> [Device; 2] {
    [Device::flex(), Device::ndarray()]
}

/// Numbers in [-1, 1).
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut unit = || (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
    (0..count).map(|_| (2.0 * unit() - 1.0) as f32).collect()
}

pub(crate) fn tensor<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(seed, shape.iter().product()), shape), device)
}

/// Checks ∂/∂x Σ c·f(x) for random `c` in every element of a random `x`.
pub(crate) fn check<const D: usize, const E: usize>(
    shape: [usize; D],
    device: &Device,
    f: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    let count: usize = shape.iter().product();
    let x = numbers(1, count);
    let at = |values: Vec<f32>| Tensor::<D>::from_data(TensorData::new(values, shape), device);
    let coefficients = numbers(2, f(at(x.clone())).shape().num_elements());
    let value = |values: Vec<f32>| -> f64 {
        let y = f(at(values)).into_data().try_into_vec::<f32>().unwrap();
        y.iter().zip(&coefficients).map(|(&y, &c)| f64::from(y) * f64::from(c)).sum()
    };

    let leaf = at(x.clone()).autodiff().require_grad();
    let y = f(leaf.clone());
    let c = Tensor::<E>::from_data(TensorData::new(coefficients.clone(), y.dims()), device);
    let grads = (y * c.autodiff()).sum().backward();
    let gradient = leaf.grad(&grads).unwrap().into_data().try_into_vec::<f32>().unwrap();

    let h = 1e-2;
    for i in 0..count {
        let moved = |by: f32| {
            let mut x = x.clone();
            x[i] += by;
            value(x)
        };
        let difference = (moved(h) - moved(-h)) / f64::from(2.0 * h);
        let error = (f64::from(gradient[i]) - difference).abs();
        assert!(error < 1e-3 * (1.0 + difference.abs()), "element {i}: {} against {difference}", gradient[i]);
    }
}
