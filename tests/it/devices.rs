//! One code path for all backends: the same parity checks on every device this test binary was built with.

use burn::tensor::{Device, Int, Tensor, TensorData};
use setpoint_align::{Aggregate, DroBatch, DroSettings, PromptIndex, constant_like, dro, weighted_sum};
use setpoint_train::{Sequence, sequence_logps};
use setpoint_transformer::{CausalLm, GenerationConfig, LoadOptions, generate};

use super::fixture::root;

/// Every compiled device. wgpu runs where an adapter can be opened (in CI on Mesa's software Vulkan).
fn devices() -> Vec<(&'static str, Device)> {
    let mut devices = vec![("flex", Device::flex())];
    #[allow(deprecated, reason = "the second opinion on the CPU")]
    devices.push(("ndarray", Device::ndarray()));
    #[cfg(feature = "wgpu")]
    devices.push(("wgpu", Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)));
    #[cfg(feature = "cuda")]
    devices.push(("cuda", Device::cuda(0)));
    devices
}

fn golden(case: &str) -> std::path::PathBuf {
    root().join("tests/golden/transformer").join(case)
}

/// A tensor of `expected.safetensors`, as f32.
fn expected(case: &str, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(golden(case).join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    match tensor.dtype() {
        safetensors::Dtype::F32 => tensor.data().chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect(),
        safetensors::Dtype::I64 => {
            tensor.data().chunks(8).map(|c| i64::from_le_bytes(c.try_into().unwrap()) as f32).collect()
        }
        other => panic!("{name} is {other:?}"),
    }
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn log_probs_agree_with_transformers() {
    for case in ["llama_kv2", "qwen2_tied"] {
        let ids: Vec<u32> = expected(case, "input_ids").iter().map(|&id| id as u32).collect();
        let lengths: Vec<usize> = expected(case, "lengths").iter().map(|&l| l as usize).collect();
        let logps = expected(case, "logps");
        let width = ids.len() / lengths.len();
        let rows: Vec<Sequence> = lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| Sequence {
                ids: ids[i * width..i * width + length].to_vec(),
                prompt_len: 1,
                scored_from: 1,
            })
            .collect();
        let sums: Vec<f32> = lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| logps[i * (width - 1)..i * (width - 1) + length - 1].iter().sum())
            .collect();
        for (name, device) in devices() {
            let (model, _) = CausalLm::load(&golden(case), &LoadOptions::default(), &device).unwrap();
            let found = sequence_logps(&model, &rows).unwrap().response.into_data().try_to_vec::<f32>().unwrap();
            let difference = largest_difference(&found, &sums);
            // 1e-5 a token.
            let tolerance = 1e-5 * width as f32;
            assert!(difference < tolerance, "{case} on {name}: {difference} of {tolerance}");
        }
    }
}

#[test]
fn gradients_of_the_dro_loss_agree_between_devices() {
    let rows: Vec<Sequence> = [[5_u32, 9, 11, 3, 40, 8, 2], [5, 9, 11, 60, 7, 22, 2], [5, 13, 17, 30, 31, 32, 2]]
        .map(|ids| Sequence { ids: ids.to_vec(), prompt_len: 3, scored_from: 1 })
        .to_vec();
    let gradient = |device: &Device| -> Vec<f32> {
        let (model, _) =
            CausalLm::load(&golden("llama_kv2"), &LoadOptions::default(), &device.clone().autodiff()).unwrap();
        let logps = sequence_logps(&model, &rows).unwrap();
        let index = PromptIndex::from_counts(&[2, 1]).unwrap();
        let firsts = Tensor::<1, Int>::from_data(TensorData::from([0_i64, 2]), &logps.prompt.device());
        let prompt_logps = logps.prompt.select(0, firsts);
        let output = dro(
            DroBatch {
                ref_logps: constant_like(&[-20.0, -18.0, -22.0], &logps.response),
                rewards: constant_like(&[1.0, -0.5, 0.25], &logps.response),
                ref_prompt_logps: constant_like(&[-9.0, -8.0], &prompt_logps),
                logps: logps.response,
                prompt_logps,
            },
            &index,
            &DroSettings { beta: 0.1, log_z0: 2.0, ..DroSettings::default() },
        );
        let weights = Aggregate::PerPrompt.response_weights(&index, 2.0);
        let gradients = weighted_sum(output.errors, &weights).backward();
        let weight = &model.decoder().layers[0].self_attn.q_proj.weight;
        weight.val().grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap()
    };
    let mut devices = devices().into_iter();
    let (_, first) = devices.next().unwrap();
    let reference = gradient(&first);
    let scale = reference.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
    assert!(scale > 0.0);
    for (name, device) in devices {
        let difference = largest_difference(&gradient(&device), &reference);
        assert!(difference < 1e-4 * scale, "{name}: {difference} of {scale}");
    }
}

#[test]
fn greedy_answers_agree_between_devices() {
    // Unequal lengths, a beginning in common, and more prompts than are answered at a time.
    let prompts: Vec<Vec<u32>> = vec![(5..30).collect(), (5..27).collect(), vec![9, 11, 3]];
    let config = GenerationConfig { max_new_tokens: 4, batch_size: 2, ..GenerationConfig::default() };
    let answers = |device: &Device| -> Vec<Vec<u32>> {
        let (model, _) = CausalLm::load(&golden("llama_kv2"), &LoadOptions::default(), device).unwrap();
        generate(&model, &prompts, &config, 0).unwrap().into_iter().map(|row| row.ids).collect()
    };
    let mut devices = devices().into_iter();
    let (_, first) = devices.next().unwrap();
    let reference = answers(&first);
    assert!(reference.iter().all(|ids| ids.len() == 4), "{reference:?}");
    for (name, device) in devices {
        assert_eq!(answers(&device), reference, "{name}");
    }
}
