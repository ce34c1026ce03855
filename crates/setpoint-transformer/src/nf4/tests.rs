//! The codec against bitsandbytes' CPU library.

use std::collections::BTreeMap;

use burn::tensor::FloatDType;
use safetensors::{Dtype, SafeTensors};

use super::scales::values;
use super::{Double, Nf4Matrix, NotFinite, Scales};
use crate::checkpoint::widen;

/// A case of the golden file: its tensors as f32, and its codes.
struct Case {
    shape: [usize; 2],
    dtype: FloatDType,
    floats: BTreeMap<String, Vec<f32>>,
    codes: BTreeMap<String, Vec<u8>>,
}

fn golden() -> (Vec<f32>, BTreeMap<String, Case>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/nf4/codec.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let float = |dtype| match dtype {
        Dtype::BF16 => FloatDType::BF16,
        Dtype::F16 => FloatDType::F16,
        _ => FloatDType::F32,
    };
    let mut cases = BTreeMap::new();
    for name in file.names() {
        let Some((case, part)) = name.split_once('.') else { continue };
        let input = file.tensor(&format!("{case}.input")).unwrap();
        let case = cases.entry(case.to_owned()).or_insert_with(|| Case {
            shape: [input.shape()[0], input.shape()[1]],
            dtype: float(input.dtype()),
            floats: BTreeMap::new(),
            codes: BTreeMap::new(),
        });
        let tensor = file.tensor(name).unwrap();
        if tensor.dtype() == Dtype::U8 {
            case.codes.insert(part.to_owned(), tensor.data().to_vec());
        } else {
            case.floats.insert(part.to_owned(), widen(tensor.data(), float(tensor.dtype())));
        }
    }
    (widen(file.tensor("map").unwrap().data(), FloatDType::F32), cases)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn dequantized(matrix: &Nf4Matrix) -> Vec<f32> {
    let [height, width] = matrix.shape();
    let mut out = vec![f32::NAN; height * width];
    matrix.dequantize_rows(0..height, &mut out);
    out
}

#[test]
fn the_values_of_8_bit_codes_are_the_dynamic_map() {
    assert_eq!(bits(values()), bits(&golden().0));
}

#[test]
fn codes_scales_and_numbers_are_those_of_bitsandbytes() {
    let (_, cases) = golden();
    assert!(cases.len() >= 14, "{}", cases.len());
    for (name, case) in &cases {
        let input = &case.floats["input"];
        let single = Nf4Matrix::quantize(input, case.shape, case.dtype, false).unwrap();
        assert_eq!(single.codes, case.codes["codes"], "{name}");
        let Scales::Single(scales) = &single.scales else { panic!("{name}") };
        assert_eq!(bits(scales), bits(&case.floats["absmax"]), "{name}");
        assert_eq!(bits(&dequantized(&single)), bits(&case.floats["dequantized"]), "{name}");

        // Given the offset, which torch adds up in another order, everything is equal.
        let offset = case.floats["offset"][0];
        let double = Double::around(scales, offset);
        assert_eq!(double.codes, case.codes["absmax8"], "{name}");
        assert_eq!(bits(&double.absmax), bits(&case.floats["absmax2"]), "{name}");
        let matrix = Nf4Matrix { scales: Scales::Double(double), ..single.clone() };
        assert_eq!(bits(&dequantized(&matrix)), bits(&case.floats["dequantized_double"]), "{name}");

        // From scratch, the offset is off by an ulp or two, and so few codes differ.
        let Scales::Double(own) = Nf4Matrix::quantize(input, case.shape, case.dtype, true).unwrap().scales else {
            panic!("{name}")
        };
        assert!((own.offset - offset).abs() <= 4.0 * f32::EPSILON * offset.abs(), "{name}: {} {offset}", own.offset);
        let differ = own.codes.iter().zip(&case.codes["absmax8"]).filter(|(a, b)| a != b).count();
        assert!(differ * 100 <= own.codes.len(), "{name}: {differ} of {}", own.codes.len());
    }
}

#[test]
fn rows_can_be_read_in_any_parts() {
    let (_, cases) = golden();
    for name in ["bf16_short", "f32_whole", "scales"] {
        let case = &cases[name];
        let matrix = Nf4Matrix::quantize(&case.floats["input"], case.shape, case.dtype, true).unwrap();
        let whole = dequantized(&matrix);
        let [height, width] = case.shape;
        for part in [1, 2, 5] {
            for start in (0..height).step_by(part) {
                let rows = start..(start + part).min(height);
                let mut out = vec![f32::NAN; rows.len() * width];
                matrix.dequantize_rows(rows.clone(), &mut out);
                assert_eq!(bits(&out), bits(&whole[rows.start * width..rows.end * width]), "{name} {rows:?}");
            }
        }
        matrix.dequantize_rows(0..0, &mut []);
    }
}

#[test]
fn a_weight_takes_little_more_than_half_a_byte() {
    let values: Vec<f32> = (0..512 * 512).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 500.0).collect();
    let bytes = |double| Nf4Matrix::quantize(&values, [512, 512], FloatDType::BF16, double).unwrap().bytes() as f64;
    let weights = values.len() as f64;
    assert_eq!(bytes(false) / weights, 0.5 + 4.0 / 64.0);
    assert_eq!(bytes(true) / weights, 0.5 + 1.0 / 64.0 + 4.0 / 64.0 / 256.0);
}

#[test]
fn numbers_that_are_not_finite_have_no_code() {
    for found in [f32::INFINITY, f32::NEG_INFINITY] {
        let quantized = Nf4Matrix::quantize(&[1.0, 2.0, found, found], [2, 2], FloatDType::F32, true);
        assert_eq!(quantized.unwrap_err(), NotFinite { place: 2, found });
    }
    assert!(Nf4Matrix::quantize(&[f32::NAN], [1, 1], FloatDType::F32, false).is_err());
}

#[test]
fn parts_must_fit_the_shape() {
    let single = |count| Scales::Single(vec![1.0; count]);
    let from = |codes: usize, scales| Nf4Matrix::from_parts([3, 43], vec![0; codes], 64, scales, FloatDType::BF16);
    assert!(from(65, single(3)).is_ok());
    let message = from(64, single(3)).unwrap_err();
    assert_eq!(message, "holds 64 bytes of codes for a matrix of shape [3, 43]; expected 65");
    assert!(from(65, single(2)).unwrap_err().contains("holds 2 scales"));
    let double = Double { absmax: vec![1.0; 2], ..Double::around(&[1.0; 3], 0.5) };
    assert!(from(65, Scales::Double(double)).unwrap_err().contains("holds 2 scales of scales"));
}
