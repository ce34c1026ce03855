//! Several data sets: weights, limits, exact resume, and errors that name the data set.

use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{Ran, file, model, rewarded_rows, setpoint, setpoint_owned};

fn chats(name: &str, rows: usize) -> String {
    let row = |i: usize| {
        let messages = json!([{"role": "user", "content": format!("{name} {i}?")}, {"role": "assistant", "content": format!("It is {i}.")}]);
        format!("{}\n", json!({ "messages": messages }))
    };
    (0..rows).map(row).collect()
}

/// A folder with two files of conversations, and settings that name both.
struct Data {
    dir: tempfile::TempDir,
}

impl Data {
    fn new(a: usize, b: usize) -> Self {
        let (dir, _) = file("a.jsonl", &chats("Sum", a));
        std::fs::write(dir.path().join("b.jsonl"), chats("Day", b)).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Writes settings with `[[data]]`, of which `sources` has the keys besides the paths.
    fn config(&self, sources: [&str; 2], more: &str) -> String {
        let source = |(name, keys): (&str, &str)| format!("[[data]]\npath = '{}'\n{keys}\n", self.path(name));
        let sources: String = ["a.jsonl", "b.jsonl"].into_iter().zip(sources).map(source).collect();
        let path = self.path("settings.toml");
        std::fs::write(&path, format!("{more}\n{sources}")).unwrap();
        path
    }
}

fn sft(arguments: &[&str]) -> Ran {
    let policy = model().display().to_string();
    setpoint(&[&["sft", "--quiet", "--device", "flex", "--model", &policy], arguments].concat())
}

/// A short training in a run folder.
fn train(run: &Path, config: &str, more: &[&str]) -> Ran {
    let run = run.display().to_string();
    let settings = ["train.batch_size=4", "train.learning_rate=1e-3", "train.save_steps=2", "samples.prompts=0"];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> =
        [config, "--run", &run].into_iter().chain(settings).chain(more.iter().copied()).collect();
    sft(&arguments)
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("model/model.safetensors")).unwrap()
}

#[test]
fn a_plan_says_what_an_epoch_has_of_each_data_set() {
    let data = Data::new(20, 10);
    let config = data.config(["weight = 3", "weight = 1\nlimit = 5"], "train.batch_size = 4");
    let policy = model().display().to_string();
    let plan = |more: &[&str]| setpoint(&[&["plan", &config, "--job", "sft", "--model", &policy], more].concat()).ok();
    let text = plan(&[]).stdout;
    for said in [
        "epoch     ",
        "a.jsonl: 15 of 20 examples (weight 3)",
        "b.jsonl: 5 of 5 examples (weight 1)",
        "(5 an epoch, 20 examples",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let json: Value = serde_json::from_str(&plan(&["--json"]).stdout).unwrap();
    assert_eq!((&json["examples"], &json["parts"][0]["visits"]), (&20.into(), &15.into()), "{json}");
    let all: Value =
        serde_json::from_str(&plan(&["--json", "--set", "data.stopping_strategy=all_exhausted"]).stdout).unwrap();
    // 20 / 0.75 = 26.7 examples: 20 and 7, of which there are 5.
    assert_eq!([&all["parts"][0]["visits"], &all["parts"][1]["visits"]], [&json!(20), &json!(7)], "{all}");
    let tokens = |plan: &Value| plan["tokens"].as_f64().unwrap();
    assert!(tokens(&all) > tokens(&json), "{all}");

    let both = setpoint(&[
        "plan",
        "--job",
        "sft",
        "--model",
        &policy,
        "--data",
        &data.path("a.jsonl"),
        "--data",
        &data.path("b.jsonl"),
    ]);
    let text = both.ok().stdout;
    assert!(text.contains("a.jsonl: 20 of 20 examples\n") && text.contains("b.jsonl: 10 of 10 examples\n"), "{text}");
}

#[test]
fn data_sets_without_weights_are_read_as_one_file() {
    let data = Data::new(9, 5);
    let (_dir, one) = file("one.jsonl", &(chats("Sum", 9) + &chats("Day", 5)));
    let (several, single) = (data.dir.path().join("several"), data.dir.path().join("single"));
    train(&several, &data.config(["", ""], ""), &["--set", "train.epochs=2"]).ok();
    let settings = data.path("single.toml");
    std::fs::write(&settings, format!("data.path = '{one}'\n")).unwrap();
    train(&single, &settings, &["--set", "train.epochs=2"]).ok();
    assert!(weights(&several) == weights(&single), "the weights differ");
}

#[test]
fn an_epoch_visits_what_the_weights_say_and_a_run_is_resumed_exactly() {
    let data = Data::new(20, 4);
    let config = data.config(["weight = 2", "weight = 1"], "");
    let (whole, halves) = (data.dir.path().join("whole"), data.dir.path().join("halves"));
    let all = ["--set", "train.log_responses=all", "--set", "train.epochs=3"];
    train(&whole, &config, &all).ok();
    // 4 / (1/3) = 12 examples an epoch: 8 of the first 20, and all 4 of the others.
    let visited: Vec<u64> = std::fs::read_to_string(whole.join("responses.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["data"] == "train")
        .flat_map(|line| line["example"].as_array().unwrap().clone())
        .map(|example| example.as_u64().unwrap())
        .collect();
    assert_eq!(visited.len(), 36);
    let mut first: Vec<u64> = Vec::new();
    for epoch in visited.chunks(12) {
        let mut second: Vec<u64> = epoch.iter().copied().filter(|example| *example >= 20).collect();
        second.sort_unstable();
        assert_eq!(second, [20, 21, 22, 23]);
        first.extend(epoch.iter().filter(|example| **example < 20));
    }
    let mut distinct = first[..16].to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 16, "the second epoch has other rows than the first");

    // As if it had been killed after its fourth step.
    train(&halves, &config, &[&all[..], &["--set", "train.keep_last=9"]].concat()).ok();
    for gone in ["checkpoints/step-00000006", "checkpoints/step-00000008", "checkpoints/step-00000009", "model"] {
        let _ = std::fs::remove_dir_all(halves.join(gone));
    }
    std::fs::remove_file(halves.join("finished.json")).unwrap();
    let resumed = ["sft", "--quiet", "--device", "flex", "--resume", "--run", &halves.display().to_string()];
    setpoint(&resumed).ok();
    assert!(weights(&whole) == weights(&halves), "the weights differ");
    let card = std::fs::read_to_string(whole.join("model/README.md")).unwrap();
    assert!(
        card.contains("| training | a.jsonl | 2 | 20 |") && card.contains("| training | b.jsonl | 1 | 4 |"),
        "{card}"
    );

    let page = data.path("report.html");
    setpoint(&["report", &whole.display().to_string(), "--output", &page]).ok();
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("8 of 20 examples (weight 2)"), "{page}");
}

#[test]
fn a_changed_data_set_is_named_when_a_run_is_resumed() {
    let data = Data::new(8, 4);
    let config = data.config(["weight = 2", "weight = 1"], "");
    let run = data.dir.path().join("run");
    train(&run, &config, &["--set", "train.max_steps=2"]).ok();
    std::fs::remove_file(run.join("finished.json")).unwrap();
    let run = run.display().to_string();
    let resume =
        |more: &[&str]| setpoint(&[&["sft", "--quiet", "--device", "flex", "--resume", "--run", &run], more].concat());

    std::fs::write(data.path("b.jsonl"), chats("Day", 4).replace("It is 2.", "It is 3.")).unwrap();
    resume(&[]).fails(1, &["cannot resume", "`data.sources[1].path`", "b.jsonl:3", "the conversation changed"]);
    std::fs::write(data.path("b.jsonl"), chats("Day", 5)).unwrap();
    resume(&[]).fails(1, &["`data.sources[1].path`", "had 4 rows and now has 5"]);
    std::fs::write(data.path("b.jsonl"), chats("Day", 4)).unwrap();
    let other = data.config(["weight = 2", "weight = 3"], "");
    resume(&[&other]).fails(2, &["`data.sources[1].weight` was 1", "is now 3"]);
    resume(&["--data", &data.path("a.jsonl")]).fails(2, &["other settings", "data."]);
    resume(&[]).ok();
}

#[test]
fn what_is_wrong_with_data_sets_names_them() {
    let data = Data::new(4, 4);
    let run = |sources: [&str; 2], more: &str| sft(&[&data.config(sources, more), "--dry-run"]);
    run(["weight = 1", "weight = 0"], "").fails(2, &["b.jsonl", "weight` is 0", "above 0"]);
    run(["weight = 1", ""], "").fails(2, &["b.jsonl", "has no `data.sources[1].weight`", "or none"]);
    run(["limit = 0", ""], "").fails(2, &["a.jsonl", "at least 1"]);
    run(["", "wieght = 2"], "").fails(2, &["settings.toml", "wieght"]);
    run(["", ""], "[eval_data]\nsources = [{ path = 'x.jsonl', weight = 1 }]")
        .fails(2, &["x.jsonl", "each row is read once"]);
    let twice = data.path("twice.toml");
    std::fs::write(&twice, format!("data = ['{0}', '{0}']\n", data.path("a.jsonl"))).unwrap();
    sft(&[&twice, "--dry-run"]).fails(2, &["a.jsonl", "is the same as data set 1"]);

    let config = data.config(["weight = 1", "weight = 1"], "");
    std::fs::write(data.path("b.jsonl"), "").unwrap();
    sft(&[&config, "--dry-run"]).fails(1, &["b.jsonl", "no rows"]);
    // None of its rows is short enough.
    std::fs::write(data.path("b.jsonl"), chats(&"long ".repeat(200), 3)).unwrap();
    sft(&[&config, "--dry-run", "--set", "encode.max_length=64"])
        .fails(1, &["none of the 3 rows of", "b.jsonl is left"]);

    // Pairs among rewarded rows: DRO names the row, and DPO takes both.
    std::fs::write(data.path("a.jsonl"), rewarded_rows(3)).unwrap();
    let pair = json!({"prompt": [{"role": "user", "content": "Two?"}], "chosen": [{"role": "assistant", "content": "Two."}],
        "rejected": [{"role": "assistant", "content": "No."}]});
    std::fs::write(data.path("b.jsonl"), format!("{pair}\n")).unwrap();
    let policy = model().display().to_string();
    let align = |more: &[&str]| setpoint(&[&["align", &config, "--dry-run", "--model", &policy], more].concat());
    align(&[]).fails(1, &["b.jsonl:1", "a response without a reward", "DRO"]);
    let text = align(&["--set", "align.method=dpo"]).ok().stdout;
    assert!(text.contains("b.jsonl: 1 of 1 examples (weight 1)"), "{text}");
}

#[test]
fn jobs_that_read_each_row_once_take_several_data_sets() {
    let data = Data::new(3, 2);
    let out = data.path("out.jsonl");
    let (a, b) = (data.path("a.jsonl"), data.path("b.jsonl"));
    let both = ["--data".to_owned(), a, "--data".into(), b, "--output".into(), out.clone()];
    let rule = ["annotate", "--quiet", "--set", "rule={kind=\"length\",unit=\"chars\",target=6}"].map(str::to_owned);
    setpoint_owned(&[&rule[..], &both[..]].concat()).ok();
    assert_eq!(std::fs::read_to_string(out).unwrap().lines().count(), 5);
    let config = data.config(["weight = 1", "weight = 1"], "");
    setpoint_owned(&[&rule[..], &[config, "--output".into(), data.path("other.jsonl")]].concat())
        .fails(2, &["a.jsonl", "sources[0].weight`", "read once"]);
    // The command line replaces the data sets of the file.
    let config = data.config(["", ""], "");
    let more = ["--output".to_owned(), data.path("one.jsonl"), "--data".into(), data.path("a.jsonl")];
    setpoint_owned(&[&rule[..], &[config], &more[..]].concat()).ok();
    assert_eq!(std::fs::read_to_string(data.path("one.jsonl")).unwrap().lines().count(), 3);
}

#[test]
fn a_section_and_a_list_of_one_name_are_told_apart() {
    let (section, list) = ("[data]\nmax_rows = 2\n", "[[data]]\npath = \"chat.jsonl\"\n");
    for text in [format!("{section}{list}"), format!("{list}{section}")] {
        let (_dir, config) = file("both.toml", &text);
        setpoint(&["sft", &config, "--dry-run"]).fails(2, &["both.toml:3", "write the list as `[[data.sources]]`"]);
    }
}
