//! One code path for all backends: the same parity checks on every device this test binary was built with.

use burn::tensor::{Device, Int, Tensor, TensorData};
use setpoint_align::{
    Aggregate, DpoSettings, DroBatch, DroSettings, Pair, PromptIndex, constant_like, dpo, dro, weighted_sum,
};
use setpoint_reward::bradley_terry;
use setpoint_train::{
    AdamWConfig, DeviceGroup, Hooks, PromptLogps, RunDir, Sequence, StepReport, SumOnFirst, TrainConfig, fit_on,
    sequence_logps,
};
use setpoint_transformer::{CausalLm, GenerationConfig, LoadOptions, Recompute, generate};

use super::fixture::root;
use super::seeded::Seeded;

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
            let found = sequence_logps(&model, &rows, PromptLogps::Detached)
                .unwrap()
                .response
                .into_data()
                .try_to_vec::<f32>()
                .unwrap();
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
        let logps = sequence_logps(&model, &rows, PromptLogps::Detached).unwrap();
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
                levels: None,
                tokens: None,
            },
            &index,
            &DroSettings { beta: 0.1, log_z0: 2.0, ..DroSettings::default() },
        );
        let weights = Aggregate::PerPrompt.response_weights(&index, 2.0);
        let gradients = weighted_sum(output.errors, &weights).backward();
        let weight = &model.decoder().layers[0].self_attn.o_proj.weight;
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

/// A pair that is far apart keeps its small loss and slope: `log1p` is `log(1 + x)` on GPUs, which rounds to 0.
#[test]
fn the_reward_loss_is_exact_at_both_ends_on_every_device() {
    let leads = [-80.0_f32, -20.0, -1.0, 0.0, 1.0, 16.0, 20.0, 40.0, 80.0];
    for (name, device) in devices() {
        let chosen = Tensor::<1>::from_floats(leads, &device.autodiff()).require_grad();
        let losses = bradley_terry(chosen.clone(), chosen.clone().zeros_like(), None, 0.0).losses;
        let values = losses.clone().into_data().try_to_vec::<f32>().unwrap();
        let slopes = chosen.grad(&losses.sum().backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
        for (i, lead) in leads.into_iter().map(f64::from).enumerate() {
            // −log σ(x) = log(1 + e^{−x}), with the derivative −σ(−x).
            let loss = if lead < 0.0 { lead.exp().ln_1p() - lead } else { (-lead).exp().ln_1p() };
            for (found, expected) in [(values[i], loss), (slopes[i], -1.0 / (1.0 + lead.exp()))] {
                let found = f64::from(found);
                assert!((found / expected - 1.0).abs() < 2e-6, "{name}, lead {lead}: {found:e}, expected {expected:e}");
            }
        }
    }
}

/// Losses of DRO and DPO over pairs of responses, each pair to a prompt of its own, and the gradient of a matrix; all pairs in one pass.
fn pairs_together(model: &CausalLm, pairs: &[[Sequence; 2]]) -> (Vec<f32>, Vec<f32>) {
    let rows: Vec<&Sequence> = pairs.iter().flatten().collect();
    let logps = sequence_logps(model, &rows, PromptLogps::Detached).unwrap();
    let n = pairs.len();
    let index = PromptIndex::from_counts(&vec![2; n]).unwrap();
    let firsts: Vec<i64> = (0..n as i64).map(|i| 2 * i).collect();
    let firsts = Tensor::<1, Int>::from_data(TensorData::new(firsts, [n]), &logps.prompt.device());
    let prompt_logps = logps.prompt.select(0, firsts);
    let ref_logps = constant_like(&[-20.0, -18.0].repeat(n), &logps.response);
    let sides: Vec<(usize, usize)> = (0..n).map(|i| (2 * i, 2 * i + 1)).collect();
    let log_ratios = Pair::gather(logps.response.clone() - ref_logps.clone(), &sides);
    let by_dpo = dpo(log_ratios, &DpoSettings { beta: 0.1, label_smoothing: 0.0 }).losses;
    let batch = DroBatch {
        ref_logps,
        rewards: constant_like(&[1.0, -0.5].repeat(n), &logps.response),
        ref_prompt_logps: constant_like(&vec![-9.0; n], &prompt_logps),
        logps: logps.response,
        prompt_logps,
        levels: None,
        tokens: None,
    };
    let by_dro = dro(batch, &index, &DroSettings { beta: 0.1, log_z0: 2.0, ..DroSettings::default() }).errors;
    let values =
        [by_dpo.clone(), by_dro.clone()].map(|losses| losses.into_data().try_to_vec::<f32>().unwrap()).concat();
    let gradients = (by_dpo.sum() + by_dro.sum()).backward();
    let weight = model.decoder().layers[0].self_attn.o_proj.weight.val();
    (values, weight.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap())
}

/// Neither the lengths of a row's neighbours nor which token pads change a loss or a gradient, also where that token stands in a response.
#[test]
fn padding_and_its_token_do_not_matter() {
    let of = |prompt: &[u32], response: &[u32]| Sequence {
        ids: [prompt, response].concat(),
        prompt_len: prompt.len(),
        scored_from: 1,
    };
    let long: Vec<u32> = (20..41).collect();
    let pairs = [
        [of(&[5, 9], &[2]), of(&[5, 9], &[0, 0, 2])],
        [of(&[5, 13, 17, 30, 0, 31], &long), of(&[5, 13, 17, 30, 0, 31], &[7, 0])],
        [of(&[5, 60, 7], &[22, 2]), of(&[5, 60, 7], &[3, 40, 8, 11, 2])],
    ];
    // The same weights with another token for padding: one that is there, and the stop token.
    let folders: Vec<tempfile::TempDir> = [0, 2]
        .into_iter()
        .map(|pad: u32| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::copy(golden("llama_kv2").join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
            let config = std::fs::read_to_string(golden("llama_kv2").join("config.json")).unwrap();
            let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
            config["pad_token_id"] = pad.into();
            std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
            dir
        })
        .collect();
    for (name, device) in devices() {
        let load =
            |dir: &std::path::Path| CausalLm::load(dir, &LoadOptions::default(), &device.clone().autodiff()).unwrap().0;
        let model = load(folders[0].path());
        let (together, gradient) = pairs_together(&model, &pairs);
        assert_eq!(pairs_together(&load(folders[1].path()), &pairs).0, together, "{name}: the padding token");

        let alone: Vec<(Vec<f32>, Vec<f32>)> =
            pairs.iter().map(|pair| pairs_together(&model, std::slice::from_ref(pair))).collect();
        let n = pairs.len();
        let each: Vec<f32> =
            (0..n).map(|i| alone[i].0[0]).chain(alone.iter().flat_map(|a| a.0[1..].to_vec())).collect();
        let size = together.iter().fold(1.0_f32, |m, loss| m.max(loss.abs()));
        let difference = largest_difference(&each, &together);
        assert!(difference < 1e-5 * size, "{name}: {each:?}, together {together:?}");
        let sum: Vec<f32> = (0..gradient.len()).map(|k| alone.iter().map(|a| a.1[k]).sum()).collect();
        let scale = gradient.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
        let difference = largest_difference(&sum, &gradient);
        assert!(scale > 0.0 && difference < 1e-4 * scale, "{name}: {difference} of {scale}");
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

/// On GPUs each thread has a queue of its own: what one thread computes another must find done.
#[test]
fn devices_of_a_group_train_what_one_does() {
    struct Steps(Vec<(f64, f64)>);
    impl Hooks<CausalLm> for Steps {
        fn progress(&mut self, report: &StepReport) {
            self.0.push((report.loss, report.grad_norm));
        }
    }
    let rows: Vec<Sequence> = (0..6_u32)
        .map(|i| Sequence { ids: (0..8 + i).map(|t| (7 * i + 5 * t) % 64).collect(), prompt_len: 3, scored_from: 1 })
        .collect();
    // Raises their log-probabilities.
    let task = Seeded { seeds: vec![-1.0; rows.len()], sequences: rows, prompt: PromptLogps::Skip };
    let steps = |devices: Vec<Device>, in_backward: bool| {
        let home = devices[0].clone().autodiff();
        let (mut model, _) = CausalLm::load(&golden("llama_kv2"), &LoadOptions::default(), &home).unwrap();
        model.model.recompute = Recompute::Block;
        let config = TrainConfig {
            max_steps: Some(3),
            batch_size: 6,
            learning_rate: 1e-2,
            max_grad_norm: Some(0.0),
            // A large ε: else rounding decides where a gradient is small.
            optimizer: AdamWConfig { eps: 1.0, in_backward, ..AdamWConfig::default() },
            ..TrainConfig::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let mut steps = Steps(vec![]);
        let group = DeviceGroup::new(devices, SumOnFirst);
        fit_on(&group, &task, model, &config, &run, &mut steps).unwrap();
        steps.0
    };
    let flex = Device::flex();
    let expected = steps(vec![flex.clone()], false);
    assert!(expected[2].0 < expected[0].0 - 0.5, "the model learns: {expected:?}");

    for (name, device) in devices() {
        let groups = [[device.clone(), flex.clone()], [flex.clone(), device.clone()]];
        for (group, in_backward) in groups.into_iter().flat_map(|group| [(group.clone(), false), (group, true)]) {
            let found = steps(group.to_vec(), in_backward);
            for ((loss, norm), (expected_loss, expected_norm)) in found.into_iter().zip(&expected) {
                let error = (loss - expected_loss).abs() / expected_loss.abs();
                assert!(error < 1e-4, "{name}, in_backward {in_backward}: loss {loss} {expected_loss}");
                let error = (norm - expected_norm).abs() / expected_norm;
                assert!(error < 1e-3, "{name}, in_backward {in_backward}: norm {norm} {expected_norm}");
            }
        }
    }
}
