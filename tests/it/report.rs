//! `setpoint report`: one page, nothing from outside, and everything that was measured.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::fixture::{file, model, rewarded_rows, setpoint};

#[test]
fn a_report_stands_alone_and_shows_curves_tables_and_samples() {
    let dir = tempfile::tempdir().unwrap();
    let result = |name: &str, right: [f64; 4]| {
        let items: Vec<_> =
            right.iter().enumerate().map(|(i, v)| json!({"id": format!("mt_bench/{i}/1"), "value": v})).collect();
        let manifest = json!({
            "benchmark": "mt_bench", "setpoint": "0", "model": {"name": name, "hash": null, "template": null}, "baseline": null,
            "decoding": null, "data": "d", "judge": {"model": "<b>j</b>"}, "scoring": null
        });
        let run = json!({
            "manifest": manifest, "scores": {"average": {"score": right.iter().sum::<f64>() / 4.0}}, "items": items,
            "distributions": {"log_ratio": [-1.5, right[0], 0.25], "chosen_log_ratio": []}
        });
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("result.json"), run.to_string()).unwrap();
        let outputs =
            json!([{"instruction": "a < b & \"c\"?", "output": format!("<script>{name}</script>"), "generator": name}]);
        std::fs::write(folder.join("model_outputs.json"), outputs.to_string()).unwrap();
        folder.display().to_string()
    };
    let (one, two) = (result("one", [2.0, 4.0, 6.0, 8.0]), result("two", [3.0, 5.0, 7.0, 8.0]));
    let run = model().parent().unwrap().display().to_string();
    let (aligned, old) = (aligned(dir.path()), dir.path().join("old"));
    // A run of before there was a log of responses.
    std::fs::create_dir(&old).unwrap();
    std::fs::copy(Path::new(&aligned).join("metrics.jsonl"), old.join("metrics.jsonl")).unwrap();
    let old = old.display().to_string();
    let page = dir.path().join("report.html");
    setpoint(&["report", &run, &aligned, &old, &one, &two, "--output", &page.display().to_string()]).ok();
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.starts_with("<!doctype html>"));
    for outside in ["http:", "https:", "src=", "href=", "<script", "@import", "url("] {
        assert!(!text.contains(outside), "the page holds {outside}");
    }
    for shown in [
        "aria-label=\"loss\"",
        "<polyline",
        "<rect",
        "+0.7500",
        "aria-label=\"log_ratio, nats, example by example\"",
        "<h3>tiny: response by response</h3>",
        "aria-label=\"logp, nats: first half of the steps\"",
        "<h3>aligned: response by response</h3>",
        "aria-label=\"tokens of a response\"",
        "aria-label=\"log_ratio, nats: last epoch\"",
        "aria-label=\"target of the log_ratio, nats: first epoch\"",
        "aria-label=\"target − log_ratio, nats: last epoch\"",
        "aria-label=\"eval log_ratio, nats: last evaluation\"",
        "&lt;script&gt;one",
        "a &lt; b &amp; &quot;c&quot;?",
        "&lt;b&gt;j",
    ] {
        assert!(text.contains(shown), "{shown} is missing");
    }
    for tag in ["table", "svg", "figure", "details", "div", "tr", "td", "p", "span"] {
        let opened = text.matches(&format!("<{tag}>")).count() + text.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, text.matches(&format!("</{tag}>")).count(), "<{tag}>");
    }
    assert!(!text.contains("NaN") && !text.contains("<h3>old"));
    let chart = |title: &str| {
        let from = text.find(&format!("<figcaption>{title}</figcaption>")).unwrap_or_else(|| panic!("no {title}"));
        &text[from..from + text[from..].find("</figure>").unwrap()]
    };
    // The rewards of the rejected lie between -1 and 1.3: half of them in the first of 24 bars.
    assert!(chart("reward").contains("<title>-1 to -0.9042: 50.0 %</title>"), "{}", chart("reward"));
    // In the first epoch the policy is still the reference (the rate of the first step is 0), so each side is one bar. Later it is not.
    let bars = |title: &str| chart(title).matches("<rect").count();
    assert_eq!(chart("log_ratio, nats: first epoch").matches(": 100.0 %").count(), 2);
    assert_eq!(bars("log_ratio, nats: first epoch"), 2);
    assert!(bars("log_ratio, nats: last epoch") > 2);
    in_a_browser(&page, text.matches("<svg").count());
}

/// A run of three epochs of two steps, evaluated after each step.
fn aligned(dir: &Path) -> String {
    let (_data, data) = file("rewards.jsonl", &rewarded_rows(4));
    let (policy, run) = (model().display().to_string(), dir.join("aligned").display().to_string());
    let eval = format!("eval_data.path={data}");
    let mut arguments = vec!["align", "--quiet", "--model", &policy, "--data", &data, "--run", &run];
    for setting in [
        &eval,
        "samples.prompts=0",
        "train.max_steps=6",
        "train.batch_size=2",
        "train.eval_steps=1",
        "train.learning_rate=1e-2",
        "train.schedule.warmup.ratio=0.1",
    ] {
        arguments.extend(["--set", setting]);
    }
    setpoint(&arguments).ok();
    run
}

/// Opens the page in headless Chromium, without any network, where there is one.
fn in_a_browser(page: &Path, charts: usize) {
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(|name| {
        let profile = format!("--user-data-dir={}", page.with_extension("profile").display());
        let mut command = Command::new(name);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            &profile,
        ]);
        command.arg("--dump-dom").arg(format!("file://{}", page.display()));
        command.output().ok()
    });
    let Some(output) = browser else {
        let required = std::env::var_os("SETPOINT_REQUIRE_TEST_DATA").is_some_and(|value| value == "1");
        assert!(!required, "no Chromium to open the report in");
        println!("skipped: no Chromium to open the report in");
        return;
    };
    let dom = String::from_utf8_lossy(&output.stdout);
    assert_eq!(dom.matches("<svg").count(), charts, "{}", String::from_utf8_lossy(&output.stderr));
    // A browser closes what was left open and moves what stands in the wrong place: then the headings would be elsewhere.
    for heading in ["<h2>Training</h2>", "<h2>Evaluation</h2>", "<h2>Samples</h2>", "<h2>Settings</h2>"] {
        assert!(dom.contains(heading), "{heading} is missing");
    }
}

#[test]
fn what_is_no_run_is_said() {
    let dir = tempfile::tempdir().unwrap();
    setpoint(&["report", &dir.path().display().to_string()]).fails(1, &["metrics.jsonl", "result.json"]);
    setpoint(&["report"]).fails(2, &["RUN"]);
}
