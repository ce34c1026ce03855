//! `setpoint report`: one page, nothing from outside, and the answers to what people ask first.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::fixture::{command, file, model, rewarded_rows, root, setpoint, setpoint_owned, sft_arguments};

/// The result of an evaluation as `setpoint eval mt-bench` leaves it, with answers that carry markup.
fn result(dir: &Path, name: &str, ratings: [f64; 4]) -> String {
    let items: Vec<_> =
        ratings.iter().enumerate().map(|(i, v)| json!({"id": format!("mt_bench/{i}/1"), "value": v})).collect();
    let manifest = json!({
        "benchmark": "mt_bench", "setpoint": "0", "model": {"name": name, "hash": null, "template": null}, "baseline": null,
        "decoding": null, "data": "d", "judge": {"model": "<b>j</b>"}, "scoring": null
    });
    let mean = ratings.iter().sum::<f64>() / 4.0;
    let average = json!({"score": mean, "std_error": 0.5, "n": 4});
    let run = json!({
        "manifest": manifest,
        "scores": {"single": [{"model": name, "average": average, "categories": {"math": {"score": 3.25}}}]},
        "items": items,
        "distributions": {"log_ratio": [-1.5, ratings[0], 0.25], "chosen_log_ratio": []}
    });
    let folder = dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("result.json"), run.to_string()).unwrap();
    let outputs = json!([{"instruction": "a < b & \"c\"?", "output": format!("<script>{name}</script>\u{202e}\u{1b}"), "generator": name}]);
    std::fs::write(folder.join("model_outputs.json"), outputs.to_string()).unwrap();
    folder.display().to_string()
}

/// Writes a report and returns its path and its text.
fn report(dir: &Path, paths: &[&str]) -> (PathBuf, String) {
    let page = dir.join("report.html");
    let output = page.display().to_string();
    setpoint(&[&["report"], paths, &["--output", &output]].concat()).ok();
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.starts_with("<!doctype html>"), "{}", &text[..50]);
    for outside in ["http:", "https:", "src=", "href=", "<script", "@import", "url("] {
        assert!(!text.contains(outside), "the page holds {outside}");
    }
    assert!(!text.contains("NaN"));
    (page, text)
}

#[test]
fn a_report_answers_questions_and_shows_curves_tables_and_samples() {
    let dir = tempfile::tempdir().unwrap();
    let one = result(dir.path(), "one", [2.0, 4.0, 6.0, 8.0]);
    let two = result(dir.path(), "two", [3.0, 5.0, 7.0, 8.0]);
    let sft = model().parent().unwrap().display().to_string();
    let (aligned, old) = (aligned(dir.path()), dir.path().join("old"));
    // A run of before there were a log of responses and a history.
    std::fs::create_dir(&old).unwrap();
    std::fs::copy(Path::new(&aligned).join("metrics.jsonl"), old.join("metrics.jsonl")).unwrap();
    let (page, text) = report(dir.path(), &[&sft, &aligned, &old.display().to_string(), &one, &two]);
    for shown in [
        "<polyline",
        "<rect",
        "&lt;script&gt;one",
        "a &lt; b &amp; &quot;c&quot;?",
        "&lt;b&gt;j",
        "\\u{202e}\\u{1b}",
        "aria-label=\"Log-ratio of the policy&#x27;s own responses\"",
    ] {
        assert!(text.contains(shown), "{shown} is missing");
    }
    assert!(!text.contains('\u{202e}') && !text.contains('\u{1b}'));
    let chart = |title: &str| {
        let from = text.find(&format!("aria-label=\"{title}\"")).unwrap_or_else(|| panic!("no {title}"));
        &text[from..from + text[from..].find("</figure>").unwrap()]
    };
    // The rewards of the rejected lie between -1 and 1.3: half of them in the first of 24 bars.
    assert!(chart("Reward").contains("<title>−1 to −0.9042: 50.0\u{a0}%</title>"), "{}", chart("Reward"));
    // In the first epoch the policy is still the reference (the rate of the first step is 0), so each side is one bar. Later it is not.
    let bars = |title: &str| chart(title).matches("<rect").count();
    assert_eq!(chart("Log-ratio, first epoch").matches(": 100.0\u{a0}%").count(), 2);
    assert_eq!(bars("Log-ratio, first epoch"), 2);
    assert!(bars("Log-ratio, last epoch") > 2);
    for title in ["Target of the log-ratio, first epoch", "Distance from the target, last epoch", "Length"] {
        assert!(bars(title) > 0, "{title}");
    }
    assert!(bars("Evaluation data: Log-ratio, last evaluation") > 0);
    // Training and evaluation share a chart: two lines of the second run's colour, and of the third's.
    assert_eq!(chart("Loss: DRO").matches("line dashed k1").count(), 1);
    // A run keeps its colour: the bars of its responses, the lines of its metrics and its card have one class.
    assert!(chart("Log-ratio, last epoch").contains("bar solid k1") && text.contains("<article class=\"card k1\">"));
    for view in in_a_browser(&page) {
        for needed in [
            "Supervised fine-tuning (SFT)",
            "Alignment by DRO (Direct Reward Optimization)",
            "Did it learn?",
            "Did it overfit?",
            "Is it better than before?",
            "What did it cost?",
            "Any warnings?",
            "the run had no evaluation data",
            "random weights, shaped by",
            "(40 examples)",
            "6 (3 passes over the data)",
            "of memory at most",
            "tokens trained on",
            "the run has only 4 steps",
            "nothing marks the run as finished",
            "Good: rises from 0.5, which is chance, towards 1.",
            "optimizer step",
            "nats per token",
            "share of responses, %",
            "mean rating, 1 to 10",
            "5.00 ± 0.50",
            "+0.75 [",
            "Samples",
            "<script>two</script>\\u{202e}\\u{1b}",
            "Settings",
        ] {
            assert!(view.text.contains(needed), "{needed:?} is not visible: {}", view.text);
        }
        // Folded away.
        assert!(!view.text.contains("categories.math.score"), "{}", view.text);
        view.is_readable();
    }
}

/// A page as a person sees it.
struct View {
    width: u64,
    dark: bool,
    /// The text that is visible, with each white space as one blank.
    text: String,
    found: Value,
}

impl View {
    /// Fails the test unless nothing is wider than the window and text stands out from the page.
    fn is_readable(&self) {
        let Self { width, dark, found, .. } = self;
        assert!(
            found["scroll"].as_u64().unwrap() <= *width,
            "the page is wider than {width} pixels: {}",
            found["wide"]
        );
        let colours = &found["colours"];
        assert!(colours.as_array().unwrap().len() > 5, "{colours}");
        for pair in colours.as_array().unwrap() {
            let [name, front, back] = [0, 1, 2].map(|i| pair[i].as_str().unwrap());
            let contrast = contrast(front, back);
            assert!(contrast >= 4.5, "{name}: {front} on {back} has a contrast of {contrast:.2}, dark: {dark}");
        }
        let page = luminance(found["page"].as_str().unwrap());
        assert_eq!(page < 0.2, *dark, "{}", found["page"]);
    }
}

/// The relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it.
fn luminance(colour: &str) -> f64 {
    let numbers: Vec<f64> = colour
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().unwrap())
        .collect();
    let channel = |value: f64| {
        let value = value / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(numbers[0]) + 0.7152 * channel(numbers[1]) + 0.0722 * channel(numbers[2])
}

fn contrast(a: &str, b: &str) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// A page that looks at the report in a frame: the report itself runs no script.
const LOOK: &str = r#"<!doctype html><html><body><iframe width="WIDTH" height="900" style="border:0" src="PAGE"></iframe><pre id="out"></pre>
<script>
window.onload = () => {
  const page = document.querySelector('iframe').contentDocument;
  const style = (element) => page.defaultView.getComputedStyle(element);
  const back = (element) => {
    for (; element; element = element.parentElement) {
      const colour = style(element).backgroundColor;
      if (colour != 'rgba(0, 0, 0, 0)') return colour;
    }
  };
  const colours = [];
  for (const name of ['body', '.kind', '.verdict.good', '.verdict.bad', '.verdict.unclear', '.verdict.neutral', '.facts dt',
                      '.answers li', 'figcaption small', '.who', 'pre', 'footer']) {
    for (const element of page.querySelectorAll(name)) colours.push([name, style(element).color, back(element)]);
  }
  for (const text of page.querySelectorAll('svg text')) colours.push(['svg text', style(text).fill, back(text.closest('figure'))]);
  const scroll = page.documentElement.scrollWidth;
  const wide = [...page.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > WIDTH && !e.closest('.wide, pre'));
  document.getElementById('out').textContent = JSON.stringify({
    text: page.body.innerText, scroll, colours, page: style(page.body).backgroundColor,
    scripts: page.scripts.length, svg: page.querySelectorAll('figure > svg').length, wide: wide.map((e) => e.outerHTML.slice(0, 200)),
  });
};
</script></body></html>"#;

/// Opens the page in headless Chromium, without any network: on a telephone and on a desk, light and dark. Returns nothing if there is
/// no Chromium.
fn in_a_browser(page: &Path) -> Vec<View> {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
    else {
        let required = std::env::var_os("SETPOINT_REQUIRE_TEST_DATA").is_some_and(|value| value == "1");
        assert!(!required, "no Chromium to open the report in");
        println!("skipped: no Chromium to open the report in");
        return Vec::new();
    };
    let charts = std::fs::read_to_string(page).unwrap().matches("<figure>").count();
    let mut views = Vec::new();
    for (width, dark) in [(390, false), (390, true), (1280, false), (1280, true)] {
        let look = page.with_file_name("look.html");
        let text = LOOK.replace("WIDTH", &width.to_string()).replace("PAGE", &format!("file://{}", page.display()));
        std::fs::write(&look, text).unwrap();
        let found = open_page(browser, &look, dark);
        assert_eq!(found["scripts"], 0);
        // A browser closes what was left open and moves what is in the wrong place.
        assert_eq!(found["svg"], charts);
        let text = found["text"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        views.push(View { width, dark, text, found });
    }
    views
}

/// Opens a page in headless Chromium and returns what its script has found.
///
/// Chromium waits for the network now and then, or for a profile that another process holds. So it asks for neither, and
/// is started again if it has not ended within a minute.
fn open_page(browser: &str, page: &Path, dark: bool) -> Value {
    let mut said = String::new();
    for _ in 0..3 {
        let profile = tempfile::tempdir().unwrap();
        let output = Command::new("timeout")
            .args(["-s", "KILL", "60", browser])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom"])
            .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        let dom = String::from_utf8_lossy(&output.stdout);
        let found = dom.split("<pre id=\"out\">").nth(1).and_then(|rest| rest.split("</pre>").next());
        let found = found.unwrap_or_default().replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        match serde_json::from_str(&found.replace("&nbsp;", "\u{a0}")) {
            Ok(found) => return found,
            Err(e) => said = format!("{e}: {dom} {}", String::from_utf8_lossy(&output.stderr)),
        }
    }
    panic!("{said}");
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

#[test]
fn a_run_that_was_killed_and_resumed_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("killed");
    let mut arguments = sft_arguments(&run, 400);
    for setting in ["train.save_steps=5", "samples.prompts=0"] {
        arguments.extend(["--set".into(), setting.into()]);
    }
    let mut child = command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let saved = run.join("checkpoints/step-00000010");
    while !saved.is_dir() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let path = run.display().to_string();
    let (_, text) = report(dir.path(), &[&path]);
    for shown in [" of 400 (", "passes over the data), not finished", "the last process was killed, or still runs"] {
        assert!(text.contains(shown), "{shown} is missing: {text}");
    }
    // A fast machine has saved ten steps before there is a time to speak of.
    assert!(text.contains("at least ") || text.contains("under 0.1 s"), "{text}");
    setpoint_owned(&["sft".into(), "--quiet".into(), "--run".into(), path.clone(), "--resume".into()]).ok();
    let (_, text) = report(dir.path(), &[&path]);
    assert!(text.contains("; resumed after step ") && !text.contains("not finished"), "{text}");
    assert!(text.contains("its time is unknown") && !text.contains("the last process was killed"));
}

#[test]
fn folders_of_older_versions_have_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let runs = root().join("tests/fixtures/runs-4bb4a63");
    let paths = ["sft", "reward", "dro", "dpo", "kto"].map(|name| runs.join(name).display().to_string());
    let (_, text) = report(dir.path(), &paths.each_ref().map(String::as_str));
    for title in ["Loss: SFT", "Loss: reward model", "Loss: DRO", "Loss: DPO", "Loss: KTO"] {
        assert_eq!(text.matches(&format!("aria-label=\"{title}\"")).count(), 1, "{title}");
    }
    // Every metric of these runs has a title of its own.
    for run in &paths {
        let metrics = std::fs::read_to_string(Path::new(run).join("metrics.jsonl")).unwrap();
        let line: serde_json::Map<String, Value> = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
        for name in line.keys() {
            assert!(!text.contains(&format!("aria-label=\"{}\"", name.replace('/', "&#x2f;"))), "{name}");
        }
    }
    assert!(text.contains("nothing marks the run as finished") && text.contains("the time of the steps alone"));
}

#[test]
fn names_and_settings_from_strangers_stay_text() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "x\"><img onerror=alert(1)>\u{202e}";
    let run = dir.path().join(evil);
    std::fs::create_dir(&run).unwrap();
    let key = json!({"step": 1, "</svg><b>": 1.0, "loss": 2.0}).to_string();
    let next = json!({"step": 2, "</svg><b>": 2.0, "loss": 1.0, "grad_norm": null}).to_string();
    std::fs::write(run.join("metrics.jsonl"), format!("{key}\n{next}\n")).unwrap();
    std::fs::write(run.join("config.toml"), "[model]\npath = '</pre><b onclick=x>'\n[align]\nmethod = '<i>'\n")
        .unwrap();
    let sample = json!({"step": 2, "prompt": "</div><b>", "completion": "y".repeat(100_000)}).to_string();
    std::fs::write(run.join("samples.jsonl"), sample + "\n").unwrap();
    let event = json!({"time": "2026-11-29T23:00:00.000Z", "event": "warned", "message": "<b>\u{7}"}).to_string();
    std::fs::write(run.join("history.jsonl"), event + "\nnot json\n").unwrap();
    let (page, text) = report(dir.path(), &[&run.display().to_string()]);
    for tag in ["<img", "<b>", "<b ", "<i>", "\u{202e}", "\u{7}"] {
        assert!(!text.contains(tag), "{tag:?} came through");
    }
    assert!(text.contains("1 value in metrics.jsonl not finite"));
    // The long sample was cut.
    assert!(text.len() < 60_000, "{}", text.len());
    in_a_browser(&page).iter().for_each(View::is_readable);
}

#[test]
fn a_file_that_is_no_report_is_replaced_only_if_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let run = root().join("tests/fixtures/runs-4bb4a63/dro");
    let (run, page) = (run.display().to_string(), dir.path().join("report.html"));
    let output = page.display().to_string();
    let arguments = ["report", &run, "--output", &output];
    for mine in ["<!doctype html><title>Mine</title>", "{}"] {
        std::fs::write(&page, mine).unwrap();
        setpoint(&arguments).fails(1, &["exists already, and is no report", "--overwrite"]);
        assert_eq!(std::fs::read_to_string(&page).unwrap(), mine);
    }
    setpoint(&[&arguments[..], &["--overwrite"]].concat()).ok();
    let written = std::fs::read_to_string(&page).unwrap();
    assert!(setpoint::report::is_report(&page));
    // A report, and a file of nothing, is no loss.
    setpoint(&arguments).ok();
    std::fs::write(&page, "").unwrap();
    setpoint(&arguments).ok();
    assert_eq!(std::fs::read_to_string(&page).unwrap().len(), written.len());
}

#[test]
fn paths_that_are_no_run_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    setpoint(&["report", &dir.path().display().to_string()]).fails(1, &["metrics.jsonl", "result.json"]);
    setpoint(&["report"]).fails(2, &["RUN"]);
    let many = vec![dir.path().display().to_string(); 51];
    let arguments: Vec<&str> = ["report"].into_iter().chain(many.iter().map(String::as_str)).collect();
    setpoint(&arguments).fails(1, &["at most 50"]);
}
