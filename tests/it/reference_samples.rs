//! Samples of a reference model: drawn and scored by `annotate --reference-samples`, read by `align`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::endpoint::{Action, Server};
use super::fixture::{Ran, file, model, rewarded_rows, sampled_rows, setpoint};
use super::outputs::killed;

/// One point, less a twentieth for each character more or fewer than 20.
pub const RULE: [&str; 5] =
    ["rule.kind=length", "rule.unit=chars", "rule.target=20", "rule.score=1.0", "rule.penalty=0.05"];

fn score(text: &str) -> f64 {
    1.0 - 0.05 * (text.chars().count() as f64 - 20.0).abs()
}

/// Returns the rows of a file.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns a column of texts.
pub fn texts(row: &Value, column: &str) -> Vec<String> {
    row[column].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Returns a column of numbers.
pub fn numbers(row: &Value, column: &str) -> Vec<f64> {
    row[column].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Samples of the tests' model for the rows of a file, at most twelve tokens long, with settings.
fn annotate(data: &str, output: &Path, sets: &[&str], more: &[&str]) -> Ran {
    let (reference, output) = (model().display().to_string(), output.display().to_string());
    let mut arguments = vec!["annotate", "--data", data, "--output", &output, "--reference", &reference];
    for set in ["reference.generate.max_new_tokens=12"].iter().chain(sets) {
        arguments.extend(["--set", set]);
    }
    arguments.extend(more);
    setpoint(&arguments)
}

/// The same with eight samples and the rule.
fn sampled(data: &str, output: &Path, sets: &[&str]) -> Ran {
    annotate(data, output, &[&RULE[..], sets].concat(), &["--reference-samples", "8"])
}

fn prompts(questions: &[&str]) -> String {
    let row = |question: &&str| json!({"prompt": question, "responses": ["Friday."]}).to_string() + "\n";
    questions.iter().map(row).collect()
}

#[test]
fn samples_are_drawn_and_scored_next_to_the_responses_and_align_reads_them() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(4));
    let output = dir.path().join("sampled.jsonl");
    let ran = sampled(&data, &output, &[]).ok();
    for said in [
        "8 reference samples for each of 4 distinct prompts",
        "32 in all, at most 12 tokens each and 384 together",
        "did not end within 12 tokens",
        "32 reference samples with rewards: mean",
    ] {
        assert!(ran.stderr.contains(said), "expected {said:?} in {ran:#?}");
    }
    let rows = lines(&output);
    assert_eq!(rows.len(), 4);
    let mut all = BTreeSet::new();
    for row in &rows {
        let samples = texts(row, "reference_responses");
        assert_eq!(samples.len(), 8);
        let scores: Vec<f64> = samples.iter().map(|text| score(text)).collect();
        let close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close(&numbers(row, "reference_rewards"), &scores), "{row}");
        let own: Vec<f64> = texts(row, "responses").iter().map(|text| score(text)).collect();
        assert!(close(&numbers(row, "rewards"), &own), "{row}");
        assert_eq!((&row["reference_settings"]["samples"], &row["reference_settings"]["seed"]), (&8.into(), &0.into()));
        all.extend(samples);
    }
    assert!(all.len() > 16, "samples differ: {all:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "input, output and its settings");

    // The level is that of the formula, from the columns and the reference's own log-probs.
    let run = dir.path().join("run");
    let (policy, folder) = (model().display().to_string(), run.display().to_string());
    let sampled = output.display().to_string();
    let mut arguments = vec!["align", "--model", &policy, "--data", &sampled, "--run", &folder];
    for set in [
        "align.log_z0=per_prompt",
        "align.beta=0.5",
        "samples.prompts=0",
        "train.batch_size=4",
        "train.max_steps=1",
        "train.learning_rate=1e-3",
    ] {
        arguments.extend(["--set", set]);
    }
    let ran = setpoint(&arguments).ok();
    assert!(!ran.stderr.contains("come from another model"), "{ran:#?}");
    let logps = lines(&run.join("reference-train.jsonl"));
    let level = |(i, row): (usize, &Value)| {
        let own = numbers(row, "rewards").into_iter().enumerate().map(|(j, reward)| {
            let found = logps.iter().find(|line| line["row"] == i && line["response"] == j).unwrap();
            (found["response_logp"].as_f64().unwrap() + reward / 0.5).exp()
        });
        let in_data: Vec<String> = texts(row, "responses");
        let samples = texts(row, "reference_responses").into_iter().zip(numbers(row, "reference_rewards"));
        let outside = samples.filter(|(text, _)| !in_data.iter().any(|own| own == text.trim()));
        (own.sum::<f64>() + outside.map(|(_, reward)| (reward / 0.5).exp() / 8.0).sum::<f64>()).ln()
    };
    let expected = rows.iter().enumerate().map(level).sum::<f64>() / 4.0;
    let audit: Value = serde_json::from_str(&std::fs::read_to_string(run.join("audit.json")).unwrap()).unwrap();
    let found = audit["log_z0"].as_f64().unwrap();
    assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found}, expected {expected}");
    assert_eq!(audit["estimated"]["samples"], 8);
}

#[test]
fn a_sample_follows_from_seed_prompt_and_number_alone() {
    let (dir, data) = file("rows.jsonl", &prompts(&["What day is it?", "How much is two?", "What day is it?", "No?"]));
    let at = |name: &str| dir.path().join(name);
    let ran = sampled(&data, &at("all.jsonl"), &[]).ok();
    // One that occurs twice is sampled once.
    assert!(ran.stderr.contains("for each of 3 distinct prompts"), "{ran:#?}");
    assert!(ran.stderr.contains("24 reference samples of"), "{ran:#?}");
    let all = lines(&at("all.jsonl"));
    assert_eq!(all[0]["reference_responses"], all[2]["reference_responses"]);
    assert_ne!(all[0]["reference_responses"], all[1]["reference_responses"]);
    // Other rows, another order and smaller batches change nothing.
    let (_few, few) = file("few.jsonl", &prompts(&["No?", "What day is it?"]));
    sampled(&few, &at("few.jsonl"), &["reference.generate.batch_size=3"]).ok();
    let few = lines(&at("few.jsonl"));
    assert_eq!(few[0]["reference_responses"], all[3]["reference_responses"]);
    assert_eq!(few[1]["reference_responses"], all[0]["reference_responses"]);
    // More samples begin with the same ones; another seed draws others.
    annotate(&data, &at("more.jsonl"), &RULE, &["--reference-samples", "11"]).ok();
    let more = texts(&lines(&at("more.jsonl"))[1], "reference_responses");
    assert_eq!((more.len(), &more[..8]), (11, &texts(&all[1], "reference_responses")[..]));
    sampled(&data, &at("seed.jsonl"), &["reference.generate.seed=7"]).ok();
    assert_ne!(lines(&at("seed.jsonl"))[0]["reference_responses"], all[0]["reference_responses"]);
}

#[test]
fn rows_keep_the_samples_that_they_have_unless_the_settings_differ() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let at = |name: &str| dir.path().join(name);
    sampled(&data, &at("one.jsonl"), &[]).ok();
    let one = lines(&at("one.jsonl"));
    // Two rows are new.
    let mut text = std::fs::read_to_string(at("one.jsonl")).unwrap();
    text.push_str(&prompts(&["What day is it?", "No?"]));
    let (_grown, grown) = file("grown.jsonl", &text);
    let ran = sampled(&grown, &at("two.jsonl"), &[]).ok();
    for said in ["3 of 5 rows have reference samples by these settings", "for each of 2 distinct prompts"] {
        assert!(ran.stderr.contains(said), "expected {said:?} in {ran:#?}");
    }
    let two = lines(&at("two.jsonl"));
    assert_eq!((two.len(), &two[..3]), (5, &one[..]));
    assert_eq!(texts(&two[4], "reference_responses").len(), 8);

    let old = at("one.jsonl").display().to_string();
    for (sets, differs) in [
        (&["reference.generate.seed=1"][..], "`seed`"),
        (&["rule.target=30"], "`rewards`"),
        (&["reference.generate.max_new_tokens=6"], "`max_new_tokens`"),
    ] {
        let ran = sampled(&old, &at("new.jsonl"), &[sets, &["data.max_rows=2"]].concat());
        let said = format!("2 of 2 rows have reference samples by other settings ({differs}) and get new ones");
        assert!(ran.stderr.contains(&said), "expected {said:?} in {ran:#?}");
        ran.ok();
        let new = lines(&at("new.jsonl"));
        assert_ne!(new[0]["reference_settings"], one[0]["reference_settings"]);
        for name in ["new.jsonl", "new.jsonl.settings"] {
            std::fs::remove_file(at(name)).unwrap();
        }
    }
    // Those that were made by hand are known by their number alone.
    let (_hand, hand) = file("hand.jsonl", &sampled_rows(2));
    sampled(&hand, &at("kept.jsonl"), &[]).ok();
    assert_eq!(lines(&at("kept.jsonl"))[0]["reference_responses"][7], "The sum is six.");
    annotate(&hand, &at("other.jsonl"), &RULE, &["--reference-samples", "9"]).ok();
    assert_eq!(texts(&lines(&at("other.jsonl"))[0], "reference_responses").len(), 9);
}

/// Scores by length, and notes what it reads in `log`. It crashes at one of the samples, and at one of the responses, until it is cured.
#[cfg(unix)]
fn script(log: &str, cured: [&str; 2]) -> String {
    let [samples, responses] = cured;
    format!(
        "while read -r line; do\n  \
         [ -e {samples} ] || case \"$line\" in *'\"row\":5,\"response_index\":0'*) exit 7;; esac\n  \
         [ -e {responses} ] || case \"$line\" in *'\"response\":\"The sum is four.\",\"row\":6,\"response_index\":0'*) exit 7;; esac\n  \
         printf '%s\\n' \"$line\" >> {log}\n  \
         echo \"{{\\\"score\\\": ${{#line}}}}\"\ndone\n"
    )
}

#[cfg(unix)]
#[test]
fn killed_at_any_stage_it_goes_on_to_the_same_file_and_repeats_nothing() {
    const ROWS: usize = 60;
    let (dir, data) = file("rows.jsonl", &rewarded_rows(ROWS));
    let path = |name: &str| dir.path().join(name).display().to_string();
    let cured = [path("cured-samples"), path("cured-responses")];
    let run = format!("command.run=[\"sh\", \"{}\"]", path("score.sh"));
    std::fs::write(path("score.sh"), script(&path("log"), [&cured[0], &cured[1]])).unwrap();
    let sets =
        [run.as_str(), "command.batch=8", "reference.generate.batch_size=1", "reference.generate.max_new_tokens=12"];
    let (reference, output) = (model().display().to_string(), path("sampled.jsonl"));
    let arguments = |output: &str, more: &[&str]| -> Vec<String> {
        let base = ["annotate", "--data", &data, "--output", output, "--reference", &reference];
        let counted = ["--reference-samples", "8"];
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let all = base.into_iter().chain(counted).chain(sets).chain(more.iter().copied());
        all.map(str::to_owned).collect()
    };
    let with = |output: &str, more: &[&str]| super::fixture::setpoint_owned(&arguments(output, more));

    // Killed while it draws.
    let kept = format!("{output}.reference.partial");
    let words = arguments(&output, &[]);
    killed(&words.iter().map(String::as_str).collect::<Vec<_>>(), Path::new(&kept));
    assert!(!Path::new(&output).exists() && !Path::new(&path("log")).exists(), "nothing is scored before all is drawn");
    let drawn = std::fs::read_to_string(&kept).unwrap().lines().filter(|line| line.contains("\"samples\"")).count();
    assert!(drawn > 1, "{drawn}");
    with(&output, &[]).fails(1, &["--continue", &kept]);
    with(&output, &["--continue", "--set", "reference.generate.seed=3"]).fails(1, &["reference.generate.seed", &kept]);
    // Crashes while the samples are scored, then while the responses are.
    with(&output, &["--continue"]).fails(1, &[".jsonl:6, response 0", "exit status: 7"]);
    let before = lines(Path::new(&path("log"))).len();
    assert_eq!(before, 5 * 8);
    std::fs::write(&cured[0], "").unwrap();
    with(&output, &["--continue"]).fails(1, &[".jsonl:7, response 0", "exit status: 7"]);
    std::fs::write(&cured[1], "").unwrap();
    let ran = with(&output, &["--continue"]).ok();
    assert!(!ran.stderr.contains("tokens a second"), "nothing is drawn again: {ran:#?}");
    let asked = std::fs::read_to_string(path("log")).unwrap();
    assert_eq!(asked.lines().count(), ROWS * (8 + 3), "nothing is scored twice");
    assert_eq!(asked.lines().collect::<BTreeSet<_>>().len(), ROWS * (8 + 3));
    assert!(!Path::new(&kept).exists() && !Path::new(&format!("{output}.partial")).exists());
    assert!(with(&output, &["--continue"]).ok().stderr.contains("is complete"));

    // And in one go.
    std::fs::write(path("score.sh"), script(&path("log"), [&cured[0], &cured[1]])).unwrap();
    with(&path("whole.jsonl"), &[]).ok();
    assert!(std::fs::read(&output).unwrap() == std::fs::read(path("whole.jsonl")).unwrap());
}

#[test]
fn wrong_settings_are_usage_errors_in_one_sentence() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(2));
    let output = dir.path().join("out.jsonl");
    let refused = |sets: &[&str], more: &[&str], said: &[&str]| {
        for dry in [&[][..], &["--dry-run"]] {
            let ran = annotate(&data, &output, sets, &[more, dry].concat());
            assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("error")).count(), 1, "{ran:#?}");
            ran.fails(2, said);
        }
    };
    let rule = |set: &'static str| [&RULE[..], &[set]].concat();
    refused(&RULE, &["--reference-samples", "7"], &["--reference-samples", "7 samples", "log Z(x)", "at least 8"]);
    refused(&RULE, &[], &["without a number of samples", "--reference-samples 16"]);
    refused(
        &["column=score"],
        &["--reference-samples", "8"],
        &["column", "yet to be drawn", "a rule, a command or a judge"],
    );
    for (set, name) in [
        ("reference.generate.temperature=0.7", "`reference.generate.temperature`"),
        ("reference.generate.top_k=50", "`reference.generate.top_k`"),
        ("reference.generate.top_p=0.9", "`reference.generate.top_p`"),
        ("reference.generate.repetition_penalty=1.1", "`reference.generate.repetition_penalty`"),
    ] {
        refused(&rule(set), &["--reference-samples", "8"], &[set.split('=').next().unwrap(), "own distribution", name]);
    }
    refused(&rule("reference.generate.only_finished=true"), &["--reference-samples", "8"], &["the short ones"]);
    refused(&rule("reference.generate.min_p=0.1"), &["--reference-samples", "8"], &["reference.generate.min_p"]);
    let large = ["--reference-samples", "4294967295"];
    refused(&RULE, &large, &["expected at most 100000"]);
    // What is neutral is no other distribution.
    let neutral = ["reference.generate.temperature=1", "reference.generate.top_p=1.0"];
    annotate(&data, &output, &[&RULE[..], &neutral].concat(), &["--reference-samples", "8", "--dry-run"]).ok();

    let out = output.display().to_string();
    let rule: Vec<&str> = RULE.iter().flat_map(|set| ["--set", set]).collect();
    let base = ["annotate", "--data", &data, "--output", &out, "--reference-samples", "8"];
    setpoint(&[&base[..], &rule].concat()).fails(2, &["reference.model.path", "--reference DIR"]);
    setpoint(&[&base[..], &rule, &["--reference", "no/such"]].concat()).fails(2, &["no/such", "does not exist"]);
    let (_bare, bare) = file("bare.jsonl", &(json!({"prompt": "What day is it?"}).to_string() + "\n"));
    sampled(&bare, &output, &[]).fails(1, &["bare.jsonl:1 is a prompt without a response", "setpoint generate"]);
    assert!(!output.exists());
}

#[test]
fn the_cost_is_told_before_and_a_judge_is_asked_as_often() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(2));
    let server = Server::start(|_, _| Action::Say("[[7]]".into()));
    let base = format!("generative.judge.base_url={}", server.base_url);
    let sets = [base.as_str(), "generative.judge.api_key_env=", "generative.judge.model=j"];
    let output = dir.path().join("sampled.jsonl");
    let cost = "at most 22 questions to the judge";
    let dry = annotate(&data, &output, &sets, &["--reference-samples", "8", "--dry-run"]).ok();
    assert!(dry.stdout.contains("16 in all, at most 12 tokens each and 192 together"), "{dry:#?}");
    assert!(dry.stdout.contains(cost) && server.count() == 0, "{dry:#?}");
    let ran = annotate(&data, &output, &sets, &["--reference-samples", "8"]).ok();
    assert!(ran.stderr.contains(cost), "{ran:#?}");
    let mut distinct = BTreeSet::new();
    for row in lines(&output) {
        let texts = [texts(&row, "responses"), texts(&row, "reference_responses")].concat();
        distinct.extend(texts.into_iter().map(|text| format!("{} {text}", row["prompt"])));
    }
    assert_eq!(server.count(), distinct.len(), "each question is asked once");
    assert_eq!(numbers(&lines(&output)[1], "reference_rewards"), [7.0; 8]);
}

/// A reward model on the tests' model.
fn reward_model(dir: &Path) -> String {
    let (_pairs, pairs) = file("pairs.jsonl", &rewarded_rows(8));
    let (policy, run) = (model().display().to_string(), dir.join("reward").display().to_string());
    let arguments = ["reward", "--quiet", "--model", &policy, "--data", &pairs, "--run", &run];
    setpoint(&[&arguments[..], &["--set", "train.max_steps=1"]].concat()).ok();
    dir.join("reward/model").display().to_string()
}

#[test]
fn the_command_that_a_message_names_makes_the_samples() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(2));
    let (policy, reward) = (model().display().to_string(), reward_model(dir.path()));
    let run = dir.path().join("run").display().to_string();
    let align = |data: &str| {
        let arguments = ["align", "--dry-run", "--model", &policy, "--data", data, "--run", &run];
        setpoint(&[&arguments[..], &["--set", "align.log_z0=per_prompt", "--set", "align.beta=0.5"]].concat())
    };
    let ran = align(&data);
    assert_eq!(ran.code, 1, "{ran:#?}");
    let told = ran.stderr.split('`').find(|part| part.starts_with("setpoint annotate")).unwrap();
    assert!(told.contains(&format!("--reference {policy} ")) && told.contains(&data), "{told}");
    let output = dir.path().join("sampled.jsonl").display().to_string();
    let told = told.replace("REWARD_MODEL", &reward).replace("sampled.jsonl", &output);
    let words: Vec<&str> = told.split(' ').skip(1).collect();
    // The tests' model writes what becomes more tokens when it is read again, and a reward model reads no more than it has positions for.
    let ran = setpoint(&[&words[..], &["--set", "reference.generate.max_new_tokens=100"]].concat()).ok();
    assert!(ran.stderr.contains("32 reference samples with rewards"), "{ran:#?}");
    let rows = lines(Path::new(&output));
    assert_eq!(texts(&rows[1], "reference_responses").len(), 16);
    assert_eq!(numbers(&rows[1], "reference_rewards").len(), 16);
    // The rewards are those that the same texts get as responses.
    let again = json!({"prompt": rows[0]["prompt"], "responses": rows[0]["reference_responses"]});
    let (_texts, texts) = file("texts.jsonl", &format!("{again}\n"));
    if rows[0]["reference_responses"].as_array().unwrap().iter().all(|text| !text.as_str().unwrap().trim().is_empty()) {
        let scored = dir.path().join("scored.jsonl");
        let out = scored.display().to_string();
        setpoint(&["annotate", "--model", &reward, "--data", &texts, "--output", &out]).ok();
        for (a, b) in numbers(&lines(&scored)[0], "rewards").iter().zip(numbers(&rows[0], "reference_rewards")) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
    align(&output).ok();
}
