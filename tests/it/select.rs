//! `setpoint select`: the rows that it writes are those that the rewards say, and the next job reads them.

use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{Ran, demo, file, model, rewarded_rows, setpoint};

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| row.to_string() + "\n").collect()
}

/// The file and the messages of a selection.
struct Selected {
    rows: Vec<Value>,
    said: String,
}

fn selecting(data: &str, output: &Path, arguments: &[&str]) -> Ran {
    let output = output.display().to_string();
    setpoint(&[&["select", "--data", data, "--output", &output][..], arguments].concat())
}

/// Selects from rows, which must succeed.
#[track_caller]
fn select(rows: &str, arguments: &[&str]) -> Selected {
    let (dir, data) = file("rows.jsonl", rows);
    let output = dir.path().join("out.jsonl");
    let dry = selecting(&data, &output, &[arguments, &["--dry-run"]].concat()).ok();
    assert!(!output.exists(), "{dry:#?}");
    let said = selecting(&data, &output, arguments).ok().stderr;
    let text = std::fs::read_to_string(&output).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    // The same again, byte for byte.
    selecting(&data, &output, &[arguments, &["--overwrite"]].concat()).ok();
    assert_eq!(std::fs::read_to_string(&output).unwrap(), text);
    Selected { rows: text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), said }
}

/// Selects from rows, which must fail with this code and say all of this. A file that was there stays.
#[track_caller]
fn fails(rows: &str, arguments: &[&str], code: i32, said: &[&str]) {
    let (dir, data) = file("rows.jsonl", rows);
    let output = dir.path().join("out.jsonl");
    selecting(&data, &output, &[arguments, &["--dry-run"]].concat()).fails(code, said);
    std::fs::write(&output, "mine\n").unwrap();
    selecting(&data, &output, &[arguments, &["--overwrite"]].concat()).fails(code, said);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "mine\n");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
}

/// A prompt of text with four responses, and a conversation with three.
fn both() -> String {
    lines(&[
        json!({"prompt": "Two?", "responses": ["Two.", "2", "Nine.", "Two. "], "rewards": [1.0, 0.5, -1.0, 0.75], "id": 7}),
        json!({
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Day?"}],
            "responses": ["Saturday.", {"role": "assistant", "content": "Friday."}, "No."],
            "rewards": [2.0, 3.0, 0.0],
            "labels": ["chosen", "rejected", null],
            "tools": [{"type": "function", "function": {"name": "add"}}],
        }),
    ])
}

#[test]
fn the_best_becomes_an_sft_row_with_prompt_and_columns() {
    let selected = select(&both(), &[]);
    let tools = json!([{"type": "function", "function": {"name": "add"}}]);
    let expected = [
        json!({"prompt": "Two?", "completion": "Two.", "reward": 1.0, "id": 7}),
        json!({
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Day?"},
                {"role": "assistant", "content": "Friday."},
            ],
            "reward": 3.0,
            "tools": tools,
        }),
    ];
    assert_eq!(selected.rows, expected);
    assert!(selected.said.contains("2 SFT rows from 2 of 2 prompts written to"), "{}", selected.said);
    assert!(selected.said.contains("1 of 7 responses repeat another one"), "{}", selected.said);
}

/// The responses of SFT rows.
fn texts(selected: &Selected) -> Vec<String> {
    let text = |row: &Value| match row.get("messages").and_then(Value::as_array) {
        Some(turns) => turns.last().unwrap()["content"].as_str().unwrap().to_owned(),
        None => row["completion"].as_str().unwrap().to_owned(),
    };
    selected.rows.iter().map(text).collect()
}

#[test]
fn each_rule_selects_its_responses() {
    assert_eq!(texts(&select(&both(), &["--keep", "best"])), ["Two.", "Friday."]);
    let top = select(&both(), &["--set", "keep.top=2"]);
    assert_eq!(texts(&top), ["Two.", "2", "Saturday.", "Friday."], "in the order of the file");
    let above = select(&both(), &["--set", "keep={above=0.9}"]);
    assert_eq!(texts(&above), ["Two.", "Saturday.", "Friday."]);
    let above = select(&both(), &["--set", "keep.above=1"]);
    assert_eq!(texts(&above), ["Saturday.", "Friday."]);
    assert!(above.said.contains("1 prompt without a reward above 1; the first: "), "{}", above.said);
    assert!(above.said.contains("rows.jsonl:1") && above.said.contains("from 1 of 2 prompts"), "{}", above.said);
    let all = select(&both(), &["--keep", "all"]);
    assert_eq!(texts(&all), ["Two.", "2", "Nine.", "Saturday.", "Friday.", "No."]);
    let all = select(&both(), &["--keep", "all", "--set", "deduplicate=false"]);
    assert_eq!(texts(&all)[..4], ["Two.", "2", "Nine.", "Two. "]);
}

#[test]
fn pairs_are_the_best_and_the_worst_or_every_two() {
    let selected = select(&both(), &["--to", "pairs"]);
    let prompt = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Day?"}]);
    assert_eq!(
        selected.rows[0],
        json!({"prompt": "Two?", "chosen": "Two.", "rejected": "Nine.", "reward_chosen": 1.0, "reward_rejected": -1.0, "id": 7})
    );
    assert_eq!(selected.rows[1]["prompt"], prompt);
    assert_eq!(selected.rows[1]["chosen"], json!([{"role": "assistant", "content": "Friday."}]));
    assert_eq!(selected.rows[1]["rejected"], json!([{"role": "assistant", "content": "No."}]));
    assert!(selected.said.contains("2 pairs from 2 of 2 prompts"), "{}", selected.said);

    let every = select(&both(), &["--to", "pairs", "--keep", "all", "--set", "min_margin=1.5"]);
    let sides: Vec<_> =
        every.rows.iter().map(|row| (row["reward_chosen"].as_f64(), row["reward_rejected"].as_f64())).collect();
    let pair = |chosen: f64, rejected: f64| (Some(chosen), Some(rejected));
    assert_eq!(sides, [pair(1.0, -1.0), pair(0.5, -1.0), pair(3.0, 0.0), pair(2.0, 0.0)]);

    let far = select(&both(), &["--to", "pairs", "--set", "min_margin=2.5"]);
    assert_eq!(far.rows.len(), 1);
    assert!(far.said.contains("1 prompt without two rewards that differ by 2.5"), "{}", far.said);
}

#[test]
fn pointwise_rows_keep_rewards_and_lose_labels() {
    let selected = select(&both(), &["--to", "pointwise", "--keep", "best_worst"]);
    assert_eq!(
        selected.rows[0],
        json!({"prompt": "Two?", "responses": ["Two.", "Nine."], "rewards": [1.0, -1.0], "id": 7})
    );
    assert_eq!(selected.rows[1]["responses"], json!(["Friday.", "No."]));
    assert!(selected.rows[1].get("labels").is_none() && selected.rows[1].get("tools").is_some());
    let all = select(&both(), &["--to", "pointwise"]);
    assert_eq!(all.rows[0]["rewards"], json!([1.0, 0.5, -1.0]));
}

#[test]
fn a_length_penalty_changes_the_choice_and_the_written_rewards() {
    let characters = select(&both(), &["--to", "pointwise", "--set", "length_penalty=0.25"]);
    // "Two." 1 - 1, "2" 0.5 - 0.25, "Nine." -1 - 1.25.
    assert_eq!(characters.rows[0]["rewards"], json!([0.0, 0.25, -2.25]));
    let best = select(&both(), &["--set", "length_penalty=0.25"]);
    assert_eq!(texts(&best), ["2", "Friday."]);
    let words = select(&both(), &["--to", "pointwise", "--set", "length_penalty=0.25", "--set", "length_unit=words"]);
    assert_eq!(words.rows[0]["rewards"], json!([0.75, 0.25, -1.25]));
    let tokenizer = format!("tokenizer={}", demo("tokenizer").display());
    let row = json!({"prompt": "p", "responses": ["The sum is four.", "Saturday."], "rewards": [2.0, 1.0]});
    let arguments =
        ["--to", "pointwise", "--set", "length_penalty=0.5", "--set", "length_unit=tokens", "--set", &tokenizer];
    let tokens = select(&lines(&[row]), &arguments);
    // The | sum | is | four | . | stop, and S | atur | day | . | stop.
    assert_eq!(tokens.rows[0]["rewards"], json!([2.0 - 3.0, 1.0 - 2.5]));
}

#[test]
fn the_next_jobs_read_what_is_written() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(4));
    let policy = model().display().to_string();
    for (to, jobs) in [("sft", &["sft"][..]), ("pairs", &["align", "reward"]), ("pointwise", &["align"])] {
        let output = dir.path().join(format!("{to}.jsonl"));
        selecting(&data, &output, &["--to", to]).ok();
        let output = output.display().to_string();
        for job in jobs {
            let mut arguments = vec![*job, "--model", &policy, "--data", &output, "--dry-run"];
            if to == "pairs" && *job == "align" {
                arguments.extend(["--set", "align.method=dpo"]);
            }
            let ran = setpoint(&arguments).ok();
            assert!(ran.stdout.contains("steps"), "{ran:#?}");
        }
    }
}

#[test]
fn other_formats_and_bad_rows() {
    // A preference with scores and single scored responses are rows with rewards, too.
    let preference = json!({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 4});
    let selected = select(&lines(&[preference]), &["--to", "pairs"]);
    assert_eq!(selected.rows[0]["chosen"], "b", "the rewards decide, whatever the labels say");
    let single = |reward: f64| json!({"prompt": "p", "completion": "c", "reward": reward});
    let selected = select(&lines(&[single(1.0), single(-1.0)]), &["--set", "keep.above=0"]);
    assert_eq!(selected.rows, [single(1.0)]);

    let good = json!({"prompt": "p", "responses": ["a", "b"], "rewards": [1, 2]});
    let bad = json!({"prompt": "p", "responses": ["a", "b"], "rewards": [1, null]});
    let rows = lines(&[good, bad.clone()]);
    fails(&rows, &[], 1, &["rows.jsonl:2", "`rewards[1]`: missing reward", "setpoint annotate"]);
    let selected = select(&rows, &["--set", "data.on_bad_row=drop"]);
    assert_eq!(selected.rows.len(), 1);
    assert!(selected.said.contains("1 of 2 rows are bad and left out; the first: "), "{}", selected.said);
    fails(&lines(&[bad]), &["--set", "data.on_bad_row=drop"], 1, &["none of the 1 row of", "missing reward"]);
}

#[test]
fn rows_that_cannot_be_selected_from_are_named() {
    let row =
        |responses: Value, rewards: Value| lines(&[json!({"prompt": "p", "responses": responses, "rewards": rewards})]);
    let unscored = lines(&[json!({"prompt": "p", "responses": ["a", "b"]})]);
    fails(&unscored, &[], 1, &["rows.jsonl:1", "missing reward", "setpoint annotate"]);
    fails(&row(json!(["a", "b"]), json!(["NaN", 1])), &[], 1, &["rows.jsonl:1", "`rewards[0]` is NaN"]);
    let bare = "{\"prompt\": \"p\", \"responses\": [\"a\", \"b\"], \"rewards\": [NaN, 1]}\n";
    fails(bare, &[], 1, &["rows.jsonl:1", "NaN and Infinity are not JSON"]);
    let pairs = ["--to", "pairs"];
    fails(
        &row(json!(["a"]), json!([1])),
        &pairs,
        1,
        &["nothing is selected of the 1 row", "1 prompt with a single response", "generate.samples=4"],
    );
    // Equal responses are one.
    fails(&row(json!(["a", " a"]), json!([1, 2])), &pairs, 1, &["1 prompt with a single response"]);
    fails(&row(json!(["a", "b"]), json!([1, 1])), &pairs, 1, &["1 prompt with equal rewards"]);
    fails(&row(json!(["a"]), json!([1])), &["--set", "keep.above=1"], 1, &["without a reward above 1", "keep.above"]);
    fails(&lines(&[json!({"prompt": "p"})]), &[], 1, &["1 prompt without responses", "setpoint generate"]);
    let calls = json!([{"role": "assistant", "content": "a", "tool_calls": [{"function": {"name": "add"}}]}]);
    fails(&row(json!([calls]), json!([1])), &[], 1, &["rows.jsonl:1", "calls tools needs a prompt of messages"]);
    let system = ["--set", "data.system=Be brief."];
    fails(&both(), &system, 1, &["rows.jsonl:1", "`data.system`", "data.text_prompts=user"]);
    let mut sampled = json!({"prompt": "p", "responses": ["a", "b"], "rewards": [1, 2]});
    sampled["reference_rewards"] = json!([1, 2, 3, 4, 5, 6, 7, 8]);
    let penalty = ["--to", "pointwise", "--set", "length_penalty=1"];
    fails(&lines(&[sampled]), &penalty, 1, &["rows.jsonl:1", "`reference_rewards`"]);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let rows = both();
    let tokenizer = format!("tokenizer={}", demo("tokenizer").display());
    for (arguments, said) in [
        (&["--to", "pairs", "--keep", "best"][..], "a pair has a better and a worse response"),
        (&["--to", "pairs", "--set", "keep.top=2"], "a pair has a better and a worse response"),
        (&["--keep", "best_worst"], "SFT would learn the worst response"),
        (&["--set", "keep.top=0"], "`top` must be at least 1"),
        (&["--set", "keep.above=inf"], "`above` must be a finite number"),
        (&["--set", "length_penalty=-1"], "must be a finite number, 0 or greater"),
        (&["--set", "length_penalty=nan"], "must be a finite number, 0 or greater"),
        (&["--to", "pairs", "--set", "min_margin=-0.5"], "must be a finite number, 0 or greater"),
        (&["--set", "min_margin=1"], "only pairs have a margin"),
        (&["--set", "length_unit=tokens"], "tokens are counted by a tokenizer"),
        (&["--set", &tokenizer], "no tokens are counted"),
        (&["--keep", "bestt"], "did you mean `best`?"),
        (&["--to", "dpo"], "`to` must be"),
        (&["--set", "data.responses=best"], "setting of `setpoint sft`"),
    ] {
        fails(&rows, arguments, 2, &[said]);
    }
    setpoint(&["select", "--output", "out.jsonl"]).fails(2, &["no data"]);
}

/// Settings of samples that a rule scores.
const SAMPLING: [&str; 6] = [
    "generate.temperature=1",
    "generate.max_new_tokens=6",
    "generate.seed=3",
    "reward.rule.kind=length",
    "reward.rule.unit=chars",
    "reward.rule.target=9",
];

/// Prompts, and the arguments that sample three responses to each.
fn sampling(data: &str, output: &Path, more: &[&str]) -> Ran {
    let policy = model().display().to_string();
    let set: Vec<&str> = SAMPLING.iter().flat_map(|setting| ["--set", setting]).collect();
    selecting(data, output, &[&["--samples", "3", "--model", &policy][..], &set, more].concat())
}

#[test]
fn samples_are_drawn_scored_and_selected_as_by_three_commands() {
    let prompts =
        lines(&(0..4).map(|i| json!({"prompt": format!("How much is {i} and two?"), "id": i})).collect::<Vec<_>>());
    let (dir, data) = file("prompts.jsonl", &prompts);
    let at = |name: &str| dir.path().join(name);
    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    let dry = sampling(&data, &at("best.jsonl"), &["--dry-run"]).ok();
    assert!(
        dry.stdout.contains("4 prompts, 3 samples each") && dry.stdout.contains("rewards by `reward.rule`"),
        "{dry:#?}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is written");
    let ran = sampling(&data, &at("best.jsonl"), &[]).ok();
    assert!(ran.stderr.contains("4 SFT rows from 4 of 4 prompts written to"), "{ran:#?}");
    // The same by three commands.
    let policy = model().display().to_string();
    let [samples, rewards] = ["s.jsonl", "r.jsonl"].map(|name| at(name).display().to_string());
    let generate: Vec<&str> = SAMPLING[..3].iter().flat_map(|setting| ["--set", setting]).collect();
    setpoint(
        &[
            &["generate", "--model", &policy, "--data", &data, "--output", &samples, "--set", "generate.samples=3"][..],
            &generate,
        ]
        .concat(),
    )
    .ok();
    let rule: Vec<&str> =
        SAMPLING[3..].iter().flat_map(|setting| ["--set", setting.strip_prefix("reward.").unwrap()]).collect();
    setpoint(&[&["annotate", "--data", &samples, "--output", &rewards][..], &rule].concat()).ok();
    selecting(&rewards, &at("by_three.jsonl"), &[]).ok();
    assert_eq!((read("best.samples.jsonl"), read("best.rewards.jsonl")), (read("s.jsonl"), read("r.jsonl")));
    assert_eq!(read("best.jsonl"), read("by_three.jsonl"));
    assert_eq!(read("best.jsonl").lines().count(), 4);
    // What was sampled is not sampled again.
    std::fs::remove_file(at("best.jsonl")).unwrap();
    sampling(&data, &at("best.jsonl"), &[])
        .fails(1, &["best.samples.jsonl is there from an earlier command", "--continue"]);
    std::fs::remove_file(at("best.rewards.jsonl")).unwrap();
    let again = sampling(&data, &at("best.jsonl"), &["--continue"]).ok();
    assert!(again.stderr.contains("best.samples.jsonl is complete: nothing is left to do"), "{again:#?}");
    assert_eq!(read("best.jsonl"), read("by_three.jsonl"));
    let other = ["--continue", "--set", "generate.seed=4"];
    std::fs::remove_file(at("best.jsonl")).unwrap();
    sampling(&data, &at("best.jsonl"), &other).fails(1, &["was begun with something else", "seed"]);
}

#[test]
fn settings_of_samples_need_samples_and_a_source_of_rewards() {
    let (dir, data) = file("prompts.jsonl", "{\"prompt\": \"p\"}\n");
    let policy = model().display().to_string();
    let refuses =
        |arguments: &[&str], said: &[&str]| selecting(&data, &dir.path().join("out.jsonl"), arguments).fails(2, said);
    refuses(&["--model", &policy], &["`model` is for responses that are sampled: give --samples N"]);
    refuses(&["--set", "generate.seed=1"], &["`generate` is for responses that are sampled"]);
    let rule: Vec<&str> = SAMPLING[3..].iter().flat_map(|setting| ["--set", setting]).collect();
    refuses(&rule, &["`reward` is for responses that are sampled"]);
    refuses(&["--samples", "2", "--model", &policy], &["no source of rewards for the sampled responses"]);
    refuses(&[&["--samples", "2"][..], &rule].concat(), &["no model"]);
    refuses(&["--samples", "2", "--model", &policy, "--set", "reward.column=score"], &["a column has no rewards"]);
    refuses(&["--samples", "0", "--model", &policy], &["`generate.samples` must be at least 1"]);
}

#[test]
fn a_file_is_replaced_only_when_asked() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let output = dir.path().join("out.jsonl");
    let run = |arguments: &[&str]| selecting(&data, &output, arguments);
    // A script that always goes on works from the first time.
    run(&["--continue"]).ok();
    let whole = std::fs::read_to_string(&output).unwrap();
    assert_eq!(whole.lines().count(), 3);
    std::fs::write(&output, "mine\n").unwrap();
    for arguments in [&[][..], &["--dry-run"], &["--continue"], &["--continue", "--dry-run"]] {
        run(arguments).fails(1, &["exists already", "--overwrite"]);
    }
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "mine\n");
    run(&["--overwrite"]).ok();
    assert_eq!(std::fs::read_to_string(&output).unwrap(), whole);
    // Nor is the data.
    selecting(&data, Path::new(&data), &["--overwrite"]).fails(2, &["is the data"]);
    assert_eq!(std::fs::read_to_string(&data).unwrap(), rewarded_rows(3));
}

/// The peak memory of a selection from so many rows of 256 KiB, in bytes.
#[cfg(target_os = "linux")]
fn peak(rows: usize) -> u64 {
    let long = format!("{} ", "x".repeat(63)).repeat(4096);
    let row = json!({"prompt": "p", "responses": [long, "b"], "rewards": [1, 2]}).to_string() + "\n";
    let (dir, data) = file("rows.jsonl", &row.repeat(rows));
    let output = dir.path().join("out.jsonl").display().to_string();
    let mut arguments = vec!["select", "--quiet", "--data", &data, "--output", &output];
    arguments.extend(["--set", "keep=all"]);
    let mut child = super::fixture::command(&arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        most = most.max(peak.unwrap_or(0) << 10);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 2 * rows);
    most
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_file() {
    let (few, many) = (peak(20), peak(220));
    // The 200 rows more take 50 MiB.
    assert!(few > 0 && many < few + (24 << 20), "{few} and {many} bytes for 20 and 220 rows of 256 KiB");
}
