//! The gates of the feed-forward network.

use burn::tensor::{Device, Tensor, TensorData, activation};
use setpoint_ops::{geglu, swiglu};

use super::{check, devices, tensor, values};

#[test]
fn gates() {
    // More elements than a thread takes at a time.
    let shapes = [[3, 7000], [3, 7000]];
    check(shapes, |[gate, up]| swiglu(gate, up), |[gate, up]| activation::silu(gate) * up);
    check(shapes, |[gate, up]| geglu(gate, up), |[gate, up]| activation::gelu_approximate(gate) * up);
}

/// The value of GELU by its approximation with tanh.
fn gelu(g: f64) -> f64 {
    g * 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044_715 * g.powi(3))).tanh())
}

#[test]
fn gelu_and_its_slope_are_the_formula_in_f64() {
    // From where it is 0 to where it is the identity, through its smallest value near -0.75.
    let grid: Vec<f32> = (-1000..=1000).map(|i| i as f32 * 0.012).collect();
    let n = grid.len();
    let row = |numbers: Vec<f32>, device: &Device| {
        Tensor::<2>::from_data(TensorData::new(numbers, [1, n]), device).autodiff().require_grad()
    };
    for device in devices() {
        let (gate, up) = (row(grid.clone(), &device), row(vec![1.5; n], &device));
        let y = geglu(gate.clone(), up.clone());
        let gradients = y.clone().sum().backward();
        let of_gate = values(gate.grad(&gradients).unwrap());
        let of_up = values(up.grad(&gradients).unwrap());
        for (i, y) in values(y.inner()).into_iter().enumerate() {
            let g = f64::from(grid[i]);
            let close = |found: f32, expected: f64, what: &str| {
                let error = (f64::from(found) - expected).abs();
                assert!(error < 1e-6 * (1.0 + expected.abs()), "{device:?}, {what} at {g}: {found} against {expected}");
            };
            let slope = (gelu(g + 1e-5) - gelu(g - 1e-5)) / 2e-5;
            close(y, 1.5 * gelu(g), "value");
            close(of_up[i], gelu(g), "gradient of the values");
            close(of_gate[i], 1.5 * slope, "gradient of the gate");
        }
    }
}

#[test]
fn nan_passes_through_a_gate() {
    for device in devices() {
        let x = Tensor::<2>::from_data([[f32::NAN, 0.0]], &device);
        assert!(values(swiglu(x.clone(), x.clone()))[0].is_nan() && values(geglu(x.clone(), x))[0].is_nan());
    }
}

/// The CPU's kernels write into memory that is not cleared: what does not fit together must not get that far.
#[test]
#[should_panic(expected = "as many gates as values")]
fn a_gate_without_a_value_is_refused() {
    let device = &devices()[0];
    swiglu(tensor(1, [3, 4], device), tensor(2, [2, 4], device));
}

#[test]
#[should_panic(expected = "as many gates as values")]
fn a_gate_of_gelu_without_a_value_is_refused() {
    let device = &devices()[0];
    geglu(tensor(1, [3, 4], device), tensor(2, [2, 4], device));
}
