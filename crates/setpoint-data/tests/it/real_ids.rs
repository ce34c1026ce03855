//! Real data sets to ids: in one piece as transformers', and cut into prompt and response.

use std::path::Path;

use serde_json::Value;
use setpoint_data::{
    BadRows, BuiltIn, DatasetConfig, EncodeOptions, EncoderOptions, ExampleStore, Prompt, Record, ResponseEnd, T0,
    TemplateChoice, TextEncoder, load_records,
};
use sha2::{Digest, Sha256};

use crate::common::{read_json, test_data};

fn check(expected: &Value) {
    let name = expected["tokenizer"].as_str().unwrap();
    let (Some(folder), Some(path)) =
        (test_data(&format!("tokenizers/{name}")), test_data(expected["data"].as_str().unwrap()))
    else {
        return;
    };
    let template = if name == "llama3" { TemplateChoice::BuiltIn(BuiltIn::Llama3) } else { TemplateChoice::Own };
    let encoder = TextEncoder::from_dir(&folder, &EncoderOptions { template, ..EncoderOptions::default() }).unwrap();
    let rows = expected["rows"].as_u64().unwrap() as usize;
    let config = DatasetConfig { max_rows: Some(rows), ..DatasetConfig::new(path.to_str().unwrap()) };
    let (mut records, _) = load_records(&config).unwrap();
    // The golden ids are of the chosen, or only, answer.
    records.iter_mut().for_each(|r| r.responses.truncate(1));
    let options = EncodeOptions {
        assistant_spans: true,
        response_end: ResponseEnd::Template,
        // An answer of kto_en_demo contains `</s>`, which is TinyLlama's stop token.
        on_bad_row: BadRows::Drop,
        ..EncodeOptions::default()
    };
    let (examples, report) = encoder.encode_all(&records, &options).unwrap();
    let stops = |r: &Record| name == "tinyllama" && r.responses[0].text().contains("</s>");
    let refused = records.iter().filter(|r| stops(r)).count();
    assert_eq!((examples.len(), report.dropped.values().sum()), (records.len() - refused, refused));
    let joined: Vec<_> = records.iter().map(|r| encoder.encode_text(&text(&encoder, r)).unwrap()).collect();
    let mut apart = 0;
    for example in &examples {
        let (record, whole) = (&records[example.row], &joined[example.row]);
        let ours = [&example.prompt[..], &example.responses[0].ids].concat();
        apart += usize::from(ours != *whole);
        assert_eq!(encoder.decode(&ours).unwrap(), encoder.decode(whole).unwrap(), "{}", record.source);
        let earlier = match &record.prompt {
            Prompt::Messages(turns) => turns.iter().filter(|m| m.role == "assistant").count(),
            Prompt::Text(_) => 0,
        };
        assert_eq!(example.assistant_spans.len(), earlier);
    }
    assert!(apart <= report.merged, "{apart} rows differ from the joined ids, {} boundaries merged", report.merged);
    let tokens = joined.iter().map(Vec::len).sum::<usize>();
    let mut hash = Sha256::new();
    joined.iter().flatten().for_each(|id| hash.update(id.to_le_bytes()));
    let digest: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        (tokens as u64, digest.as_str()),
        (expected["tokens"].as_u64().unwrap(), expected["sha256"].as_str().unwrap())
    );
    assert!(T0::FirstToken.resolve(&ExampleStore::in_memory(&examples).unwrap()).is_ok());
}

fn text(encoder: &TextEncoder, record: &Record) -> String {
    let Prompt::Messages(turns) = &record.prompt else { panic!("a conversation") };
    let mut turns = turns.clone();
    turns.push(record.responses[0].message.clone());
    encoder.render(&turns, false).unwrap()
}

#[test]
fn ids_are_those_of_transformers() {
    let golden = read_json(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ids.json"));
    let cases = golden.as_array().unwrap();
    assert_eq!(cases.len(), 4);
    cases.iter().for_each(check);
}
