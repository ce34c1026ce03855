//! Every setting of a file is carried over or named.

use super::{converted, has, remark};
use crate::config::FOREIGN;
use crate::convert::{Converted, convert};

/// The least file of each tool and job.
const LEAST: [&str; 6] = [
    "model_name_or_path: m\nloss_type: [sigmoid]\n",
    "model_name_or_path: m\nloss_type: nll\n",
    "base_model: m\n",
    "base_model: m\nrl: kto\n",
    "model_name_or_path: m\nstage: sft\ncutoff_len: 8\n",
    "model_name_or_path: m\nstage: rm\nfinetuning_type: full\n",
];

/// Values of names that are a tool's default.
const DEFAULTS: [(&str, &str); 4] =
    [("max_steps", "0"), ("num_train_epochs", "3"), ("warmup_steps", "0"), ("warmup_ratio", "0")];

/// Returns whether a file says something of a name, or has other settings with it.
fn is_answered(name: &str, with: &Converted, without: &Converted) -> bool {
    let section = format!("{name}.");
    with.remarks.iter().any(|remark| remark.name == name || remark.name.starts_with(&section))
        || with.settings != without.settings
        || with.run != without.run
        || with.job != without.job
}

#[test]
fn no_setting_is_dropped_in_silence() {
    // The trainer follows from these, and with it the job.
    let of_trainer = ["rl", "loss_type", "pref_loss", "dpo_loss_type"];
    let names = FOREIGN.iter().map(|known| known.name.replace('*', "x")).chain(["no_such_name".to_owned()]);
    let mut checked = 0;
    for name in names.filter(|name| !of_trainer.contains(&name.as_str()) && !name.contains('.')) {
        for least in LEAST.iter().filter(|least| !least.contains(&format!("{name}:"))) {
            let without = convert(least, None, None).unwrap();
            for value in ["true", "false", "0", "3", "0.25", "some", "[a, b]", "{a: 1}"] {
                // What the tool does anyway is in the settings as well, without the name.
                if DEFAULTS.contains(&(name.as_str(), value)) {
                    continue;
                }
                // A file that is refused is not silent.
                let Ok(with) = convert(&format!("{least}{name}: {value}\n"), None, None) else { continue };
                assert!(is_answered(&name, &with, &without), "{least}{name}: {value}\n{with:#?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 5_000, "{checked}");
}

#[test]
fn columns_of_whole_texts_are_carried_over() {
    let trl = |field: &str| {
        converted(&format!(
            "model_name_or_path: m\ndataset_name: d\ndataset_text_field: {field}\nlearning_rate: 1e-5\n"
        ))
    };
    let named = trl("content");
    has(&named, "data = { path = 'd', columns = { text = 'content' } }");
    assert_eq!(named.job, "sft");
    assert!(named.remarks.iter().all(|remark| remark.name != "dataset_text_field"), "{:?}", named.remarks);
    has(&trl("text"), "data = { path = 'd' }");
    let axolotl =
        |more: &str| converted(&format!("base_model: m\ndatasets:\n  - {{path: d, type: completion{more}}}\n"));
    has(&axolotl(", field: content"), "data = { path = 'd', columns = { text = 'content' } }");
    has(&axolotl(", field: text"), "data = { path = 'd' }");
    let pt = converted("model_name_or_path: m\nstage: pt\ncutoff_len: 8\ndataset: c4_demo\n");
    assert_eq!(pt.job, "sft");
    has(&pt, "data.path = 'c4_demo'");
}

#[test]
fn parts_of_sections_and_data_sets_are_named() {
    let file = converted(
        "base_model: m\nrl: kto\ntrl: {beta: 0.3, use_vllm: true}\ndatasets:\n  - {path: json, data_files: [a.jsonl, b.jsonl]}\n  \
         - {path: c.jsonl, ds_type: json, split: [train]}\n  - {type: chatml}\n  - d.jsonl\n",
    );
    has(&file, "align.beta = 0.3");
    let two = "data.sources = [{ path = 'json' }, { path = 'c.jsonl' }]";
    has(&file, two);
    for (name, part) in [
        ("trl.use_vllm", "not known here"),
        ("datasets.data_files", "name the files themselves"),
        ("datasets.ds_type", "follows from its name"),
        ("datasets.split", "expected a text"),
        ("datasets", "entry 3 has no `path`"),
    ] {
        assert!(remark(&file, name).contains(part), "{name}: {:#?}", file.remarks);
    }
    assert!(file.remarks.iter().all(|remark| remark.name != "trl"), "{:#?}", file.remarks);
}

#[test]
fn names_that_lose_against_another_are_named() {
    let file = converted("model_name_or_path: m\nloss_type: [sigmoid]\nmax_length: 9\nmax_seq_length: 12\n");
    has(&file, "encode.max_length = 9");
    assert!(remark(&file, "max_seq_length").contains("no setting follows"), "{:#?}", file.remarks);
    let file = converted("model_name_or_path: m\nstage: sft\ndataset: chat\ndataset_dir: elsewhere\n");
    assert!(remark(&file, "dataset_dir").contains("no setting follows"), "{:#?}", file.remarks);
}

#[test]
fn trackers_are_carried_over_with_their_names() {
    let trl = |more: &str| converted(&format!("model_name_or_path: m\nloss_type: [sigmoid]\n{more}"));
    has(
        &trl("report_to: [tensorboard, trackio, wandb]\nrun_name: r\nproject: p\n"),
        "tracker = { kind = 'trackio', name = 'r', project = 'p' }",
    );
    for (value, said) in [
        ("tensorboard", "every run writes TensorBoard files"),
        ("[comet_ml]", "no tracker `comet_ml`"),
        ("all", "one tracker"),
        ("3", "expected names of trackers"),
    ] {
        let file = trl(&format!("report_to: {value}\nrun_name: r\n"));
        assert!(remark(&file, "report_to").contains(said), "{value}: {:#?}", file.remarks);
        assert!(remark(&file, "run_name").contains("no setting follows"), "{:#?}", file.remarks);
        assert!(!file.settings.contains_key("tracker"), "{:?}", file.settings);
    }
    assert!(trl("report_to: none\n").remarks.is_empty());
    let odd = trl("report_to: mlflow\nproject: a/b\n");
    has(&odd, "tracker.kind = 'mlflow'");
    assert!(remark(&odd, "project").contains("a name that tracker.project can have"), "{:#?}", odd.remarks);

    let axolotl = |more: &str| converted(&format!("base_model: m\n{more}"));
    has(
        &axolotl("wandb_project: p\nwandb_name: r\nmlflow_experiment_name: e\n"),
        "tracker = { kind = 'wandb', project = 'p', name = 'r' }",
    );
    has(
        &axolotl("use_mlflow: true\nmlflow_experiment_name: e\nmlflow_run_name: r\nmlflow_tracking_uri: file:x\n"),
        "tracker = { kind = 'mlflow', project = 'e', name = 'r' }",
    );
    has(
        &axolotl("use_trackio: true\ntrackio_project_name: p\ntrackio_run_name: r\n"),
        "tracker = { kind = 'trackio', project = 'p', name = 'r' }",
    );
    let both = axolotl("use_mlflow: true\nwandb_project: p\n");
    has(&both, "tracker = { kind = 'wandb', project = 'p' }");
    assert!(remark(&both, "use_mlflow").contains("one tracker"), "{:#?}", both.remarks);
    has(
        &converted("model_name_or_path: m\nstage: sft\nreport_to: wandb\nrun_name: r\n"),
        "tracker = { kind = 'wandb', name = 'r' }",
    );
}
