//! Maximum likelihood of the best response is supervised fine-tuning on it.

use std::path::Path;

use serde_json::Value;

use super::fixture::{Ran, file, model, rewarded_rows, setpoint};

fn train(job: &str, data: &str, run: &Path, settings: &[&str]) -> Ran {
    let (policy, run) = (model().display().to_string(), run.display().to_string());
    let mut arguments = vec![job, "--quiet", "--model", &policy, "--data", data, "--run", &run];
    let eval = format!("eval_data.path={data}");
    let common = [
        "samples.prompts=0",
        "train.max_steps=5",
        "train.batch_size=3",
        "train.learning_rate=1e-3",
        "train.micro_batch={ examples = 2 }",
        "train.eval_steps=2",
        &eval,
    ];
    for setting in common.iter().chain(settings) {
        arguments.extend(["--set", setting]);
    }
    setpoint(&arguments)
}

fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn it_equals_sft_on_the_best_response_bit_for_bit() {
    // By reward, and by label.
    let labelled: String = (0..5)
        .map(|i| {
            let row = serde_json::json!({
                "prompt": [{"role": "user", "content": format!("How much is {i} and two?")}],
                "chosen": [{"role": "assistant", "content": "The sum is four."}],
                "rejected": [{"role": "assistant", "content": "Saturday."}],
            });
            format!("{row}\n")
        })
        .collect();
    for (name, rows) in [("rewards", rewarded_rows(5)), ("labels", labelled)] {
        let (dir, data) = file("rows.jsonl", &rows);
        let (sft, nll) = (dir.path().join("sft"), dir.path().join("nll"));
        train("sft", &data, &sft, &[]).ok();
        train("align", &data, &nll, &["align.method=nll"]).ok();
        let weights = |run: &Path| std::fs::read(run.join("model/model.safetensors")).unwrap();
        assert!(weights(&sft) == weights(&nll), "{name}: the weights differ");
        let (sft, nll) = (metrics(&sft), metrics(&nll));
        assert_eq!(sft.len(), nll.len(), "{name}");
        for (sft, nll) in sft.iter().zip(&nll) {
            for key in ["loss", "grad_norm", "eval_loss", "num_tokens"] {
                assert_eq!(sft.get(key), nll.get(key), "{name}, {key}: {nll}");
            }
        }
        assert!(nll.iter().any(|line| line.get("eval_loss").is_some()));
        assert!(nll.iter().any(|line| line["logps/chosen"].as_f64().is_some_and(|logp| logp < 0.0)), "{name}");
    }
}

#[test]
fn it_has_neither_a_reference_nor_settings_and_needs_a_best_response() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(3));
    let run = dir.path().join("run");
    train("align", &data, &run, &["align.method=nll", "align.beta=0.1"]).fails(2, &["align.beta"]);
    train("align", &data, &run, &["align.method=nll", "reference=elsewhere"]).fails(2, &["no reference model"]);
    let row = |responses: &[&str]| {
        let row = serde_json::json!({"prompt": [{"role": "user", "content": "Why?"}], "responses": responses});
        format!("{row}\n")
    };
    let (_dir, data) = file("unrated.jsonl", &row(&["Because.", "Saturday."]));
    train("align", &data, &run, &["align.method=nll"]).fails(1, &["nothing tells the best response", "annotate"]);
    // A single response is the best one; rows that do not tell are left out.
    let (_dir, data) = file("mixed.jsonl", &(row(&["Because."]) + &row(&["Because.", "Saturday."])));
    let ran = train("align", &data, &run, &["align.method=nll"]).ok();
    assert!(ran.stderr.contains("1 of 2 rows have no best response and are left out"), "{ran:#?}");
}
