use std::ops::ControlFlow;

use burn::tensor::{FloatDType, Tensor, activation};
use serde_json::json;
use setpoint_transformer::{
    CausalLm, Error, Finish, Generated, GenerationConfig, LoadOptions, ModelConfig, generate, generate_on_streams,
    generate_stream,
};

use crate::oracle::hidden_states;
use crate::support::{case, devices, golden, load};

/// A model, and one that reads a text again when it has more than 20 tokens.
const SWITCHING: [&str; 2] = ["llama_kv2", "phi3_longrope_switch"];

fn sampled() -> GenerationConfig {
    GenerationConfig { do_sample: true, max_new_tokens: 12, ..GenerationConfig::default() }
}

/// Prompts of different lengths, one of them of a single token.
fn prompts() -> Vec<Vec<u32>> {
    let row = |length: u32| (0..length).map(|i| (7 * i + length) % 96).collect();
    [3, 1, 9, 9, 20, 2].map(row).to_vec()
}

/// The log-probabilities of the last `count` tokens of a row, computed without a cache: at once, but for those of tokens that were drawn while
/// the text was short, where the model computes the whole of it as a long one.
fn recomputed(model: &CausalLm, config: &ModelConfig, row: &[u32], count: usize) -> Vec<f32> {
    let logps = |text: &[u32]| -> Vec<f32> {
        let hidden = hidden_states(model.decoder(), config, &[text]).squeeze_dim(0);
        let logps: Tensor<2> = activation::log_softmax(model.logits(hidden).cast(FloatDType::F32), 1);
        logps.into_data().try_into_vec::<f32>().unwrap()
    };
    let (s, v) = (row.len(), config.vocab_size);
    let short = config.rope.switch().tokens().unwrap_or(s).min(s);
    let (of_short, of_whole) = (logps(&row[..short]), logps(row));
    let at = |t: usize| (if t <= short { &of_short } else { &of_whole })[(t - 1) * v + row[t] as usize];
    (s - count..s).map(at).collect()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn the_cache_changes_nothing() {
    for dir in golden() {
        for device in devices() {
            let (model, config) = load(&dir, &device);
            for (prompt, row) in prompts().into_iter().zip(generate(&model, &prompts(), &sampled(), 5).unwrap()) {
                let whole = [prompt, row.ids.clone()].concat();
                let expected = recomputed(&model, &config, &whole, row.ids.len());
                assert!(close(&row.logps, &expected), "{}: {:?} {expected:?}", dir.display(), row.logps);
            }
        }
    }
}

fn same(a: &[Generated], b: &[Generated]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.ids == b.ids && a.finish == b.finish && close(&a.logps, &b.logps))
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    // Rows of the second model cross the length at which their frequencies change.
    for (device, name) in devices().into_iter().flat_map(|device| SWITCHING.map(|name| (device.clone(), name))) {
        let (model, _) = load(&case(name), &device);
        // With stop tokens, so that rows leave at different times.
        let config = GenerationConfig { stop_token_ids: (0..8).collect(), max_new_tokens: 24, ..sampled() };
        let together = generate(&model, &prompts(), &config, 11).unwrap();
        assert!(together.iter().any(|row| row.finish == Finish::Stop) && together.iter().any(|row| row.ids.len() > 8));
        for batch_size in [1, 2, 5] {
            let split = generate(&model, &prompts(), &GenerationConfig { batch_size, ..config.clone() }, 11).unwrap();
            assert!(same(&together, &split), "{together:?} {split:?}");
        }
        // The same row with other neighbours.
        let mut others = prompts();
        others[0] = vec![5; 30];
        others.truncate(3);
        let again = generate(&model, &others, &config, 11).unwrap();
        assert!(same(&together[1..3], &again[1..3]));
        assert_ne!(generate(&model, &prompts(), &config, 12).unwrap(), together);
    }
}

#[test]
fn a_row_on_its_own_stream_is_the_same_wherever_it_is() {
    let [flex, _] = devices();
    let (model, _) = load(&case("llama_kv2"), &flex);
    let on = |order: &[usize], streams: &[u64]| {
        let prompts: Vec<Vec<u32>> = order.iter().map(|&i| prompts()[i].clone()).collect();
        generate_on_streams(&model, &prompts, streams, &sampled(), 11, |_, _| ControlFlow::Continue(())).unwrap()
    };
    // The stream of a row is its index, unless it has one of its own.
    let indices: Vec<u64> = (0..6).collect();
    assert!(same(&on(&[0, 1, 2, 3, 4, 5], &indices), &generate(&model, &prompts(), &sampled(), 11).unwrap()));
    let (first, second) = (on(&[4, 0, 2], &[900, u64::MAX, 7]), on(&[2, 4], &[7, 900]));
    assert!(same(&[second[1].clone(), second[0].clone()], &[first[0].clone(), first[2].clone()]));
    assert_ne!(on(&[2], &[8])[0].ids, second[0].ids);
}

#[test]
fn rows_with_the_same_prompt_differ_and_follow_the_distribution() {
    let [flex, _] = devices();
    let (model, shape) = load(&case("llama_kv1"), &flex);
    let n = 2000;
    let config = GenerationConfig { max_new_tokens: 1, temperature: 2.0, batch_size: 500, ..sampled() };
    let rows = generate(&model, &vec![vec![1, 40, 3]; n], &config, 3).unwrap();
    let logps: Vec<f32> = (0..96).map(|id| recomputed(&model, &shape, &[1, 40, 3, id], 1)[0]).collect();
    let weights: Vec<f64> = logps.iter().map(|&logp| (f64::from(logp) / 2.0).exp()).collect();
    let total: f64 = weights.iter().sum();
    for (id, weight) in weights.iter().enumerate() {
        let p = weight / total;
        let count = rows.iter().filter(|row| row.ids == [id as u32]).count() as f64;
        // Five standard deviations of a binomial count.
        assert!(
            (count - n as f64 * p).abs() <= 5.0 * (n as f64 * p * (1.0 - p)).sqrt() + 1.0,
            "token {id}: {count} {p}"
        );
    }
}

#[test]
fn narrow_sampling_is_greedy() {
    let [flex, _] = devices();
    let (model, _) = load(&case("llama_kv4"), &flex);
    let ids = |config: GenerationConfig| -> Vec<Vec<u32>> {
        generate(&model, &prompts(), &config, 9).unwrap().into_iter().map(|row| row.ids).collect()
    };
    let greedy = ids(GenerationConfig { do_sample: false, ..sampled() });
    assert_eq!(ids(GenerationConfig { top_k: Some(1), ..sampled() }), greedy);
    assert_eq!(ids(GenerationConfig { top_p: 1e-6, ..sampled() }), greedy);
    assert_eq!(ids(GenerationConfig { temperature: 1e-4, ..sampled() }), greedy);
    assert_ne!(ids(sampled()), greedy);
}

#[test]
fn a_model_on_an_autodiff_device_generates_the_same() {
    let [flex, _] = devices();
    let plain = generate(&load(&case("qwen2_tied"), &flex).0, &prompts(), &sampled(), 2).unwrap();
    let training = generate(&load(&case("qwen2_tied"), &flex.autodiff()).0, &prompts(), &sampled(), 2).unwrap();
    assert_eq!(plain, training);
}

#[test]
fn tokens_are_handed_out_as_they_come() {
    let [flex, _] = devices();
    let (model, _) = load(&case("llama_kv2"), &flex);
    let whole = generate(&model, &prompts(), &sampled(), 4).unwrap();
    let mut seen = vec![Vec::new(); whole.len()];
    let streamed = generate_stream(&model, &prompts(), &sampled(), 4, |row, id| {
        seen[row].push(id);
        if row == 2 && seen[row].len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    for (i, row) in streamed.iter().enumerate() {
        assert_eq!(row.ids, seen[i]);
        let (count, finish) = if i == 2 { (5, Finish::Interrupted) } else { (12, Finish::Length) };
        assert_eq!((&row.ids[..], row.finish), (&whole[i].ids[..count], finish));
    }
}

#[test]
fn lengths_end_at_the_first_of_the_limits() {
    let [flex, _] = devices();
    let (model, _) = load(&case("llama_kv2"), &flex);
    let lengths = |config: GenerationConfig| -> Vec<usize> {
        generate(&model, &prompts(), &config, 0).unwrap().iter().map(|row| row.ids.len()).collect()
    };
    assert_eq!(lengths(GenerationConfig { max_length: Some(22), ..sampled() }), [12, 12, 12, 12, 2, 12]);
    // The model takes 256 tokens.
    let long = GenerationConfig { max_new_tokens: 1000, ..sampled() };
    let rows = generate(&model, &[vec![1; 250]], &long, 0).unwrap();
    assert_eq!((rows[0].ids.len(), rows[0].finish), (6, Finish::Length));
    let error = generate(&model, &[vec![1; 256]], &long, 0).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { row: 0, found: 256, max: 256 }), "{error}");
    assert!(generate(&model, &[], &long, 0).unwrap().is_empty());
}

#[test]
fn long_prompts_are_read_in_pieces() {
    let [flex, _] = devices();
    let (model, shape) = load(&case("llama_kv2"), &flex);
    // More tokens than go through at a time: 24 rows of up to 240.
    let prompts: Vec<Vec<u32>> = (0..24).map(|i| (0..240 - 5 * i).map(|t| (t * 3 + i) % 96).collect()).collect();
    let config = GenerationConfig { max_new_tokens: 3, ..sampled() };
    for (prompt, row) in prompts.iter().zip(generate(&model, &prompts, &config, 1).unwrap()) {
        let whole = [prompt.clone(), row.ids.clone()].concat();
        assert!(close(&row.logps, &recomputed(&model, &shape, &whole, 3)));
    }
}

#[test]
fn prompts_that_begin_alike_yield_what_they_yield_alone() {
    for device in devices() {
        let (model, shape) = load(&case("llama_kv2"), &device);
        // Examples that all prompts share, then one of their own; two prompts are equal, one is the beginning of another. More prompts than
        // places, so that beginnings are taken over from rows in flight and from those that have ended.
        let shared: Vec<u32> = (0..60).map(|i| (5 * i + 1) % 96).collect();
        let own = |rest: &[u32]| [&shared[..], rest].concat();
        let prompts =
            vec![own(&[3, 4]), own(&[]), own(&[3, 4]), own(&[9, 8, 7]), vec![2; 5], own(&[3]), shared[..30].to_vec()];
        let config = GenerationConfig { max_new_tokens: 5, stop_token_ids: (0..8).collect(), ..sampled() };
        for batch_size in [1, 3, 7] {
            let rows = generate(&model, &prompts, &GenerationConfig { batch_size, ..config.clone() }, 8).unwrap();
            for (prompt, row) in prompts.iter().zip(rows) {
                let whole = [prompt.clone(), row.ids.clone()].concat();
                let expected = recomputed(&model, &shape, &whole, row.ids.len());
                assert!(close(&row.logps, &expected), "{:?} {expected:?}", row.logps);
            }
        }
    }
}

#[test]
fn a_bf16_model_generates() {
    let [flex, _] = devices();
    let load = |dtype| {
        let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
        CausalLm::load(&case("llama_kv2"), &options, &flex).unwrap().0
    };
    let (half, single) = (load(FloatDType::BF16), load(FloatDType::F32));
    let shape = ModelConfig::from_dir(&case("llama_kv2")).unwrap();
    let config = GenerationConfig { batch_size: 4, ..sampled() };
    let largest = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (mut error, mut reference) = (0.0f32, 0.0f32);
    for (prompt, row) in prompts().into_iter().zip(generate(&half, &prompts(), &config, 5).unwrap()) {
        let whole = [prompt, row.ids.clone()].concat();
        let exact = recomputed(&single, &shape, &whole, row.ids.len());
        error = error.max(largest(&row.logps, &exact));
        reference = reference.max(largest(&recomputed(&half, &shape, &whole, row.ids.len()), &exact));
    }
    // Rounding to eight bits in another order, but no more often than in a pass over the whole text.
    assert!(error > 0.0 && error < 2.0 * reference, "{error} where a pass without a cache is off by {reference}");
}

#[test]
fn prompts_and_settings_that_make_no_sense() {
    let [flex, _] = devices();
    let (model, _) = load(&case("llama_kv2"), &flex);
    let error = generate(&model, &[vec![1], vec![]], &sampled(), 0).unwrap_err();
    assert!(matches!(error, Error::EmptyPrompt { row: 1 }), "{error}");
    let error = generate(&model, &[vec![1, 96]], &sampled(), 0).unwrap_err();
    assert!(matches!(error, Error::TokenOutOfRange { row: 0, position: 1, found: 96, vocab_size: 96 }), "{error}");
    for (config, key) in [
        (GenerationConfig { temperature: 0.0, ..sampled() }, "temperature"),
        (GenerationConfig { temperature: f64::NAN, ..sampled() }, "temperature"),
        (GenerationConfig { top_k: Some(0), ..sampled() }, "top_k"),
        (GenerationConfig { top_p: 1.5, ..sampled() }, "top_p"),
        (GenerationConfig { repetition_penalty: -1.0, ..sampled() }, "repetition_penalty"),
        (GenerationConfig { max_new_tokens: 0, ..sampled() }, "max_new_tokens"),
        (GenerationConfig { batch_size: 0, ..sampled() }, "batch_size"),
    ] {
        let error = generate(&model, &[vec![1]], &config, 0).unwrap_err();
        assert!(matches!(&error, Error::GenerationSetting { key: found, .. } if found == key), "{error}");
    }
}

#[test]
fn a_model_of_nan_is_reported() {
    let [flex, _] = devices();
    let (mut model, _) = load(&case("llama_kv2"), &flex);
    model.model.norm.weight = model.model.norm.weight.map(|weight| weight * f32::NAN);
    let error = generate(&model, &[vec![1]], &sampled(), 0).unwrap_err();
    assert!(matches!(error, Error::BadLogits { row: 0, step: 0 }), "{error}");
}

#[test]
fn settings_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("generation_config.json");
    let read = |value: serde_json::Value| {
        std::fs::write(&path, value.to_string()).unwrap();
        GenerationConfig::from_file(&path)
    };
    // As Qwen2.5 ships it.
    let qwen = json!({"bos_token_id": 5, "pad_token_id": 5, "do_sample": true, "eos_token_id": [7, 5], "repetition_penalty": 1.1,
        "temperature": 0.7, "top_p": 0.8, "top_k": 20, "transformers_version": "4.37.0"});
    let config = read(qwen.clone()).unwrap();
    assert_eq!((config.temperature, config.top_p, config.top_k, config.repetition_penalty), (0.7, 0.8, Some(20), 1.1));
    assert_eq!(config.stop_token_ids, [7, 5]);
    assert_eq!(config.to_json(), qwen);
    assert_eq!(read(config.to_json()).unwrap(), config);
    assert_eq!(read(json!({"max_length": 50})).unwrap().max_length, Some(50));
    assert_eq!(read(json!({"max_length": 50, "max_new_tokens": 9})).unwrap().max_length, None);
    assert_eq!(read(json!({"top_k": 0})).unwrap().top_k, None);
    read(json!({"num_beams": 1, "typical_p": 1.0, "min_p": null})).unwrap();
    for (value, key) in
        [(json!({"num_beams": 4}), "num_beams"), (json!({"min_p": 0.1}), "min_p"), (json!({"top_p": "x"}), "top_p")]
    {
        let error = read(value).unwrap_err();
        assert!(matches!(&error, Error::UnsupportedValue { key: found, .. } if found == key), "{error}");
    }
    assert!(matches!(read(json!({"dry_multiplier": 0.8})).unwrap_err(), Error::UnknownKey { .. }));
    assert!(matches!(read(json!({"do_sample": true, "top_p": 2.0})).unwrap_err(), Error::GenerationSetting { .. }));
}
