//! The divergence of two models at the tokens of responses, against its definition.

use burn::tensor::{Device, FloatDType, Tensor, activation};
use setpoint_train::{
    DeviceGroup, Divergence, Error, ScoredSequence, Sequence, SumOnFirst, score_against, score_and_keep,
    score_sequences,
};
use setpoint_transformer::{CausalLm, ModelConfig};

use crate::ndarray;
use crate::oracle::hidden_states;

const VOCABULARY: usize = 5;

fn config(vocabulary: usize) -> ModelConfig {
    ModelConfig::from_json(&format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": {vocabulary}, "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "initializer_range": 0.4, "pad_token_id": 0, "eos_token_id": 2}}"#
    ))
    .unwrap()
}

fn model(seed: u64, device: &Device) -> CausalLm {
    CausalLm::init(&config(VOCABULARY), seed, device)
}

/// Both passes; the results in the order given.
fn diverge(
    devices: &DeviceGroup,
    [first, second]: [&CausalLm; 2],
    sequences: &[Sequence],
    batch_tokens: usize,
) -> (Vec<ScoredSequence>, Vec<Divergence>) {
    let mut scored = vec![None; sequences.len()];
    let kept = score_and_keep(devices, first, sequences, batch_tokens, &mut |batch| {
        batch.into_iter().for_each(|(index, score)| assert!(scored[index].replace(score).is_none()));
        Ok(())
    })
    .unwrap();
    let mut found = vec![None; sequences.len()];
    score_against(devices, second, &kept, sequences, &mut |batch| {
        batch.into_iter().for_each(|(index, result)| assert!(found[index].replace(result).is_none()));
        Ok(())
    })
    .unwrap();
    (scored.into_iter().map(Option::unwrap).collect(), found.into_iter().map(Option::unwrap).collect())
}

/// Each position's distribution over the next token, in f64 from the readable transformer.
fn distributions(model: &CausalLm, ids: &[u32]) -> Vec<Vec<f64>> {
    let model_config = config(VOCABULARY);
    let hidden = hidden_states(model.decoder(), &model_config, &[ids.to_vec()]);
    let [_, length, width] = hidden.dims();
    let logits: Tensor<2> = model.logits(hidden.reshape([length, width]));
    let logps = activation::log_softmax(logits.cast(FloatDType::F32), 1);
    let values: Vec<f64> = logps.into_data().iter().collect();
    values.chunks(VOCABULARY).map(<[f64]>::to_vec).collect()
}

/// The definition: the sum over the response's tokens and the vocabulary.
fn expected(first: &CausalLm, second: &CausalLm, sequence: &Sequence) -> f64 {
    let [p, q] = [first, second].map(|model| distributions(model, &sequence.ids));
    let at = |t: usize| -> f64 { p[t].iter().zip(&q[t]).map(|(p, q)| p.exp() * (p - q)).sum() };
    (sequence.prompt_len - 1..sequence.ids.len() - 1).map(at).sum()
}

fn sequence(prompt: &[u32], response: &[u32]) -> Sequence {
    Sequence { ids: [prompt, response].concat(), prompt_len: prompt.len(), scored_from: prompt.len() }
}

fn sequences() -> Vec<Sequence> {
    vec![
        sequence(&[1, 3], &[4, 4, 0, 2]),
        sequence(&[1, 3], &[2]),
        sequence(&[1, 4, 3, 3, 1], &[0, 1, 2]),
        sequence(&[3], &[3, 3, 3, 3, 3, 2]),
    ]
}

#[test]
fn it_is_the_sum_over_the_vocabulary_at_each_token() {
    let sequences = sequences();
    for device in [Device::flex(), Device::flex().autodiff(), ndarray()] {
        let (first, second) = (model(1, &device), model(2, &device));
        for batch_tokens in [1, 8, 1000] {
            let devices = DeviceGroup::single(device.clone());
            let (scored, found) = diverge(&devices, [&first, &second], &sequences, batch_tokens);
            for (found, sequence) in found.iter().zip(&sequences) {
                let expected = expected(&first, &second, sequence);
                assert!(expected > 0.01 && (found.kl - expected).abs() < 1e-5, "{} against {expected}", found.kl);
            }
            // Nothing else about the scores changes, to the bit.
            assert_eq!(scored, score_sequences(&first, &sequences, batch_tokens, &mut |_| ()).unwrap());
            let alone = score_sequences(&second, &sequences, batch_tokens, &mut |_| ()).unwrap();
            assert_eq!(found.into_iter().map(|found| found.scored).collect::<Vec<_>>(), alone);
        }
    }
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    let device = Device::flex();
    let model = model(1, &device);
    let (_, found) = diverge(&DeviceGroup::single(device), [&model, &model], &sequences(), 8);
    assert!(found.iter().all(|found| found.kl == 0.0), "{found:?}");
}

/// Over all responses of two tokens, weighted by their probability, the divergence and the log-ratio have the same mean: the KL.
#[test]
fn its_expectation_is_that_of_the_log_ratio() {
    let device = Device::flex();
    let (first, second) = (model(3, &device), model(4, &device));
    let tokens = 0..VOCABULARY as u32;
    let all: Vec<Sequence> =
        tokens.clone().flat_map(|a| tokens.clone().map(move |b| sequence(&[1, 4], &[a, b]))).collect();
    let (scored, found) = diverge(&DeviceGroup::single(device), [&first, &second], &all, 1000);
    let (mut total, mut by_ratio, mut by_sum, mut squares) = (0.0, 0.0, 0.0, [0.0; 2]);
    for (scored, found) in scored.iter().zip(&found) {
        let probability = scored.response_logp.exp();
        let ratio = scored.response_logp - found.scored.response_logp;
        total += probability;
        by_ratio += probability * ratio;
        by_sum += probability * found.kl;
        squares[0] += probability * ratio * ratio;
        squares[1] += probability * found.kl * found.kl;
    }
    assert!((total - 1.0).abs() < 1e-5, "{total}");
    assert!(by_ratio > 0.01 && (by_sum - by_ratio).abs() < 1e-5 * (1.0 + by_ratio), "{by_sum} against {by_ratio}");
    assert!(squares[1] < squares[0], "the sum over the vocabulary varies less: {squares:?}");
}

#[test]
fn devices_that_share_the_work_give_the_same_bits_as_one() {
    let device = Device::flex();
    let (first, second) = (model(1, &device), model(2, &device));
    let alone = diverge(&DeviceGroup::single(device.clone()), [&first, &second], &sequences(), 1);
    let three = DeviceGroup::new(vec![device; 3], SumOnFirst);
    assert_eq!(diverge(&three, [&first, &second], &sequences(), 1), alone);
}

#[test]
fn other_vocabularies_and_other_sequences_are_refused() {
    let device = Device::flex();
    let (first, second) = (model(1, &device), CausalLm::init(&config(VOCABULARY + 1), 2, &device));
    let (devices, sequences) = (DeviceGroup::single(device), sequences());
    let kept = score_and_keep(&devices, &first, &sequences, 8, &mut |_| Ok(())).unwrap();
    assert!(kept.fits(&first) && !kept.fits(&second));
    let refused = |model: &CausalLm, sequences: &[Sequence]| {
        let error = score_against(&devices, model, &kept, sequences, &mut |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::Forward { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(&second, &sequences).contains("two models of 5 and 6 tokens"));
    assert!(refused(&first, &sequences[..1]).contains("predictions of other sequences"));
    let longer = [&sequences[1..], &[sequence(&[1, 3], &[4, 4, 0, 0, 2])]].concat();
    assert!(refused(&first, &longer).contains("predictions of other sequences"));
}
