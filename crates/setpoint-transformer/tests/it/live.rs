//! A batch that rows join and leave while it runs yields what a batch of all rows yields.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_transformer::{CausalLm, Drawn, Error, Finish, GenerationConfig, LiveBatch, NewRow, RowId, generate};

use crate::support::{case, devices, load};

fn greedy(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig { max_new_tokens, ..GenerationConfig::default() }
}

fn sampled(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig { do_sample: true, stop_token_ids: (0..8).collect(), ..greedy(max_new_tokens) }
}

fn row(prompt: &[u32], config: GenerationConfig, stream: u64) -> NewRow {
    NewRow { prompt: prompt.to_vec(), config: Arc::new(config), seed: 11, stream, alternatives: 0 }
}

/// Goes on until the batch is empty; adds what each row drew.
fn finish(batch: &mut LiveBatch, drawn: &mut BTreeMap<RowId, Vec<Drawn>>) {
    while !batch.is_empty() {
        for token in batch.step().unwrap() {
            drawn.entry(token.row).or_default().push(token);
        }
    }
}

/// Row `stream` of a generation: the tokens, and why there are no more.
fn alone(model: &CausalLm, prompt: &[u32], config: &GenerationConfig, stream: usize) -> (Vec<u32>, Finish) {
    let prompts = vec![prompt.to_vec(); stream + 1];
    let done = generate(model, &prompts, config, 11).unwrap().swap_remove(stream);
    (done.ids, done.finish)
}

#[test]
fn rows_that_join_and_leave_yield_what_they_yield_alone() {
    let names = ["llama_kv2", "phi3_longrope_switch"];
    for (device, name) in devices().into_iter().flat_map(|device| names.map(|name| (device.clone(), name))) {
        let (model, _) = load(&case(name), &device);
        let prompts: [Vec<u32>; 5] =
            [3, 40, 9, 1, 17].map(|length: u32| (0..length).map(|i| (7 * i + length) % 96).collect());
        let configs = [greedy(20), sampled(24), greedy(3), sampled(9), sampled(30)];
        let mut batch = LiveBatch::new(&model, 3, 96);
        let mut drawn: BTreeMap<RowId, Vec<Drawn>> = BTreeMap::new();
        let mut ids = Vec::new();
        for (i, (prompt, config)) in prompts.iter().zip(&configs).enumerate() {
            // A new row joins after two passes of the others, or as soon as there is a place.
            let mut passes = 0;
            while passes < 2 || batch.is_full() {
                batch.step().unwrap().into_iter().for_each(|token| drawn.entry(token.row).or_default().push(token));
                passes += 1;
            }
            ids.push(batch.admit(row(prompt, config.clone(), i as u64)).unwrap());
        }
        finish(&mut batch, &mut drawn);
        for (i, id) in ids.iter().enumerate() {
            let (expected, why) = alone(&model, &prompts[i], &configs[i], i);
            let found: Vec<u32> = drawn[id].iter().map(|token| token.id).collect();
            assert_eq!(found, expected, "row {i}");
            assert_eq!(drawn[id].last().unwrap().finish, Some(why), "row {i}");
            assert!(drawn[id][..found.len() - 1].iter().all(|token| token.finish.is_none()));
        }
    }
}

#[test]
fn likeliest_tokens_are_told_and_change_nothing() {
    let [flex, _] = devices();
    let (model, _) = load(&case("llama_kv2"), &flex);
    let prompt: Vec<u32> = (1..12).collect();
    let mut batch = LiveBatch::new(&model, 2, 64);
    let told = batch.admit(NewRow { alternatives: 3, ..row(&prompt, greedy(8), 0) }).unwrap();
    let plain = batch.admit(row(&prompt, greedy(8), 0)).unwrap();
    let mut drawn = BTreeMap::new();
    finish(&mut batch, &mut drawn);
    let ids = |row: &RowId| drawn[row].iter().map(|token| token.id).collect::<Vec<_>>();
    assert_eq!(ids(&told), ids(&plain));
    for (token, other) in drawn[&told].iter().zip(&drawn[&plain]) {
        assert!(token.alternatives.len() == 3 && other.alternatives.is_empty());
        // The likeliest is the one that was taken, and its log-probability is the token's.
        assert_eq!(token.alternatives[0].0, token.id);
        assert!((token.alternatives[0].1 - token.logp).abs() < 1e-6);
        assert!(token.alternatives.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    }
}

#[test]
fn a_row_that_is_removed_leaves_the_others_as_they_are() {
    let [flex, _] = devices();
    let (model, _) = load(&case("llama_kv2"), &flex);
    let prompts: [Vec<u32>; 3] = [vec![5; 4], vec![9, 8, 7], vec![30, 2, 60, 4, 1]];
    let mut batch = LiveBatch::new(&model, 3, 64);
    let ids = prompts.each_ref().map(|prompt| batch.admit(row(prompt, greedy(12), 0)).unwrap());
    let mut drawn = BTreeMap::new();
    for token in batch.step().unwrap() {
        drawn.entry(token.row).or_insert_with(Vec::new).push(token);
    }
    batch.remove(ids[0]);
    batch.remove(ids[0]);
    assert_eq!(batch.len(), 2);
    finish(&mut batch, &mut drawn);
    for i in [1, 2] {
        let found: Vec<u32> = drawn[&ids[i]].iter().map(|token| token.id).collect();
        assert_eq!(found, alone(&model, &prompts[i], &greedy(12), 0).0, "row {i}");
    }
    assert_eq!(drawn[&ids[0]].len(), 1);
}

#[test]
fn a_row_that_cannot_be_continued_is_refused() {
    let [flex, _] = devices();
    let (model, _) = load(&case("llama_kv2"), &flex);
    let mut batch = LiveBatch::new(&model, 1, 64);
    assert!(matches!(batch.admit(row(&[], greedy(1), 0)), Err(Error::EmptyPrompt { .. })));
    assert!(matches!(batch.admit(row(&[1, 9999], greedy(1), 0)), Err(Error::TokenOutOfRange { .. })));
    assert!(matches!(batch.admit(row(&[1], greedy(0), 0)), Err(Error::GenerationSetting { .. })));
    let long = vec![1; model.decoder().max_positions()];
    assert!(matches!(batch.admit(row(&long, greedy(1), 0)), Err(Error::PromptTooLong { .. })));
    assert!(batch.is_empty() && batch.step().unwrap().is_empty());
}
