//! Records to ids, with a tokenizer small enough to write the ids by hand.

use std::path::Path;

use serde_json::{Value, json};
use setpoint_data::{
    BadRows, Boundary, BuiltIn, DropReason, EncodeOptions, EncodeProblem, EncoderOptions, Error, Example, ExampleStore,
    LongRows, Message, Prompt, Record, Response, ResponseEnd, SegmentKind, Source, T0, TemplateChoice, TextEncoder,
    segments,
};

use crate::common::{
    AB, BOS, END_OF_TEXT, EOS, IM_END, IM_START, NEWLINES, SPACE_A, read_json, small_encoder, small_folder,
    small_tokenizer,
};

fn chatml() -> TextEncoder {
    small_encoder(TemplateChoice::BuiltIn(BuiltIn::ChatMl))
}

fn plain() -> TextEncoder {
    small_encoder(TemplateChoice::Own)
}

fn chat(turns: &[Message], response: &str) -> Record {
    Record::new(Prompt::Messages(turns.to_vec()), vec![Response::new(response)])
}

fn text(prompt: &str, response: &str) -> Record {
    Record::new(Prompt::Text(prompt.into()), vec![Response::new(response)])
}

fn example(encoder: &TextEncoder, record: &Record, options: &EncodeOptions) -> Example {
    encoder.encode(0, record, options).unwrap().outcome.unwrap()
}

fn problem(encoder: &TextEncoder, record: &Record, options: &EncodeOptions) -> EncodeProblem {
    match encoder.encode(0, record, options).unwrap_err() {
        Error::Encode { problem, .. } => *problem,
        other => panic!("{other}"),
    }
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn a_templated_response_ends_with_its_stop_token() {
    let encoder = chatml();
    assert_eq!(encoder.stop_ids(), [IM_END, EOS], "the template's own first");
    let record = chat(&[Message::user("Hi")], "Ho");
    let header = |role: &str| [vec![IM_START], bytes(role), vec![10]].concat();
    let prompt = [header("user"), bytes("Hi"), vec![IM_END, 10], header("assistant")].concat();
    let found = example(&encoder, &record, &EncodeOptions::default());
    assert_eq!(found.prompt, prompt);
    assert_eq!(found.responses[0].ids, [bytes("Ho"), vec![IM_END]].concat());
    assert_eq!(encoder.encode_prompt(&record.prompt).unwrap(), prompt, "a generation starts from the same ids");
    // trl's way: with the line break that the template prints behind the stop token.
    let options = EncodeOptions { response_end: ResponseEnd::Template, ..EncodeOptions::default() };
    let found = example(&encoder, &record, &options);
    assert_eq!(found.responses[0].ids, [bytes("Ho"), vec![IM_END, 10]].concat());
}

#[test]
fn plain_text_has_bos_before_and_eos_behind() {
    let found = example(&plain(), &text("It is", " so"), &EncodeOptions::default());
    assert_eq!(found.prompt, [vec![BOS], bytes("It is")].concat());
    assert_eq!(found.responses[0].ids, [bytes(" so"), vec![EOS]].concat());
    // Texts that bring their own do not get a second one.
    assert_eq!(example(&plain(), &text("<bos>It is", " so<eos>"), &EncodeOptions::default()), found);
}

#[test]
fn the_settings_of_the_folder_are_heard() {
    let dir = small_folder(&json!({"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": false}));
    let encoder = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(encoder.encode_prompt(&Prompt::Text("x".into())).unwrap(), bytes("x"));
    let config = json!({"eos_token_id": [END_OF_TEXT, EOS], "bos_token_id": BOS});
    std::fs::write(dir.path().join("generation_config.json"), config.to_string()).unwrap();
    let encoder = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(encoder.stop_ids(), [EOS, END_OF_TEXT]);
    let options = EncoderOptions { eos_token: Some("<|endoftext|>".into()), ..EncoderOptions::default() };
    let encoder = TextEncoder::from_dir(dir.path(), &options).unwrap();
    assert_eq!(encoder.special_tokens().eos, Some(("<|endoftext|>".into(), END_OF_TEXT)));
}

#[test]
fn nothing_is_truncated_or_padded_although_the_file_says_so() {
    let text = "longer than five tokens";
    assert_eq!(plain().encode_text(text).unwrap(), bytes(text));
}

#[test]
fn merges_across_the_boundary_are_separated_and_counted() {
    let encoder = plain();
    let separate = EncodeOptions::default();
    // "xa" + "by": joined, "ab" would be one token.
    let encoded = encoder.encode(0, &text("xa", "by"), &separate).unwrap();
    assert_eq!(encoded.merged, 1);
    let found = encoded.outcome.unwrap();
    assert_eq!(found.prompt, [vec![BOS], bytes("xa")].concat());
    assert_eq!(found.responses[0].ids, [bytes("by"), vec![EOS]].concat());
    // Nothing merges here, though the same merge occurs on both sides.
    let encoded = encoder.encode(0, &text("xab", "aby"), &separate).unwrap();
    assert_eq!(encoded.merged, 0);
    assert_eq!(encoded.outcome.unwrap().responses[0].ids, [vec![AB], bytes("y"), vec![EOS]].concat());
    let error = EncodeOptions { boundary: Boundary::Error, ..separate };
    assert_eq!(
        problem(&encoder, &text("xa", "by"), &error),
        EncodeProblem::Merged { response: 0, token: "xa|by".into() }
    );
    // The space before the boundary is hidden by trimmed offsets: "x " + "ay" would be "x", " a", "y".
    assert_eq!(plain().encode_text("x ay").unwrap()[1], SPACE_A);
    assert!(matches!(problem(&encoder, &text("x ", "ay"), &error), EncodeProblem::Merged { .. }));
    // A template's prompt ends with a line break and the response begins with one.
    let encoded = chatml().encode(0, &chat(&[Message::user("Hi")], "\nHo"), &separate).unwrap();
    assert_eq!(encoded.merged, 1);
    let found = encoded.outcome.unwrap();
    assert!(!found.prompt.contains(&NEWLINES));
    assert_eq!(found.responses[0].ids, [bytes("\nHo"), vec![IM_END]].concat());
}

#[test]
fn responses_share_the_prompt() {
    let mut record = text("xa", "by");
    record.responses.push(Response::new(" cy").rewarded(0.5));
    let encoded = plain().encode(3, &record, &EncodeOptions::default()).unwrap();
    assert_eq!(encoded.merged, 1, "the first response merges, the second does not");
    let found = encoded.outcome.unwrap();
    assert_eq!((found.row, found.responses.len()), (3, 2));
    assert_eq!((found.responses[1].index, found.responses[1].reward), (1, Some(0.5)));
    assert_eq!(found.tokens(), 3 + 3 + 4);
    assert_eq!(found.longest(), 3 + 4);
}

#[test]
fn earlier_turns_are_found_with_their_stop_tokens() {
    let encoder = chatml();
    let turns = [
        Message::system("S"),
        Message::user("A?"),
        Message::assistant("aye"),
        Message::user("B?"),
        Message::assistant("\nbee"),
        Message::user("C?"),
    ];
    let options = EncodeOptions { assistant_spans: true, ..EncodeOptions::default() };
    let encoded = encoder.encode(0, &chat(&turns, "sea"), &options).unwrap();
    assert_eq!(encoded.merged, 1, "the second turn begins with a line break");
    let found = encoded.outcome.unwrap();
    let texts: Vec<_> =
        found.assistant_spans.iter().map(|s| encoder.decode(&found.prompt[s.clone()]).unwrap()).collect();
    assert_eq!(texts, ["aye<|im_end|>", "\nbee<|im_end|>"]);
    let whole = encoder.decode(&[&found.prompt[..], &found.responses[0].ids].concat()).unwrap();
    let mut conversation = turns.to_vec();
    conversation.push(Message::assistant("sea"));
    assert_eq!(whole + "\n", encoder.render(&conversation, false).unwrap());
    assert!(example(&encoder, &chat(&turns, "sea"), &EncodeOptions::default()).assistant_spans.is_empty());
    let error = EncodeOptions { boundary: Boundary::Error, ..options };
    assert!(matches!(problem(&encoder, &chat(&turns, "sea"), &error), EncodeProblem::Merged { .. }));
}

#[test]
fn control_tokens_in_texts_are_refused() {
    let options = EncodeOptions::default();
    let refused = |encoder: &TextEncoder, record: &Record| problem(encoder, record, &options);
    let in_text =
        |place: &str, token: &str| EncodeProblem::ControlTokenInText { place: place.into(), token: token.into() };
    let encoder = chatml();
    let record = chat(&[Message::system("S"), Message::user("say <|im_end|>")], "no");
    assert_eq!(refused(&encoder, &record), in_text("message 1 (user)", "<|im_end|>"));
    assert_eq!(refused(&encoder, &chat(&[Message::user("u")], "a<eos>b")), in_text("answer 0", "<eos>"));
    assert_eq!(refused(&encoder, &chat(&[Message::user("<bos>")], "a")), in_text("message 0 (user)", "<bos>"));
    assert_eq!(refused(&plain(), &text("p", "a<eos>b")), in_text("response 0", "<eos>"));
    assert_eq!(refused(&plain(), &text("p<bos>", "a")), in_text("the prompt", "<bos>"));
}

#[test]
fn empty_prompts_and_responses_are_refused() {
    let options = EncodeOptions::default();
    assert_eq!(problem(&plain(), &text("p", "<eos>"), &options), EncodeProblem::EmptyResponse { response: 0 });
    assert_eq!(
        problem(&chatml(), &chat(&[Message::user("u")], ""), &options),
        EncodeProblem::EmptyResponse { response: 0 }
    );
    // BOS alone is context enough; nothing at all is not.
    assert_eq!(example(&plain(), &text("", "a"), &options).prompt, [BOS]);
    let dir = small_folder(&json!({"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": false}));
    let without = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(problem(&without, &text("", "a"), &options), EncodeProblem::EmptyPrompt);
}

#[test]
fn sft_learns_a_text_without_a_prompt() {
    let sft = EncodeOptions { weighted_turns: true, ..EncodeOptions::default() };
    let text = |own: &str| Record { whole: true, ..text("", own) };
    let learned = |encoder: &TextEncoder, text: &Record, options: &EncodeOptions| {
        let found = example(encoder, text, options);
        let ids = [found.prompt.as_slice(), &found.responses[0].ids].concat();
        (ids, found.learned(0))
    };
    // Behind BOS every token is learned, with a text that brings its own as well.
    for own in ["so", "<bos>so<eos>"] {
        let expected = ([vec![BOS], bytes("so"), vec![EOS]].concat(), vec![false, true, true, true]);
        assert_eq!(learned(&plain(), &text(own), &sft), expected);
    }
    // Without BOS nothing comes before the first token.
    let dir = small_folder(&json!({"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": false}));
    let without = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
    let expected = ([bytes("so"), vec![EOS]].concat(), vec![false, true, true]);
    assert_eq!(learned(&without, &text("so"), &sft), expected);
    assert_eq!(learned(&without, &text("s"), &sft), (vec![u32::from(b's'), EOS], vec![false, true]));
    assert_eq!(problem(&without, &text("<eos>"), &sft), EncodeProblem::EmptyResponse { response: 0 });
    // A thought at its beginning stays out of what is learned.
    let answer = EncodeOptions { train_on_thoughts: Some(false), ..sft.clone() };
    let thinking = "<think>x</think>so";
    let counted = learned(&without, &text(thinking), &answer).1;
    let expected: Vec<bool> = (0..=thinking.len()).map(|i| i >= thinking.len() - 2).collect();
    assert_eq!(counted, expected);
    // A prompt that is empty is a fault of the row.
    let unasked = Record { whole: false, ..text("so") };
    assert_eq!(problem(&without, &unasked, &sft), EncodeProblem::EmptyPrompt);
    let two = Record::new(Prompt::Text(String::new()), vec![Response::new("a"), Response::new("b")]);
    assert_eq!(problem(&without, &two, &sft), EncodeProblem::EmptyPrompt);
    // A conversation that was rendered before is refused.
    let refused = problem(&chatml(), &text("<|im_start|>user\nHi<|im_end|>\n"), &sft).to_string();
    assert!(refused.contains("`<|im_end|>`") && refused.contains("given as `messages`"), "{refused}");
}

#[test]
fn templates_that_do_not_serve_are_named() {
    let options = EncodeOptions::default();
    let record = chat(&[Message::user("u")], "a");
    let text = problem(&plain(), &record, &options).to_string();
    assert!(text.contains("no chat template. Set `model.template`: of the built-in templates, "), "{text}");
    let with = |source: &str| small_encoder(TemplateChoice::Text { name: "mine".into(), source: source.into() });
    let message = |source: &str| problem(&with(source), &record, &options).to_string();
    let thinking =
        "{% for m in messages %}{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}<think>{% endif %}";
    let text = message(thinking);
    assert!(text.contains("`mine` renders the prompt differently once the answer 0 is there"), "{text}");
    assert!(text.contains("continues with \"a<eos>\" where the prompt has \"<think>\""), "{text}");
    let text = message("{% for m in messages %}[{{ m.content }}]{% endfor %}");
    assert!(text.contains("no stop token after the answer 0: looked for <eos>"), "{text}");
    let text = message("{{ raise_exception('Not today.') }}");
    assert!(text.contains("`mine` refused the conversation: Not today."), "{text}");
    let text = message(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(9) %}{% endfor %}{% endfor %}{% endfor %}",
    );
    assert!(text.contains("did not finish within its budget"), "{text}");
}

#[test]
fn the_first_stop_token_that_a_template_prints_ends_the_response() {
    // As Phi-3's: a turn's own stop token, and EOS behind the conversation.
    let source = "{% for m in messages %}{{ m.content }}<|im_end|>\n{% endfor %}{% if not add_generation_prompt %}{{ eos_token }}{% endif %}";
    let encoder = small_encoder(TemplateChoice::Text { name: "t".into(), source: source.into() });
    assert_eq!(encoder.stop_ids(), [IM_END, EOS]);
    let found = example(&encoder, &chat(&[Message::user("u")], "r"), &EncodeOptions::default());
    assert_eq!(found.responses[0].ids, [u32::from(b'r'), IM_END]);
    let options = EncodeOptions { response_end: ResponseEnd::Template, ..EncodeOptions::default() };
    let found = example(&encoder, &chat(&[Message::user("u")], "r"), &options);
    assert_eq!(found.responses[0].ids, [u32::from(b'r'), IM_END, 10, EOS]);
}

#[test]
fn tools_and_arguments_of_a_row_reach_the_template() {
    let source =
        "{{ tools | tojson if tools else '-' }}{{ mood }};{% for m in messages %}{{ m.content }}<eos>{% endfor %}";
    let dir = small_folder(&json!({"bos_token": "<bos>", "eos_token": "<eos>"}));
    let options = EncoderOptions {
        template: TemplateChoice::Text { name: "t".into(), source: source.into() },
        template_kwargs: serde_json::Map::from_iter([("mood".to_owned(), Value::from("calm"))]),
        ..EncoderOptions::default()
    };
    let encoder = TextEncoder::from_dir(dir.path(), &options).unwrap();
    let mut record = chat(&[Message::user("u")], "a");
    let prompt = |record: &Record| {
        let ids = example(&encoder, record, &EncodeOptions::default()).prompt;
        assert_eq!(encoder.encode_prompt_of(record).unwrap(), ids, "a generation starts from the same ids");
        encoder.decode(&ids).unwrap()
    };
    assert_eq!(prompt(&record), "-calm;u<eos>");
    record.extra.insert("tools".into(), json!([{"name": "f"}]));
    record.extra.insert("chat_template_kwargs".into(), json!({"mood": "keen"}));
    assert_eq!(prompt(&record), "[{\"name\": \"f\"}]keen;u<eos>");
    record.extra.insert("tools".into(), Value::from("[{\"name\": \"g\"}]"));
    assert_eq!(prompt(&record), "[{\"name\": \"g\"}]keen;u<eos>");
    for none in [json!(""), json!("[]"), json!([]), json!(null)] {
        record.extra.insert("tools".into(), none);
        assert_eq!(prompt(&record), "-keen;u<eos>");
    }
    for wrong in [json!("add(a, b): adds"), json!("{\"name\": \"g\"}"), json!(["add"]), json!("[1]")] {
        record.extra.insert("tools".into(), wrong);
        let error = encoder.encode(7, &record, &EncodeOptions::default()).unwrap_err().to_string();
        assert!(error.contains("`tools") && error.contains("expected"), "{error}");
    }
}

#[test]
fn a_conversation_with_tools_has_a_template_of_its_own() {
    let source = |name: &str| format!("{name}{{% for m in messages %}}{{{{ m.content }}}}<eos>{{% endfor %}}");
    let named = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|n| json!({"name": n, "template": source(n)})).collect();
        small_folder(&json!({"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": list}))
    };
    let dir = named(&["default", "tool_use", "rag"]);
    let mut with_tools = chat(&[Message::user("u")], "a");
    with_tools.extra.insert("tools".into(), json!([{"name": "f"}]));
    let without = chat(&[Message::user("u")], "a");
    let prompt = |encoder: &TextEncoder, record: &Record| {
        encoder.decode(&example(encoder, record, &EncodeOptions::default()).prompt).unwrap()
    };
    let own = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(prompt(&own, &with_tools), "tool_useu<eos>");
    assert_eq!(prompt(&own, &without), "defaultu<eos>");
    // What is saved follows the same rule.
    let saved = small_folder(&json!({}));
    own.save(saved.path()).unwrap();
    let saved = TextEncoder::from_dir(saved.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(prompt(&saved, &with_tools), "tool_useu<eos>");
    assert_eq!(prompt(&saved, &without), "defaultu<eos>");
    // A template that was chosen serves all rows.
    let options = EncoderOptions { template: TemplateChoice::Named("rag".into()), ..EncoderOptions::default() };
    let chosen = TextEncoder::from_dir(dir.path(), &options).unwrap();
    assert_eq!(prompt(&chosen, &with_tools), "ragu<eos>");
    // Without a default there is none for rows without tools.
    let dir = named(&["tool_use", "rag"]);
    let encoder = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(prompt(&encoder, &with_tools), "tool_useu<eos>");
    let error = encoder.encode(0, &without, &EncodeOptions::default()).unwrap_err().to_string();
    assert!(error.contains("tool_use, rag") && error.contains("none named `default`"), "{error}");
}

#[test]
fn long_rows_are_dropped_cut_or_refused_and_counted() {
    let records: Vec<_> = ["p", "a long prompt", "q"].iter().map(|p| text(p, "yes")).collect();
    let encoder = plain();
    let options = EncodeOptions { max_length: Some(10), ..EncodeOptions::default() };
    let (examples, report) = encoder.encode_all(&records, &options).unwrap();
    assert_eq!(examples.iter().map(|e| e.row).collect::<Vec<_>>(), [0, 2]);
    assert_eq!((report.rows, report.kept, report.dropped[&DropReason::TooLong]), (3, 2, 1));
    assert_eq!((report.prompt_tokens, report.response_tokens), (4, 8));
    let cut = EncodeOptions { long_rows: LongRows::CutPrompt, ..options.clone() };
    let (examples, report) = encoder.encode_all(&records, &cut).unwrap();
    assert_eq!((examples.len(), report.cut, report.dropped.len()), (3, 1, 0));
    assert_eq!(examples[1].prompt, [vec![BOS], bytes("rompt")].concat(), "t0 and the end are kept");
    assert_eq!(examples[1].responses[0].ids, [bytes("yes"), vec![EOS]].concat());
    let refuse = EncodeOptions { long_rows: LongRows::Error, ..options };
    let message = encoder.encode_all(&records, &refuse).unwrap_err().to_string();
    assert!(
        message.contains("together has 18 tokens, more than the 10 that are allowed. Raise `encode.max_length`"),
        "{message}"
    );
}

#[test]
fn texts_beyond_any_context_are_long_rows_and_not_tokenised() {
    let records = [text("p", "yes"), text(&"a".repeat(9_000_000), "yes"), text("q", &"b".repeat(9_000_000))];
    let encoder = plain();
    let (examples, report) = encoder.encode_all(&records, &EncodeOptions::default()).unwrap();
    assert_eq!((examples.len(), report.dropped[&DropReason::TooLong]), (1, 2));
    for long_rows in [LongRows::Error, LongRows::CutPrompt] {
        let options = EncodeOptions { long_rows, on_bad_row: BadRows::Drop, ..EncodeOptions::default() };
        let message = encoder.encode_all(&records, &options).unwrap_err().to_string();
        assert!(message.contains("a text of 9000000 bytes, more than the 8388608"), "{message}");
    }
}

#[test]
fn bad_rows_stop_at_the_first_or_are_dropped_and_counted() {
    let mut records: Vec<_> = (0..40).map(|i| text(&format!("prompt {i}"), "yes")).collect();
    for row in [11, 30] {
        records[row] = text("p", "a<eos>b");
        records[row].source = Source::line(Path::new("f.jsonl"), row, row + 1);
    }
    let encoder = plain();
    let message = encoder.encode_all(&records, &EncodeOptions::default()).unwrap_err().to_string();
    assert!(message.starts_with("f.jsonl:12: response 0 contains `<eos>`"), "{message}");
    let options = EncodeOptions { on_bad_row: BadRows::Drop, ..EncodeOptions::default() };
    let (examples, report) = encoder.encode_all(&records, &options).unwrap();
    assert_eq!((report.kept, report.dropped[&DropReason::Invalid], report.examples_of_invalid.len()), (38, 2, 2));
    let rows: Vec<_> = examples.iter().map(|e| e.row).collect();
    assert_eq!(rows, (0..40).filter(|r| ![11, 30].contains(r)).collect::<Vec<_>>(), "in order, whatever the threads");
    // A missing template is no matter of single rows.
    let conversations = vec![chat(&[Message::user("u")], "a")];
    assert!(encoder.encode_all(&conversations, &options).is_err());
}

#[test]
fn every_token_is_shown_with_its_kind() {
    let encoder = chatml();
    let turns = [Message::user("é?"), Message::assistant("aye"), Message::user("B?")];
    let options =
        EncodeOptions { assistant_spans: true, response_end: ResponseEnd::Template, ..EncodeOptions::default() };
    let found = example(&encoder, &chat(&turns, "日"), &options);
    let t0 = T0::FirstToken.resolve(&ExampleStore::in_memory([&found]).unwrap()).unwrap();
    let shown = segments(&encoder, &found, 0, t0).unwrap();
    let mut runs: Vec<(SegmentKind, String)> = Vec::new();
    for segment in &shown {
        match runs.last_mut() {
            Some((kind, text)) if *kind == segment.kind => text.push_str(&segment.text),
            _ => runs.push((segment.kind, segment.text.clone())),
        }
    }
    use SegmentKind::{AfterStop, AssistantEarlier, Prompt, Response, Stop, T0 as First};
    let expected = [
        (First, "<|im_start|>"),
        (Prompt, "user\né?<|im_end|>\n<|im_start|>assistant\n"),
        (AssistantEarlier, "aye"),
        (Stop, "<|im_end|>"),
        (Prompt, "\n<|im_start|>user\nB?<|im_end|>\n<|im_start|>assistant\n"),
        (Response, "日"),
        (Stop, "<|im_end|>"),
        (AfterStop, "\n"),
    ];
    assert_eq!(runs, expected.map(|(kind, text)| (kind, text.to_owned())));
    let ids: Vec<u32> = shown.iter().flat_map(|s| s.ids.clone()).collect();
    assert_eq!(ids, [&found.prompt[..], &found.responses[0].ids].concat());
    assert_eq!(shown.iter().find(|s| s.text == "日").unwrap().ids.len(), 3, "three bytes, one character");
}

#[test]
fn broken_folders_are_named() {
    let load = |dir: &Path| TextEncoder::from_dir(dir, &EncoderOptions::default()).unwrap_err().to_string();
    let dir = tempfile::tempdir().unwrap();
    assert!(load(dir.path()).contains("tokenizer.json: not found"));
    std::fs::write(dir.path().join("tokenizer.json"), "{\"version\": ").unwrap();
    assert!(load(dir.path()).contains("tokenizer.json: not valid JSON"));
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert!(load(dir.path()).contains("tokenizer.json: "));
    let mut moved = small_tokenizer();
    moved["added_tokens"][0]["id"] = json!(500);
    std::fs::write(dir.path().join("tokenizer.json"), moved.to_string()).unwrap();
    assert!(load(dir.path()).contains("the added token \"<bos>\" has the id 500"));
    let dir = small_folder(&json!({"eos_token": "<nowhere>"}));
    assert!(load(dir.path()).contains("eos_token is \"<nowhere>\", which is not in the vocabulary"));
    let dir = small_folder(&json!({"eos_token": 7}));
    assert!(load(dir.path()).contains("`eos_token`: expected text or an object with content, found 7"));
    std::fs::write(dir.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(load(dir.path()).contains("tokenizer_config.json: not valid JSON"));
    let dir = small_folder(&json!({}));
    std::fs::write(dir.path().join("config.json"), "{\"eos_token_id\": \"two\"}").unwrap();
    assert!(load(dir.path()).contains("`eos_token_id`: expected a token id or a list of them"));
}

#[test]
fn what_is_saved_encodes_alike() {
    let encoder = chatml();
    let dir = tempfile::tempdir().unwrap();
    encoder.save(dir.path()).unwrap();
    let config = read_json(dir.path().join("tokenizer_config.json"));
    assert_eq!((&config["bos_token"], &config["eos_token"]), (&json!("<bos>"), &json!("<eos>")));
    let back = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(back.fingerprint(), encoder.fingerprint());
    let record = chat(&[Message::user("Hi")], "Ho");
    let options = EncodeOptions::default();
    assert_eq!(example(&back, &record, &options), example(&encoder, &record, &options));
    assert_ne!(plain().fingerprint(), encoder.fingerprint());
}
