mod adapter_settings;
mod carried;

use std::fmt::Write as _;

use super::*;
use crate::align::AlignConfig;
use crate::config::Given;
use crate::config::load::load_unchecked;
use crate::config::{Foreign, Here};
use crate::reward::RewardConfig;
use crate::sft::SftConfig;

fn converted(text: &str) -> Converted {
    let converted = convert(text, None, None).unwrap();
    loads(&converted);
    converted
}

/// Fails unless the job reads the settings.
#[track_caller]
fn loads(converted: &Converted) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("converted.toml");
    std::fs::write(&file, converted.to_toml().unwrap()).unwrap();
    let given = Given { file: Some(file), ..Given::default() };
    let loaded = match converted.job {
        "sft" => load_unchecked::<SftConfig>(&given).map(drop),
        "reward" => load_unchecked::<RewardConfig>(&given).map(drop),
        _ => load_unchecked::<AlignConfig>(&given).map(drop),
    };
    assert!(loaded.is_ok(), "{}\n{:?}", converted.to_toml().unwrap(), loaded.err());
}

#[track_caller]
fn has(converted: &Converted, expected: &str) {
    fn check(found: &Table, expected: &Table, path: &str) {
        for (key, value) in expected {
            let path = format!("{path}{key}");
            match (found.get(key), value) {
                (Some(Value::Table(found)), Value::Table(value)) => check(found, value, &format!("{path}.")),
                (found, value) => assert_eq!(found, Some(value), "{path}"),
            }
        }
    }
    check(&converted.settings, &expected.parse().unwrap(), "");
}

fn remark<'c>(converted: &'c Converted, name: &str) -> &'c str {
    let remark = converted.remarks.iter().find(|remark| remark.name == name);
    &remark.unwrap_or_else(|| panic!("no remark about {name}: {:#?}", converted.remarks)).text
}

#[test]
fn a_file_of_trls_dpo() {
    let file = converted(
        "
        model_name_or_path: acme/Small-1B
        dtype: bfloat16
        dataset_name: acme/pairs
        dataset_train_split: train_prefs
        dataset_test_split: test_prefs
        loss_type: [sigmoid]
        beta: 0.05
        learning_rate: 5.0e-7
        lr_scheduler_type: cosine
        warmup_ratio: 0.1
        num_train_epochs: 2
        per_device_train_batch_size: 4
        gradient_accumulation_steps: 16
        gradient_checkpointing: true
        max_length: 1536
        optim: adamw_torch
        adam_beta2: 0.98
        bf16: true
        eval_strategy: steps
        eval_steps: 100
        load_best_model_at_end: true
        metric_for_best_model: rewards/accuracies
        save_strategy: steps
        save_steps: 100
        save_total_limit: 3
        logging_steps: 5
        report_to: wandb
        seed: 7
        output_dir: runs/dpo
        ",
    );
    assert_eq!((file.tool, file.job, file.run.as_deref()), (Tool::Trl, "align", Some("runs/dpo")));
    has(
        &file,
        r#"
        model = { path = "acme/Small-1B", dtype = "bf16" }
        data = { path = "acme/pairs", split = "train_prefs" }
        eval_data = { path = "acme/pairs", split = "test_prefs" }
        encode.max_length = 1536
        align = { method = "dpo", beta = 0.05 }
        [train]
        learning_rate = 5e-7
        epochs = 2.0
        batch_size = 64
        micro_batch.examples = 4
        recompute = "block"
        seed = 7
        schedule = { kind = "cosine", warmup = { ratio = 0.1 } }
        optimizer.betas = [0.9, 0.98]
        eval_steps = 100
        save_steps = 100
        keep_last = 3
        logging_steps = 5
        best = { metric = "eval_rewards/accuracies", greater_is_better = true, restore = true }
        "#,
    );
    has(&file, "tracker.kind = \"wandb\"");
    assert_eq!(file.remarks.len(), 1, "{:#?}", file.remarks);
    assert!(remark(&file, "report_to").starts_with("carried over as tracker.kind"), "{:#?}", file.remarks);
}

#[test]
fn what_a_file_leaves_out_is_the_tools_default() {
    let file = converted("model_name_or_path: small\ndataset_name: pairs.jsonl\nbeta: 0.1\n");
    has(
        &file,
        r#"
        encode.max_length = 1024
        align = { method = "dpo", beta = 0.1 }
        train = { learning_rate = 1e-6, epochs = 3.0, batch_size = 8, seed = 42, schedule = { kind = "linear", warmup.steps = 0 } }
        "#,
    );
    let file =
        converted("base_model: small\ndatasets: [{path: chats.jsonl, type: chat_template}]\nlearning_rate: 2e-5\n");
    has(
        &file,
        r#"
        data.path = "chats.jsonl"
        encode.max_length = 512
        train = { learning_rate = 2e-5, epochs = 1.0, batch_size = 1, schedule = { kind = "cosine", warmup.ratio = 0.03 } }
        "#,
    );
    assert_eq!(file.job, "sft");
}

#[test]
fn a_file_of_axolotl_with_what_it_cannot_carry_over() {
    let file = converted(
        "
        base_model: acme/Chat-8B
        model_type: LlamaForCausalLM
        load_in_8bit: true
        load_in_4bit: false
        chat_template: llama3
        rl: dpo
        datasets:
          - path: acme/rated
            type: chat_template.default
            field_messages: conversation
            field_chosen: better
            split: train
          - path: acme/more
        dataset_prepared_path:
        val_set_size: 0.05
        output_dir: ./outputs/lora-out
        sequence_len: 4096
        sample_packing: false
        adapter: lora
        lora_r: 32
        lora_target_linear: true
        wandb_project:
        gradient_accumulation_steps: 4
        micro_batch_size: 2
        num_epochs: 4
        optimizer: adamw_bnb_8bit
        lr_scheduler: cosine
        learning_rate: '0.0002'
        bf16: auto
        tf32: false
        gradient_checkpointing: true
        warmup_ratio: 0.1
        evals_per_epoch: 4
        saves_per_epoch: 1
        weight_decay: 0.0
        special_tokens: {pad_token: <pad>}
        rl_beta: 0.2
        some_plugin_key: 3
        ",
    );
    assert_eq!((file.tool, file.job, file.run.as_deref()), (Tool::Axolotl, "align", Some("./outputs/lora-out")));
    has(
        &file,
        r#"
        model = { path = "acme/Chat-8B", template = "llama3" }
        data.sources = [
            { path = "acme/rated", split = "train", columns = { messages = "conversation", chosen = "better" } },
            { path = "acme/more" },
        ]
        encode.max_length = 4096
        align = { method = "dpo", beta = 0.2 }
        adapter = { rank = 32, alpha = 16.0, targets = "all-linear" }
        train = { learning_rate = 0.0002, epochs = 4.0, batch_size = 8, micro_batch.examples = 2, recompute = "block",
            optimizer.state = "8bit" }
        "#,
    );
    for (name, part) in [
        ("datasets.type", "detected from the columns"),
        ("load_in_8bit", "model.quantize = \"nf4\""),
        ("val_set_size", "eval_data.path"),
        ("evals_per_epoch", "train.eval_steps"),
        ("special_tokens", "tokenizer"),
        ("some_plugin_key", "not known"),
        ("load_in_4bit", "off in the file"),
        ("sample_packing", "rows are always packed"),
        ("model_type", "concerns only"),
        ("tf32", "concerns only"),
    ] {
        assert!(remark(&file, name).contains(part), "{name}: {}", remark(&file, name));
    }
    for silent in ["wandb_project", "dataset_prepared_path", "bf16"] {
        assert!(file.remarks.iter().all(|remark| remark.name != silent), "{silent}");
    }
}

#[test]
fn data_sets_that_are_interleaved_have_weights() {
    let file = |more: &str| {
        converted(&format!("model_name_or_path: m\nstage: sft\ncutoff_len: 8\ndataset: chat, math\n{more}"))
    };
    has(&file(""), "data.sources = [{ path = 'chat' }, { path = 'math' }]");
    let listed = file("");
    assert!(remark(&listed, "dataset").starts_with("`chat`, `math` are names"), "{:?}", listed.remarks);
    has(
        &file("mix_strategy: interleave_over\ninterleave_probs: 0.7, 0.3"),
        "data = { stopping_strategy = 'all_exhausted', sources = [{ path = 'chat', weight = 0.7 }, { path = 'math', weight = 0.3 }] }",
    );
    has(
        &file("mix_strategy: interleave_under"),
        "data.sources = [{ path = 'chat', weight = 1.0 }, { path = 'math', weight = 1.0 }]",
    );
    let wrong = file("mix_strategy: interleave_under\ninterleave_probs: 0.7");
    assert!(remark(&wrong, "interleave_probs").contains("expected 2 numbers, found"), "{:?}", wrong.remarks);
}

#[test]
fn every_trainer_has_its_job() {
    for (text, job, expected) in [
        (
            "base_model: m\nrl: kto\nrl_beta: 0.5\nkto_desirable_weight: 0.2",
            "align",
            "align = { method = \"kto\", beta = 0.5, desirable_weight = 0.2 }",
        ),
        ("base_model: m\nrl: orpo\norpo_alpha: 0.2", "align", "align = { method = \"orpo\", lambda = 0.2 }"),
        ("base_model: m\nrl: ipo", "align", "align = { method = \"ipo\", beta = 0.1 }"),
        (
            "base_model: m\nrl: simpo\nrl_beta: 2.0\nsimpo_gamma: 1.0\ncpo_alpha: 0.0",
            "align",
            "align = { method = \"simpo\", beta = 2.0, gamma_beta_ratio = 0.5, nll_weight = 0.0 }",
        ),
        ("base_model: m\nreward_model: true\ncenter_rewards_coefficient: 0.02", "reward", "center = 0.02"),
        (
            "model_name_or_path: m\nstage: rm\nfinetuning_type: full\ncutoff_len: 700",
            "reward",
            "encode.max_length = 700\ncenter = 0.0",
        ),
        (
            "model_name_or_path: m\nstage: dpo\npref_loss: simpo\nsimpo_gamma: 0.3\npref_beta: 0.6",
            "align",
            "align = { method = \"simpo\", beta = 0.6, gamma_beta_ratio = 0.5 }",
        ),
        ("model_name_or_path: m\nstage: dpo\npref_ftx: 0.5", "align", "align = { method = \"dpo\", nll_weight = 0.5 }"),
        (
            "model_name_or_path: m\nstage: sft\ntemplate: llama3\ntrain_on_prompt: true",
            "sft",
            "model.template = \"llama3\"",
        ),
        ("model_name_or_path: m\npacking: true\nmax_steps: -1", "sft", "train.learning_rate = 2e-5"),
        (
            "model_name_or_path: m\nundesirable_weight: 1.5",
            "align",
            "align = { method = \"kto\", undesirable_weight = 1.5 }",
        ),
        ("model_name_or_path: m\nloss_type: nll", "sft", "train.epochs = 3.0"),
        (
            "model_name_or_path: m\nloss_type: [sigmoid, bco_pair, sft]\nloss_weights: [0.8, 0.2, 1.0]",
            "align",
            "[align]\nmethod = \"mix\"\nnll_weight = 1.0\nlosses = [{ method = \"dpo\", weight = 0.8, beta = 0.1 }, \
             { method = \"bco_pair\", weight = 0.2, beta = 0.1 }]",
        ),
    ] {
        let file = converted(text);
        assert_eq!(file.job, job, "{text}");
        has(&file, expected);
    }
}

#[test]
fn every_loss_of_trl_is_a_method() {
    for loss in [
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sigmoid_norm",
    ] {
        let file = converted(&format!("model_name_or_path: m\nloss_type: {loss}\nlabel_smoothing: 0.05\nbeta: 0.3"));
        assert_eq!(file.settings["align"]["beta"].as_float(), Some(0.3), "{loss}");
    }
}

#[test]
fn wrong_files_are_one_sentence() {
    let bomb = {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let entries = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(text, "a{level}: &a{level} [{entries}]").unwrap();
        }
        text + "base_model: x"
    };
    for (text, part) in [
        ("a: b: c", "not valid YAML"),
        ("base_model: a\nbase_model: b", "not valid YAML"),
        (&bomb, "not valid YAML"),
        (&"[".repeat(100_000), "not valid YAML"),
        (&"# much\n".repeat(200_000), "at most"),
        ("- a\n- b", "expected `key: value` lines"),
        ("", "expected `key: value` lines"),
        ("learning_rate: 1", "none of the known tools"),
        ("model_name_or_path: m\nlearning_rate: 1e-6", "--trainer dpo"),
        ("base_model: m\nrl: grpo", "`rl: grpo` samples while it trains"),
        ("model_name_or_path: m\nstage: ppo", "`stage: ppo` samples while it trains"),
        ("base_model: m\nrl: gdpo", "`rl: gdpo` does not exist here"),
    ] {
        let started = std::time::Instant::now();
        let sentence = convert(text, None, None).unwrap_err().sentence();
        assert!(sentence.contains(part) && !sentence.contains('\n'), "{sentence}");
        assert!(started.elapsed().as_secs() < 20, "{part}");
    }
    let said = convert("model_name_or_path: m\nlearning_rate: 1e-6", None, Some(Trainer::Sft)).unwrap();
    assert_eq!(said.job, "sft");
}

#[test]
fn values_that_cannot_be_read_are_remarks() {
    let file = converted(
        "base_model: m\nlearning_rate: fast\nnum_epochs: [1]\nmicro_batch_size: none\nseed: -3\nlr_scheduler: rex\nwarmup_steps: 10\n\
         gradient_checkpointing: offload\ndataloader_drop_last: maybe\nlogging_steps: 0.5\ndatasets: {}\n",
    );
    let names: Vec<&str> = file.remarks.iter().map(|remark| remark.name.as_str()).collect();
    for name in [
        "learning_rate",
        "num_epochs",
        "micro_batch_size",
        "seed",
        "lr_scheduler",
        "dataloader_drop_last",
        "logging_steps",
        "datasets",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    has(&file, "train = { recompute = \"block\", schedule.warmup.steps = 10 }");
}

/// Returns the page with `table` in the place of the one below a heading.
fn with_table(page: &str, heading: &str, table: &str) -> String {
    let (before, rest) = page.split_once(heading).unwrap();
    let (_, after) = rest.trim_start().split_once("\n\n").unwrap();
    format!("{before}{heading}\n\n{table}\n{after}")
}

#[test]
fn the_docs_have_the_same_names() {
    let code = |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut carried = "| Setpoint | trl | axolotl | LLaMA-Factory |\n|---|---|---|---|\n".to_owned();
    let mut lost = "| not carried over | reason |\n|---|---|\n".to_owned();
    for group in FOREIGN.chunk_by(|one, next| one.goes_with(next)) {
        let names = group.iter().map(|foreign| foreign.name).collect();
        match group[0].carry {
            Carry::Lost(reason) => writeln!(lost, "| {} | {reason} |", code(names)).unwrap(),
            Carry::Dropped => {}
            _ => {
                let here = |foreign: &Foreign| match foreign.here {
                    Here::Flag(flag) => Some(flag),
                    _ => foreign.setting(),
                };
                let mut ours: Vec<&str> = Vec::new();
                for key in group.iter().filter_map(here) {
                    if !ours.contains(&key) {
                        ours.push(key);
                    }
                }
                let ours = if ours.is_empty() { "not needed".to_owned() } else { code(ours) };
                let of_tool = |tool| group.iter().filter(move |foreign| foreign.tools.contains(&tool));
                let [trl, axolotl, llama] = TOOLS.map(|tool| code(of_tool(tool).map(|foreign| foreign.name).collect()));
                writeln!(carried, "| {ours} | {trl} | {axolotl} | {llama} |").unwrap();
            }
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/COMING_FROM.md");
    let page = std::fs::read_to_string(path).unwrap();
    let expected = with_table(&page, "## Names side by side", &carried);
    let expected = with_table(&expected, "## Not carried over", &lost);
    if std::env::var_os("SETPOINT_WRITE_DOCS").is_some() {
        std::fs::write(path, &expected).unwrap();
        return;
    }
    let differs = expected.lines().zip(page.lines()).find(|(new, old)| new != old);
    assert!(page == expected, "docs/COMING_FROM.md is not current (`just settings` writes it): {differs:#?}");
}

#[test]
fn optimizers_of_eight_bits_keep_them() {
    let with = |name: &str| converted(&format!("model_name_or_path: m\nloss_type: [sigmoid]\noptim: {name}"));
    for name in ["adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"] {
        has(&with(name), r#"train.optimizer.state = "8bit""#);
    }
    for (name, said) in [("paged_adamw_32bit", "a quarter of the memory"), ("sgd", "the optimizer is AdamW")] {
        assert!(remark(&with(name), "optim").contains(said), "{name}");
    }
    assert!(with("adamw_torch").remarks.iter().all(|remark| remark.name != "optim"));
}
