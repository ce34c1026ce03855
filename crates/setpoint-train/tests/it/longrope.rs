//! Texts on both sides of the length at which LongRoPE changes its frequencies, scored together: each as if it were alone.

use std::path::Path;

use burn::tensor::{FloatDType, Tensor, activation};
use setpoint_train::{DeviceGroup, Sequence, score_against, score_and_keep, score_sequences, shared_tokens};
use setpoint_transformer::{CausalLm, LoadOptions, ModelConfig, RopeSwitch};

use crate::devices;
use crate::oracle::hidden_states;

/// Texts of more than 20 tokens are long.
const SWITCH: usize = 20;

fn model(device: &burn::tensor::Device) -> (CausalLm, ModelConfig) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/transformer/phi3_longrope_switch");
    let (model, config) = CausalLm::load(&folder, &LoadOptions::default(), device).unwrap();
    assert_eq!(config.rope.switch(), RopeSwitch::at(SWITCH));
    (model, config)
}

fn ids(length: usize, step: u32) -> Vec<u32> {
    (0..length as u32).map(|i| 1 + (step * i + i * i) % 95).collect()
}

/// A prompt of 17 tokens with responses on both sides, and prompts that differ in their last tokens alone with answers of one token.
fn sequences() -> Vec<Sequence> {
    let prompt = ids(17, 7);
    let of = |length: usize| Sequence {
        ids: [prompt.as_slice(), &ids(length, 11)].concat(),
        prompt_len: prompt.len(),
        scored_from: 1,
    };
    let asked = |own: usize, answer: u32| {
        let ids = [ids(16, 3), ids(own, 9), vec![answer]].concat();
        Sequence { prompt_len: ids.len() - 1, scored_from: ids.len() - 1, ids }
    };
    let mut all: Vec<Sequence> = [2, 9, 3, 4, 1, 30].map(of).into();
    // Texts of 19, 20, 21, 21 and 23 tokens.
    all.extend([(2, 5), (3, 6), (4, 7), (4, 8), (6, 9)].map(|(own, answer)| asked(own, answer)));
    all
}

/// The log-probability of each token of a text but the first, computed alone.
fn alone(model: &CausalLm, config: &ModelConfig, ids: &[u32]) -> Vec<f32> {
    let hidden = hidden_states(model.decoder(), config, &[ids]).squeeze_dim(0);
    let logps: Tensor<2> = activation::log_softmax(model.logits(hidden).cast(FloatDType::F32), 1);
    let logps = logps.into_data().try_into_vec::<f32>().unwrap();
    (1..ids.len()).map(|t| logps[(t - 1) * config.vocab_size + ids[t] as usize]).collect()
}

#[test]
fn texts_are_scored_as_if_alone() {
    let sequences = sequences();
    let switch = RopeSwitch::at(SWITCH);
    // The first prompt is computed once for each side.
    assert_eq!(shared_tokens(&sequences[..6], switch), 2 * 17 + 2 + 9 + 3 + 4 + 1 + 30);
    for device in devices().map(|device| device.without_autodiff()) {
        let (model, config) = model(&device);
        for batch_tokens in [1, 60, 1000] {
            let found = score_sequences(&model, &sequences, batch_tokens, &mut |_| ()).unwrap();
            for (sequence, found) in sequences.iter().zip(found) {
                let expected = &alone(&model, &config, &sequence.ids)[sequence.scored_from - 1..];
                assert_eq!(found.token_logps.len(), expected.len());
                for (found, expected) in found.token_logps.iter().zip(expected) {
                    let n = sequence.ids.len();
                    assert!((found - expected).abs() < 1e-5, "{n} tokens, {batch_tokens}: {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn divergences_from_a_model_with_another_switch_are_those_of_single_texts() {
    let sequences = sequences();
    for device in devices().map(|device| device.without_autodiff()) {
        let (first, config) = model(&device);
        // The same weights, of which texts of up to 256 tokens have the short factors.
        let mut other = config.to_json();
        other["original_max_position_embeddings"] = 256.into();
        let folder = tempfile::tempdir().unwrap();
        first.save(&config, folder.path(), &Default::default()).unwrap();
        std::fs::write(folder.path().join("config.json"), other.to_string()).unwrap();
        let (second, other) = CausalLm::load(folder.path(), &LoadOptions::default(), &device).unwrap();
        assert_eq!(other.rope.switch(), RopeSwitch::at(256));
        let devices = DeviceGroup::single(device);
        let of = |first: &CausalLm, second: &CausalLm, sequences: &[Sequence]| {
            let kept = score_and_keep(&devices, first, sequences, 60, &mut |_| Ok(())).unwrap();
            let mut found = vec![0.0; sequences.len()];
            let mut store = |scored: Vec<(usize, setpoint_train::Divergence)>| {
                scored.into_iter().for_each(|(index, divergence)| found[index] = divergence.kl);
                Ok(())
            };
            score_against(&devices, second, &kept, sequences, &mut store).unwrap();
            found
        };
        for (first, second) in [(&first, &second), (&second, &first)] {
            for (sequence, found) in sequences.iter().zip(of(first, second, &sequences)) {
                let expected = of(first, second, std::slice::from_ref(sequence))[0];
                assert!((found - expected).abs() < 1e-5 * (1.0 + expected), "{found} {expected}");
                assert!(sequence.ids.len() <= SWITCH || expected > 1e-4, "{expected}");
            }
        }
    }
}
