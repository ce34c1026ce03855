//! `setpoint convert`: files of other tools become settings that a job accepts.

use super::fixture::{demo, file, model, setpoint};

#[test]
fn a_converted_file_is_accepted_by_its_job() {
    let yaml = format!(
        "base_model: {}\nrl: dpo\ndatasets:\n  - path: {}\n    type: chatml.intel\nsequence_len: 200\nmicro_batch_size: 2\n\
         gradient_accumulation_steps: 4\nmax_steps: 3\nlearning_rate: 1e-5\nlr_scheduler: linear\nadapter: lora\nlora_r: 8\n\
         wandb_project: mine\ndataloader_pin_memory: true\nval_set_size: 0.1\noutput_dir: runs/from-yaml\n",
        model().display(),
        demo("preferences.jsonl").display()
    );
    let (folder, input) = file("dpo.yaml", &yaml);
    let output = folder.path().join("dpo.toml");
    let output = output.to_str().unwrap();
    let ran = setpoint(&["convert", &input, "--output", output]).ok();
    assert_eq!(ran.stdout, "");
    for said in ["val_set_size: ", "eval_data.path", "setpoint align", "--run runs/from-yaml --dry-run"] {
        assert!(ran.stderr.contains(said), "expected {said:?} in {}", ran.stderr);
    }
    for said in ["wandb_project: carried over as tracker.kind = \"wandb\"", "pin_memory: it concerns only"] {
        assert!(ran.stderr.contains(said), "expected {said:?} in {}", ran.stderr);
    }
    let text = std::fs::read_to_string(output).unwrap();
    assert!(
        text.starts_with("# Converted from a configuration of axolotl.\n# setpoint align FILE --run runs/from-yaml\n"),
        "{text}"
    );
    let run = folder.path().join("run");
    let ran = setpoint(&["align", output, "--run", run.to_str().unwrap(), "--dry-run"]).ok();
    for said in ["method = \"dpo\"", "batch_size = 8", "steps     3 "] {
        assert!(ran.stdout.contains(said), "expected {said:?} in {}", ran.stdout);
    }
    let two = yaml.replace("sequence_len", "  - path: more.jsonl\n    type: chatml.intel\nsequence_len");
    let (_folder, two) = file("two.yaml", &two);
    let said = setpoint(&["convert", &two]).ok().stderr;
    assert!(said.contains("datasets.type: the format"), "{said}");
    assert!(!said.contains("datasets.type, datasets.type"), "{said}");
    // The file on standard output is the same.
    assert_eq!(setpoint(&["convert", &input]).ok().stdout.trim_end(), text.trim_end());
    std::fs::write(output, "mine").unwrap();
    setpoint(&["convert", &input, "--output", output]).fails(1, &["dpo.toml exists already", "--overwrite"]);
    assert_eq!(std::fs::read_to_string(output).unwrap(), "mine");
    setpoint(&["convert", &input, "--output", output, "--overwrite"]).ok();
    assert_eq!(std::fs::read_to_string(output).unwrap(), text);
}

#[test]
fn files_that_cannot_be_converted_are_one_sentence() {
    let (_folder, ppo) = file("ppo.yaml", "model_name_or_path: m\nstage: ppo\n");
    setpoint(&["convert", &ppo]).fails(2, &["ppo.yaml", "`stage: ppo` samples while it trains"]);
    let (_folder, unclear) = file("x.yaml", "model_name_or_path: m\nlearning_rate: 1e-6\n");
    setpoint(&["convert", &unclear]).fails(2, &["--trainer"]);
    setpoint(&["convert", &unclear, "--trainer", "kto"]).ok();
    setpoint(&["convert", &unclear, "--trainer", "grpo"]).fails(2, &["grpo", "simpo"]);
    setpoint(&["convert", "nowhere.yaml"]).fails(2, &["could not read nowhere.yaml: No such file or directory\n"]);
    let (_folder, no_yaml) = file("bad.yaml", "base_model: [\n");
    setpoint(&["convert", &no_yaml]).fails(2, &["bad.yaml", "not valid YAML"]);
}
