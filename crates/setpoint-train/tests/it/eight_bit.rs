//! Moments in 8-bit codes, next to those of bitsandbytes.

use std::path::PathBuf;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use setpoint_ops::{Blockwise, CodeValues};
use setpoint_train::{AdamW, AdamWConfig, MomentsFormat};

use crate::devices;
use crate::golden::{Two, sink};

#[derive(serde::Deserialize)]
struct Case {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/optim").join(name)
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap().data();
    data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn ten_steps_equal_bitsandbytes() {
    let case: Case = serde_json::from_str(&std::fs::read_to_string(golden("adamw_8bit.json")).unwrap()).unwrap();
    let bytes = std::fs::read(golden("adamw_8bit.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: &str| numbers(&file, name);
    let shape = file.tensor("matrix.init").unwrap().shape().to_vec();
    for device in devices() {
        if !Blockwise::is_supported(&device) {
            continue;
        }
        let mut model = Two {
            matrix: Param::from_data(TensorData::new(read("matrix.init"), shape.clone()), &device),
            vector: Param::from_data(read("vector.init").as_slice(), &device),
        };
        let mut optimizer = AdamW::new(AdamWConfig {
            betas: case.betas,
            eps: case.eps,
            weight_decay: case.weight_decay,
            state: MomentsFormat::EightBit,
            ..AdamWConfig::default()
        });
        for step in 0..10 {
            let at = |name: &str, size: usize| read(name)[step * size..][..size].to_vec();
            let (count, few) = (shape[0] * shape[1], 5);
            let sink = sink(&model, &at("matrix.grad", count), &at("vector.grad", few));
            model = optimizer.step(model, sink, case.lr, 1.0).unwrap();
            let found: [Vec<f32>; 2] =
                [model.matrix.val().into_data().iter().collect(), model.vector.val().into_data().iter().collect()];
            for (found, expected) in found.iter().zip([at("matrix.after", count), at("vector.after", few)]) {
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-5, "{device:?}, step {step}: {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn the_values_of_codes_are_those_of_bitsandbytes() {
    let bytes = std::fs::read(golden("adamw_8bit.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (values, name) in [(CodeValues::Signed, "codes.signed"), (CodeValues::Unsigned, "codes.unsigned")] {
        assert_eq!(values.values().as_slice(), numbers(&file, name), "{name}");
    }
}

#[test]
fn a_number_becomes_the_nearest_value_of_its_block() {
    // A whole block, a block of zeros and a part of a block.
    let wave = |i: usize| (i as f32 * 0.37).sin() * (1.0 + (i % 7) as f32).powi(3);
    let numbers: Vec<f32> = (0..600).map(|i| if (256..512).contains(&i) { 0.0 } else { wave(i) }).collect();
    for device in devices() {
        if !Blockwise::is_supported(&device) {
            continue;
        }
        let device = device.without_autodiff();
        let tensor: Tensor<1> = Tensor::from_data(numbers.as_slice(), &device);
        let coded = Blockwise::encode(tensor, CodeValues::Signed);
        let decoded: Vec<f32> = coded.decode().into_data().iter().collect();
        assert_eq!(decoded.len(), numbers.len());
        for (block, found) in numbers.chunks(256).zip(decoded.chunks(256)) {
            let scale = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            for (x, found) in block.iter().zip(found) {
                let distance = |value: f32| (value * scale - x).abs();
                let nearest = CodeValues::Signed.values().iter().map(|&value| distance(value)).fold(f32::MAX, f32::min);
                assert!((found - x).abs() <= nearest + 1e-6 * scale, "{device:?}: {x} became {found}");
            }
        }
    }
}

#[test]
fn embeddings_and_small_parameters_keep_f32() {
    // 64 · 64 numbers are the fewest that have codes: with those, one large gradient hides a small one of its block.
    let device = Device::flex().autodiff();
    let moved = |columns: usize| {
        let n = 64 * columns;
        let mut model = Two {
            matrix: Param::from_data(TensorData::new(vec![0.0_f32; n], [64, columns]), &device),
            vector: Param::from_data([0.0_f32], &device),
        };
        let config = AdamWConfig { state: MomentsFormat::EightBit, ..AdamWConfig::default() };
        let mut optimizer = AdamW::new(config);
        // The second moment of the small ones is 0 in codes, and the next step divides by what its own gradient leaves.
        let gradient: Vec<f32> = (0..n).map(|i| if i % 256 == 0 { 1.0 } else { 1e-5 }).collect();
        for _ in 0..2 {
            let gradients = sink(&model, &gradient, &[0.0]);
            model = optimizer.step(model, gradients, 1e-3, 1.0).unwrap();
        }
        model.matrix.val().into_data().iter::<f32>().nth(1).unwrap()
    };
    let (whole, coded) = (moved(63), moved(64));
    assert!((whole + 2e-3).abs() < 1e-5, "{whole}");
    assert!((coded + 2e-3).abs() > 1e-4, "{coded}");
}

#[test]
fn the_setting_has_two_values() {
    let read = |text: &str| serde_json::from_str::<MomentsFormat>(text);
    assert_eq!(read("\"f32\"").unwrap(), MomentsFormat::F32);
    assert_eq!(read("\"8bit\"").unwrap(), MomentsFormat::EightBit);
    assert!(read("\"4bit\"").is_err());
    assert_eq!(MomentsFormat::EightBit.bytes(), 2.03125);
}
