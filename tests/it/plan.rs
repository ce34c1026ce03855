//! `setpoint plan`: precision, devices that are not there, whether a job fits; and the warning of a job that does not.

use std::path::Path;

use serde_json::Value;

use super::fixture::{Ran, demo, file, model, rewarded_rows, setpoint};
use super::rounds::{SHORT, prompts};

/// The plan of a job as JSON.
fn plan(job: &str, data: &str, more: &[&str]) -> Value {
    serde_json::from_str(&planned(job, data, &[&["--json"], more].concat()).ok().stdout).unwrap()
}

fn planned(job: &str, data: &str, more: &[&str]) -> Ran {
    let model = model().display().to_string();
    setpoint(&[&["plan", "--job", job, "--model", &model, "--data", data], more].concat())
}

fn bytes(plan: &Value, part: &str) -> f64 {
    plan["memory"][part].as_f64().unwrap_or_else(|| panic!("{part} in {plan}"))
}

#[test]
fn the_precision_of_the_weights_counts() {
    let (_dir, data) = file("rows.jsonl", &rewarded_rows(4));
    for job in ["sft", "align"] {
        let of = |dtype: &str| plan(job, &data, &["--set", &format!("model.dtype={dtype}")]);
        let (f32, bf16, f16) = (of("f32"), of("bf16"), of("f16"));
        assert_eq!(["f32", "bf16", "f16"], [&f32, &bf16, &f16].map(|plan| plan["dtype"].as_str().unwrap()));
        // A parameter: 4 + 4 + 8 bytes in f32; 2, 4 of its gradient, 8 of moments and 4 of a master copy in bf16.
        let parameters = bytes(&f32, "weights") / 4.0;
        for (plan, weights, optimizer) in [(&f32, 4.0, 8.0), (&bf16, 2.0, 12.0), (&f16, 2.0, 12.0)] {
            assert_eq!(bytes(plan, "weights"), weights * parameters, "{plan}");
            assert_eq!(bytes(plan, "gradients"), 4.0 * parameters, "{plan}");
            assert_eq!(bytes(plan, "optimizer"), optimizer * parameters, "{plan}");
        }
        assert_eq!(bytes(&bf16, "activations"), bytes(&f32, "activations") / 2.0);
    }
    // On a GPU that computes in it, `auto` is the checkpoint's own precision: f32 here. On a CPU it is f32 always.
    let auto = |device: &str| plan("align", &data, &["--device", device])["dtype"].as_str().unwrap().to_owned();
    assert_eq!([auto("cuda"), auto("flex")], ["f32", "f32"]);
}

#[test]
fn devices_need_not_be_there_and_memory_is_compared() {
    let (_dir, data) = file("rows.jsonl", &rewarded_rows(4));
    let gpu = plan("align", &data, &["--device", "cuda:0,1", "--device-memory", "80GiB"]);
    assert_eq!(gpu["available"].as_f64(), Some(80.0 * f64::from(1u32 << 30)));
    assert_eq!((&gpu["fits"], &gpu["devices"]), (&true.into(), &2.into()));
    // Just enough, and a byte too little.
    let peak = gpu["peak"].as_f64().unwrap();
    let with = |bytes: f64| {
        plan("align", &data, &["--device", "cuda:0,1", "--device-memory", &format!("{bytes:.0}")])["fits"].clone()
    };
    assert_eq!((with(peak.ceil()), with(peak.floor() - 1.0)), (true.into(), false.into()));
    // Other numbers of devices are compared as well: the more there are, the less each has to hold.
    let compared: Vec<&Value> = gpu["on_devices"].as_array().unwrap().iter().collect();
    let counts: Vec<u64> = compared.iter().map(|on| on["devices"].as_u64().unwrap()).collect();
    assert_eq!((counts, &compared[1]["peak"]), (vec![1, 2, 8, 16], &gpu["peak"]));
    let peaks: Vec<f64> = compared.iter().map(|on| on["peak"].as_f64().unwrap()).collect();
    assert!(peaks[0] > peaks[1] && peaks.is_sorted_by(|a, b| a >= b), "{peaks:?}");
    let text = planned("align", &data, &["--device", "cuda", "--device-memory", &format!("{:.0}", peaks[1].ceil())])
        .ok()
        .stdout;
    assert!(text.contains("devices   about this much at once on each of 1: "), "{text}");
    assert!(text.contains(", does not fit; 2: ") && text.contains(", fits; 8: "), "{text}");
    assert!(!planned("align", &data, &["--device", "flex"]).ok().stdout.contains("devices   "));
    for device in ["cuda", "wgpu:3", "remote:gpu1:3000"] {
        let unknown = plan("sft", &data, &["--device", device]);
        assert_eq!((&unknown["fits"], &unknown["available"]), (&Value::Null, &Value::Null), "{device}");
        let text = planned("sft", &data, &["--device", device]).ok().stdout;
        assert!(text.contains("--device-memory 80GiB"), "{text}");
    }
    let text = planned("reward", &demo("preferences.jsonl").display().to_string(), &["--device-memory", "1MiB"]).ok();
    assert!(text.stdout.contains("fits      no"), "{text:#?}");
    if Path::new("/proc/meminfo").exists() {
        let here = plan("align", &data, &["--device", "flex"]);
        assert_eq!(here["fits"], true, "{here}");
        assert!(here["available"].as_f64().unwrap() > here["peak"].as_f64().unwrap(), "{here}");
    }
    planned("align", &data, &["--device", "tpu"]).fails(2, &["--device", "tpu"]);
    for size in ["80XB", "0", "-1GiB", "lots"] {
        planned("align", &data, &[&format!("--device-memory={size}")]).fails(2, &["--device-memory", "80GiB"]);
    }
}

#[test]
fn a_job_that_will_not_fit_says_so_before_it_starts() {
    let (dir, rows) = file("rows.jsonl", &rewarded_rows(4));
    let (model, pairs) = (model().display().to_string(), demo("preferences.jsonl").display().to_string());
    for (job, data) in [("sft", &rows), ("reward", &pairs), ("align", &rows)] {
        for (memory, warns) in [("1MiB", true), ("1TiB", false)] {
            let run = dir.path().join(format!("{job}-{warns}")).display().to_string();
            let mut arguments = vec![job, "--quiet", "--model", &model, "--data", data, "--run", &run];
            arguments.extend(["--device-memory", memory]);
            for setting in ["train.max_steps=1", "train.batch_size=2", "data.max_rows=4"] {
                arguments.extend(["--set", setting]);
            }
            // It is an estimate: the job is tried all the same.
            let ran = setpoint(&arguments).ok();
            assert_eq!(ran.stderr.contains("warning: this training needs about"), warns, "{job} {memory}: {ran:#?}");
        }
    }
}

/// Steps and memory of an alignment have one place: `sweep` says of a trial what `plan` says of the same training.
#[test]
fn a_sweep_counts_steps_as_the_plan_does() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(6));
    let each = |bytes: f64| format!("each about {}", ::setpoint::session::memory::size(bytes));
    for (settings, steps) in [
        // Six prompts one by one, three epochs; in batches of 128.
        (&["align.update=per_prompt"][..], 18),
        (&["align.update=batch"], 3),
        // Eighteen responses in batches of nine.
        (&["align.method=dro_v", "train.batch_size=9"], 6),
    ] {
        let mut set = vec![];
        settings.iter().for_each(|setting| set.extend(["--set", setting]));
        let planned = plan("align", &data, &set);
        assert_eq!(planned["steps"].as_u64(), Some(steps), "{settings:?}: {planned}");
        let config = dir.path().join("sweep.toml");
        let text = format!(
            "model.path = '{}'\ndata.path = '{data}'\n[eval]\ndata.path = '{}'\nrule = {{ kind = \"length\", unit = \"chars\", target = 6 }}\n\
             [sweep.settings]\n\"align.beta\" = [0.5]\n",
            model().display(),
            demo("eval_prompts.jsonl").display(),
        );
        std::fs::write(&config, text).unwrap();
        let config = config.display().to_string();
        let ran = setpoint(&[&["sweep", &config, "--dry-run"], &set[..]].concat()).ok();
        assert!(ran.stdout.contains(&format!("000  {steps} steps")), "{settings:?}: {}", ran.stdout);
        assert!(ran.stdout.contains(&each(planned["peak"].as_f64().unwrap())), "{settings:?}: {}", ran.stdout);
    }
}

/// `setpoint plan --rounds N` plans the training of `align --rounds N`.
#[test]
fn rounds_are_planned_by_a_flag() {
    let (_dir, data) = file("prompts.jsonl", &rewarded_rows(6));
    let rule = ["--set", "reward.rule.kind=length", "--set", "reward.rule.target=6", "--set", "reward.rule.unit=chars"];
    let sets = ["align.method=dpo", "rollout.prompts=6", "rollout.max_new_tokens=8", "train.batch_size=3"];
    let rollout: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let model = model().display().to_string();
    let arguments = [&["plan", "--rounds", "5", "--model", &model, "--data", &data][..], &rule, &rollout].concat();
    let ran = setpoint(&[&arguments[..], &["--json"]].concat()).ok();
    let planned: Value = serde_json::from_str(&ran.stdout).unwrap();
    // A round has two batches of three pairs.
    assert_eq!((planned["steps"].as_u64(), planned["rounds"]["rounds"].as_u64()), (Some(10), Some(5)), "{planned}");
    assert!(setpoint(&arguments).ok().stdout.contains("5 of 6 prompts with 2 responses each"));
    // A server needs no memory here.
    let server = setpoint(&[&arguments[..], &["--json", "--set", "rollout.server.model=m"]].concat()).ok();
    let server: Value = serde_json::from_str(&server.stdout).unwrap();
    assert_eq!(server["rounds"]["cache"].as_f64(), Some(0.0), "{server}");
    setpoint(&["plan", "--job", "sft", "--rounds", "5", "--model", &model, "--data", &data]).fails(2, &["rounds"]);
}

/// Time and memory of a round, from the models that sample, score and train.
#[test]
fn every_method_in_rounds_is_planned_by_what_it_computes() {
    let (_dir, data) = file("prompts.jsonl", &prompts(6));
    let of = |more: &[&str]| {
        let common = ["rounds=5", "rollout.prompts=6", "rollout.samples=4", "rollout.epochs_per_round=2"];
        let more = common.iter().chain(SHORT).chain(&["rollout.max_new_tokens=8"]).chain(more);
        let sets: Vec<&str> = more.flat_map(|setting| ["--set", *setting]).collect();
        plan("align", &data, &sets)
    };
    let number = |plan: &Value, key: &str| plan["rounds"][key].as_f64().unwrap_or_else(|| panic!("{key} in {plan}"));
    // A model of the policy's size: the responses that it trains on, the models that score besides the policy, and those that train.
    for (settings, trained, scoring, training) in [
        (&["align.method=ppo"][..], 24.0, 2.0, 2.0),
        (&["align.method=reinforce_pp"], 24.0, 1.0, 1.0),
        (&["align.method=rloo"], 24.0, 1.0, 1.0),
        (&["align.method=grpo", "align.beta=0.1"], 24.0, 1.0, 1.0),
        (&["align.method=grpo", "rollout.log_kl=false"], 24.0, 0.0, 1.0),
        (&["align.method=dpo"], 12.0, 1.0, 1.0),
        (&["align.method=dpo", "align.pairs=all"], 72.0, 1.0, 1.0),
        (&["align.method=nll", "rollout.log_kl=false"], 6.0, 0.0, 1.0),
        // Its baseline is of other prompts' responses, which the reference scores as well.
        (&["align.method=kto"], 24.0, 2.0, 1.0),
        (&["align.method=rpo", "reference=previous"], 12.0, 0.0, 1.0),
        (&["align.method=dro"], 24.0, 1.0, 1.0),
        (&["align.method=dro", "reference=previous"], 24.0, 0.0, 1.0),
    ] {
        let planned = of(settings);
        let parameters = planned["trained"].as_f64().unwrap() / training;
        let prompts = planned["tokens"].as_f64().unwrap() - 8.0 * trained;
        let plain = of(&["align.method=rloo"])["tokens"].as_f64().unwrap() - 8.0 * 24.0;
        assert_eq!(prompts, plain, "{settings:?}: {planned}");
        // Generation and the policy's own pass, then the others; a pair of the demo's models differs by a head of one row.
        let sampling = 5.0 * 2.0 * (prompts + 8.0 * 24.0) * parameters * (2.0 + scoring);
        let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.01;
        assert!(close(number(&planned, "operations"), sampling), "{settings:?}: {planned}, {sampling}");
        // Two passes over each of five rounds: six operations a parameter and token, or eight if blocks are computed again.
        let steps = planned["operations"].as_f64().unwrap() - sampling;
        let each = steps / (10.0 * parameters * training * (prompts + 8.0 * trained));
        assert!(close(each, 6.0) || close(each, 8.0), "{settings:?}: {each}, {planned}");
    }
    // The reference stays, or is read while a round is scored, or shares its weights with the policy.
    let sizes = |more: &[&str]| {
        let planned = of(&[&["align.method=dpo"][..], more].concat());
        ["kept", "scoring"].map(|key| number(&planned, key))
    };
    let parameters = of(&["align.method=dpo"])["trained"].as_f64().unwrap();
    assert_eq!(sizes(&[]), [parameters; 2]);
    assert_eq!(sizes(&["rollout.keep=reload"]), [0.0, parameters]);
    assert_eq!(sizes(&["adapter.rank=2"]), [0.0; 2]);
    assert_eq!(sizes(&["adapter.rank=2", "rollout.keep=reload"]), [0.0; 2]);
    assert_eq!(sizes(&["reference=previous"]), [0.0; 2]);
    // A run that ends earlier samples less.
    let (whole, half) = (of(&["align.method=dpo"]), of(&["align.method=dpo", "train.max_steps=5"]));
    assert_eq!((number(&half, "rounds"), number(&whole, "rounds")), (3.0, 5.0));
    let ratio = number(&half, "operations") / number(&whole, "operations");
    assert!((ratio - 0.6).abs() < 1e-9, "{ratio}");
}

/// A preset in a sweep's list brings its settings; what stands beside it wins.
#[test]
fn a_preset_can_be_swept() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(4));
    let config = dir.path().join("sweep.toml");
    let write = |settings: &str| {
        let text = format!(
            "model.path = '{}'\ndata.path = '{data}'\n[train]\nmax_steps = 1\nbatch_size = 4\n[eval]\ndata.path = '{}'\ndata.max_rows = 2\n\
             rule = {{ kind = \"length\", unit = \"chars\", target = 6 }}\ngenerate = {{ max_new_tokens = 2 }}\nresamples = 100\n\
             [sweep.settings]\n{settings}",
            model().display(),
            demo("eval_prompts.jsonl").display(),
        );
        std::fs::write(&config, text).unwrap();
    };
    write("\"align.preset\" = [\"paper\"]\n\"align.log_z0\" = [\"keep_chosen\"]\n");
    let (path, run) = (config.display().to_string(), dir.path().join("sweep").display().to_string());
    setpoint(&["sweep", &path, "--quiet", "--run", &run]).ok();
    let trial = dir.path().join("sweep/trials/000/align.toml");
    let trial: toml::Table = std::fs::read_to_string(trial).unwrap().parse().unwrap();
    assert_eq!(trial["align"]["log_z0"].as_str(), Some("keep_chosen"));
    assert_eq!(trial["align"]["prompt_term"].as_str(), Some("full"));

    write("\"align.preset\" = [\"papers\"]\n");
    setpoint(&["sweep", &path, "--dry-run"]).fails(2, &[".toml:", "`papers` is not a preset"]);
}
