//! SFT that learns answers without their thoughts.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use setpoint_data::{
    Boundary, EncodeOptions, Example, LongRows, Message, Prompt, Record, Response, SegmentKind, TemplateChoice,
    TextEncoder, segments,
};

use crate::common::{read_json, small_encoder};

/// ChatML that prints a thought as a field between these marks, and whatever is in the text.
fn encoder(open: &str, close: &str) -> TextEncoder {
    let source = format!(
        "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{% if m.reasoning_content %}}{open}{{{{ m.reasoning_content }}}}{close}{{% endif %}}\
         {{{{ m.content }}}}<|im_end|>\n{{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
    );
    small_encoder(TemplateChoice::Text { name: "mine".into(), source })
}

/// SFT's view of rows, with thoughts or without.
fn sft(train_on_thoughts: bool) -> EncodeOptions {
    let train_on_thoughts = (!train_on_thoughts).then_some(false);
    EncodeOptions { assistant_spans: true, train_on_thoughts, weighted_turns: true, ..EncodeOptions::default() }
}

fn thought(thought: &str, text: &str) -> Message {
    let extra = Map::from_iter([("reasoning_content".to_owned(), thought.into())]);
    Message { extra, ..Message::assistant(text) }
}

fn record(turns: Vec<Message>, response: Message) -> Record {
    Record::new(Prompt::Messages(turns), vec![Response { message: response, reward: None, label: None }])
}

fn encode(encoder: &TextEncoder, record: &Record, options: &EncodeOptions) -> Result<Example, String> {
    encoder.encode(0, record, options).map(|encoded| encoded.outcome.unwrap()).map_err(|error| error.to_string())
}

/// The texts that are learned, one for each piece without a gap.
fn learned(encoder: &TextEncoder, example: &Example) -> Vec<String> {
    let ids = [example.prompt.as_slice(), &example.responses[0].ids].concat();
    let mask = example.learned(0);
    let pieces = mask.chunk_by(|a, b| a == b).scan(0, |at, piece| {
        let ids = &ids[*at..*at + piece.len()];
        *at += piece.len();
        Some((piece[0], ids))
    });
    pieces.filter(|(learned, _)| *learned).map(|(_, ids)| encoder.decode(ids).unwrap()).collect()
}

/// Returns the mask of a golden row; after the last stop token transformers has a line break that is no part of the answer.
fn mask(example: &Example) -> String {
    example.learned(0).iter().map(|learned| if *learned { '1' } else { '0' }).collect()
}

#[test]
fn the_learned_tokens_are_those_that_transformers_marks() {
    let golden: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let expected = read_json(golden.join("thoughts.json"));
    let mut compared = 0;
    for row in expected["rows"].as_array().unwrap() {
        let name = row["template"].as_str().unwrap();
        let source = match expected[name].as_str() {
            Some(source) => source.to_owned(),
            None => std::fs::read_to_string(golden.join(format!("family_templates/{name}.jinja"))).unwrap(),
        };
        let encoder = small_encoder(TemplateChoice::Text { name: name.into(), source });
        let mut turns: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
        let last = turns.pop().unwrap();
        let mut record = record(turns, last);
        record.extra.insert("tools".into(), row["tools"].clone());
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        for (train_on_thoughts, mask_of) in [(false, "answers"), (true, "thoughts")] {
            let found = encode(&encoder, &record, &sft(train_on_thoughts));
            let Some(expected) = row[mask_of].as_str() else {
                // The template drops earlier thoughts.
                let error = found.unwrap_err();
                assert!(error.contains("thoughts of the assistant turn in message 1"), "{error}");
                assert!(error.contains("encode.train_on_thoughts=false"), "{error}");
                continue;
            };
            let found = found.unwrap();
            let all = [found.prompt.as_slice(), &found.responses[0].ids].concat();
            assert_eq!(all, ids[..all.len()], "{name}, {}", row["conversation"]);
            assert_eq!(mask(&found), expected[..all.len()], "{name}, {}, {mask_of}", row["conversation"]);
            assert!(!expected[all.len()..].contains('1'), "nothing is learned behind the stop token");
            compared += 1;
        }
    }
    assert_eq!(compared, 18);
}

#[test]
fn thoughts_are_context_where_they_are_not_learned() {
    let encoder = encoder("<think>", "</think>\n");
    let turns = vec![Message::user("one"), thought("first", "1"), Message::user("two")];
    let row = record(turns, thought("second", "2 <think>x</think> 3"));
    let [without, with] = [false, true].map(|on| encode(&encoder, &row, &sft(on)).unwrap());
    assert_eq!((&without.prompt, &without.responses[0].ids), (&with.prompt, &with.responses[0].ids), "the same tokens");
    assert_eq!(
        learned(&encoder, &with),
        ["<think>first</think>\n1<|im_end|>", "<think>second</think>\n2 <think>x</think> 3<|im_end|>"]
    );
    assert_eq!(learned(&encoder, &without), ["1<|im_end|>", "2 ", "3<|im_end|>"]);
    let shown = segments(&encoder, &without, 0, 1).unwrap();
    let text = |kind| shown.iter().filter(|s| s.kind == kind).map(|s| s.text.as_str()).collect::<String>();
    assert_eq!((text(SegmentKind::AssistantEarlier), text(SegmentKind::Response)), ("1".into(), "2 3".into()));
    assert!(text(SegmentKind::Prompt).ends_with("<think>second</think>\n<think>x</think> "));
    // Plain text has no template, and the same marks.
    let plain = Record::new(Prompt::Text("Q: ".into()), vec![Response::new("<think>hm</think>A")]);
    let found = encode(&encoder, &plain, &sft(false)).unwrap();
    assert_eq!(learned(&encoder, &found), ["A<eos>"]);
    let rendered = EncodeOptions { boundary: Boundary::Rendered, ..sft(false) };
    assert_eq!(learned(&encoder, &encode(&encoder, &row, &rendered).unwrap()), ["1<|im_end|>", "2 ", "3<|im_end|>"]);
}

#[test]
fn a_prompt_that_is_cut_takes_the_thoughts_of_its_turns_along() {
    let encoder = encoder("<think>", "</think>");
    let turns = vec![Message::user("a long question"), thought("first", "1"), Message::user("two")];
    let row = record(turns, thought("second", "2"));
    let whole = encode(&encoder, &row, &sft(false)).unwrap();
    let cut =
        EncodeOptions { long_rows: LongRows::CutPrompt, max_prompt_length: Some(whole.prompt.len() - 6), ..sft(false) };
    assert_eq!(learned(&encoder, &encode(&encoder, &row, &cut).unwrap()), ["1<|im_end|>", "2<|im_end|>"]);
    // The cut reaches the thought of the first turn.
    let cut = EncodeOptions { max_prompt_length: Some(whole.prompt.len() - 40), ..cut };
    assert_eq!(learned(&encoder, &encode(&encoder, &row, &cut).unwrap()), ["2<|im_end|>"]);
}

#[test]
fn a_template_that_drops_thoughts_is_refused_only_where_they_are_learned() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let encoder = small_encoder(TemplateChoice::Text { name: "mine".into(), source: source.into() });
    let row = record(vec![Message::user("one")], thought("hm", "1"));
    let error = encode(&encoder, &row, &sft(true)).unwrap_err();
    assert!(error.contains("leaves out or rewrites the thoughts of the answer 0: \"hm\""), "{error}");
    assert!(error.contains("encode.train_on_thoughts=false"), "{error}");
    assert_eq!(learned(&encoder, &encode(&encoder, &row, &sft(false)).unwrap()), ["1<|im_end|>"]);
    // Text that is lost is an error all the same.
    let source = source.replace("{{ m.content }}", "{{ m.content[:1] }}");
    let shortening = small_encoder(TemplateChoice::Text { name: "mine".into(), source });
    let row = record(vec![Message::user("one")], thought("a long thought", "12"));
    let error = encode(&shortening, &row, &sft(false)).unwrap_err();
    assert!(error.contains("leaves out or rewrites the text of the answer 0: \"12\""), "{error}");
}

#[test]
fn what_cannot_be_learned_without_thoughts_is_named() {
    let marked = encoder("<think>", "</think>");
    for turn in [Message::assistant("<think>hm</think>\n"), Message::assistant("<think>never ends")] {
        let row = record(vec![Message::user("one")], turn.clone());
        let error = encode(&marked, &row, &sft(false)).unwrap_err();
        assert!(
            error.contains("the answer 0 has thoughts but no answer, and `encode.train_on_thoughts` is false"),
            "{error}"
        );
        let turns = vec![Message::user("one"), turn, Message::user("two")];
        let error = encode(&marked, &record(turns, Message::assistant("2")), &sft(false)).unwrap_err();
        assert!(error.contains("the assistant turn in message 1 has thoughts but no answer"), "{error}");
    }
    let unmarked = encoder("Thoughts: ", "; answer: ");
    let row = record(vec![Message::user("one")], thought("hm", "1"));
    let error = encode(&unmarked, &row, &sft(false)).unwrap_err();
    let expected =
        "chat template `mine` prints the thoughts of the answer 0 without marks that tell them from the answer";
    assert!(error.contains(expected), "{error}");
    assert!(encode(&unmarked, &row, &sft(true)).is_ok());
    let call = json!({"reasoning_content": "hm", "weight": 0});
    let Value::Object(extra) = call else { panic!("an object") };
    let turns = vec![Message::user("one"), Message { extra, ..Message::assistant("1") }, Message::user("two")];
    let found = encode(&unmarked, &record(turns, Message::assistant("2")), &sft(false)).unwrap();
    assert_eq!(learned(&unmarked, &found), ["2<|im_end|>"], "a turn that is not learned may have any thought");
}
