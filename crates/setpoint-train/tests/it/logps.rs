//! Log-probabilities against transformers' (`tests/golden/make_transformer.py`, `make_objectives_model.py`, `make_stories.py`).

use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType, Tensor};
use safetensors::SafeTensors;
use setpoint_train::{
    DeviceGroup, Error, GradientSink, HeadOptions, PromptLogps, ScoredSequence, Sequence, SumOnFirst, backward,
    score_batches, score_batches_with, score_sequences, sequence_logps, sequence_logps_with, token_logps,
    token_logps_with,
};
use setpoint_transformer::{CausalLm, LoadOptions};

use crate::oracle::hidden_states;
use crate::test_data::test_data;
use crate::{devices, ndarray};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn load(dir: &Path, device: &Device) -> CausalLm {
    CausalLm::load(dir, &LoadOptions::default(), device).unwrap().0
}

fn host(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter().collect()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found} {expected}");
    }
}

/// Rows of a golden file: ids and the log-probability of each token but the first.
fn golden_rows(name: &str) -> Vec<(Vec<u32>, Vec<f64>)> {
    let bytes = std::fs::read(golden(&format!("transformer/{name}/expected.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let longs = |name: &str| -> Vec<i64> {
        let data = file.tensor(name).unwrap().data();
        data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let logps = floats(&file, "logps");
    let width = file.tensor("input_ids").unwrap().shape()[1];
    let ids = longs("input_ids");
    longs("lengths")
        .iter()
        .enumerate()
        .map(|(row, &length)| {
            let length = length as usize;
            let ids = ids[row * width..][..length].iter().map(|&id| id as u32).collect();
            (ids, logps[row * (width - 1)..][..length - 1].to_vec())
        })
        .collect()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let data = file.tensor(name).unwrap().data();
    data.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
}

#[test]
fn tokens_of_responses_equal_transformers_where_responses_share_a_prompt_and_where_not() {
    for name in ["llama_kv2", "qwen2_tied", "phi3_longrope_switch"] {
        let rows = golden_rows(name);
        // The first row twice: its prompt is computed once for both.
        let rows: Vec<_> = rows.first().into_iter().chain(&rows).filter(|(ids, _)| ids.len() > 2).collect();
        let sequence = |(ids, _): &&(Vec<u32>, Vec<f64>)| Sequence { ids: ids.clone(), prompt_len: 2, scored_from: 2 };
        let sequences: Vec<Sequence> = rows.iter().map(sequence).collect();
        for device in devices() {
            let model = load(&golden(&format!("transformer/{name}")), &device);
            let found = sequence_logps(&model, &sequences, PromptLogps::Skip).unwrap();
            let expected: Vec<f64> = rows.iter().flat_map(|(_, logps)| logps[1..].to_vec()).collect();
            assert_close(&host(found.tokens), &expected, 1e-5);
            let sums: Vec<f64> = rows.iter().map(|(_, logps)| logps[1..].iter().sum()).collect();
            assert_close(&host(found.response), &sums, 1e-4);
        }
    }
}

#[test]
fn every_token_equals_transformers_and_so_does_the_gradient() {
    // Granite scales its logits, Gemma 2 bounds them, and texts of LongRoPE have the frequencies of their lengths.
    for name in ["llama_kv2", "llama_kv1_tied", "qwen2_tied", "granite", "gemma2", "phi3_longrope_switch"] {
        let rows = golden_rows(name);
        assert!(rows.iter().any(|(ids, _)| ids.len() != rows[0].0.len()), "rows of unequal length");
        let expected: Vec<f64> = rows.iter().flat_map(|(_, logps)| logps.clone()).collect();
        let masks: Vec<Vec<bool>> = rows.iter().map(|(ids, _)| vec![true; ids.len()]).collect();
        let batch: Vec<(&[u32], &[bool])> =
            rows.iter().zip(&masks).map(|((ids, _), mask)| (ids.as_slice(), mask.as_slice())).collect();
        for device in devices() {
            let model = load(&golden(&format!("transformer/{name}")), &device);
            let found = token_logps(&model, &batch).unwrap();
            assert_close(&host(found.values), &expected, 1e-5);
            let sums: Vec<f64> = rows.iter().map(|(_, logps)| logps.iter().sum()).collect();
            assert_close(&host(found.sums), &sums, 1e-4);
            assert_eq!(found.counts, rows.iter().map(|(_, logps)| logps.len()).collect::<Vec<_>>());

            // The golden gradient is that of row 0; the other rows are there to be padding's neighbours.
            let mut sink = GradientSink::new();
            let first = token_logps(&model, &batch).unwrap();
            backward(&model, "model", first.sums.narrow(0, 0, 1), first.tape, &mut sink);
            let bytes = std::fs::read(golden(&format!("transformer/{name}/expected.safetensors"))).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let stored: Vec<&str> = file.names().into_iter().filter_map(|name| name.strip_prefix("grad.")).collect();
            assert!(stored.len() >= 3, "{stored:?}");
            for path in stored {
                let expected = floats(&file, &format!("grad.{path}"));
                let scale = expected.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
                let found: Vec<f64> = sink.gradient(path).unwrap().to_data().iter().collect();
                assert_close(&found, &expected, 1e-4 * scale);
            }
            let expected = floats(&file, "grad_norm")[0];
            assert_close(&[sink.norm()], &[expected], 1e-5 * expected);
        }
    }
}

#[derive(serde::Deserialize)]
struct Objectives {
    policy: String,
    reference: String,
    dro: Dro,
}

#[derive(serde::Deserialize)]
struct Dro {
    rows: Vec<Row>,
    prompt_logps: Vec<f64>,
    ref_prompt_logps: Vec<f64>,
    logps: Vec<f64>,
    ref_logps: Vec<f64>,
}

#[derive(serde::Deserialize)]
struct Row {
    prompt: Vec<u32>,
    responses: Vec<Vec<u32>>,
}

/// The golden file and its sequences, each with the number of its prompt.
fn objectives(name: &str) -> (Objectives, Vec<(usize, Sequence)>) {
    let text = std::fs::read_to_string(golden(&format!("objectives/model_{name}.json"))).unwrap();
    let golden: Objectives = serde_json::from_str(&text).unwrap();
    let mut sequences = vec![];
    for (prompt, row) in golden.dro.rows.iter().enumerate() {
        for response in &row.responses {
            let ids = [row.prompt.clone(), response.clone()].concat();
            sequences.push((prompt, Sequence { ids, prompt_len: row.prompt.len(), scored_from: 1 }));
        }
    }
    (golden, sequences)
}

#[test]
fn prompts_and_responses_equal_transformers() {
    for name in ["llama", "qwen2"] {
        let (file, numbered) = objectives(name);
        let sequences: Vec<&Sequence> = numbered.iter().map(|(_, sequence)| sequence).collect();
        for device in devices() {
            for (folder, prompts, responses) in [
                (&file.policy, &file.dro.prompt_logps, &file.dro.logps),
                (&file.reference, &file.dro.ref_prompt_logps, &file.dro.ref_logps),
            ] {
                let model = load(&golden(folder), &device);
                let prompts: Vec<f64> = numbered.iter().map(|(prompt, _)| prompts[*prompt]).collect();
                let logps = sequence_logps(&model, &sequences, PromptLogps::Detached).unwrap();
                assert!(logps.response.is_tracked() && !logps.prompt.is_autodiff());
                assert_close(&host(logps.prompt), &prompts, 1e-4);
                assert_close(&host(logps.response), responses, 1e-4);
                for (found, sequence) in logps.response_tokens.iter().zip(&sequences) {
                    assert_eq!(*found, sequence.ids.len() - sequence.prompt_len);
                }
                for (found, sequence) in logps.prompt_tokens.iter().zip(&sequences) {
                    assert_eq!(*found, sequence.prompt_len - 1);
                }

                let mut progress = vec![];
                let scored = score_sequences(&model, &sequences, 32, &mut |done| progress.push(done)).unwrap();
                assert_eq!(progress, (1..=sequences.len()).collect::<Vec<_>>());
                let sums: Vec<(f64, f64)> = scored.iter().map(|s| (s.prompt_logp, s.response_logp)).collect();
                let (found_prompts, found_responses): (Vec<f64>, Vec<f64>) = sums.into_iter().unzip();
                assert_close(&found_prompts, &prompts, 1e-4);
                assert_close(&found_responses, responses, 1e-4);
                for (scored, sequence) in scored.iter().zip(&sequences) {
                    assert_eq!(scored.token_logps.len(), sequence.ids.len() - 1);
                    assert_eq!(scored.prompt_tokens, sequence.prompt_len - 1);
                    assert_eq!(scored.response_tokens, sequence.ids.len() - sequence.prompt_len);
                    let (prompt, response) = scored.token_logps.split_at(scored.prompt_tokens);
                    let sum = |tokens: &[f32]| tokens.iter().map(|&t| f64::from(t)).sum::<f64>();
                    assert_eq!((sum(prompt), sum(response)), (scored.prompt_logp, scored.response_logp));
                }
            }
        }
    }
}

fn flex() -> Device {
    Device::flex().autodiff()
}

#[test]
fn neither_chunks_nor_batches_nor_the_kind_of_prompt_change_a_value() {
    let (file, numbered) = objectives("llama");
    let sequences: Vec<Sequence> = numbered.into_iter().map(|(_, sequence)| sequence).collect();
    let model = load(&golden(&file.policy), &flex());
    let expected = sequence_logps(&model, &sequences, PromptLogps::Detached).unwrap();
    let (prompts, responses) = (host(expected.prompt), host(expected.response));
    for (chunk, keep) in [(1, false), (3, true), (1000, false), (1000, true)] {
        let options = HeadOptions { chunk: Some(chunk), keep: Some(keep), temperature: None };
        let found = sequence_logps_with(&model, &sequences, PromptLogps::Tracked, &options).unwrap();
        assert!(found.prompt.is_tracked());
        assert_close(&host(found.prompt), &prompts, 1e-5);
        assert_close(&host(found.response), &responses, 1e-5);
    }
    let found = sequence_logps(&model, &sequences, PromptLogps::Skip).unwrap();
    assert_eq!(host(found.prompt), vec![0.0; sequences.len()]);
    assert_eq!(found.prompt_tokens, vec![0; sequences.len()]);
    assert_close(&host(found.response), &responses, 1e-6);
    for (index, sequence) in sequences.iter().enumerate() {
        let alone = sequence_logps(&model, &[sequence], PromptLogps::Detached).unwrap();
        assert_close(&host(alone.prompt), &prompts[index..=index], 1e-5);
        assert_close(&host(alone.response), &responses[index..=index], 1e-5);
    }

    // By batches of every size, in the order given, and each handed over once.
    let whole = score_sequences(&model, &sequences, 10_000, &mut |_| ()).unwrap();
    for batch_tokens in [1, 20, 40] {
        let handed = handed(&DeviceGroup::single(flex()), &model, &sequences, batch_tokens);
        for (found, expected) in handed.iter().zip(&whole) {
            assert!((found.response_logp - expected.response_logp).abs() < 1e-5);
            assert_eq!(found.token_logps.len(), expected.token_logps.len());
        }
    }
}

/// Scores the sequences and returns those that are handed over, each once.
fn handed(devices: &DeviceGroup, model: &CausalLm, sequences: &[Sequence], batch_tokens: usize) -> Vec<ScoredSequence> {
    let mut handed: Vec<Option<ScoredSequence>> = vec![None; sequences.len()];
    score_batches(devices, model, sequences, batch_tokens, &mut |batch| {
        for (index, scored) in batch {
            assert!(handed[index].replace(scored).is_none());
        }
        Ok(())
    })
    .unwrap();
    handed.into_iter().map(Option::unwrap).collect()
}

#[test]
fn devices_that_share_the_work_give_the_same_bits_as_one() {
    let (file, numbered) = objectives("llama");
    let sequences: Vec<Sequence> = numbered.into_iter().map(|(_, sequence)| sequence).collect();
    let model = load(&golden(&file.policy), &Device::flex());
    let three = DeviceGroup::new(vec![Device::flex(); 3], SumOnFirst);
    // A pass for each prompt, so that there is work for three.
    let alone = handed(&DeviceGroup::single(Device::flex()), &model, &sequences, 1);
    assert_eq!(handed(&three, &model, &sequences, 1), alone);
    let different = DeviceGroup::new(vec![Device::flex(), ndarray()], SumOnFirst);
    for (found, expected) in handed(&different, &model, &sequences, 1).iter().zip(&alone) {
        assert!((found.response_logp - expected.response_logp).abs() < 1e-5);
    }

    let full = || Error::Forward { reason: "no room".into() };
    let error = score_batches(&three, &model, &sequences, 1, &mut |_| Err(full())).unwrap_err();
    assert_eq!(error.to_string(), full().to_string());
}

#[test]
fn no_gradient_reaches_a_detached_prompt() {
    let (file, numbered) = objectives("llama");
    let sequences: Vec<Sequence> = numbered.into_iter().map(|(_, sequence)| sequence).collect();
    let model = load(&golden(&file.policy), &flex());
    let norm = |loss: Tensor<1>, tape| {
        let mut sink = GradientSink::new();
        backward(&model, "model", loss.sum_dim(0), tape, &mut sink);
        sink.norm()
    };
    let with = |prompt| sequence_logps(&model, &sequences, prompt).unwrap();
    let detached = || with(PromptLogps::Detached);
    let alone = detached();
    let response = norm(alone.response, alone.tape);
    let both = detached();
    assert_eq!(norm(both.response + both.prompt, both.tape), response);
    let tracked = with(PromptLogps::Tracked);
    let both = norm(tracked.response + tracked.prompt, tracked.tape);
    assert!((both - response).abs() > 1e-3 * response, "{both} {response}");
}

#[test]
fn t0_takes_tokens_off_the_prompt() {
    let (file, numbered) = objectives("llama");
    let model = load(&golden(&file.policy), &flex());
    let first = numbered[0].1.clone();
    let tokens = &score_sequences(&model, &[&first], 100, &mut |_| ()).unwrap()[0].token_logps;
    for scored_from in 1..=first.prompt_len {
        let sequence = Sequence { scored_from, ..first.clone() };
        let expected: f64 = tokens[scored_from - 1..first.prompt_len - 1].iter().map(|&t| f64::from(t)).sum();
        let found = sequence_logps(&model, std::slice::from_ref(&sequence), PromptLogps::Detached).unwrap();
        assert_close(&host(found.prompt), &[expected], 1e-5);
        assert_eq!(found.prompt_tokens, [first.prompt_len - scored_from]);
        let scored = score_sequences(&model, &[sequence], 100, &mut |_| ()).unwrap();
        assert_close(&[scored[0].prompt_logp], &[expected], 1e-5);
    }
}

#[test]
fn a_temperature_divides_the_logits() {
    let (file, numbered) = objectives("llama");
    let sequence = &numbered[0].1;
    let (model, config) = CausalLm::load(&golden(&file.policy), &LoadOptions::default(), &flex()).unwrap();
    let hidden = hidden_states(model.decoder(), &config, &[&sequence.ids]).squeeze_dim::<2>(0);
    let logits = model.logits(hidden).cast(FloatDType::F32);
    let vocabulary = logits.dims()[1];
    let logits: Vec<f64> = logits.into_data().iter().collect();
    for temperature in [0.7, 1.0, 1.5] {
        // In f64 from the model's own logits, at the token before each.
        let expected: Vec<f64> = (sequence.prompt_len..sequence.ids.len())
            .map(|i| {
                let row = &logits[(i - 1) * vocabulary..i * vocabulary];
                let total: f64 = row.iter().map(|z| (z / temperature).exp()).sum();
                row[sequence.ids[i] as usize] / temperature - total.ln()
            })
            .collect();
        let options = HeadOptions::at_temperature(temperature);
        let found = sequence_logps_with(&model, &[sequence], PromptLogps::Skip, &options).unwrap();
        assert_close(&host(found.tokens), &expected, 1e-5);
        let mut scored: Vec<f64> = Vec::new();
        let mut store = |batch: Vec<(usize, ScoredSequence)>| {
            scored.extend(batch.into_iter().map(|(_, score)| score.response_logp));
            Ok::<(), Error>(())
        };
        let here = DeviceGroup::single(flex());
        score_batches_with(&here, &model, &[sequence], 1000, &options, &mut store).unwrap();
        assert_close(&scored, &[expected.iter().sum::<f64>()], 2e-5);
    }
}

#[test]
fn entropy_is_that_of_the_softmax() {
    let (file, numbered) = objectives("llama");
    let sequence = &numbered[0].1;
    let (model, config) = CausalLm::load(&golden(&file.policy), &LoadOptions::default(), &flex()).unwrap();
    let options = HeadOptions { chunk: Some(2), ..HeadOptions::default() };
    let found = sequence_logps_with(&model, &[sequence], PromptLogps::Skip, &options).unwrap();
    let mask = vec![true; sequence.ids.len()];
    let all = token_logps_with(&model, &[(sequence.ids.as_slice(), mask.as_slice())], &options).unwrap();

    // Softmax and entropy in f64 from the model's own logits.
    let length = sequence.ids.len();
    let hidden = hidden_states(model.decoder(), &config, &[&sequence.ids]).squeeze_dim::<2>(0);
    let logits = model.logits(hidden).cast(FloatDType::F32);
    let vocabulary = logits.dims()[1];
    let logits: Vec<f64> = logits.into_data().iter().collect();
    let entropies: Vec<f64> = logits
        .chunks(vocabulary)
        .map(|row| {
            let total: f64 = row.iter().map(|x| x.exp()).sum();
            -row.iter().map(|x| x.exp() / total * (x - total.ln())).sum::<f64>()
        })
        .collect();
    let response: f64 = entropies[sequence.prompt_len - 1..length - 1].iter().sum();
    assert_close(&host(found.entropy), &[response], 1e-4);
    assert_close(&host(all.entropy), &[entropies[..length - 1].iter().sum()], 1e-4);
}

#[test]
fn a_sequence_that_cannot_be_scored_is_named() {
    let model = load(&golden("transformer/llama_kv2"), &Device::flex());
    let good = Sequence { ids: vec![1, 5, 6, 2], prompt_len: 2, scored_from: 1 };
    for (bad, reason) in [
        (Sequence { prompt_len: 4, ..good.clone() }, "the response is empty"),
        (Sequence { scored_from: 0, ..good.clone() }, "`scored_from` must lie between 1 and the prompt's length 2"),
        (Sequence { scored_from: 3, ..good.clone() }, "found 3"),
        (Sequence { ids: vec![1, 5, 96, 2], ..good.clone() }, "token 96 at position 2"),
    ] {
        let batch = [good.clone(), bad];
        for error in [
            sequence_logps(&model, &batch, PromptLogps::Detached).unwrap_err(),
            score_sequences(&model, &batch, 100, &mut |_| ()).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.starts_with("sequence 1: ") && text.contains(reason), "{text}");
        }
    }
    let nothing = [(good.ids.as_slice(), [true, false, false, false].as_slice())];
    let error = token_logps(&model, &nothing).unwrap_err().to_string();
    assert!(error.contains("no token of the batch counts"), "{error}");
    let short = [(good.ids.as_slice(), [true; 3].as_slice())];
    let error = token_logps(&model, &short).unwrap_err().to_string();
    assert!(error.contains("it has 4 tokens and a mask of 3"), "{error}");
}

#[derive(serde::Deserialize)]
struct Story {
    ids: Vec<u32>,
    logps: Vec<f64>,
    sum: f64,
}

#[test]
fn a_real_checkpoint_equals_transformers() {
    let Some(folder) = test_data("model/stories260K") else { return };
    let stories: Vec<Story> =
        serde_json::from_str(&std::fs::read_to_string(golden("stories260k.json")).unwrap()).unwrap();
    let model = load(&folder, &Device::flex());
    let sequences: Vec<Sequence> =
        stories.iter().map(|s| Sequence { ids: s.ids.clone(), prompt_len: 1, scored_from: 1 }).collect();
    let scored = score_sequences(&model, &sequences, 1024, &mut |_| ()).unwrap();
    for (scored, story) in scored.iter().zip(&stories) {
        let tokens: Vec<f64> = scored.token_logps.iter().map(|&t| f64::from(t)).collect();
        assert_close(&tokens, &story.logps, 1e-5);
        assert_close(&[scored.response_logp], &[story.sum], 1e-5 * story.ids.len() as f64);
    }
}

#[test]
fn prompts_that_begin_alike_are_scored_as_if_alone() {
    // Two subjects of questions behind the same examples, each asked for the next token, of four; one for two tokens.
    let asked = |subject: u32, question: u32, answer: &[u32]| {
        let shots = (0..30).map(|t| (t * 5 + subject) % 96);
        let own = (0..3 + question).map(|t| (t * 7 + 11 * question) % 96);
        let prompt: Vec<u32> = shots.chain(own).collect();
        let prompt_len = prompt.len();
        Sequence { ids: [prompt.as_slice(), answer].concat(), prompt_len, scored_from: prompt_len }
    };
    let mut sequences: Vec<Sequence> = (0..24).map(|i| asked(i / 12, i / 4 % 3, &[40 + i % 4])).collect();
    sequences.push(asked(1, 1, &[40, 41]));
    for device in devices() {
        let model = load(&golden("transformer/llama_kv2"), &device);
        let alone: Vec<f64> = sequences
            .iter()
            .map(|sequence| score_sequences(&model, &[sequence], 1, &mut |_| ()).unwrap()[0].response_logp)
            .collect();
        for batch_tokens in [1, 50, 10_000] {
            let together = score_sequences(&model, &sequences, batch_tokens, &mut |_| ()).unwrap();
            assert!(together.iter().all(|s| (s.prompt_logp, s.prompt_tokens) == (0.0, 0)));
            assert_close(&together.iter().map(|s| s.response_logp).collect::<Vec<_>>(), &alone, 1e-5);
        }
    }
}
