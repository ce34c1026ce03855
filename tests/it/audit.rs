//! Where the targets send probability: what `audit` and `align` print of it, what a run folder keeps, and the picture in the report.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::fixture::{file, model, rewarded_rows, setpoint};

const TAKEN: &str =
    "These targets take probability from the responses in the file and give it to responses without a reward";
const GIVEN: &str =
    "These targets give probability to the responses in the file, and take it from responses without a reward";

/// A model that knows the first response to the prompts of [`rewarded_rows`], so that this response has much of the probability.
fn knowing() -> &'static str {
    static MODEL: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let make = || {
        let rows: String = (0..4)
            .map(|i| {
                let row = json!({"messages": [
                    {"role": "user", "content": format!("How much is {i} and two?")},
                    {"role": "assistant", "content": "The sum is four."},
                ]});
                format!("{row}\n")
            })
            .collect();
        let (dir, data) = file("chats.jsonl", &rows);
        let (from, run) = (text(model()), dir.path().join("run"));
        let mut arguments = vec!["sft".to_owned(), "--quiet".into(), "--model".into(), from];
        arguments.extend(["--data".into(), data, "--run".into(), text(&run)]);
        for setting in ["train.max_steps=80", "train.batch_size=4", "train.learning_rate=1e-2", "samples.prompts=0"] {
            arguments.extend(["--set".into(), setting.into()]);
        }
        setpoint(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ok();
        (dir, text(&run.join("model")))
    };
    &MODEL.get_or_init(make).1
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Puts broken lines together.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_audit_begins_with_where_probability_goes_and_ends_with_what_to_change() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let audit = |policy: &str, level: &str| {
        let output = text(&dir.path().join(format!("{level}-{}.json", policy == knowing())));
        let level = format!("align.log_z0={level}");
        let arguments = ["audit", "--quiet", "--model", policy, "--data", &data, "--output", &output];
        let said = setpoint(&[&arguments[..], &["--set", &level]].concat()).ok().stdout;
        (said, read(Path::new(&output)))
    };
    let (said, report) = audit(knowing(), "50");
    assert!(said.starts_with("Where do these targets send probability?\nThese targets take probability"), "{said}");
    let (answer, rest) = said.split_once("\n\n").unwrap();
    assert!(joined(answer).contains(&format!("{TAKEN}.")), "{answer}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert!(rest.starts_with("4 rows, 4 prompts, 12 responses"), "{rest}");
    let advice = said.trim_end().rsplit("\n\n").next().unwrap();
    assert!(advice.starts_with("Recommended: set align.log_z0 = \"mean\": "), "{said}");
    assert_eq!(report["masses"]["verdict"], "falls");
    assert!(report["action"].as_str().unwrap().starts_with("set align.log_z0 = \"mean\""), "{report}");

    // With the change, the file gains.
    let (said, report) = audit(knowing(), "mean");
    assert!(joined(&said).contains(GIVEN) && !said.contains("take probability from"), "{said}");
    assert_eq!(report["masses"]["verdict"], "rises");

    // To the model that has hardly learned, no response in the file is likely.
    let (said, report) = audit(&text(model()), "50");
    assert_eq!(report["masses"]["verdict"], "negligible");
    let said = joined(&said);
    for needed in ["Nearly all probability is outside the file", "\"per_prompt\"", "--reference-samples 8"] {
        assert!(said.contains(needed), "{needed:?} is missing in {said}");
    }
}

/// The logarithms of the reference's probabilities, prompt by prompt, as the run folder keeps them.
fn reference(run: &Path) -> Vec<[f64; 3]> {
    let mut found = vec![[f64::NAN; 3]; 4];
    for line in std::fs::read_to_string(run.join("reference-train.jsonl")).unwrap().lines().skip(1) {
        let own: Value = serde_json::from_str(line).unwrap();
        let place = |key: &str| own[key].as_u64().unwrap() as usize;
        found[place("row")][place("response")] = own["response_logp"].as_f64().unwrap();
    }
    found
}

/// Writes the report on a run and returns its text, with ordinary blanks.
fn page(run: &Path) -> String {
    let output = run.with_extension("html");
    let _ = std::fs::remove_file(&output);
    setpoint(&["report", &text(run), "--output", &text(&output)]).ok();
    std::fs::read_to_string(output).unwrap().replace('\u{a0}', " ")
}

fn align(policy: &str, data: &str, run: &Path, setting: &str) -> String {
    let run = text(run);
    let mut arguments = vec!["align", "--quiet", "--model", policy, "--data", data, "--run", &run];
    for setting in [setting, "samples.prompts=0", "train.max_steps=2", "train.batch_size=4"] {
        arguments.extend(["--set", setting]);
    }
    setpoint(&arguments).ok().stderr
}

const HEADING: &str = "Where the targets send probability";

#[test]
fn align_says_it_in_short_and_the_report_draws_it() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let run = dir.path().join("far");
    let said = align(knowing(), &data, &run, "align.log_z0=50");
    assert!(joined(&said).contains(&format!("warning: {TAKEN} (the file's responses have ")), "{said}");
    assert!(said.contains("recommended: set align.log_z0 = \"mean\""), "{said}");

    // The masses by hand: β is 0.1, and the first response is the best.
    let logps = reference(&run);
    let share = |of: &dyn Fn(usize, usize) -> f64| (0..4).map(|i| of(i, 0)).sum::<f64>() / 4.0;
    let target = |i: usize, j: usize| {
        let reward = [1.0 + i as f64 / 10.0, -1.0, 0.25][j];
        (logps[i][j] + reward / 0.1 - 50.0).exp()
    };
    let best = [share(&|i, _| logps[i][0].exp()), share(&|i, _| target(i, 0))];
    let other = [share(&|i, _| logps[i][1].exp() + logps[i][2].exp()), share(&|i, _| target(i, 1) + target(i, 2))];
    assert!(best[0] > 0.01, "the model has not learned the first response: {best:?}");
    let masses = &read(&run.join("audit.json"))["masses"];
    for (side, i) in [("reference", 0), ("target", 1)] {
        for (part, expected) in [("best", best[i]), ("other", other[i]), ("unscored", 1.0 - best[i] - other[i])] {
            let found = masses[side][part].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-6, "{side}, {part}: {found}, expected {expected}");
        }
    }

    let html = page(&run);
    assert!(html.contains(&format!("<h2>{HEADING}</h2>")), "no picture");
    let picture = &html[html.find("aria-label=\"Probability by response of far").unwrap()..];
    let picture = &picture[..picture.find("</figure>").unwrap()];
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let unscored = [0, 1].map(|i| percent(1.0 - best[i] - other[i]));
    assert!(
        picture.contains(&format!("without a reward {} before and {} after\"", unscored[0], unscored[1])),
        "{picture}"
    );
    for number in [percent(best[0]), percent(best[1]), percent(other[0]), unscored[1].clone()] {
        assert!(picture.contains(&format!(">{number}</text>")), "{number} is missing in {picture}");
    }
    assert_eq!((picture.matches("bar grey").count(), picture.matches("bar solid").count()), (3, 3));
    assert!(joined(&html).contains(TAKEN));

    // Folders of older versions, and odd files, have a page without it.
    let audit = run.join("audit.json");
    let mut old = read(&audit);
    old.as_object_mut().unwrap().remove("masses");
    let far = json!({"masses": {"reference": 3}});
    for odd in [old.to_string(), far.to_string(), "[1]".into(), "null".into(), "{".into()] {
        std::fs::write(&audit, &odd).unwrap();
        let html = page(&run);
        assert!(!html.contains(HEADING) && html.contains("Did it learn?"), "{odd}");
    }
    std::fs::remove_file(&audit).unwrap();
    assert!(!page(&run).contains(HEADING));
}

#[test]
fn methods_without_a_level_are_told_nothing_about_it() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let run: PathBuf = dir.path().join("dpo");
    let said = align(&text(model()), &data, &run, "align.method=dpo");
    assert!(!said.contains("These targets") && !said.contains("outside the file"), "{said}");
    assert!(!said.contains("recommended"), "{said}");
    assert!(!run.join("audit.json").exists() && !page(&run).contains(HEADING));
    setpoint(&["audit", "--model", &text(model()), "--data", &data, "--set", "align.method=dpo"])
        .fails(2, &["align.method", "other methods have none"]);

    let open = dir.path().join("open");
    let said = align(&text(model()), &data, &open, "align.level_weight=0");
    assert!(said.contains("With level_weight = 0 the targets have no level"), "{said}");
    assert!(!said.contains("recommended") && !said.contains("are infeasible"), "{said}");
    assert!(!page(&open).contains(HEADING));
}
