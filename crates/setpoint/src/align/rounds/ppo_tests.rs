//! PPO against trl 1.12 (`tests/golden/make_online_ppo_model.py`): the numbers of a rollout, the losses of four optimizer steps, and both
//! models after them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value};
use setpoint_align::online::{PpoSettings, RewardAt};
use setpoint_reward::{RewardModel, value_rows};
use setpoint_train::{
    AdamWConfig, DeviceGroup, MicroBatch, NoHooks, RunDir, Schedule, ScheduleKind, Sequence, TrainConfig, Warmup, fit,
    score_sequences,
};
use setpoint_transformer::checkpoint::ParamPath;
use setpoint_transformer::{CausalLm, LoadOptions, Recompute};

use super::prompts::Prompts;
use super::store::{RolloutRow, StoredRound};
use super::tasks::{PpoTasks, Round, RoundTasks};
use crate::tasks::dro_v::PolicyAndValue;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/online/ppo_model").join(name)
}

fn policy(name: &str, device: &Device) -> CausalLm {
    CausalLm::load(&golden(name), &LoadOptions::default(), device).unwrap().0
}

fn value(name: &str, device: &Device) -> RewardModel {
    RewardModel::load(&golden(name), &LoadOptions::default(), device).unwrap().0
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn all_floats(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(floats).collect()
}

fn all_ids(value: &Value) -> Vec<Vec<u32>> {
    all_floats(value).into_iter().map(|ids| ids.into_iter().map(|id| id as u32).collect()).collect()
}

fn assert_close(what: &str, found: &[Vec<f64>], expected: &[Vec<f64>]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{what}: {found}, trl {expected}");
        }
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// Every parameter with its path.
fn parameters<M: Module>(module: &M) -> Vec<(String, Vec<f32>)> {
    struct All(ParamPath, Vec<(String, Vec<f32>)>);

    impl ModuleVisitor for All {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push((self.0.name(), param.val().into_data().try_into_vec().unwrap()));
        }
    }

    let mut all = All(ParamPath::default(), Vec::new());
    module.visit(&mut all);
    all.1
}

/// The number in the lines of `metrics.jsonl`.
fn logged(run: &RunDir, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let number = |line: &str| serde_json::from_str::<Value>(line).unwrap()[name].as_f64().unwrap();
    text.lines().map(number).collect()
}

#[test]
fn four_steps_of_ppo_are_trls() {
    let text = std::fs::read_to_string(golden("rollout.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let (prompts, responses) = (all_ids(&expected["prompts"]), all_ids(&expected["responses"]));
    let most = expected["max_new_tokens"].as_u64().unwrap() as usize;
    let plain = Device::flex();
    let device = plain.clone().autodiff();
    let sequences: Vec<Sequence> = prompts
        .iter()
        .zip(&responses)
        .map(|(prompt, response)| Sequence {
            ids: [prompt.as_slice(), response].concat(),
            prompt_len: prompt.len(),
            scored_from: prompt.len(),
        })
        .collect();

    let score = |name: &str| -> Vec<Vec<f64>> {
        let scored = score_sequences(&policy(name, &plain), &sequences, 16, &mut |_| ()).unwrap();
        scored.iter().map(|one| one.token_logps.iter().map(|&logp| f64::from(logp)).collect()).collect()
    };
    let (old, reference) = (score("policy"), score("reference"));
    assert_close("old", &old, &all_floats(&expected["old"]));
    assert_close("ref", &reference, &all_floats(&expected["ref"]));

    let settings = PpoSettings {
        kl_coef: 0.2,
        lambda: 0.9,
        value_weight: 0.5,
        missing_stop_penalty: 1.0,
        reward_at: RewardAt::AfterEnd,
        ..PpoSettings::default()
    };
    let objective = setpoint_align::Method::Ppo(settings.clone()).training();
    let setpoint_align::Training::Sampled(objective) = objective else { panic!("{objective:?}") };
    let slots = |sequence: &Sequence| objective.value_slots(sequence.ids.len() - sequence.prompt_len, most);
    let rows: Vec<&[u32]> = sequences.iter().map(|s| &s.ids[..s.prompt_len - 1 + slots(s)]).collect();
    let from: Vec<usize> = sequences.iter().map(|s| s.prompt_len - 1).collect();
    let values = value_rows(&DeviceGroup::single(plain.clone()), &value("value", &plain), &rows, &from, 16).unwrap();
    assert_close("values", &values, &all_floats(&expected["values"]));

    let scores = floats(&expected["scores"]);
    let row = |i: usize| RolloutRow {
        prompt: "".into(),
        responses: vec![String::new()],
        rewards: vec![Some(scores[i])],
        source_rewards: BTreeMap::new(),
        row: i,
        tokens: vec![responses[i].clone()],
        stopped: vec![expected["stopped"][i].as_bool().unwrap()],
        logps: vec![old[i].iter().sum()],
        sampling_logps: vec![old[i].iter().sum()],
        sampling_distances: Vec::new(),
        sampling_token_logps: Vec::new(),
        ref_logps: vec![reference[i].iter().sum()],
        ref_prompt_logp: 0.0,
        token_logps: vec![old[i].clone()],
        ref_token_logps: vec![reference[i].clone()],
        values: vec![values[i].clone()],
        template: Map::new(),
    };
    let stored = StoredRound { rows: (0..prompts.len()).map(row).collect(), mismatched: Vec::new() };
    let data = Prompts { records: Vec::new(), ids: prompts.clone(), mix: None, t0: None, samples: None };

    for (recompute, micro_batch) in
        [(Recompute::None, MicroBatch::Examples(6)), (Recompute::Block, MicroBatch::Examples(4))]
    {
        let mut tasks = PpoTasks::new(&settings, most, prompts.len(), None);
        let task = tasks.task(Round::of(0, &stored, Path::new("round.jsonl"), &data, 1)).unwrap().unwrap();
        let measured = tasks.metrics();
        let metric = |name: &str| measured.iter().find(|(other, _)| other == name).unwrap().1;
        for name in
            ["kl", "entropy", "non_score_reward", "scores", "rlhf_reward"].map(|name| format!("objective/{name}"))
        {
            let (found, expected) = (metric(&name), expected["metrics"][&name].as_f64().unwrap());
            assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{name}: {found}, trl {expected}");
        }

        let mut model = PolicyAndValue::of(policy("policy", &device), value("value", &device));
        (model.policy.model.recompute, model.value.model.recompute) = (recompute, recompute);
        let config = TrainConfig {
            epochs: 4.0,
            batch_size: prompts.len(),
            micro_batch,
            learning_rate: expected["settings"]["learning_rate"].as_f64().unwrap(),
            schedule: Schedule { kind: ScheduleKind::Constant, warmup: Warmup::Steps(0) },
            optimizer: AdamWConfig {
                eps: expected["settings"]["adam_epsilon"].as_f64().unwrap(),
                ..AdamWConfig::default()
            },
            max_grad_norm: None,
            ..TrainConfig::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let fitted = fit(&task, model, &config, &run, &mut NoHooks).unwrap();
        assert_close("losses", &[logged(&run, "loss")], &[floats(&expected["losses"])]);
        for name in ["loss/policy_avg", "loss/value_avg", "policy/clipfrac_avg", "val/clipfrac_avg"] {
            // trl logs the mean over the epochs.
            let found = logged(&run, name);
            let mean = found.iter().sum::<f64>() / found.len() as f64;
            assert_close(name, &[vec![mean]], &[vec![expected["metrics"][name].as_f64().unwrap()]]);
        }

        let PolicyAndValue { policy: found_policy, value: found_value } = &fitted.model;
        for (found, before, after) in [
            (
                parameters(found_policy),
                parameters(&policy("policy", &device)),
                parameters(&policy("policy_after", &device)),
            ),
            (parameters(found_value), parameters(&value("value", &device)), parameters(&value("value_after", &device))),
        ] {
            let mut moved = 0.0f32;
            for (((path, found), (_, before)), (other, after)) in found.iter().zip(&before).zip(&after) {
                assert_eq!(path, other);
                for (i, ((found, before), after)) in found.iter().zip(before).zip(after).enumerate() {
                    moved = moved.max((after - before).abs());
                    assert!((found - after).abs() < 1e-5, "{path}[{i}]: {found}, trl {after}, before {before}");
                }
            }
            assert!(moved > 1e-3, "{moved}");
            assert_eq!(found.len(), after.len());
        }
    }
}
