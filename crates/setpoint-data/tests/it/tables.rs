//! Tables and compressed files, against the same rows as JSON lines (tests/golden/make_tables.py).

use std::path::{Path, PathBuf};

use setpoint_data::{BadRows, DatasetConfig, Error, Prompt, Record, load_records, read_rows};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tables").join(name)
}

fn config(path: &Path) -> DatasetConfig {
    DatasetConfig::new(path.to_str().unwrap())
}

fn load(name: &str) -> Vec<Record> {
    load_records(&config(&golden(name))).unwrap().0
}

/// Writes a file and returns what reading it says.
fn read(name: &str, bytes: impl AsRef<[u8]>) -> Result<Vec<Record>, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    load_records(&config(&path)).map(|(records, _)| records)
}

fn message(name: &str, bytes: impl AsRef<[u8]>) -> String {
    read(name, bytes).unwrap_err().to_string()
}

#[test]
fn the_same_rows_in_every_kind_of_file() {
    for stem in ["scored", "pairs"] {
        let expected = load(&format!("{stem}.jsonl"));
        assert_eq!(expected.len(), 3);
        for ending in ["csv", "tsv", "csv.gz", "csv.zst", "jsonl.zst"] {
            let records = load(&format!("{stem}.{ending}"));
            assert_eq!(records.len(), 3, "{stem}.{ending}");
            for (record, expected) in records.iter().zip(&expected) {
                assert_eq!(record.prompt, expected.prompt, "{stem}.{ending}");
                assert_eq!(record.responses, expected.responses, "{stem}.{ending}");
                assert_eq!(record.extra, expected.extra, "{stem}.{ending}");
            }
        }
    }
}

#[test]
fn empty_cells_are_absent_where_no_text_is_looked_for() {
    let records =
        read("train.csv", "instruction,input,output,label,margin\nAdd.,,3,,\n\"Sub.\",2-1,1,True,0.5\n").unwrap();
    assert_eq!(records[0].prompt.question(), "Add.");
    assert_eq!((records[0].responses[0].label, records[0].margin), (None, None));
    assert_eq!(records[1].prompt.question(), "Sub.\n2-1");
    assert_eq!((records[1].responses[0].text(), records[1].margin), ("1", Some(0.5)));
    assert_eq!(records[1].responses[0].label, Some(setpoint_data::Label::Desirable));
    let lists = "prompt,responses,rewards,reference_rewards\np,\"[\"\"a\"\"]\",[1],\"[0.5, 2]\"\n";
    let records = read("train.csv", lists).unwrap();
    assert_eq!(records[0].prompt, Prompt::Text("p".into()));
    assert_eq!(records[0].extra["reference_rewards"], serde_json::json!([0.5, 2]));
}

#[test]
fn errors_name_the_line_and_the_column() {
    for (text, expected) in [
        ("prompt,completion\np,c\np,\n", "train.csv:3: `completion` is empty"),
        ("prompt,completion,reward\np,c,good\n", "train.csv:2: `reward`: expected a number, found the text \"good\""),
        ("prompt,completion,reward\np,c,nan\n", "train.csv:2: `reward` is nan: a reward or margin must be a finite"),
        ("prompt,completion,reward\np,c,1\np,c,\n", "train.csv:3: `reward`: missing reward"),
        (
            "prompt,responses,rewards\np,['a'],[1]\n",
            "train.csv:2: `responses`: expected a list, found the text \"['a']\"",
        ),
        ("messages\n\"[{'role': 'user', 'content': 'a'}]\"\n", "train.csv:2: `messages`: expected a list"),
        ("prompt,completion\np,c,d\n", "train.csv:2: found 3 cells, expected 2"),
        ("prompt,completion\np,\"c\n", "train.csv: a quote (\") in the row at line 2 is never closed"),
        ("prompt,prompt\np,c\n", "has `prompt` twice"),
        ("question;answer\np;c\n", "columns [question;answer] belong to no known format"),
        ("prompt,completion\n", "no rows"),
        ("", "no rows"),
    ] {
        let message = message("train.csv", text);
        assert!(message.contains(expected), "{message}");
    }
    let dropped = DatasetConfig { on_bad_row: BadRows::Drop, ..DatasetConfig::new("") };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.tsv");
    std::fs::write(&path, "prompt\tcompletion\np\tc\np\np\td\n").unwrap();
    let (records, report) = load_records(&DatasetConfig { path: path.to_str().unwrap().into(), ..dropped }).unwrap();
    assert_eq!((records.len(), report.dropped), (2, 1));
}

#[test]
fn cells_are_text_for_those_who_read_rows() {
    let rows: Vec<_> = read_rows(&config(&golden("scored.tsv"))).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows[1].1["prompt"], "007");
    assert_eq!(rows[0].1["rewards"], "[1.5, -2]");
}

#[test]
fn broken_zstandard_files() {
    let whole = std::fs::read(golden("scored.jsonl.zst")).unwrap();
    assert!(message("train.jsonl.zst", &whole[..whole.len() / 2]).contains("could not read"));
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let broken = message("train.jsonl.zst", flipped);
    assert!(broken.contains("train.jsonl.zst"), "{broken}");
    assert!(message("train.jsonl.zst", "{\"prompt\": \"p\"}\n").contains("could not read"));
    assert!(message("train.csv.zst", "prompt\np\n").contains("could not read"));
    // A frame with one empty block that asks for a window of 128 MiB, and one that asks for 256.
    let frame = |window: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, window, 1, 0, 0];
    assert!(message("train.jsonl.zst", frame(0x88)).contains("no rows"));
    let large = message("train.jsonl.zst", frame(0x90));
    assert!(large.contains("too much memory"), "{large}");
}
