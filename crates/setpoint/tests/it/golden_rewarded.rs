//! Whole models by the methods that train on rewards (RPO with its forms, Nemotron's losses, QRPO): loss and gradient norm against their papers'
//! formulas in torch (`tests/golden/objectives/rewarded_*.json`, made by `make_rewarded_model.py`).

use std::sync::Arc;

use serde_json::Value;
use setpoint_align::{QrpoSettings, reward_quantile};
use setpoint_train::MicroBatch;

use crate::golden::{MODELS, close, first_chosen, flex, floats, load, model, pairwise_task, prompts};
use crate::golden_methods::{all_rows, first_step, settings};
use setpoint::tasks::rows::RowTask;

/// Loss, gradient norm and what else the golden case has.
#[track_caller]
fn agrees(what: &str, step: &Value, case: &Value) {
    let found = |key: &str| step[key].as_f64().unwrap_or_else(|| panic!("{what} {key}: {step}"));
    for (key, relative) in [("loss", 1e-5), ("grad_norm", 1e-4)] {
        let (found, expected) = (found(key), case[key].as_f64().unwrap());
        assert!((found - expected).abs() <= relative * expected, "{what} {key}: {found}, expected {expected}");
    }
    // Means of differences that may cancel.
    for key in ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen", "logps/rejected"] {
        if let Some(expected) = case.get(key) {
            close(&format!("{what} {key}"), found(key), expected.as_f64().unwrap(), 1e-5);
        }
    }
}

#[test]
fn rpo_in_all_its_forms_and_nemotrons_losses_are_torchs() {
    for name in MODELS {
        let golden = load(&format!("rewarded_{name}"));
        let (data, reference) = prompts(&golden["rows"], &model(&golden["reference"], &flex()));
        let data = first_chosen(data, |i| [0, 1].map(|model| floats(&golden["rewards"][i][model])).to_vec());
        let cases = golden["cases"].as_array().unwrap();
        for case in cases {
            let what = settings(case);
            let task = pairwise_task(&what, data.clone(), &reference);
            // Several passes: the denominators are those of the whole batch.
            let step = first_step(&task, &golden, MicroBatch::Examples(4));
            agrees(&format!("{name} {what}"), &step, case);
        }
    }
}

#[test]
fn qrpo_is_torchs() {
    for name in MODELS {
        let golden = load(&format!("rewarded_{name}"));
        let qrpo = &golden["qrpo"];
        let data = prompts(&qrpo["rows"], &model(&golden["reference"], &flex()));
        let rows = all_rows(data, |i| {
            let rewards = floats(&qrpo["rewards"][i]);
            let quantiles: Vec<f64> = rewards.iter().map(|&reward| reward_quantile(reward, &rewards)).collect();
            assert_eq!(quantiles, floats(&qrpo["quantiles"][i]));
            quantiles
        });
        let settings: QrpoSettings = serde_json::from_value(qrpo["settings"].clone()).unwrap();
        let task = RowTask { rows, mismatched: None, objective: Arc::new(settings) };
        for size in [1, 4, 11] {
            let step = first_step(&task, &golden, MicroBatch::Examples(size));
            agrees(&format!("{name} QRPO in passes of {size}"), &step, qrpo);
        }
    }
}
