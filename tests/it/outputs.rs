//! Where results go: checked before any work.

use std::path::Path;

use super::fixture::{demo, file, model, rewarded_rows, setpoint};

/// Commands that write a file, without their last argument, the file.
fn to_a_file(data: &str, rules: &str) -> Vec<Vec<String>> {
    let policy = model().display().to_string();
    let owned = |arguments: &[&str]| arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let own = format!("baseline.path={policy}");
    let rule = ["--set", "rule.kind=length", "--set", "rule.unit=chars", "--set", "rule.target=6"];
    vec![
        owned(&["generate", "--model", &policy, "--data", data, "--set", "generate.max_new_tokens=2", "--output"]),
        owned(&["logps", "--model", &policy, "--data", data, "--output"]),
        owned(&["annotate", rules, "--data", data, "--output"]),
        owned(&["select", "--data", data, "--output"]),
        owned(&["audit", "--model", &policy, "--data", data, "--set", "align.log_z0=1", "--output"]),
        owned(&[&["eval", "--model", &policy, "--data", data, "--set", &own], &rule[..], &["--output"]].concat()),
    ]
}

/// Commands that write into a folder, without the folder.
fn to_a_folder(data: &str) -> Vec<Vec<String>> {
    let policy = model().display().to_string();
    let owned = |arguments: &[&str]| arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let pairs = demo("preferences.jsonl").display().to_string();
    vec![
        owned(&["sft", "--model", &policy, "--data", data, "--run"]),
        owned(&["reward", "--model", &policy, "--data", &pairs, "--run"]),
        owned(&["align", "--model", &policy, "--data", data, "--run"]),
        owned(&["eval", "tasks", "--model", &policy, "--data", data, "--tasks", "arc_easy", "--output"]),
        owned(&["eval", "alpaca", "--model", &policy, "--baseline", data, "--output"]),
        owned(&["eval", "mt-bench", "--model", &policy, "--questions", data, "--output"]),
    ]
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_any_work() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let (_rules, rules) = file("rules.toml", "rule = { kind = \"length\", unit = \"chars\", target = 6 }\n");
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir(at("folder")).unwrap();
    let below = format!("{data}/x");
    let refuses = |arguments: &[String], output: &str, said: &str| {
        for more in [&[][..], &["--dry-run"]] {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain([output]).collect();
            let ran = setpoint(&[&arguments[..], more].concat());
            assert!(ran.stdout.is_empty(), "{arguments:?}: {ran:#?}");
            ran.fails(2, &[said, output]);
        }
    };
    for arguments in to_a_file(&data, &rules) {
        refuses(&arguments, &at("folder"), "is a folder");
        refuses(&arguments, &below, "is a file, not a folder");
        if cfg!(target_os = "linux") {
            refuses(&arguments, "/proc/setpoint/x.jsonl", "cannot be written");
        }
    }
    for arguments in to_a_folder(&data) {
        refuses(&arguments, &data, "is a file: expected a folder");
        refuses(&arguments, &below, "is a file, not a folder");
        if cfg!(target_os = "linux") {
            refuses(&arguments, "/proc/setpoint/x", "cannot be written");
        }
    }
    setpoint(&["report", &at("no-run"), "--output", &at("folder")]).fails(2, &["is a folder"]);
    setpoint(&["eval", "compare", &data, &data, "--output", &at("folder")]).fails(2, &["is a folder"]);
    setpoint(&["demo", "--run", &data]).fails(2, &["is a file: expected a folder"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
    assert!(std::fs::read_dir(at("folder")).unwrap().next().is_none());
}

#[test]
fn folders_on_the_way_to_an_output_are_created() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let (_rules, rules) = file("rules.toml", "rule = { kind = \"length\", unit = \"chars\", target = 6 }\n");
    for arguments in to_a_file(&data, &rules) {
        let output = dir.path().join(format!("no/such/folder/{}.jsonl", arguments[0])).display().to_string();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain([output.as_str()]).collect();
        setpoint(&[&arguments[..], &["--dry-run"]].concat()).ok();
        assert!(!dir.path().join("no").exists() || arguments[0] != "generate", "a check creates nothing");
        setpoint(&arguments).ok();
        assert!(Path::new(&output).is_file(), "{arguments:?}");
    }
}

#[test]
fn an_existing_output_is_neither_replaced_nor_continued_unasked() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let (_rules, rules) = file("rules.toml", "rule = { kind = \"length\", unit = \"chars\", target = 6 }\n");
    let commands = to_a_file(&data, &rules);
    for arguments in commands.iter().filter(|a| ["generate", "logps", "annotate"].contains(&a[0].as_str())) {
        let path = dir.path().join(format!("{}.jsonl", arguments[0]));
        let output = path.display().to_string();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain([output.as_str()]).collect();
        let run = |more: &[&str]| setpoint(&[&arguments[..], more].concat());
        std::fs::write(&path, "mine\n").unwrap();
        for more in [&[][..], &["--dry-run"], &["--continue"], &["--continue", "--dry-run"]] {
            run(more).fails(1, &["--overwrite", &output]);
        }
        run(&["--overwrite", "--dry-run"]).ok();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine\n");
        run(&["--overwrite", "--continue"]).fails(2, &["--overwrite", "--continue"]);
        run(&["--overwrite"]).ok();
        let whole = std::fs::read_to_string(&path).unwrap();
        // Of the answers, the empty ones are left out.
        let least = if arguments[0] == "generate" { 0 } else { 3 };
        assert!(whole.lines().count() >= least && !whole.contains("mine"), "{whole}");
        // A script that always goes on may find that nothing is left to do, if it is the same job and the file is as it was left.
        assert!(run(&["--continue"]).ok().stderr.contains("is complete"), "{arguments:?}");
        run(&["--continue", "--dry-run"]).ok();
        run(&["--continue", "--set", "data.max_rows=2"])
            .fails(1, &["data.max_rows", "the data changed", "--overwrite"]);
        run(&[]).fails(1, &["exists already"]);
        std::fs::write(&path, "mine\n").unwrap();
        run(&["--continue"]).fails(1, &["is not as the command left it", "--overwrite"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine\n");
        // Nothing to go on with is no reason to fail: the same command line works from the first time.
        std::fs::remove_file(&path).unwrap();
        run(&["--continue"]).ok();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        assert!(!Path::new(&format!("{output}.partial")).exists());
    }
    setpoint(&["logps", "--model", &model().display().to_string(), "--data", &data, "--continue"])
        .fails(2, &["--continue", "--output FILE"]);
}

#[test]
fn a_result_that_exists_is_replaced_only_when_asked() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let (_rules, rules) = file("rules.toml", "rule = { kind = \"length\", unit = \"chars\", target = 6 }\n");
    let stays = |arguments: &[&str], path: &Path, named: &str| {
        std::fs::write(path, "mine\n").unwrap();
        setpoint(arguments).fails(1, &[named, "exists already", "--overwrite"]);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "mine\n", "{arguments:?}");
    };
    let commands = to_a_file(&data, &rules);
    for arguments in commands.iter().filter(|a| ["audit", "eval"].contains(&a[0].as_str())) {
        let path = dir.path().join(format!("{}.json", arguments[0]));
        let output = path.display().to_string();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain([output.as_str()]).collect();
        stays(&arguments, &path, &output);
        stays(&[&arguments[..], &["--dry-run"]].concat(), &path, &output);
        setpoint(&[&arguments[..], &["--overwrite"]].concat()).ok();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object(), "{text}");
        // A pipe or a device is written to.
        if cfg!(target_os = "linux") {
            setpoint(&[&arguments[..arguments.len() - 1], &["/dev/null"]].concat()).ok();
        }
    }
    // A benchmark has its result in a folder: a folder without one is no result.
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let (output, result) = (folder.display().to_string(), folder.join("result.json"));
    let csv = (0..40).map(|i| format!("{},{},{}\n", 300 + i * 7 % 90, 200 + i * 13 % 170, 1.0 + f64::from(i) / 40.0));
    let (_keep, annotations) = file("own.csv", &("len_1,len_2,preference\n".to_owned() + &csv.collect::<String>()));
    let alpaca = ["eval", "alpaca", "--annotations", &annotations, "--output", &output];
    setpoint(&alpaca).ok();
    stays(&alpaca, &result, &result.display().to_string());
    setpoint(&[&alpaca[..], &["--overwrite"]].concat()).ok();
    for benchmark in to_a_folder(&data).iter().filter(|a| a[0] == "eval") {
        let arguments: Vec<&str> = benchmark.iter().map(String::as_str).chain([output.as_str()]).collect();
        stays(&arguments, &result, &result.display().to_string());
    }
    setpoint(&[&alpaca[..], &["--overwrite"]].concat()).ok();
    let table = dir.path().join("table.json");
    let compared = ["eval", "compare", &output, &output, "--output", &table.display().to_string()];
    stays(&compared, &table, "table.json");
    setpoint(&[&compared[..], &["--overwrite"]].concat()).ok();
    assert!(std::fs::read_to_string(&table).unwrap().starts_with('{'));
}

/// Runs a command until some of its rows are written, and kills it.
pub fn killed(arguments: &[&str], partial: &Path) {
    let mut child = super::fixture::command(arguments)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !std::fs::read_to_string(partial).is_ok_and(|text| text.contains("setpoint_done")) {
        assert!(child.try_wait().unwrap().is_none(), "{arguments:?} ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(partial.exists(), "{arguments:?} had ended before it was killed");
}

#[test]
fn a_killed_command_goes_on_to_the_same_file() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(300));
    let policy = model().display().to_string();
    let generate = ["generate", "--model", &policy, "--data", &data, "--set", "generate.batch_size=2"];
    let sampled = ["--set", "generate.temperature=1", "--set", "generate.max_new_tokens=24", "--output"];
    let logps = ["logps", "--model", &policy, "--data", &data, "--set", "batch_tokens=40", "--output"];
    for arguments in [[&generate[..], &sampled].concat(), logps.to_vec()] {
        let at = |name: &str| dir.path().join(format!("{}-{name}.jsonl", arguments[0]));
        let run = |output: &Path, more: &[&str]| {
            let output = output.display().to_string();
            setpoint(&[&arguments[..], &[output.as_str()], more].concat())
        };
        run(&at("whole"), &[]).ok();
        let (output, partial) = (at("killed"), format!("{}.partial", at("killed").display()));
        let named = output.display().to_string();
        killed(&[&arguments[..], &[named.as_str()]].concat(), Path::new(&partial));
        assert!(!output.exists());
        // Its rows are not lost by accident, nor continued by another command.
        run(&output, &[]).fails(1, &["--continue", &partial]);
        let other = if arguments[0] == "generate" { "generate.seed=5" } else { "t0=2" };
        let key = other.split('=').next().unwrap();
        run(&output, &["--continue", "--set", other]).fails(1, &[key, &partial, "--overwrite"]);
        let fewer = ["--continue", "--set", "data.max_rows=299"];
        run(&output, &fewer).fails(1, &["data.max_rows", "the data changed"]);
        // A line that was being written.
        let mut torn = std::fs::OpenOptions::new().append(true).open(&partial).unwrap();
        std::io::Write::write_all(&mut torn, b"{\"prompt\": [{\"ro").unwrap();
        let ran = run(&output, &["--continue"]).ok();
        assert!(ran.stderr.contains("are kept"), "{ran:#?}");
        assert!(std::fs::read(&output).unwrap() == std::fs::read(at("whole")).unwrap(), "{arguments:?}");
        assert!(!Path::new(&partial).exists());
    }
}
