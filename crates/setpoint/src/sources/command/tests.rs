//! Commands that behave, and commands that do not.

use std::time::{Duration, Instant};

use super::*;
use crate::failure::Failure;

const HONEST: &str = r#"while read -r line; do echo '{"score": 1.5}'; done"#;

/// A source that runs a shell script, with limits of a second.
fn source(script: &str, batch: usize) -> CommandSource {
    let run = ["sh", "-c", script].map(str::to_owned).to_vec();
    let settings = CommandSettings { run, batch, timeout_seconds: 1, startup_seconds: 30, fields: false };
    CommandSource::new(settings, Session::on(burn::tensor::Device::flex()))
}

/// Scores as many responses of a kilobyte as a row each.
fn score(source: &CommandSource, responses: usize) -> Result<Vec<f64>, String> {
    let text = "x".repeat(1000);
    let items: Vec<Scored<'_>> =
        (0..responses).map(|row| Scored { row, prompt: "?", response: &text, ..Scored::default() }).collect();
    source.score(&items, &mut |_| ()).map_err(|error| Failure::from(error).sentence())
}

/// The sentence with which a script fails on two responses.
#[track_caller]
fn failure(script: &str) -> String {
    score(&source(script, 2), 2).expect_err(script)
}

#[test]
fn an_honest_command_scores_every_batch() {
    let source = source(HONEST, 3);
    assert_eq!(score(&source, 7).unwrap(), [1.5; 7]);
    // The same process serves the next call.
    assert_eq!(score(&source, 2).unwrap(), [1.5; 2]);
    source.finish().unwrap();
    assert!(source.running().is_none());
}

#[test]
fn a_request_holds_the_response_and_its_row() {
    let mut source = source(HONEST, 1);
    let row = json!({"answer": "4"});
    let item = Scored { row: 3, response_index: 1, prompt: "2 + 2?", response: "\"4\"\n", ..Scored::default() };
    let item = Scored { fields: row.as_object(), ..item };
    let line = String::from_utf8(source.request(&item)).unwrap();
    assert_eq!(line, "{\"prompt\":\"2 + 2?\",\"response\":\"\\\"4\\\"\\n\",\"row\":3,\"response_index\":1}\n");
    source.settings.fields = true;
    let line = String::from_utf8(source.request(&item)).unwrap();
    assert!(line.ends_with("\"response_index\":1,\"fields\":{\"answer\":\"4\"}}\n"), "{line}");
}

#[test]
fn a_command_that_writes_before_it_reads_does_not_block() {
    // More than a pipe holds, in both directions.
    let script = r#"pad=$(head -c 50000 /dev/zero | tr '\0' x); i=0
        while [ $i -lt 100 ]; do echo "{\"score\": $i, \"pad\": \"$pad\"}"; i=$((i + 1)); done; cat > /dev/null"#;
    let mut source = source(script, 100);
    source.settings.timeout_seconds = 60;
    let scores = score(&source, 100).unwrap();
    assert_eq!(scores, (0..100).map(f64::from).collect::<Vec<_>>());
    source.finish().unwrap();
}

#[test]
fn a_slow_command_is_stopped() {
    let mut slow = source("sleep 1000", 2);
    slow.settings.startup_seconds = 1;
    let started = Instant::now();
    let message = score(&slow, 2).unwrap_err();
    assert!(
        message.contains("row 0, response 0: command `sh -c sleep 1000` failed: it took longer than 1 s"),
        "{message}"
    );
    assert!(started.elapsed() < Duration::from_secs(60), "the limit is a second");
    assert!(slow.remedy().is_some_and(|remedy| remedy.contains("command.timeout_seconds")));
    assert!(slow.running().is_none(), "the command is gone");
    let message = failure(r#"read -r line; echo '{"score": 1}'; echo still here >&2; sleep 1000"#);
    assert!(message.contains("row 1, response 0") && message.contains("longer than 1 s after 1 of 2"), "{message}");
    assert!(message.ends_with("its messages end with: still here"), "{message}");
}

#[test]
fn a_command_that_ends_early_is_named_with_its_last_words() {
    let message = failure(r#"read -r line; echo '{"score": 1}'; printf 'b\033[31moom\n' >&2; exit 3"#);
    assert!(message.contains("row 1, response 0"), "{message}");
    assert!(message.contains("it ended (exit status: 3) after 1 of 2 scores of a batch"), "{message}");
    assert!(message.contains(r"its messages end with: b\u{1b}[31moom"), "{message}");
    assert!(failure("exit 0").contains("it ended (exit status: 0) after 0 of 2"));
    assert!(failure("exec 1>&-; sleep 1000").contains("it closed its output after 0 of 2"));
    assert!(failure("kill -9 $$").contains("signal: 9"));
    // It reads nothing, and its input is more than a pipe holds.
    let early = source(r#"exec 0<&-; echo '{"score": 1}'; exit 4"#, 200);
    let message = score(&early, 200).unwrap_err();
    assert!(message.contains("row 1, response 0") && message.contains("exit status: 4"), "{message}");
}

#[test]
fn only_the_end_of_long_messages_is_quoted() {
    let message = failure("i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i + 1)); done; exit 1");
    assert!(message.ends_with("line 2995 / line 2996 / line 2997 / line 2998 / line 2999"), "{message}");
    assert!(message.len() < 500, "{message}");
}

#[test]
fn an_answer_that_is_no_score_is_quoted() {
    for (answer, said) in [
        ("loading the model", "it printed `loading the model`, expected an object with a number"),
        ("{\"score\": \"high\"}", "it printed `{\"score\": \"high\"}`"),
        ("{\"score\": null}", "expected an object with a number"),
        ("{\"score\": NaN}", "expected an object with a number"),
        ("{\"score\": 1e999}", "expected an object with a number"),
        ("[0.5]", "expected an object with a number"),
        ("", "it printed ``"),
        ("{\"error\": \"no such model\"}", "it reports `\"no such model\"`"),
        ("{\"row\": 5, \"score\": 1}", "its answers are out of order: found `row` 5, expected 0"),
        ("{\"response_index\": 1, \"score\": 1}", "found `response_index` 1, expected 0"),
    ] {
        let message = failure(&format!("echo '{answer}'; cat > /dev/null"));
        assert!(message.contains("row 0, response 0") && message.contains(said), "{message}");
    }
    let message = failure(r"printf '\033]0;title\007\n'; cat > /dev/null");
    assert!(message.contains(r"\u{1b}]0;title\u{7}"), "{message}");
}

#[test]
fn more_answers_than_responses_are_an_error() {
    // The answers to the first batch and one more; the second batch must not take it.
    let twice = source(r#"echo '{"score": 1}'; while read -r line; do echo '{"score": 1}'; done"#, 2);
    let first = score(&twice, 2);
    assert_eq!(first.unwrap(), [1.0; 2]);
    let message = twice.finish().unwrap_err().to_string();
    assert!(message.contains("row 1, response 0") && message.contains("a line more than it read"), "{message}");
    let endless = source(r#"yes '{"score": 2}'"#, 2);
    assert_eq!(score(&endless, 2).unwrap(), [2.0; 2]);
    thread::sleep(Duration::from_millis(100));
    let message = score(&endless, 2).unwrap_err();
    assert!(message.contains("a line more than it read"), "{message}");
    let message = failure("yes | tr -d '\\n'");
    assert!(message.contains("a line of more than 1048576 bytes"), "{message}");
}

#[test]
fn more_answers_than_responses_are_noticed_before_rewards_are_used() {
    for pause in ["", "sleep 0.1; "] {
        let answer = format!("{pause}echo '{{\"score\": 1}}'");
        let twice = source(&format!("while read -r line; do {answer}; {answer}; done"), 4);
        assert_eq!(score(&twice, 4).unwrap(), [1.0; 4]);
        let message = twice.check().unwrap_err().to_string();
        assert!(message.contains("row 3, response 0") && message.contains("a line more than it read"), "{message}");
    }
    let honest = source(HONEST, 3);
    honest.check().unwrap();
    assert_eq!(score(&honest, 7).unwrap(), [1.5; 7]);
    honest.check().unwrap();
    assert_eq!(score(&honest, 2).unwrap(), [1.5; 2]);
}

#[test]
fn a_command_that_does_not_end_keeps_its_scores() {
    let stubborn = source(r#"while read -r line; do echo '{"score": 1}'; done; sleep 1000"#, 2);
    assert_eq!(score(&stubborn, 2).unwrap(), [1.0; 2]);
    let started = Instant::now();
    stubborn.finish().unwrap();
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_host_that_stops_ends_the_wait() {
    #[derive(Debug)]
    struct Stopping;
    impl crate::session::Host for Stopping {
        fn should_stop(&self) -> bool {
            true
        }
    }
    let mut source = source("sleep 1000", 2);
    source.session.host = Arc::new(Stopping);
    assert!(score(&source, 2).unwrap_err().contains("the job was told to stop"));
    assert!(source.running().is_none());
}

#[test]
fn programs_are_found_before_any_work() {
    let find = |run: &[&str]| find_program(&run.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert!(find(&["sh", "-c", "true"]).unwrap().is_absolute());
    assert!(find(&[]).unwrap_err().contains("names no program"));
    assert!(find(&[""]).unwrap_err().contains("names no program"));
    assert!(find(&["no-such-program"]).unwrap_err().contains("is in no folder of PATH"));
    assert!(find(&["./no/such/program"]).unwrap_err().contains("does not exist"));
    assert!(find(&["sh", "a\0b"]).unwrap_err().contains("zero byte"));
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("score.sh");
    std::fs::write(&script, "").unwrap();
    assert!(find(&[&script.display().to_string()]).unwrap_err().contains("cannot be run"));
}

#[test]
fn an_edited_script_is_another_source() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("score.sh");
    std::fs::write(&script, "one").unwrap();
    let settings = Some(CommandSettings {
        run: vec!["sh".to_owned(), script.display().to_string()],
        ..CommandSettings::default()
    });
    let before = settings.inputs().unwrap();
    assert_eq!(before, settings.inputs().unwrap());
    std::fs::write(&script, "two").unwrap();
    assert_ne!(before, settings.inputs().unwrap());
}
