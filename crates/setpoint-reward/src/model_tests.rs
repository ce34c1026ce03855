use super::*;
use setpoint_train::{DeviceGroup, GradientSink, SumOnFirst, backward};

use super::oracle::hidden_states;
use crate::model_source::ModelSource;
use crate::source::{RewardSource, Scored};
use crate::testing::{devices, tiny_config, tiny_model};

/// Rows of many lengths. Token 0 is what rows are filled up with and 2 is the stop token: they stand in the middle, at the end, and alone.
fn rows() -> Vec<Vec<u32>> {
    vec![
        vec![5, 6, 7, 2],
        vec![1, 0, 0, 9, 2, 11, 2, 3, 12, 13, 2],
        vec![4],
        vec![0],
        vec![8, 7, 6, 5, 0, 0],
        vec![8, 7, 6, 5, 0],
        vec![8, 7, 6, 5],
        (0..20).collect(),
    ]
}

fn alone(model: &RewardModel, row: &[u32]) -> f32 {
    to_host(model.scores(&[row]).unwrap()).unwrap()[0]
}

/// Rounding of f32 sums over a handful of layers, for scores in the order of 1.
const ROUNDING: f32 = 1e-5;

#[test]
fn the_score_is_the_heads_product_with_the_last_tokens_state() {
    for device in devices() {
        let (model, config) = tiny_model(&device);
        for row in rows() {
            let hidden = hidden_states(&model.model, &config, &[&row]);
            let [_, s, d] = hidden.dims();
            let state: Vec<f32> = hidden.slice([0..1, s - 1..s, 0..d]).into_data().try_to_vec().unwrap();
            let weight: Vec<f32> = model.score.weight.val().into_data().try_to_vec().unwrap();
            let expected: f64 = state.iter().zip(&weight).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let got = f64::from(alone(&model, &row));
            assert!((got - expected).abs() < 1e-6 * expected.abs().max(1.0), "{row:?}: {got} {expected}");
        }
    }
}

#[test]
fn a_score_does_not_depend_on_batch_or_padding() {
    for device in devices() {
        let (model, _) = tiny_model(&device);
        let rows = rows();
        let expected: Vec<f32> = rows.iter().map(|row| alone(&model, row)).collect();
        // Rows that end in the filling token score differently from their prefixes: nothing is taken for padding.
        assert!((expected[4] - expected[5]).abs() > 1e-3 && (expected[5] - expected[6]).abs() > 1e-3, "{expected:?}");

        let together = to_host(model.scores(&rows).unwrap()).unwrap();
        let reversed: Vec<&Vec<u32>> = rows.iter().rev().collect();
        let mut backwards = to_host(model.scores(&reversed).unwrap()).unwrap();
        backwards.reverse();
        for ((together, backwards), expected) in together.iter().zip(&backwards).zip(&expected) {
            assert!((together - expected).abs() < ROUNDING, "{together} {expected}");
            assert!((backwards - expected).abs() < ROUNDING, "{backwards} {expected}");
        }
    }
}

#[test]
fn many_rows_are_scored_in_batches_and_come_back_in_order() {
    for device in devices() {
        let (model, _) = tiny_model(&device.clone().autodiff());
        let rows = rows();
        let one = DeviceGroup::single(device.clone());
        for batch_tokens in [1, 12, 10_000] {
            let mut heard = Vec::new();
            let scores = score_rows(&one, &model, &rows, batch_tokens, &mut |done| heard.push(done)).unwrap();
            for (row, score) in rows.iter().zip(scores) {
                assert!((score - f64::from(alone(&model, row))).abs() < f64::from(ROUNDING), "{row:?}");
            }
            assert!(heard.is_sorted() && heard.last() == Some(&rows.len()), "{heard:?}");
            // 20 · 11 · 6 5 · 4 4 1 1 with 12 tokens; one row each with 1.
            let batches = match batch_tokens {
                1 => 8,
                12 => 4,
                _ => 1,
            };
            assert_eq!(heard.len(), batches, "{batch_tokens}");
        }
        assert!(score_rows::<Vec<u32>>(&one, &model, &[], 16, &mut |_| ()).unwrap().is_empty());

        // Devices that share the work have the same passes.
        let two = DeviceGroup::new(vec![device.clone(), device], SumOnFirst);
        let mut heard = Vec::new();
        let scores = score_rows(&two, &model, &rows, 1, &mut |done| heard.push(done)).unwrap();
        assert_eq!(scores, score_rows(&one, &model, &rows, 1, &mut |_| ()).unwrap());
        assert!(heard.is_sorted() && heard.len() == rows.len(), "{heard:?}");
    }
}

/// The value of a token is the score of the row up to it, also where rows share their beginning, and its gradient is that score's.
#[test]
fn values_are_the_scores_of_beginnings() {
    for device in devices() {
        let (model, _) = tiny_model(&device.clone().autodiff());
        let rows: [&[u32]; 5] = [&[5, 6, 7, 8, 2], &[5, 6, 7, 9], &[5, 6, 7, 8, 3, 2], &[11, 4], &[5, 6, 7, 9]];
        let from = [2, 1, 3, 0, 3];
        let beginnings: Vec<Vec<&[u32]>> =
            rows.iter().zip(from).map(|(row, from)| (from..row.len()).map(|i| &row[..=i]).collect()).collect();
        let one = DeviceGroup::single(device.clone());
        for batch_tokens in [1, 8, 1000] {
            let values = value_rows(&one, &model, &rows, &from, batch_tokens).unwrap();
            for (found, beginnings) in values.iter().zip(&beginnings) {
                assert_eq!(found.len(), beginnings.len());
                for (value, beginning) in found.iter().zip(beginnings) {
                    let expected = f64::from(to_host(model.valid().scores(&[beginning]).unwrap()).unwrap()[0]);
                    assert!((value - expected).abs() < f64::from(ROUNDING), "{beginning:?}: {value} {expected}");
                }
            }
        }

        let gradient = |loss: Tensor<1>, tape| {
            let mut sink = GradientSink::new();
            backward(&model, "model", loss, tape, &mut sink);
            sink.norm()
        };
        let (values, tape) = model.values_taped(&rows, &from).unwrap();
        let found = gradient((values.clone() * values).sum(), tape);
        let (scores, tape) = model.scores_taped(&beginnings.concat()).unwrap();
        let expected = gradient((scores.clone() * scores).sum(), tape);
        assert!(expected > 0.1 && (found - expected).abs() < 1e-4 * expected, "{found} {expected}");

        let two = DeviceGroup::new(vec![device.clone(), device.clone()], SumOnFirst);
        let shared = value_rows(&two, &model, &rows, &from, 1).unwrap();
        assert_eq!(shared, value_rows(&one, &model, &rows, &from, 1).unwrap());
        let wrong = value_rows(&one, &model, &[&[1, 99][..]], &[0], 8).unwrap_err();
        assert!(matches!(wrong, Error::Token { id: 99, .. }), "{wrong}");
    }
}

#[test]
fn a_new_head_is_zero_or_drawn_from_its_seed_and_trains() {
    for device in devices() {
        let device = device.autodiff();
        let config = tiny_config();
        let lm = CausalLm::init(&config, 4, &device);
        let with = |head| RewardModel::from_causal_lm(lm.clone(), &config, head).0;

        let zeros = with(HeadInit::Zeros);
        assert_eq!(to_host(zeros.scores(&rows()).unwrap().inner()).unwrap(), [0.0; 8]);

        let head = |model: &RewardModel| model.score.weight.val().into_data().try_to_vec::<f32>().unwrap();
        let small = HeadInit::small(&config, 1);
        assert_eq!(small, HeadInit::Normal { std: (1.0_f64 / 17.0).sqrt(), seed: 1 });
        assert_eq!(head(&with(small)), head(&with(small)));
        assert_ne!(head(&with(small)), head(&with(HeadInit::small(&config, 2))));
        // 16 draws: the mean square lies within ±5 standard errors, √(2/16) of the variance each.
        let square = head(&with(small)).iter().map(|w| w * w).sum::<f32>() / 16.0;
        assert!((square * 17.0 - 1.0).abs() < 5.0 * (2.0_f32 / 16.0).sqrt(), "{square}");

        let gradients = zeros.scores(&rows()).unwrap().sum().backward();
        let gradient = zeros.score.weight.val().grad(&gradients).expect("the new head is trained");
        assert_eq!(gradient.dims(), [1, 16]);
        assert!(zeros.model.embed_tokens.weight.val().grad(&gradients).is_some(), "so is the decoder");
    }
}

#[test]
#[allow(deprecated)]
fn a_bf16_model_gets_a_bf16_head_and_scores_in_f32() {
    let device = Device::flex();
    let dir = tempfile::tempdir().unwrap();
    let config = tiny_config();
    let options = SaveOptions { dtype: Some(FloatDType::BF16), ..SaveOptions::default() };
    CausalLm::init(&config, 4, &device).save(&config, dir.path(), &options).unwrap();
    let (lm, config) = CausalLm::load(dir.path(), &LoadOptions::default(), &device).unwrap();
    let (model, config) = RewardModel::from_causal_lm(lm, &config, HeadInit::Normal { std: 0.3, seed: 5 });
    assert_eq!(FloatDType::from(model.score.weight.dtype()), FloatDType::BF16);
    let scores = model.scores(&rows()).unwrap();
    assert_eq!(FloatDType::from(scores.dtype()), FloatDType::F32);

    // 8 bits of mantissa through two layers: the scores of the f32 model are found again to a few percent of their size.
    let (exact, _) = tiny_model(&device);
    let exact = to_host(exact.scores(&rows()).unwrap()).unwrap();
    let size = exact.iter().fold(0.0_f32, |m, s| m.max(s.abs()));
    for (half, exact) in to_host(scores).unwrap().iter().zip(&exact) {
        assert!((half - exact).abs() < 0.05 * size, "{half} {exact}");
    }

    let out = dir.path().join("reward");
    model.save(&config, &out, &SaveOptions::default()).unwrap();
    let (again, _) = RewardModel::load(&out, &LoadOptions::default(), &device).unwrap();
    assert_eq!(FloatDType::from(again.score.weight.dtype()), FloatDType::BF16);
}

/// Scores and gradients are those of rows that go through the model one by one.
#[test]
fn rows_that_begin_alike_are_scored_as_if_alone() {
    const SEEDS: [f32; 4] = [0.7, -1.1, 0.4, 0.9];
    let prompt: Vec<u32> = (0..20).map(|i| 3 + i * i % 17).collect();
    let rows = [&[5, 6, 2][..], &[9], &[5, 7, 11, 2], &[]].map(|response| [&prompt, response].concat());
    assert!(groups(&rows, 1000, RopeSwitch::default()).iter().any(|group| group.rows.len() > 1), "nothing is shared");
    for device in devices() {
        let (model, _) = tiny_model(&device.autodiff());
        let into = |rows: &[Vec<u32>], seeds: &[f32], sink: &mut GradientSink| -> Vec<f32> {
            let (scores, tape) = model.scores_taped(rows).unwrap();
            let seeds = Tensor::<1>::from_data(seeds, &scores.device().without_autodiff()).autodiff();
            let values = to_host(scores.clone().inner()).unwrap();
            backward(&model, "model", (scores * seeds).sum(), tape, sink);
            values
        };
        let (mut together, mut alone) = (GradientSink::new(), GradientSink::new());
        let found = into(&rows, &SEEDS, &mut together);
        for ((row, seed), found) in rows.iter().zip(SEEDS).zip(found) {
            let expected = into(std::slice::from_ref(row), &[seed], &mut alone)[0];
            assert!((found - expected).abs() < ROUNDING * expected.abs().max(1.0), "{row:?}: {found} {expected}");
        }
        assert_eq!(together.len(), alone.len());
        for path in alone.paths() {
            let values = |sink: &GradientSink| -> Vec<f64> { sink.gradient(path).unwrap().to_data().iter().collect() };
            let (found, expected) = (values(&together), values(&alone));
            let size = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
            let error = found.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
            assert!(error <= 1e-5 * size + 1e-7, "{path}: {error:e} of {size:e}");
        }
    }
}

/// With LongRoPE the length of a row decides on the frequencies of all its tokens: rows that begin alike and are on both sides of the switch
/// have the scores, values and costs of separate rows.
#[test]
fn rows_on_both_sides_of_the_switch_are_scored_as_if_alone() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/transformer/phi3_longrope_switch");
    let prompt: Vec<u32> = (0..17).map(|i| 3 + i * i % 17).collect();
    let row = |length: u32| [prompt.clone(), (0..length).map(|i| 5 + 7 * i % 80).collect()].concat();
    let rows: Vec<Vec<u32>> = [2, 5, 3, 4, 3, 20].map(row).into();
    for device in devices() {
        let (lm, config) = CausalLm::load(dir.as_ref(), &LoadOptions::default(), &device).unwrap();
        let switch = config.rope.switch();
        assert_eq!(rows.iter().map(|row| switch.is_long(row.len())).filter(|&is_long| is_long).count(), 3);
        let (model, config) = RewardModel::from_causal_lm(lm, &config, HeadInit::Normal { std: 0.3, seed: 5 });
        let expected: Vec<Vec<f32>> = rows
            .iter()
            .map(|row| to_host(model.read(hidden_states(&model.model, &config, &[row]).squeeze_dim(0))).unwrap())
            .collect();
        let group = DeviceGroup::single(device);
        for batch_tokens in [1, 40, 1000] {
            let scores = score_rows(&group, &model, &rows, batch_tokens, &mut |_| ()).unwrap();
            let values = value_rows(&group, &model, &rows, &[0; 6], batch_tokens).unwrap();
            for ((score, values), expected) in scores.iter().zip(&values).zip(&expected) {
                let close = |found: f64, expected: f32| {
                    let expected = f64::from(expected);
                    assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{found} {expected}");
                };
                close(*score, expected[expected.len() - 1]);
                assert_eq!(values.len(), expected.len());
                values.iter().zip(expected).for_each(|(&found, &expected)| close(found, expected));
            }
        }
    }
}

#[test]
#[allow(deprecated)]
fn what_cannot_be_scored_is_named() {
    let (model, _) = tiny_model(&Device::flex());
    let empty: [&[u32]; 2] = [&[1], &[]];
    assert!(matches!(model.scores(&empty), Err(Error::Empty { place }) if place == "sequence 1"));
    let foreign: [&[u32]; 1] = [&[1, 24]];
    let error = score_rows(&DeviceGroup::single(Device::flex()), &model, &foreign, 16, &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Token { id: 24, vocabulary: 24, .. }), "{error}");

    let source = ModelSource::new(model, "tiny");
    let good = Scored { prompt_ids: &[1, 5], response_ids: &[6, 2], ..Scored::default() };
    let without = Scored { row: 3, response_index: 1, response_ids: &[], ..good };
    let error = source.score(&[good, without], &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::MissingTokens { row: 3, response: 1 }), "{error}");
    let foreign = Scored { row: 9, response_ids: &[77], ..good };
    let error = source.score(&[good, foreign], &mut |_| ()).unwrap_err().to_string();
    assert!(error.starts_with("row 9, response 0: token 77"), "{error}");
}

#[test]
fn a_source_scores_prompt_and_response_and_normalises_when_asked() {
    for device in devices() {
        let (model, mut config) = tiny_model(&device);
        let expected = f64::from(alone(&model, &[1, 5, 6, 2]));
        let item = Scored { prompt_ids: &[1, 5], response_ids: &[6, 2], ..Scored::default() };
        let score = |source: &ModelSource| source.score(&[item], &mut |_| ()).unwrap()[0];

        let dir = tempfile::tempdir().unwrap();
        let options = LoadOptions::default();
        model.save(&config, dir.path(), &SaveOptions::default()).unwrap();
        let raw = ModelSource::load(dir.path(), &options, false, &device).unwrap();
        assert_eq!(score(&raw), expected);
        assert!(raw.needs_tokens() && raw.describe().contains(&dir.path().display().to_string()));
        let error = ModelSource::load(dir.path(), &options, true, &device).unwrap_err();
        assert!(matches!(error, Error::NoNormalization { .. }), "{error}");

        Normalization::write(Some(Normalization { mean: 0.25, std: 2.0 }), &mut config);
        model.save(&config, dir.path(), &SaveOptions::default()).unwrap();
        let normalised = ModelSource::load(dir.path(), &options, true, &device).unwrap();
        assert_eq!(score(&normalised), (expected - 0.25) / 2.0);
        assert_eq!(score(&ModelSource::load(dir.path(), &options, false, &device).unwrap()), expected);
    }
}

#[test]
#[allow(deprecated)]
fn other_models_are_refused_by_name() {
    let device = Device::flex();
    let dir = tempfile::tempdir().unwrap();
    let config = tiny_config();
    let load = || RewardModel::load(dir.path(), &LoadOptions::default(), &device).unwrap_err();
    CausalLm::init(&config, 4, &device).save(&config, dir.path(), &SaveOptions::default()).unwrap();
    assert!(matches!(load(), Error::NotARewardModel { .. }));

    let (model, config) = tiny_model(&device);
    let mut two = config.clone();
    two.num_labels = 2;
    std::fs::write(dir.path().join("config.json"), two.to_json().to_string()).unwrap();
    assert!(matches!(load(), Error::Labels { found: 2, .. }));

    // The weights of a bare decoder, with the config of a reward model.
    std::fs::write(dir.path().join("config.json"), config.to_json().to_string()).unwrap();
    let message = load().to_string();
    assert!(message.contains("score.weight"), "{message}");

    let broken = config.to_json().to_string().replacen('{', r#"{"setpoint_reward": {"mean": 0, "std": -1},"#, 1);
    model.save(&config, dir.path(), &SaveOptions::default()).unwrap();
    std::fs::write(dir.path().join("config.json"), broken).unwrap();
    assert!(matches!(load(), Error::Normalization { .. }));
}

#[test]
fn saved_and_loaded_models_score_the_same_bits() {
    for device in devices() {
        let (model, config) = tiny_model(&device);
        let dir = tempfile::tempdir().unwrap();
        model.save(&config, dir.path(), &SaveOptions { max_shard_bytes: 4000, ..SaveOptions::default() }).unwrap();
        assert!(dir.path().join("model.safetensors.index.json").exists(), "small shards");
        let (again, read) = RewardModel::load(dir.path(), &LoadOptions::default(), &device).unwrap();
        assert_eq!(to_host(again.scores(&rows()).unwrap()).unwrap(), to_host(model.scores(&rows()).unwrap()).unwrap());

        assert_eq!((read.architecture, read.num_labels), (Architecture::SequenceClassification, 1));
        let json = read.to_json();
        assert_eq!(json["architectures"], serde_json::json!(["LlamaForSequenceClassification"]));
        assert_eq!(json["id2label"], serde_json::json!({"0": "LABEL_0"}));
        let names: Vec<String> = checkpoint::parameters(&again).into_iter().map(|p| p.name).collect();
        assert_eq!(names.first().map(String::as_str), Some("model.embed_tokens.weight"));
        assert_eq!(names.last().map(String::as_str), Some("score.weight"));
    }
}
