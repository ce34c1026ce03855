//! Low-rank updates with a magnitude, and lengths of rows.

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use setpoint_ops::{LowRank, RowLengths, linear, linear_lora, rescale, row_norms};

use crate::{assert_close, check, devices, frozen, numbers, tensor, values};

/// The map whose rows have the lengths of a magnitude.
fn linear_dora(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    update: LowRank,
    magnitude: Tensor<1>,
) -> Tensor<2> {
    let norms = row_norms(weight.clone(), update.clone());
    rescale(linear_lora(x, weight, None, update), RowLengths { magnitude, norms }, bias)
}

#[test]
fn low_rank_updates_with_a_magnitude() {
    // One row; few rows and many; more rows of the weight than a thread takes at a time, and fewer.
    for (t, inputs, outputs, rank) in
        [(1, 37, 9, 4), (9, 5, 30, 1), (67, 37, 1000, 16), (300, 70, 7, 3), (900, 130, 400, 16)]
    {
        let scale = 2.0;
        check(
            [[t, inputs], [rank, inputs], [outputs, rank], [1, outputs]],
            |[x, a, b, m]| {
                let (weight, bias) = frozen(&x, [outputs, inputs]);
                linear_dora(x, weight, Some(bias), LowRank { a, b, scale }, m.reshape([outputs]))
            },
            |[x, a, b, m]| {
                let (weight, bias) = frozen(&x, [outputs, inputs]);
                let dense = weight.clone() + b.clone().matmul(a.clone()).mul_scalar(scale);
                let norms = dense.square().sum_dim(1).sqrt().detach().transpose();
                let update = x.clone().matmul(a.transpose()).matmul(b.transpose()).mul_scalar(scale);
                (x.matmul(weight.transpose()) + update) * (m / norms) + bias.unsqueeze()
            },
        );
    }
}

#[test]
fn lengths_of_rows_are_those_in_f64() {
    for device in devices() {
        // More columns than are added in f32, and almost all of a row cancelled by its update.
        for (outputs, inputs, rank, scale) in [(33, 14_341, 5, 2.0), (70, 64, 3, 0.25), (1, 1, 1, 1.0)] {
            let (b, a) = (tensor::<2>(1, [outputs, rank], &device), tensor::<2>(2, [rank, inputs], &device));
            let small = tensor::<2>(3, [outputs, inputs], &device).mul_scalar(1e-2);
            for weight in [small.clone(), small - b.clone().matmul(a.clone()).mul_scalar(scale)] {
                let norms = row_norms(weight.clone(), LowRank { a: a.clone(), b: b.clone(), scale });
                let (weight, a, b) = (values(weight), values(a.clone()), values(b.clone()));
                for (o, norm) in values(norms).into_iter().enumerate() {
                    let at = |i: usize| {
                        let update = (0..rank).map(|k| f64::from(b[o * rank + k]) * f64::from(a[k * inputs + i]));
                        f64::from(weight[o * inputs + i]) + scale * update.sum::<f64>()
                    };
                    let expected = (0..inputs).map(|i| at(i).powi(2)).sum::<f64>().sqrt();
                    let size = (0..inputs).map(|i| f64::from(weight[o * inputs + i]).powi(2)).sum::<f64>().sqrt();
                    let error = (f64::from(norm) - expected).abs();
                    assert!(
                        error <= 1e-6 * expected.max(1e-1 * size),
                        "{device:?}, row {o}: {norm} against {expected}"
                    );
                }
            }
        }
    }
}

/// The composition holds a part of the dense sum at a time: there are three of them here.
#[test]
fn lengths_of_rows_are_right_in_every_part() {
    for device in devices() {
        let (inputs, outputs) = (1 << 12, 9 << 10);
        let b: Vec<f32> = (0..outputs).map(|o| o as f32).collect();
        let b = Tensor::<2>::from_data(TensorData::new(b, [outputs, 1]), &device);
        let (weight, a) = (Tensor::ones([outputs, inputs], &device), Tensor::ones([1, inputs], &device));
        let norms = values(row_norms(weight, LowRank { a, b, scale: 0.5 }));
        let expected: Vec<f32> = (0..outputs).map(|o| (1.0 + 0.5 * o as f32) * 64.0).collect();
        assert_close(&norms, &expected, 1e-5, &format!("{device:?}"));
    }
}

#[test]
fn a_row_of_zeros_stays_one_and_nan_is_seen() {
    for device in devices() {
        let x = tensor::<2>(1, [3, 40], &device);
        let a = tensor(2, [2, 40], &device);
        let mut rows = numbers(3, 3 * 40);
        rows[..40].fill(0.0);
        rows[50] = f32::NAN;
        let weight = Tensor::<2>::from_data(TensorData::new(rows, [3, 40]), &device);
        let update = LowRank { a, b: Tensor::zeros([3, 2], &device), scale: 1.0 };
        let norms = row_norms(weight.clone(), update.clone());
        let y = values(linear_dora(x.clone(), weight.clone(), None, update, norms));
        for (y, plain) in y.chunks(3).zip(values(linear(x, weight, None)).chunks(3)) {
            assert_eq!((y[0], y[2]), (0.0, plain[2]), "{device:?}");
            assert!(y[1].is_nan(), "{device:?}");
        }
    }
}

#[test]
fn bf16_maps_with_a_magnitude_are_rounded_from_f32() {
    let device = Device::flex();
    let half = |x: Tensor<2>| x.cast(FloatDType::BF16);
    let (x, weight) = (half(tensor(1, [6, 40], &device)), half(tensor(2, [9, 40], &device)));
    let (a, b, m) = (tensor(3, [4, 40], &device), tensor(4, [9, 4], &device), tensor::<1>(5, [9], &device));
    let update = LowRank { a, b, scale: 0.5 };
    let wide = |x: Tensor<2>| x.cast(FloatDType::F32);
    let expected = linear_dora(wide(x.clone()), wide(weight.clone()), None, update.clone(), m.clone());
    let (x, m) = (x.autodiff().require_grad(), m.autodiff().require_grad());
    let lifted = LowRank { a: update.a.autodiff(), b: update.b.autodiff(), scale: 0.5 };
    let y = linear_dora(x.clone(), weight.autodiff(), None, lifted, m.clone());
    assert_eq!(y.dtype(), DType::BF16);
    let gradients = y.clone().sum().backward();
    assert_eq!(x.grad(&gradients).unwrap().dtype(), DType::BF16);
    assert_eq!(m.grad(&gradients).unwrap().dtype(), DType::F32);
    assert_close(&values(wide(y.inner())), &values(expected), 1e-2, "bf16");
}

#[test]
#[should_panic(expected = "a length of each row")]
fn a_magnitude_of_another_length_is_refused() {
    let device = &devices()[0];
    let update = LowRank { a: tensor(3, [2, 3], device), b: tensor(4, [4, 2], device), scale: 1.0 };
    linear_dora(tensor(1, [6, 3], device), tensor(2, [4, 3], device), None, update, tensor(5, [3], device));
}
