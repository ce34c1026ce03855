//! The model card, the number format of saved models, and the mirror of a run.

use std::fs;
use std::path::Path;

use super::fixture::{Ran, model, rewarded_rows, setpoint, setpoint_owned, sft_arguments, tiny_config};

fn trained(run: &Path, more: &[&str]) -> Ran {
    let mut arguments = sft_arguments(run, 4);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    setpoint_owned(&arguments)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_finished_run_leaves_a_card_that_a_user_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("first");
    trained(&run, &[]).ok();
    let path = run.join("model/README.md");
    let card = read(&path);
    for expected in [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- setpoint\n- sft\n---\n",
        "\n# SFT\n",
        "It began with random weights.",
        "`setpoint sft`, 4 steps",
        "| train.batch_size | 8 |",
        "| training | sft.jsonl | ",
        "setpoint chat --model MODEL",
    ] {
        assert!(card.contains(expected), "{expected}\n{card}");
    }
    let place = tiny_config().parent().unwrap().display().to_string();
    assert!(!card.contains(&place) && !card.contains(&dir.path().display().to_string()), "{card}");
    // A run that writes its model again writes the same card, and leaves one that was changed.
    fs::remove_file(run.join("model/model.safetensors")).unwrap();
    setpoint(&["sft", "--run", &run.display().to_string(), "--resume", "--quiet"]).ok();
    assert_eq!(read(&path), card);
    fs::write(&path, "# Mine\n").unwrap();
    let ran = setpoint(&["sft", "--run", &run.display().to_string(), "--resume", "--quiet"]).ok();
    assert!(ran.stderr.contains("is finished"), "{ran:#?}");
    fs::remove_file(run.join("model/model.safetensors")).unwrap();
    let ran = setpoint(&["sft", "--run", &run.display().to_string(), "--resume", "--quiet"]).ok();
    assert!(ran.stderr.contains("README.md stays as it is"), "{ran:#?}");
    assert_eq!(read(&path), "# Mine\n");
}

#[test]
fn an_adapter_and_its_merge_have_cards_with_the_bases_licence() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    fs::create_dir(&base).unwrap();
    for entry in fs::read_dir(model()).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), base.join(entry.file_name())).unwrap();
    }
    fs::write(base.join("README.md"), "---\nlicense: apache-2.0\n---\n# The base\n").unwrap();
    let (rows, run, merged) = (dir.path().join("rows.jsonl"), dir.path().join("run"), dir.path().join("merged"));
    fs::write(&rows, rewarded_rows(8)).unwrap();
    let text = |path: &Path| path.display().to_string();
    let data = text(&rows);
    let evaluated = format!("eval_data.path={data}");
    setpoint(&[
        "align",
        "--quiet",
        "--run",
        &text(&run),
        "--model",
        &text(&base),
        "--data",
        &data,
        "--set",
        "align.log_z0=2",
        "--set",
        "adapter.rank=2",
        "--set",
        "train.max_steps=1",
        "--set",
        "train.batch_size=4",
        "--set",
        &evaluated,
    ])
    .ok();
    let card = read(&run.join("model/README.md"));
    for expected in [
        "library_name: peft\nlicense: apache-2.0\n",
        "- dro\n- lora\n",
        "# base, DRO\n",
        "| adapter.rank | 2 |",
        "| evaluation | rows.jsonl | 8 | ",
        "The evaluation after step 1",
        "| eval_loss | ",
        "AutoPeftModelForCausalLM",
    ] {
        assert!(card.contains(expected), "{expected}\n{card}");
    }
    assert!(!card.contains(&text(dir.path())), "{card}");
    setpoint(&["merge", "--model", &text(&run.join("model")), "--output", &text(&merged)]).ok();
    let card = read(&merged.join("README.md"));
    for expected in ["library_name: transformers\nlicense: apache-2.0\n", "- merge\n", "| adapter.rank | 2 |"] {
        assert!(card.contains(expected), "{expected}\n{card}");
    }
}

#[test]
fn a_change_of_the_number_format_is_chosen_or_told() {
    let dir = tempfile::tempdir().unwrap();
    let format = |run: &Path| {
        let config: serde_json::Value = serde_json::from_str(&read(&run.join("model/config.json"))).unwrap();
        config["dtype"].as_str().or_else(|| config["torch_dtype"].as_str()).unwrap().to_owned()
    };
    let half = dir.path().join("half");
    trained(&half, &["--set", "train.save_dtype=bf16"]).ok();
    assert_eq!(format(&half), "bfloat16");
    let rows = dir.path().join("rows.jsonl");
    fs::write(&rows, rewarded_rows(8)).unwrap();
    let on_half = |name: &str, more: &[&str]| {
        let run = dir.path().join(name);
        let (model, data) = (half.join("model").display().to_string(), rows.display().to_string());
        let arguments =
            ["align", "--quiet", "--device", "flex", "--run", &run.display().to_string(), "--model", &model];
        let settings = ["--data", &data, "--set", "align.log_z0=2", "--set", "train.max_steps=1"];
        (setpoint(&[&arguments[..], &settings, more].concat()), run)
    };
    let (ran, run) = on_half("auto", &[]);
    let said =
        "the model is saved in f32 as it is trained, and its base is in bf16: train.save_dtype=base keeps that format";
    assert!(ran.ok().stderr.contains(said));
    assert_eq!(format(&run), "float32");
    let (ran, run) = on_half("base", &["--set", "train.save_dtype=base"]);
    assert!(!ran.ok().stderr.contains("keeps that format"));
    assert_eq!(format(&run), "bfloat16");
    let (ran, _) = on_half("adapter", &["--set", "adapter.rank=2", "--set", "train.save_dtype=base"]);
    ran.fails(2, &["train.save_dtype", "setpoint merge --dtype"]);
    let (ran, _) = on_half("wrong", &["--set", "train.save_dtype=int8"]);
    ran.fails(2, &["train.save_dtype"]);
}

#[test]
fn a_run_whose_folder_is_gone_goes_on_from_its_mirror() {
    let dir = tempfile::tempdir().unwrap();
    let [run, mirror] = ["run", "mirror"].map(|name| dir.path().join(name));
    let mirrored = format!("train.mirror={}", mirror.display());
    let more = ["--set", "train.save_steps=2", "--set", mirrored.as_str()];
    trained(&run, &more).ok();
    let weights = fs::read(run.join("model/model.safetensors")).unwrap();
    assert!(mirror.join("config.toml").is_file() && !mirror.join("model").exists());
    // Without --resume, the mirror holds a run.
    fs::remove_dir_all(&run).unwrap();
    trained(&run, &more).fails(2, &["train.mirror", "go on with it by --resume"]);
    fs::remove_dir_all(mirror.join("checkpoints/step-00000004")).unwrap();
    let ran = trained(&run, &[&more[..], &["--resume"]].concat()).ok();
    assert!(ran.stderr.contains("is gone: it is restored from its mirror"), "{ran:#?}");
    assert!(ran.stderr.contains("going on from step 2 of 4"), "{ran:#?}");
    assert!(weights == fs::read(run.join("model/model.safetensors")).unwrap());
    assert!(mirror.join("checkpoints/step-00000004").is_dir());
}

#[test]
fn a_mirror_in_the_wrong_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let at = |place: &Path| format!("train.mirror={}", place.display());
    trained(&run, &["--set", &at(&run)]).fails(2, &["train.mirror", "is the run folder itself"]);
    trained(&run, &["--set", &at(&run.join("copy"))]).fails(2, &["train.mirror", "is in the run folder"]);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    trained(&run, &["--set", &at(&file)]).fails(2, &["train.mirror", "is a file: expected a folder"]);
    trained(&run, &["--set", "train.mirror="]).fails(2, &["train.mirror"]);
    let rows = dir.path().join("rows.jsonl");
    fs::write(&rows, rewarded_rows(8)).unwrap();
    let (model, rows) = (model().display().to_string(), rows.display().to_string());
    let many = |job: &str| {
        let mirror = at(&dir.path().join("mirror"));
        let [model, rows] = [format!("model.path={model}"), format!("data.path={rows}")];
        setpoint(&[job, "--dry-run", "--set", &model, "--set", &rows, "--set", &mirror])
    };
    many("sweep").fails(2, &["train.mirror", "a mirror is the copy of one run"]);
    many("compare").fails(2, &["train.mirror", "a mirror is the copy of one run"]);
}

#[test]
fn a_run_that_keeps_no_optimizer_says_that_it_cannot_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    trained(&run, &["--set", "train.save_only_model=true", "--set", "train.save_steps=2"]).ok();
    let newest = run.join("checkpoints/step-00000004");
    assert!(!newest.join("optimizer.safetensors").exists());
    // Finished, it needs none; before its end, it does.
    fs::remove_file(run.join("model/model.safetensors")).unwrap();
    let resume = || setpoint(&["sft", "--run", &run.display().to_string(), "--resume", "--quiet"]);
    resume().ok();
    fs::remove_dir_all(&newest).unwrap();
    fs::remove_dir_all(run.join("model")).unwrap();
    resume().fails(1, &["holds no optimizer, as `train.save_only_model` asked for"]);
}
