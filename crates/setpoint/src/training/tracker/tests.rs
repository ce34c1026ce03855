//! Tools that behave, and tools that do not. A shell script takes the place of Python.

use std::fs;
use std::os::unix::fs::symlink;

use setpoint_train::RunDir;
use tempfile::TempDir;

use super::*;

/// A run folder, and a Python that can import everything and runs `body` instead of the script.
struct Place {
    dir: TempDir,
    section: TrackerSection,
}

impl Place {
    fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let python = dir.path().join("python");
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/python.sh"), &python).unwrap();
        fs::write(dir.path().join("python.body"), format!("[ \"$1\" = -c ] && exit 0\n{body}\n")).unwrap();
        let run = dir.path().join("dro-1");
        fs::create_dir(&run).unwrap();
        fs::write(
            run.join(CONFIG),
            "[train]\nlearning_rate = 5e-7\n[server]\nkey = \"hunter2\"\nurl = \"http://me:hunter2@host/\"\n[command]\nrun = [\"a\"]\n",
        )
        .unwrap();
        fs::write(run.join(RunDir::METRICS), "").unwrap();
        let python = Some(python.display().to_string());
        Self { dir, section: TrackerSection { kind: TrackerKind::Wandb, python, ..TrackerSection::default() } }
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("dro-1")
    }

    /// Appends a line of training metrics.
    fn train(&self, step: u64) {
        let mut file = fs::OpenOptions::new().append(true).open(self.run().join(RunDir::METRICS)).unwrap();
        let line = json!({ "step": step, "epoch": 0.5, "num_tokens": 10 * step, "loss": 0.25 });
        writeln!(file, "{line}").unwrap();
    }

    fn start(&self, seconds: u64) -> Tracker {
        Tracker::start_within(&self.section, &self.run(), Duration::from_secs(seconds)).unwrap()
    }
}

/// Returns the warning that comes while the run goes on.
fn warning_of(place: &Place, tracker: &mut Tracker) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    for step in 1.. {
        place.train(step);
        if let Some(warning) = tracker.take_warning() {
            return warning;
        }
        assert!(Instant::now() < deadline, "no warning came");
        thread::sleep(Duration::from_millis(20));
    }
    unreachable!("the steps are endless")
}

#[test]
fn a_tool_reads_the_settings_without_secrets_the_metrics_and_the_end() {
    let place = Place::new("cat > \"$0.read\"");
    place.train(1);
    let tracker = place.start(60);
    place.train(2);
    assert_eq!(tracker.finish(Ending::Early), None);
    let text = fs::read_to_string(place.dir.path().join("python.read")).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [start, first, second, end] = &lines[..] else { panic!("{text}") };
    assert_eq!(
        (&start["kind"], &start["project"], &start["name"]),
        (&json!("wandb"), &json!("setpoint"), &json!("dro-1"))
    );
    assert_eq!(start["config"]["train.learning_rate"], json!(5e-7));
    assert_eq!(start["config"]["command.run"], json!(["a"]));
    assert_eq!(start["state"], json!(place.run().join(STATE)));
    assert!(place.run().join("tracker").is_dir(), "the tool's folder");
    let line = |step: u64| json!({ "step": step, "kind": "train", "values": { "train/num_tokens": 10 * step, "train/loss": 0.25 } });
    assert_eq!((first, second, end), (&line(1), &line(2), &json!({ "end": "finished" })));
}

#[test]
fn a_run_without_a_line_tells_its_end() {
    let place = Place::new("cat > \"$0.read\"");
    assert_eq!(place.start(60).finish(Ending::Stopped), None);
    let text = fs::read_to_string(place.dir.path().join("python.read")).unwrap();
    assert!(text.ends_with("{\"end\":\"stopped\"}\n"), "{text}");
}

#[test]
fn a_tool_that_dies_is_one_warning() {
    let place = Place::new("echo oh >&2; exit 3");
    let mut tracker = place.start(60);
    let warning = warning_of(&place, &mut tracker);
    assert!(warning.contains("the tracker `wandb` failed: it ended early (exit status: 3)"), "{warning}");
    assert!(warning.contains("the training goes on without it") && warning.contains("tracker.log"), "{warning}");
    assert_eq!(fs::read_to_string(place.run().join(LOG)).unwrap(), "oh\n");
    place.train(1);
    assert_eq!(tracker.take_warning(), None);
    assert_eq!(tracker.finish(Ending::Finished), None);
}

#[test]
fn a_tool_that_fails_at_its_end_is_one_warning() {
    let place = Place::new("cat > /dev/null; exit 4");
    let warning = place.start(60).finish(Ending::Finished).unwrap();
    assert!(warning.contains("it ended early (exit status: 4)"), "{warning}");
}

#[test]
fn a_tool_that_hangs_is_stopped() {
    // One never reads, and one reads everything and does not end.
    for body in ["exec sleep 1000", "cat > /dev/null; sleep 1000"] {
        let place = Place::new(body);
        // More than a pipe holds.
        for step in 0..2000 {
            place.train(step);
        }
        let started = Instant::now();
        let mut tracker = place.start(1);
        assert_eq!(tracker.take_warning(), None, "{body}");
        let warning = tracker.finish(Ending::Finished).unwrap();
        assert!(warning.contains("it did not end within 1 s and was stopped"), "{body}: {warning}");
        assert!(started.elapsed() < Duration::from_secs(60), "{body}: the limit is a second");
    }
}

#[test]
fn a_package_that_is_missing_is_one_sentence() {
    let place = Place::new("");
    check(Some(&place.section)).unwrap();
    check(None).unwrap();
    let body = "echo \"ModuleNotFoundError: No module named 'wandb'\" >&2; exit 1";
    fs::write(place.dir.path().join("python.body"), body).unwrap();
    let message = check(Some(&place.section)).unwrap_err().to_string();
    for part in [
        "tracker.kind: ",
        "cannot import the package `wandb` (ModuleNotFoundError: No module named 'wandb')",
        "-m pip install wandb`",
        "leave `tracker` out",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_a_warning() {
    let mut place = Place::new("cat > /dev/null");
    fs::write(place.dir.path().join("file"), "").unwrap();
    place.section.folder = Some(place.dir.path().join("file/folder"));
    let warning = Tracker::start(&place.section, &place.run()).unwrap_err();
    assert!(warning.contains("the tracker `wandb` failed: ") && warning.contains("file/folder"), "{warning}");
}

#[test]
fn a_table_has_every_line() {
    let mut place = Place::new("");
    place.section = TrackerSection::default();
    place.train(1);
    let tracker = place.start(60);
    place.train(2);
    assert_eq!(tracker.finish(Ending::Finished), None);
    let text = fs::read_to_string(place.run().join("metrics.csv")).unwrap();
    assert_eq!(text, "step,epoch,num_tokens,loss\n1,0.5,10,0.25\n2,0.5,20,0.25\n");
}
