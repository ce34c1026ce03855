//! The public data sets of the test data, read whole.

use setpoint_data::{DatasetConfig, Format, Label, Prompt, Record, load_records, read_records};

use crate::common::test_data;

fn load(name: &str) -> Option<Vec<Record>> {
    let path = test_data(name)?;
    let (records, report) = load_records(&DatasetConfig::new(path.to_str().unwrap())).unwrap();
    assert_eq!((report.rows, report.kept, report.dropped), (records.len(), records.len(), 0));
    Some(records)
}

fn labels(record: &Record) -> Vec<Option<Label>> {
    record.responses.iter().map(|r| r.label).collect()
}

fn roles(record: &Record) -> Vec<&str> {
    match &record.prompt {
        Prompt::Text(_) => vec![],
        Prompt::Messages(messages) => messages.iter().map(|m| m.role.as_str()).collect(),
    }
}

#[test]
fn alpaca() {
    if let Some(records) = load("sft/alpaca_en_demo.json") {
        assert_eq!(records.len(), 999);
        assert_eq!(records[0].prompt.question(), "Describe a process of making crepes.");
    }
    if let Some(records) = load("sft/rasbt_instruction-data.json") {
        assert_eq!(records.len(), 900);
        let question = "Evaluate the following phrase by transforming it into the spelling given.\nfreind --> friend";
        assert_eq!(records[0].prompt.question(), question);
    }
}

#[test]
fn preferences() {
    let pair = vec![Some(Label::Chosen), Some(Label::Rejected)];
    if let Some(records) = load("preference/rasbt_preference.json") {
        assert_eq!(records.len(), 900);
        assert!(records.iter().all(|r| labels(r) == pair && roles(r) == ["user"]));
        assert_eq!(records[1].rejected().unwrap().text(), "He goes to the stupid park every single day.");
    }
    if let Some(records) = load("preference/dpo_en_demo.json") {
        assert_eq!(records.len(), 300);
        assert!(records.iter().all(|r| labels(r) == pair && roles(r).last() == Some(&"user")));
        assert_eq!(records.iter().filter(|r| roles(r) == ["system", "user"]).count(), 80);
    }
}

#[test]
fn unpaired_preferences() {
    let Some(records) = load("preference/kto_en_demo.json") else { return };
    assert_eq!(records.len(), 300);
    let desirable = records.iter().filter(|r| labels(r) == [Some(Label::Desirable)]).count();
    let undesirable = records.iter().filter(|r| labels(r) == [Some(Label::Undesirable)]).count();
    assert_eq!(desirable + undesirable, 300);
    assert!(desirable > 0 && undesirable > 0);
    assert_eq!(records.iter().filter(|r| roles(r) == ["user"]).count(), 223);
}

#[test]
fn rows_are_limited_and_formats_overridden() {
    let Some(path) = test_data("preference/rasbt_preference.json") else { return };
    let config = DatasetConfig { max_rows: Some(7), ..DatasetConfig::new(path.to_str().unwrap()) };
    assert_eq!(load_records(&config).unwrap().0.len(), 7);
    let config = DatasetConfig { format: Format::named("messages"), ..config };
    let message = load_records(&config).unwrap_err().to_string();
    assert!(
        message.contains("rasbt_preference.json: row 0: missing column `messages` (format `messages`)"),
        "{message}"
    );
}

#[test]
fn columns_are_renamed() {
    let Some(path) = test_data("eval/gsm8k_test.jsonl") else { return };
    let path = path.to_str().unwrap();
    let message = load_records(&DatasetConfig::new(path)).unwrap_err().to_string();
    assert!(message.contains("gsm8k_test.jsonl:1: columns [question, answer] belong to no known format"), "{message}");
    let columns = [("prompt", "question"), ("completion", "answer")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let config = DatasetConfig { columns: columns.clone().into(), ..DatasetConfig::new(path) };
    let records: Vec<_> = read_records(&config).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), 1319);
    let config = DatasetConfig { columns: [("prompt".to_owned(), "ask".to_owned())].into(), ..config };
    let message = load_records(&config).unwrap_err().to_string();
    assert!(message.contains("takes `prompt` from a column `ask`, and there is none"), "{message}");
    assert!(message.contains("there are: question, answer"), "{message}");
}

#[test]
fn a_path_that_is_not_there() {
    let message = |path: &str| read_records(&DatasetConfig::new(path)).unwrap_err().to_string();
    assert!(message("/nonexistent/train.jsonl").starts_with("/nonexistent/train.jsonl: no such file"));
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    assert!(message(&file("data.txt", "a,b")).contains("data.txt: unknown file type; expected .jsonl"));
    let empty = file("empty.jsonl", "\n");
    let error = load_records(&DatasetConfig::new(empty)).unwrap_err().to_string();
    assert!(error.contains("empty.jsonl: no rows"), "{error}");
}

#[test]
fn bad_rows_are_named_or_dropped_and_counted() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.jsonl.gz");
    let text = "{\"prompt\": \"p\", \"responses\": [\"a\"], \"rewards\": [1]}\n\
        {\"prompt\": \"p\", \"responses\": [\"a\"], \"rewards\": [NaN]}\n\
        {\"prompt\": \"p\", \"responses\": [\"a\", \"b\"], \"rewards\": [1]}\n\
        {\"prompt\": \"p\", \"responses\": [\"a\"], \"rewards\": [2]}\n";
    let file = std::fs::File::create(&path).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap();
    // Found by its split in the folder.
    let config = DatasetConfig::new(dir.path().to_str().unwrap());
    let message = load_records(&config).unwrap_err().to_string();
    assert!(message.contains("train.jsonl.gz:2: not valid JSON"), "{message}");
    let config = DatasetConfig { on_bad_row: setpoint_data::BadRows::Drop, ..config };
    let (records, report) = load_records(&config).unwrap();
    assert_eq!(records.iter().map(|r| r.responses[0].reward).collect::<Vec<_>>(), [Some(1.0), Some(2.0)]);
    assert_eq!((report.rows, report.kept, report.dropped), (4, 2, 2));
    assert!(report.examples[1].contains(":3: 2 responses but 1 entries in `rewards`"), "{:?}", report.examples);
}
