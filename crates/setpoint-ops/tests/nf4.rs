//! Linear maps over 4-bit codes against maps over the same numbers, dequantised by the formula.

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData, bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use setpoint_ops::{LowRank, Nf4, Nf4Double, Nf4Host, Nf4Layout, linear, linear_lora, linear_lora_nf4, linear_nf4};

#[allow(deprecated)]
fn devices() -> [Device; 2] {
    [Device::flex(), Device::ndarray()]
}

/// A matrix in codes, and its numbers.
struct Case {
    layout: Nf4Layout,
    codes: Vec<u8>,
    values: [f32; 16],
    scale_codes: Vec<u8>,
    scale_values: Vec<f32>,
    scales: Vec<f32>,
    numbers: Vec<f32>,
}

/// Numbers in [-1, 1).
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}

fn case(shape: [usize; 2], double: bool, rounding: FloatDType) -> Case {
    case_of_blocks(shape, 64, double, rounding)
}

fn case_of_blocks(shape: [usize; 2], block: usize, double: bool, rounding: FloatDType) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(shape[0] as u64);
    // Scales are in groups of a power of two, or of another number of them.
    let (count, group) = (shape[0] * shape[1], if shape[0].is_multiple_of(2) { 256 } else { 3 });
    let blocks = count.div_ceil(block);
    let codes: Vec<u8> = (0..count.div_ceil(2)).map(|_| rng.next_u32() as u8).collect();
    let values: [f32; 16] = numbers(7, 16).try_into().unwrap();
    let (scale_codes, scale_values, scales) = if double {
        let scale_codes = (0..blocks).map(|_| rng.next_u32() as u8).collect();
        (scale_codes, numbers(8, 256), numbers(9, blocks.div_ceil(group)))
    } else {
        (Vec::new(), Vec::new(), numbers(9, blocks))
    };
    let double = double.then_some(Nf4Double { group, offset: 0.3 });
    let scale = |block: usize| match double {
        Some(Nf4Double { offset, .. }) => {
            scale_values[usize::from(scale_codes[block])] * scales[block / group] + offset
        }
        None => scales[block],
    };
    let number = |place: usize| {
        let code = codes[place / 2] >> (4 - place % 2 * 4) & 15;
        let number = values[usize::from(code)] * scale(place / block);
        match rounding {
            FloatDType::BF16 => bf16::from_f32(number).to_f32(),
            FloatDType::F16 => f16::from_f32(number).to_f32(),
            _ => number,
        }
    };
    let numbers = (0..count).map(number).collect();
    let layout = Nf4Layout { shape, block, double, rounding };
    Case { layout, codes, values, scale_codes, scale_values, scales, numbers }
}

impl Case {
    fn on(&self, device: &Device) -> Nf4 {
        let Self { codes, values, scales, .. } = self;
        let scale_codes = self.layout.double.map(|_| (self.scale_codes.as_slice(), self.scale_values.as_slice()));
        Nf4::new(Nf4Host { codes, values, scale_codes, scales }, self.layout, device)
    }

    fn dense(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.numbers.clone(), self.layout.shape), device)
    }
}

/// Shapes whose rows are whole blocks, one and several, and shapes whose blocks cross rows; one with a last block of one number, one with more
/// rows than a thread takes at a time, and numbers of rows that no vector divides.
const SHAPES: [[usize; 2]; 8] = [[5, 64], [9, 192], [130, 128], [13, 37], [1, 65], [130, 200], [70, 333], [3, 1]];

/// Every shape with every format and both kinds of scales.
fn cases() -> impl Iterator<Item = impl Fn() -> Case + Copy> {
    let roundings = [FloatDType::F32, FloatDType::BF16, FloatDType::F16];
    let kinds = roundings.into_iter().flat_map(|rounding| [false, true].map(|double| (double, rounding)));
    SHAPES
        .into_iter()
        .flat_map(move |shape| kinds.clone().map(move |(double, rounding)| move || case(shape, double, rounding)))
}

fn tensor<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(seed, shape.iter().product()), shape), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec::<f32>().unwrap()
}

/// Compares numbers, on the CPU's kernels to the bit.
#[track_caller]
fn assert_same(found: &[f32], expected: &[f32], device: &Device, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let is_exact = *device == Device::flex();
    let size = expected.iter().fold(1.0f32, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let is_same = found == expected || !is_exact && (found - expected).abs() <= 1e-5 * size;
        assert!(is_same, "{what} on {device:?} [{i}]: {found} against {expected}");
    }
}

#[test]
fn numbers_are_values_times_scales() {
    for (case, device) in cases().flat_map(|case| devices().map(|device| (case(), device))) {
        let rounding = case.layout.rounding;
        let weight = case.on(&device);
        let found = values(weight.dequantized(FloatDType::F32));
        // A device that does not have the format rounds a number halfway between two in either direction.
        let tie = match rounding {
            _ if device.supports_dtype(rounding) => 0.0,
            FloatDType::BF16 => 1.0 / 128.0,
            _ => 1.0 / 1024.0,
        };
        let mut ties = 0;
        for (found, expected) in found.iter().zip(&case.numbers) {
            let apart = (found - expected).abs();
            assert!(apart <= tie * expected.abs().max(6.2e-5), "{:?} on {device:?}: {found} {expected}", case.layout);
            ties += usize::from(apart > 0.0 && expected.abs() > 6.2e-5);
        }
        assert!(ties * 1000 <= found.len(), "{ties} of {} for {:?}", found.len(), case.layout);
        let as_bf16 = values(case.on(&Device::flex()).dequantized(FloatDType::BF16).cast(FloatDType::F32));
        let expected: Vec<f32> = case.numbers.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        assert_eq!(as_bf16, expected, "{:?}", case.layout);
    }
}

/// Rows of x: those that are multiplied in registers, few in the two other ways of computing them, and many.
const ROWS: [usize; 6] = [1, 2, 3, 5, 40, 500];

/// The result of a map, with a graph and without one, and the gradients of its inputs.
fn run<const N: usize>(
    shapes: [[usize; 2]; N],
    device: &Device,
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) -> Vec<Vec<f32>> {
    let mut seed = 20;
    let leaves = shapes.map(|shape| {
        seed += 1;
        tensor(seed, shape, device).autodiff().require_grad()
    });
    let y = f(leaves.clone());
    let coefficients = tensor(99, y.dims(), device).autodiff();
    let gradients = (y.clone() * coefficients).sum().backward();
    let plain = f(leaves.clone().map(Tensor::inner));
    let gradients = leaves.map(|leaf| values(leaf.grad(&gradients).unwrap()));
    [vec![values(plain), values(y.inner())], gradients.to_vec()].concat()
}

fn bias(x: &Tensor<2>, outputs: usize) -> Option<Tensor<1>> {
    let bias = tensor(50, [outputs], &x.device().without_autodiff());
    Some(if x.device().is_autodiff() { bias.autodiff() } else { bias })
}

#[test]
fn maps_are_those_of_the_dequantised_weight() {
    for (case, device) in cases().flat_map(|case| devices().map(|device| (case(), device))) {
        // A backend without a format was tried above.
        if !device.supports_dtype(case.layout.rounding) {
            continue;
        }
        let [outputs, inputs] = case.layout.shape;
        let (weight, dense) = (case.on(&device), case.dense(&device));
        for t in ROWS {
            let what = format!("{t} rows, {:?}", case.layout);
            let found = run([[t, inputs]], &device, |[x]| {
                let bias = bias(&x, outputs);
                linear_nf4(x, &weight, bias)
            });
            let expected = run([[t, inputs]], &device, |[x]| {
                let bias = bias(&x, outputs);
                let dense = if x.device().is_autodiff() { dense.clone().autodiff() } else { dense.clone() };
                linear(x, dense, bias)
            });
            for (found, expected) in found.iter().zip(&expected) {
                assert_same(found, expected, &device, &what);
            }
            let (rank, scale) = (3, 1.5);
            let shapes = [[t, inputs], [rank, inputs], [outputs, rank]];
            let found = run(shapes, &device, |[x, a, b]| {
                let bias = bias(&x, outputs);
                linear_lora_nf4(x, &weight, bias, LowRank { a, b, scale })
            });
            let expected = run(shapes, &device, |[x, a, b]| {
                let bias = bias(&x, outputs);
                let dense = if x.device().is_autodiff() { dense.clone().autodiff() } else { dense.clone() };
                linear_lora(x, dense, bias, LowRank { a, b, scale })
            });
            for (found, expected) in found.iter().zip(&expected) {
                assert_same(found, expected, &device, &format!("updated, {what}"));
            }
        }
    }
}

/// Devices without u8 hold four bytes in an i32.
#[test]
fn codes_may_be_words() {
    let device = Device::flex();
    let words = |bytes: &[u8]| -> Vec<i32> {
        let word = |bytes: &[u8]| {
            let mut padded = [0; 4];
            padded[..bytes.len()].copy_from_slice(bytes);
            i32::from_be_bytes(padded)
        };
        bytes.chunks(4).map(word).collect()
    };
    for case in cases() {
        let case = case();
        let codes = [words(&case.codes), words(&case.scale_codes)].concat();
        let weight = Nf4 { codes: Tensor::from_data(codes.as_slice(), (&device, DType::I32)), ..case.on(&device) };
        assert_eq!(values(weight.dequantized(FloatDType::F32)), case.numbers, "{:?}", case.layout);
        let x = tensor::<2>(1, [40, case.layout.shape[1]], &device);
        let expected = values(linear(x.clone(), case.dense(&device), None));
        assert_same(&values(linear_nf4(x, &weight, None)), &expected, &device, "words");
    }
}

/// Blocks of whole vectors and others, odd lengths among them: the codes of a block then begin in the middle of a byte.
#[test]
fn blocks_may_have_any_length() {
    let device = Device::flex();
    for (block, double) in [7, 16, 20, 48, 96, 128].into_iter().flat_map(|block| [(block, false), (block, true)]) {
        // Rows of whole blocks, and rows that begin within a block.
        for inputs in [block * 3, block * 3 + 1] {
            let case = case_of_blocks([11, inputs], block, double, FloatDType::BF16);
            let (weight, dense) = (case.on(&device), case.dense(&device));
            assert_eq!(values(weight.dequantized(FloatDType::F32)), case.numbers, "{:?}", case.layout);
            for t in ROWS {
                let x = tensor::<2>(1, [t, inputs], &device);
                let expected = values(linear(x.clone(), dense.clone(), None));
                assert_same(&values(linear_nf4(x, &weight, None)), &expected, &device, &format!("{:?}", case.layout));
            }
        }
    }
}

#[test]
fn no_rows_stay_no_rows() {
    let device = Device::flex();
    for inputs in [128, 37] {
        let weight = case([9, inputs], true, FloatDType::F32).on(&device);
        let x = || Tensor::<2>::zeros([0, inputs], &device);
        assert_eq!(linear_nf4(x(), &weight, None).dims(), [0, 9]);
        let update = LowRank { a: tensor(2, [3, inputs], &device), b: tensor(3, [9, 3], &device), scale: 1.5 };
        assert_eq!(linear_lora_nf4(x(), &weight, None, update).dims(), [0, 9]);
    }
}

/// A product in bf16 is that in f32, rounded once. Few rows are multiplied with codes, more of them with the dequantised weight.
#[test]
fn maps_in_bf16_are_those_of_the_dequantised_weight() {
    let device = Device::flex();
    let wide = |x: Tensor<2>| x.cast(FloatDType::F32);
    let as_f32 = |x: Tensor<2>| values(wide(x));
    for (inputs, double) in [(333, false), (333, true), (192, true)] {
        let case = case([70, inputs], double, FloatDType::BF16);
        let (weight, dense) = (case.on(&device), case.dense(&device).cast(FloatDType::BF16));
        for t in [1, 3, 8, 40, 200] {
            let x = tensor::<2>(1, [t, inputs], &device).cast(FloatDType::BF16);
            let what = format!("{t} rows, {:?}", case.layout);
            let found = linear_nf4(x.clone(), &weight, None);
            let expected = match t {
                200 => linear(x.clone(), dense.clone(), None),
                _ => linear(wide(x.clone()), wide(dense.clone()), None).cast(FloatDType::BF16),
            };
            assert_eq!(as_f32(found.clone()), as_f32(expected), "{what}");
            // The update is added in f32 to the rounded product.
            let (a, b) = (tensor::<2>(2, [3, inputs], &device), tensor::<2>(3, [70, 3], &device));
            let update = wide(x.clone()).matmul(a.clone().transpose()).matmul(b.clone().transpose());
            let expected = (wide(found) + update.mul_scalar(2.0)).cast(FloatDType::BF16);
            let found = linear_lora_nf4(x, &weight, None, LowRank { a, b, scale: 2.0 });
            assert_eq!(as_f32(found), as_f32(expected), "updated, {what}");
        }
    }
}

/// Numbers of another format than that of `x` are rounded to it, in the dequantised weight.
#[test]
fn maps_in_bf16_take_numbers_of_f32() {
    let device = Device::flex();
    let case = case([70, 192], true, FloatDType::F32);
    let x = tensor::<2>(1, [2, 192], &device).cast(FloatDType::BF16);
    let expected = linear(x.clone(), case.dense(&device).cast(FloatDType::BF16), None);
    let found = linear_nf4(x, &case.on(&device), None);
    assert_eq!(values(found.cast(FloatDType::F32)), values(expected.cast(FloatDType::F32)));
}

#[test]
fn a_weight_takes_little_more_than_half_a_byte() {
    for device in devices() {
        assert!(device.supports_dtype(DType::U8));
        let bytes = |double| case([512, 1024], double, FloatDType::F32).on(&device).bytes() as f64 / (512.0 * 1024.0);
        let tables = |count: f64| 4.0 * count / (512.0 * 1024.0);
        assert_eq!(bytes(false), 0.5 + 4.0 / 64.0 + tables(16.0));
        assert_eq!(bytes(true), 0.5 + (1.0 + 4.0 / 256.0) / 64.0 + tables(272.0));
        assert!(bytes(true) <= 0.53);
    }
}

#[test]
#[should_panic(expected = "factors of an update of [5, 64]")]
fn factors_of_another_shape_are_refused() {
    let device = &devices()[0];
    let update = LowRank { a: tensor(3, [2, 64], device), b: tensor(4, [4, 2], device), scale: 1.0 };
    linear_lora_nf4(tensor(1, [6, 64], device), &case([5, 64], true, FloatDType::F32).on(device), None, update);
}

#[test]
#[should_panic(expected = "scales of a matrix")]
fn parts_that_do_not_fit_are_refused() {
    let mut case = case([5, 64], false, FloatDType::F32);
    case.scales.pop();
    case.on(&devices()[0]);
}
