//! The same rows as Parquet and as JSON lines.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::Field;
use parquet::arrow::ArrowWriter;
use serde_json::json;
use setpoint_data::{DatasetConfig, EncodeOptions, EncoderOptions, Record, TemplateChoice, TextEncoder, load_records};

use crate::common::small_tokenizer;

fn group(fields: Vec<(&str, ArrayRef)>, present: Vec<bool>) -> ArrayRef {
    let (fields, columns): (Vec<_>, Vec<_>) =
        fields.into_iter().map(|(name, c)| (Field::new(name, c.data_type().clone(), true), c)).unzip();
    Arc::new(StructArray::new(fields.into(), columns, Some(NullBuffer::from(present))))
}

fn list(items: ArrayRef, lengths: &[usize]) -> ArrayRef {
    let item = Arc::new(Field::new("element", items.data_type().clone(), true));
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths.iter().copied()), items, None))
}

fn texts(items: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(items.to_vec()))
}

/// Two rows whose tools and calls have different keys. Arrow's struct has all of them, null where a row lacks one.
fn as_parquet(path: &Path) {
    let kind = |kinds: &[Option<&str>]| {
        let present = kinds.iter().map(Option::is_some).collect();
        group(vec![("type", texts(kinds))], present)
    };
    let properties = group(
        vec![("city", kind(&[Some("string"), None])), ("days", kind(&[None, Some("integer")]))],
        vec![true, true],
    );
    let parameters =
        group(vec![("properties", properties), ("required", list(texts(&[Some("city")]), &[1, 0]))], vec![true, true]);
    let tools = group(
        vec![
            ("name", texts(&[Some("weather"), Some("wait")])),
            ("parameters", parameters),
            ("strict", texts(&[None, None])),
        ],
        vec![true, true],
    );
    let arguments = group(
        vec![("city", texts(&[Some("Rome"), None])), ("days", Arc::new(Int64Array::from(vec![None, Some(3)])))],
        vec![true, true],
    );
    let calls =
        group(vec![("name", texts(&[Some("weather"), Some("wait")])), ("arguments", arguments)], vec![true, true]);
    let calls = ListArray::new(
        Arc::new(Field::new("element", calls.data_type().clone(), true)),
        OffsetBuffer::from_lengths([0, 1, 0, 1]),
        calls,
        Some(NullBuffer::from(vec![false, true, false, true])),
    );
    let messages = group(
        vec![
            ("role", texts(&[Some("user"), Some("assistant"), Some("user"), Some("assistant")])),
            ("content", texts(&[Some("Sun?"), None, Some("Wait."), None])),
            ("tool_calls", Arc::new(calls)),
        ],
        vec![true; 4],
    );
    let batch =
        RecordBatch::try_from_iter([("messages", list(messages, &[2, 2])), ("tools", list(tools, &[1, 1]))]).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn as_json(path: &Path) {
    let row = |question: &str, call: serde_json::Value, tool: serde_json::Value| {
        json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": null, "tool_calls": [call]}], "tools": [tool]}).to_string()
    };
    let rows = [
        row(
            "Sun?",
            json!({"name": "weather", "arguments": {"city": "Rome"}}),
            json!({"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}, "required": ["city"]}}),
        ),
        row(
            "Wait.",
            json!({"name": "wait", "arguments": {"days": 3}}),
            json!({"name": "wait", "parameters": {"properties": {"days": {"type": "integer"}}, "required": []}}),
        ),
    ];
    std::fs::write(path, rows.join("\n") + "\n").unwrap();
}

fn records(path: &Path) -> Vec<Record> {
    load_records(&DatasetConfig::new(path.to_str().unwrap())).unwrap().0
}

#[test]
fn keys_of_other_rows_are_not_in_a_rows_tools_and_calls() {
    let dir = tempfile::tempdir().unwrap();
    let (parquet, json) = (dir.path().join("train.parquet"), dir.path().join("train.jsonl"));
    as_parquet(&parquet);
    as_json(&json);
    let (parquet, json) = (records(&parquet), records(&json));
    assert_eq!(parquet.len(), 2);
    for (a, b) in parquet.iter().zip(&json) {
        assert_eq!((&a.prompt, &a.responses, &a.extra), (&b.prompt, &b.responses, &b.extra));
    }
    std::fs::write(dir.path().join("tokenizer.json"), small_tokenizer().to_string()).unwrap();
    let template = dir.path().join("t.jinja");
    let source = "{{ tools | tojson }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
                  {% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}<|im_end|>{% endfor %}\
                  {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    std::fs::write(&template, source).unwrap();
    let options =
        EncoderOptions { template: TemplateChoice::parse(template.to_str().unwrap()), ..EncoderOptions::default() };
    let encoder = TextEncoder::from_dir(dir.path(), &options).unwrap();
    let ids = |records: &[Record]| -> Vec<(Vec<u32>, Vec<u32>)> {
        let (examples, _) = encoder.encode_all(records, &EncodeOptions::default()).unwrap();
        examples.into_iter().map(|mut e| (e.prompt, e.responses.swap_remove(0).ids)).collect()
    };
    assert_eq!(ids(&parquet), ids(&json));
}
