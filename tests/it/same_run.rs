//! A run is resumed as the run that it is: whatever its loss reads must be the same, and an error names the setting, the file and the row.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fixture::{Ran, command, demo, file, model, setpoint_owned};

/// A run that stopped in the middle of it: its later checkpoints, its model and its mark are removed, as if it had been killed.
struct Run {
    dir: tempfile::TempDir,
    job: &'static str,
    arguments: Vec<String>,
}

const STEPS: &str = "8";

impl Run {
    /// `settings`: those besides the data, of which `data` and `eval` are the rows.
    fn start(job: &'static str, rows: &[Value], eval: &[Value], settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("train.jsonl"), rows);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut arguments = vec![job.to_owned(), "--quiet".into(), "--device".into(), "flex".into()];
        arguments.extend(["--run".into(), path("run"), "--data".into(), path("train.jsonl")]);
        if settings.iter().all(|setting| !setting.starts_with("model.")) {
            arguments.extend(["--model".into(), model().display().to_string()]);
        }
        if !eval.is_empty() {
            write(&dir.path().join("eval.jsonl"), eval);
            arguments.extend(["--set".into(), format!("eval_data.path={}", path("eval.jsonl"))]);
        }
        let steps = format!("train.max_steps={STEPS}");
        let common = [
            steps.as_str(),
            "train.batch_size=4",
            "train.learning_rate=1e-3",
            "train.save_steps=2",
            "train.keep_last=9",
        ];
        for setting in common.iter().chain(settings) {
            arguments.extend(["--set".into(), setting.to_string()]);
        }
        if job != "reward" {
            arguments.extend(["--set".into(), "samples.prompts=0".into()]);
        }
        setpoint_owned(&arguments).ok();
        let run = Self { dir, job, arguments };
        run.cut();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Leaves the checkpoint of step 4 as the last.
    fn cut(&self) {
        for gone in ["run/checkpoints/step-00000006", "run/checkpoints/step-00000008", "run/model", "run/value"] {
            let _ = std::fs::remove_dir_all(self.path(gone));
        }
        let _ = std::fs::remove_file(self.path("run/finished.json"));
    }

    fn resume(&self, more: &[&str]) -> Ran {
        let run = self.path("run").display().to_string();
        let arguments = [&[self.job, "--run", &run, "--resume", "--quiet", "--device", "flex"], more].concat();
        Ran::of(&command(&arguments).output().unwrap())
    }

    /// Checks that the run does not go on, for this reason, and is unharmed.
    #[track_caller]
    fn refused(&self, said: &[&str]) {
        let ran = self.resume(&[]);
        assert!(!self.path("run/model").exists(), "{ran:#?}");
        ran.fails(1, said);
        let mut repeated = self.arguments.clone();
        repeated.push("--resume".into());
        setpoint_owned(&repeated).fails(1, said);
        assert!(!self.path("run/model").exists());
    }

    /// Changes rows of a file, sees that the run does not go on, and puts them back.
    #[track_caller]
    fn changed(&self, name: &str, change: impl Fn(&mut Vec<Value>), said: &[&str]) {
        let before = std::fs::read_to_string(self.path(name)).unwrap();
        let mut rows: Vec<Value> = before.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        change(&mut rows);
        write(&self.path(name), &rows);
        self.refused(said);
        std::fs::write(self.path(name), before).unwrap();
    }
}

fn write(path: &Path, rows: &[Value]) {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(path, lines).unwrap();
}

fn rewarded(rows: usize) -> Vec<Value> {
    let row = |i: usize| {
        json!({
            "prompt": [{"role": "user", "content": format!("How much is {i} and two?")}],
            "responses": ["The sum is four.", "Do not bother me.", "Saturday."],
            "rewards": [1.0 + i as f64 / 10.0, -1.0, 0.25],
        })
    };
    (0..rows).map(row).collect()
}

fn pairs(rows: usize) -> Vec<Value> {
    let row = |i: usize| {
        json!({
            "prompt": [{"role": "user", "content": format!("How much is {i} and two?")}],
            "chosen": [{"role": "assistant", "content": "The sum is four."}],
            "rejected": [{"role": "assistant", "content": format!("Saturday {i}.")}],
            "margin": 0.5,
        })
    };
    (0..rows).map(row).collect()
}

fn labelled(rows: usize) -> Vec<Value> {
    let row = |i: usize| {
        json!({
            "prompt": [{"role": "user", "content": format!("How much is {i} and two?")}],
            "completion": [{"role": "assistant", "content": "The sum is four."}],
            "label": !i.is_multiple_of(3),
        })
    };
    (0..rows).map(row).collect()
}

fn negate(rows: &mut Vec<Value>) {
    for row in rows {
        for reward in row["rewards"].as_array_mut().unwrap() {
            *reward = json!(-reward.as_f64().unwrap());
        }
    }
}

#[test]
fn a_reward_that_changed_is_named() {
    let run = Run::start("align", &rewarded(8), &rewarded(6), &["align.log_z0=2"]);
    let raise = |rows: &mut Vec<Value>| rows[5]["rewards"][2] = json!(0.75);
    run.changed(
        "train.jsonl",
        raise,
        &["train.jsonl:6: the reward of response 2 was 0.25 and is now 0.75", "`data.path`"],
    );
    run.changed("train.jsonl", negate, &["the reward of response 0 was 1.0 and is now -1.0 (and 7 more rows differ)"]);
    run.changed("eval.jsonl", raise, &["`eval_data.path`", "the reward of response 2"]);

    write(&run.path("train.jsonl"), &rewarded(4));
    let ran = run.resume(&[]);
    assert_eq!(ran.stderr.matches("had 8 rows and now has 4").count(), 1, "said once: {ran:#?}");
    write(&run.path("train.jsonl"), &rewarded(8));

    let half = |rows: &mut Vec<Value>| rows.truncate(7);
    run.changed("train.jsonl", half, &["had 8 rows and now has 7; those that both have are the same"]);
    let more = |rows: &mut Vec<Value>| rows.push(rewarded(9).remove(8));
    run.changed("train.jsonl", more, &["had 8 rows and now has 9"]);
    run.changed("train.jsonl", |rows| rows.swap(1, 6), &["are in another order, from", "train.jsonl:2 on"]);
    let other = |rows: &mut Vec<Value>| rows[3]["responses"][1] = json!("It is four.");
    run.changed("train.jsonl", other, &["train.jsonl:4: response 1 changed"]);

    // As it was: it goes on and ends.
    run.resume(&[]).ok();
    assert!(run.path("run/model/model.safetensors").is_file());
}

#[test]
fn so_are_the_rewards_and_labels_of_other_methods() {
    for method in ["dpo", "qrpo", "dro_v"] {
        let run = Run::start("align", &rewarded(8), &[], &[&format!("align.method={method}")]);
        run.changed("train.jsonl", negate, &["the reward of response 0 was 1.0 and is now -1.0"]);
    }
    let run = Run::start("align", &labelled(9), &[], &["align.method=kto"]);
    let flip = |rows: &mut Vec<Value>| {
        rows.iter_mut().for_each(|row| row["label"] = json!(!row["label"].as_bool().unwrap()));
    };
    run.changed("train.jsonl", flip, &["train.jsonl:1: the label of response 0 was undesirable and is now desirable"]);
}

#[test]
fn evaluation_data_count_where_they_choose_the_model() {
    let best = "train.best={ metric = \"eval_loss\", greater_is_better = false, restore = true }";
    let run = Run::start("align", &pairs(8), &pairs(5), &["align.method=dpo", "train.eval_steps=2", best]);
    run.changed(
        "eval.jsonl",
        |rows| rows[1]["rejected"][0]["content"] = json!("Sunday."),
        &["`eval_data.path`", ":2: response 1 changed"],
    );
    let swap = |rows: &mut Vec<Value>| {
        let (chosen, rejected) = (rows[2]["chosen"].clone(), rows[2]["rejected"].clone());
        (rows[2]["chosen"], rows[2]["rejected"]) = (rejected, chosen);
    };
    run.changed("eval.jsonl", swap, &["`eval_data.path`", ":3: response 0 and response 1 changed"]);
}

#[test]
fn margins_and_pairs_of_a_reward_model_count() {
    let run = Run::start("reward", &pairs(8), &pairs(4), &[]);
    run.changed(
        "train.jsonl",
        |rows| rows[7]["margin"] = json!(0.25),
        &["train.jsonl:8: the margin was 0.5 and is now 0.25"],
    );
    run.changed(
        "eval.jsonl",
        |rows| rows[0]["margin"] = json!(1.5),
        &["`eval_data.path`", "the margin was 0.5 and is now 1.5"],
    );
    run.resume(&[]).ok();
}

#[test]
fn the_reference_file_has_checksums() {
    let run = Run::start("align", &pairs(8), &[], &["align.method=dpo"]);
    let file = run.path("run/reference-train.jsonl");
    let before = std::fs::read_to_string(&file).unwrap();
    // One digit of one number.
    let at = before.rfind("response_logp").unwrap() + 20;
    let digit = before[at..].find(|c: char| c.is_ascii_digit()).unwrap() + at;
    let other = if &before[digit..=digit] == "7" { "8" } else { "7" };
    std::fs::write(&file, format!("{}{other}{}", &before[..digit], &before[digit + 1..])).unwrap();
    run.refused(&["reference-train.jsonl", "line"]);

    // Also where somebody makes the line's checksum fit: the checkpoint remembers the numbers.
    let last = before.trim_end().lines().last().unwrap();
    let mut row: Value = serde_json::from_str(last).unwrap();
    row.as_object_mut().unwrap().shift_remove("crc32c");
    row["response_logp"] = json!(-3.25);
    let sum = format!("{:08x}", crc32c(row.to_string().as_bytes()));
    row["crc32c"] = json!(sum);
    std::fs::write(&file, before.replace(last, &row.to_string())).unwrap();
    run.refused(&["the reference log-probabilities in `reference-train.jsonl` changed"]);
    std::fs::write(&file, before).unwrap();
    run.resume(&[]).ok();
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn the_model_the_template_and_the_logs_count() {
    // A model and a tokenizer of its own, to be changed.
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join("model");
    std::fs::create_dir(&own).unwrap();
    for entry in std::fs::read_dir(model()).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), own.join(entry.file_name())).unwrap();
    }
    let (_dir, template) = file(
        "own.jinja",
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    );
    let settings = [format!("model.path={}", own.display()), format!("model.template={template}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).chain(["align.method=dpo"]).collect();
    let run = Run::start("align", &pairs(8), &[], &settings);

    let swap = |path: &Path, change: &dyn Fn(Vec<u8>) -> Vec<u8>, said: &[&str]| {
        let before = std::fs::read(path).unwrap();
        std::fs::write(path, change(before.clone())).unwrap();
        run.refused(said);
        std::fs::write(path, before).unwrap();
    };
    let last_byte = |mut bytes: Vec<u8>| {
        let last = bytes.len() - 1;
        bytes[last - 1] ^= 1;
        bytes
    };
    swap(&own.join("model.safetensors"), &last_byte, &["`model.path`: the weights or the config.json"]);
    let text = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replacen(from, to, 1).into_bytes()
    };
    swap(
        Path::new(&template),
        &text("{{ m.content }}", "{{ m.content }} "),
        &["`model.template`: the chat template", "own.jinja"],
    );
    swap(
        &run.path("run/metrics.jsonl"),
        &text("\"loss\":0", "\"loss\":1"),
        &["metrics.jsonl is damaged", "changed since"],
    );
    swap(&run.path("run/config.toml"), &text("beta = 0.1", "beta = 0.2"), &["beta"]);
    run.resume(&[]).ok();
}

#[test]
fn a_log_that_was_removed_begins_again() {
    let run = Run::start("align", &pairs(8), &[], &["align.method=dpo"]);
    for name in ["run/metrics.jsonl", "run/responses.jsonl"] {
        assert!(std::fs::metadata(run.path(name)).unwrap().len() > 0, "{name}");
        std::fs::remove_file(run.path(name)).unwrap();
    }
    let ran = run.resume(&[]).ok();
    for name in ["metrics.jsonl", "responses.jsonl"] {
        assert!(ran.stderr.contains(&format!("{name} is missing; the run goes on with a new one")), "{ran:#?}");
    }
    assert!(run.path("run/model/model.safetensors").is_file());
    let steps = std::fs::read_to_string(run.path("run/metrics.jsonl")).unwrap();
    assert_eq!(steps.lines().count(), 4, "the steps after the checkpoint: {steps}");

    // One that is shorter than it was is not ours to drop; the error says how to go on.
    run.cut();
    std::fs::write(run.path("run/metrics.jsonl"), "{}\n").unwrap();
    run.resume(&[]).fails(1, &["metrics.jsonl is damaged", "remove it to go on"]);
}

#[test]
fn conversations_count_for_sft() {
    let scratch = [
        format!("model.from_scratch={}", super::fixture::tiny_config().display()),
        format!("model.tokenizer={}", demo("tokenizer").display()),
    ];
    let rows: Vec<Value> = (0..8)
        .map(|i| {
            json!({"messages": [
                {"role": "user", "content": format!("How much is {i} and two?")},
                {"role": "assistant", "content": "The sum is four."},
            ]})
        })
        .collect();
    let run = Run::start("sft", &rows, &rows[..3], &scratch.each_ref().map(String::as_str));
    let other = |rows: &mut Vec<Value>| rows[2]["messages"][1]["content"] = json!("Saturday.");
    run.changed("train.jsonl", other, &["`data.path`", "train.jsonl:3: ", "changed since the run was started"]);
    run.changed("eval.jsonl", other, &["`eval_data.path`", "eval.jsonl:3: "]);
    run.changed("train.jsonl", |rows| rows.reverse(), &["are in another order"]);
    run.resume(&[]).ok();
}
