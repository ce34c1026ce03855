//! Settings that are out of range or misspelt: exit code 2, all at once, in words for users. And what `--quiet` leaves.

use super::fixture::{demo, file, model, rewarded_rows, setpoint};

const RULE: [&str; 6] = ["--set", "rule.kind=length", "--set", "rule.unit=chars", "--set", "rule.target=6"];

/// Every job with a sampling section, with that section's name.
fn sampling_jobs(data: &str) -> Vec<(Vec<String>, &'static str)> {
    let policy = model().display().to_string();
    let owned = |arguments: &[&str]| arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let base = ["--model", &policy, "--data", data];
    let out = ["--output", "never-written"];
    vec![
        (owned(&[&["generate"], &base[..]].concat()), "generate"),
        (owned(&["chat", "--model", &policy]), "generate"),
        (owned(&[&["sft", "--dry-run"], &base[..]].concat()), "samples.generate"),
        (owned(&[&["align", "--dry-run"], &base[..]].concat()), "samples.generate"),
        (owned(&[&["eval", "--set", &format!("baseline.path={policy}")], &base[..], &RULE].concat()), "generate"),
        (owned(&[&["eval", "alpaca", "--model", &policy, "--baseline", data], &out[..]].concat()), "generate"),
        (owned(&[&["eval", "mt-bench", "--model", &policy, "--questions", data], &out[..]].concat()), "generate"),
        (owned(&["eval", "tasks", "--model", &policy, "--data", data, "--tasks", "arc_easy"]), "generate"),
        (owned(&[&["sweep", "--dry-run"], &base[..]].concat()), "eval.generate"),
        (owned(&[&["compare", "--dry-run"], &base[..]].concat()), "eval.generate"),
    ]
}

#[test]
fn sampling_settings_out_of_range_are_usage_errors_of_every_job() {
    let (_dir, data) = file("rows.jsonl", &rewarded_rows(2));
    for (arguments, section) in sampling_jobs(&data) {
        let wrong = [
            ("temperature", "-1"),
            ("top_p", "2"),
            ("top_k", "0"),
            ("repetition_penalty", "0"),
            ("max_new_tokens", "0"),
            ("batch_size", "0"),
        ];
        let settings: Vec<String> = wrong.iter().map(|(key, value)| format!("{section}.{key}={value}")).collect();
        let mut command: Vec<&str> = arguments.iter().map(String::as_str).collect();
        settings.iter().for_each(|setting| command.extend(["--set", setting]));
        let said: Vec<String> = wrong.iter().map(|(key, _)| format!("`{section}.{key}` must be")).collect();
        setpoint(&command).fails(2, &said.iter().map(String::as_str).collect::<Vec<_>>());
        for (key, value) in [
            ("temperature", "nan"),
            ("temperature", "inf"),
            ("top_p", "nan"),
            ("top_p", "0"),
            ("repetition_penalty", "-inf"),
        ] {
            let mut command: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let setting = format!("{section}.{key}={value}");
            command.extend(["--set", &setting]);
            setpoint(&command).fails(2, &[&format!("`{section}.{key}` must be"), value]);
        }
    }
}

#[test]
fn rules_out_of_range_are_usage_errors() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(2));
    let out = dir.path().join("out.jsonl").display().to_string();
    let policy = model().display().to_string();
    let own = format!("baseline.path={policy}");
    let annotate = ["annotate", "--data", &data, "--output", &out];
    let eval = ["eval", "--model", &policy, "--data", &data, "--set", &own];
    for command in [&annotate[..], &eval] {
        for (settings, said) in [
            (&["rule.kind=length", "rule.unit=words", "rule.target=3", "rule.penalty=-1"][..], "`rule.penalty`"),
            (&["rule.kind=length", "rule.unit=words", "rule.min=5", "rule.max=3"], "`rule.min`"),
            (&["rule.kind=regex", "rule.pattern=("], "`rule.pattern` is no valid regular expression: unclosed group"),
            (&["rule.kind=contains", "rule.words=[]"], "`rule.words`"),
            (&["rule.kind=regexp", "rule.pattern=a"], "did you mean `regex`?"),
            // The kind is right, and the setting next to it is named.
            (
                &["rule.kind=length", "rule.unit=word", "rule.max=3"],
                "`rule.unit` must be \"words\", \"chars\" or \"tokens\"; found \"word\"",
            ),
            (&["rule.kind=length", "rule.unit=words", "rule.max=x"], "`rule.max`: expected a whole number"),
            (&["rule.kind=contains", "rule.words=[\"a\"]", "rule.foo=1"], "`rule.foo` is not a setting"),
        ] {
            let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
            setpoint(&[command, &settings[..]].concat()).fails(2, &[said]);
        }
    }
    // In a file, with its line and together with other problems.
    let (_config, config) = file(
        "rules.toml",
        "batch_tokens = 0\n[rule]\nkind = \"sum\"\n[[rule.terms]]\nweight = nan\nrule = { kind = \"contains\", words = [] }\n",
    );
    setpoint(&["annotate", &config, "--data", &data, "--output", &out])
        .fails(2, &["rules.toml:1", "`batch_tokens`", "`rule.terms[0].weight`", "`rule.terms[0].rule.words`"]);
}

#[test]
fn choices_show_their_forms() {
    for (setting, said) in [
        ("align.error=huber", &["`align.error` must be", "\"mse\"", "{ huber = NUMBER }", "found \"huber\""][..]),
        ("align.error=mes", &["\"mse\", { huber = NUMBER } or \"mae\"", "found \"mes\""]),
        ("align.error=3", &["\"mse\", { huber = NUMBER } or \"mae\"", "found 3"]),
        ("align.error={huber=\"x\"}", &["{ huber = NUMBER }", "found { huber = \"x\" }"]),
        ("align.prompt_term=clip", &["\"full\"", "\"off\"", "{ clip = NUMBER }"]),
        ("align.aggregate=per_promt", &["did you mean `per_prompt`?"]),
        ("train.micro_batch=tokens", &["{ examples = WHOLE_NUMBER } or { tokens = WHOLE_NUMBER }"]),
        ("train.schedule.kind=cosin", &["did you mean `cosine`?"]),
        ("model.dtype=bf32", &["\"auto\", \"f32\", \"bf16\" or \"f16\""]),
        ("train.batch_size=many", &["expected a whole number, 0 or greater, found \"many\""]),
        ("train.learning_rate=fast", &["expected a number, found \"fast\""]),
        ("train.drop_last=perhaps", &["expected true or false, found \"perhaps\""]),
    ] {
        let ran = setpoint(&["align", "--dry-run", "--set", setting]);
        for word in ["variant", "newtype", "usize", "f64", "invalid type"] {
            assert!(!ran.stderr.contains(word), "{setting}: {ran:#?}");
        }
        ran.fails(2, said);
    }
}

#[test]
fn lengths_out_of_range_are_usage_errors() {
    for job in ["sft", "reward", "align", "logps", "annotate", "eval"] {
        for key in ["encode.max_length", "encode.max_prompt_length"] {
            setpoint(&[job, "--dry-run", "--set", &format!("{key}=0")])
                .fails(2, &[&format!("`{key}` must be at least 1")]);
        }
    }
}

#[test]
fn suggestions_are_for_misspellings_alone() {
    let suggests = |arguments: &[&str], meant: Option<&str>| {
        let ran = setpoint(arguments);
        assert_eq!(ran.code, 2, "{ran:#?}");
        match meant {
            Some(meant) => assert!(ran.stderr.contains(&format!("did you mean `{meant}`?")), "{ran:#?}"),
            None => assert!(!ran.stderr.contains("did you mean"), "{ran:#?}"),
        }
    };
    for (name, meant) in [("ppo", None), ("grpo", None), ("sipmo", Some("simpo")), ("IPOO", None)] {
        suggests(&["align", "--dry-run", "--set", &format!("align.method={name}")], meant);
        suggests(&["compare", "--dry-run", "--set", &format!("compare.methods=[\"{name}\"]")], meant);
    }
    suggests(&["align", "--dry-run", "--set", "train.learningrate=1"], Some("train.learning_rate"));
    suggests(&["align", "--dry-run", "--set", "train.loss=1"], None);
}

#[test]
fn quiet_hides_progress_and_nothing_else() {
    let policy = model().display().to_string();
    let long = "word ".repeat(400);
    let row = |text: &str| serde_json::json!({"prompt": [{"role": "user", "content": text}], "responses": ["Saturday.", "No."], "rewards": [1.0, 0.0]});
    let rows: String =
        [row("Which day?"), row(&long), row(&long), row(&long)].map(|row| row.to_string() + "\n").concat();
    let (dir, data) = file("rows.jsonl", &rows);
    let limit = ["--set", "encode.max_length=64", "--set", "encode.max_prompt_length=48"];
    let output = dir.path().join("logps.jsonl").display().to_string();
    for command in [&["sft", "--dry-run"][..], &["align", "--dry-run"], &["logps", "--output", &output]] {
        let ran = setpoint(&[command, &["--quiet", "--model", &policy, "--data", &data], &limit[..]].concat()).ok();
        assert!(ran.stderr.contains("1 of 4 rows kept") && ran.stderr.contains("3 dropped"), "{command:?}: {ran:#?}");
    }
    // Rows that cannot be read at all.
    let (_bad, bad) = file("bad.jsonl", &(rewarded_rows(3) + "{\"prompt\": 1}\n"));
    let drop = ["--set", "data.on_bad_row=drop"];
    let scored = dir.path().join("scored.jsonl").display().to_string();
    let annotate = [&["annotate", "--quiet", "--data", &bad, "--output", &scored], &RULE[..], &drop].concat();
    let ran = setpoint(&annotate).ok();
    assert!(ran.stderr.contains("1 of 4 rows") && ran.stderr.contains("bad.jsonl:4"), "{ran:#?}");
    // With everything in order there is nothing to say.
    let prompts = demo("eval_prompts.jsonl").display().to_string();
    let ran = setpoint(&[
        "generate",
        "--quiet",
        "--model",
        &policy,
        "--data",
        &prompts,
        "--set",
        "data.max_rows=1",
        "--dry-run",
    ])
    .ok();
    assert!(ran.stderr.is_empty(), "{ran:#?}");
}

#[test]
fn other_spellings_of_names_are_the_names() {
    let (_dir, data) = file("rows.jsonl", &rewarded_rows(4));
    let policy = model().display().to_string();
    let dry = ["--dry-run", "--device", "CPU", "--model", &policy, "--data", &data];
    let ran = setpoint(
        &[
            &["align"],
            &dry[..],
            &["--set", "align.method=SimPO", "--set", "model.dtype=Float32", "--set", "train.schedule.kind=Linear"],
        ]
        .concat(),
    )
    .ok();
    for said in ["method = \"simpo\"", "dtype = \"f32\"", "kind = \"linear\""] {
        assert!(ran.stdout.contains(said), "{said}: {ran:#?}");
    }
    // Also a method within a method.
    let losses = "align.losses=[{method=\"DPO\",weight=1.0},{method=\"exo-pair\",weight=0.5}]";
    let ran = setpoint(&[&["align"], &dry[..], &["--set", "align.method=Mix", "--set", losses]].concat()).ok();
    assert!(ran.stdout.contains("\"exo_pair\""), "{ran:#?}");
    // A misspelling is none.
    setpoint(&["align", "--dry-run", "--set", "train.schedule.kind=Liner"]).fails(2, &["did you mean `linear`?"]);
}

#[test]
fn settings_are_found_wherever_they_belong() {
    for (setting, said) in [
        ("learning_rate=1", "did you mean `train.learning_rate`?"),
        ("lerning_rate=1", "did you mean `train.learning_rate`?"),
        ("data.max_legnth=9", "did you mean `encode.max_length`?"),
        ("per_device_train_batch_size=4", "here it is `train.micro_batch`"),
        ("train.gradient_checkpointing=true", "train.recompute = \"block\""),
        ("output_dir=x", "--run DIR"),
        ("train.sequence_len=9", "here it is `encode.max_length`"),
        ("lora_r=8", "here it is `adapter.rank`"),
        // A setting of another job: not this job's.
        ("num_return_sequences=3", "`num_return_sequences` is not a setting; there are: model"),
    ] {
        setpoint(&["sft", "--dry-run", "--set", setting]).fails(2, &[said]);
    }
    for (flag, said) in [
        ("--learning_rate", "--set train.learning_rate=VALUE"),
        ("--per_device_train_batch_size", "here it is `train.micro_batch`"),
        ("--gradient_checkpointing", "train.recompute = \"block\""),
        ("--output_dir", "--run DIR"),
        ("--load_in_4bit", "here it is `model.quantize`"),
        ("--load_in_8bit", "model.quantize = \"nf4\""),
        ("--optim", "here it is `train.optimizer.state`"),
        // Settings that are not set by default, and one of another job.
        ("--eval_dataset", "here it is `eval_data.path`"),
        ("--early_stopping_patience", "here it is `train.best.patience`"),
        ("--num_return_sequences", "`setpoint inspect config align` lists them"),
    ] {
        setpoint(&["align", flag, "8"]).fails(2, &[said]);
    }
}

#[test]
fn commands_that_do_not_exist_are_answered_with_those_that_do() {
    setpoint(&["dpo", "--model", "x"]).fails(2, &["setpoint align", "--set align.method=dpo"]);
    setpoint(&["rlhf"]).fails(2, &["--set align.method=rlhf"]);
    setpoint(&["xpo"]).fails(2, &["online method", "setpoint methods"]);
    setpoint(&["GRPO"]).fails(2, &["--set align.method=grpo"]);
    setpoint(&["train", "x.toml"]).fails(2, &["setpoint sft"]);
    setpoint(&["align", "--dry-run", "--set", "align.method=XPO"]).fails(2, &["online method"]);
    setpoint(&["align", "--dry-run", "--set", "align.method=PPO"]).fails(2, &["`ppo`", "set `rounds`"]);
    setpoint(&["compare", "--dry-run", "--set", "compare.methods=[\"rlhf\"]"])
        .fails(2, &["`ppo` trains on responses that the policy samples"]);
}

#[test]
fn no_hidden_command_is_suggested() {
    for typed in ["train", "trial", "trail", "tria", "run", "carry", "search", "training"] {
        let ran = setpoint(&[typed]);
        assert_eq!(ran.code, 2, "{ran:#?}");
        assert!(!ran.stderr.contains("'@'") && !ran.stderr.contains("exists: 'trial'"), "{typed}: {ran:#?}");
    }
    // What is shown is suggested.
    setpoint(&["evla"]).fails(2, &["eval"]);
}
