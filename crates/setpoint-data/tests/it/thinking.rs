//! Templates whose generation prompt opens a thought that the rendered history does not have, and templates that print the date.

use serde_json::{Map, Value, json};
use setpoint_data::{
    Boundary, EncodeOptions, EncoderOptions, Example, Message, ModelNotes, Prompt, Record, Response, ResponseEnd,
    SegmentKind, TemplateChoice, TextEncoder, printed_date, segments,
};

use crate::common::{EOS, IM_START, small_folder};

/// As DeepSeek V3.1 and Qwen3.5: the generation prompt opens a thought unless it is told not to.
const OPENS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{{ '' if enable_thinking is defined and not enable_thinking else '<think>\n' }}{% endif %}";
/// As GLM 4.5: a past turn has an empty thought, the generation prompt none.
const EMPTY: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>{{ m.reasoning_content }}</think>\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}";

fn encoder(source: &str, kwargs: Value) -> TextEncoder {
    let dir = small_folder(&json!({"bos_token": "<bos>", "eos_token": "<eos>"}));
    let options = EncoderOptions {
        template: TemplateChoice::Text { name: "thinker".into(), source: source.into() },
        template_kwargs: kwargs.as_object().cloned().unwrap_or_else(Map::new),
        ..EncoderOptions::default()
    };
    TextEncoder::from_dir(dir.path(), &options).unwrap()
}

fn record(responses: &[&str]) -> Record {
    let turns = [Message::user("one"), Message::assistant("1"), Message::user("two")];
    Record::new(Prompt::Messages(turns.to_vec()), responses.iter().map(|r| Response::new(*r)).collect())
}

/// The texts of the prompt, of its earlier assistant turns and of the responses.
fn texts(encoder: &TextEncoder, example: &Example) -> (String, Vec<String>, Vec<String>) {
    let text = |ids: &[u32]| encoder.decode(ids).unwrap();
    let spans = example.assistant_spans.iter().map(|span| text(&example.prompt[span.clone()])).collect();
    (text(&example.prompt), spans, example.responses.iter().map(|r| text(&r.ids)).collect())
}

fn encode(encoder: &TextEncoder, record: &Record, boundary: Boundary) -> Result<Example, String> {
    let options = EncodeOptions { boundary, assistant_spans: true, ..EncodeOptions::default() };
    encoder.encode(0, record, &options).map(|e| e.outcome.unwrap()).map_err(|e| e.to_string())
}

const HISTORY: &str = "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n";

#[test]
fn a_prompt_that_opens_a_thought_is_refused_with_both_remedies() {
    let error = encode(&encoder(OPENS, json!({})), &record(&["2"]), Boundary::Separate).unwrap_err();
    assert!(error.contains("model.template_kwargs.enable_thinking=false"), "{error}");
    assert!(error.contains("encode.boundary=\"rendered\""), "{error}");
}

#[test]
fn a_variable_of_the_template_closes_it() {
    let encoder = encoder(OPENS, json!({"enable_thinking": false}));
    let found = encode(&encoder, &record(&["2", "zwei"]), Boundary::Separate).unwrap();
    let expected = ["2<|im_end|>", "zwei<|im_end|>"].map(str::to_owned).to_vec();
    assert_eq!(texts(&encoder, &found), (HISTORY.into(), vec!["1<|im_end|>".into()], expected));
    // A row's own variables win over the setting.
    let mut own = record(&["2"]);
    own.extra.insert("chat_template_kwargs".into(), json!({"enable_thinking": true}));
    assert!(encode(&encoder, &own, Boundary::Separate).unwrap_err().contains("renders the prompt differently"));
}

#[test]
fn the_boundary_can_come_from_the_rendered_conversation() {
    let encoder = encoder(OPENS, json!({}));
    let found = encode(&encoder, &record(&["2", "zwei"]), Boundary::Rendered).unwrap();
    let expected = ["2<|im_end|>", "zwei<|im_end|>"].map(str::to_owned).to_vec();
    assert_eq!(texts(&encoder, &found), (HISTORY.into(), vec!["1<|im_end|>".into()], expected));
    // Nothing changes for a template that only appends.
    let closed = self::encoder(OPENS, json!({"enable_thinking": false}));
    let both = [Boundary::Rendered, Boundary::Separate].map(|b| encode(&closed, &record(&["2"]), b).unwrap());
    assert_eq!(both[0], both[1]);
}

#[test]
fn an_empty_thought_belongs_to_the_header() {
    let encoder = encoder(EMPTY, json!({}));
    let (prompt, spans, responses) = texts(&encoder, &encode(&encoder, &record(&["2"]), Boundary::Rendered).unwrap());
    assert!(prompt.ends_with("<|im_start|>assistant\n<think></think>\n"), "{prompt}");
    assert_eq!((spans, responses), (vec!["1<|im_end|>".to_owned()], vec!["2<|im_end|>".to_owned()]));
    // A response with a thought begins with it, and then all responses of the row do.
    let mut with_thought = record(&["2", "zwei"]);
    with_thought.responses[1].message.extra.insert("reasoning_content".into(), json!("hm"));
    let (prompt, _, responses) = texts(&encoder, &encode(&encoder, &with_thought, Boundary::Rendered).unwrap());
    assert!(prompt.ends_with("<|im_start|>assistant\n<think>"), "{prompt}");
    assert_eq!(responses, ["</think>\n2<|im_end|>", "hm</think>\nzwei<|im_end|>"]);
}

const DATED: &str = "Today is {{ strftime_now('%d %b %Y') }}.{% for m in messages %}{{ m.content }}<eos>{% endfor %}";

#[test]
fn a_model_remembers_the_date_of_its_prompts() {
    let dir = small_folder(&json!({"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": DATED}));
    let today = printed_date(dir.path(), &EncoderOptions::default()).unwrap().unwrap();
    assert!(!today.is_fixed);
    let options = EncoderOptions { template_date: Some("2026-11-29".parse().unwrap()), ..EncoderOptions::default() };
    let encoder = TextEncoder::from_dir(dir.path(), &options).unwrap();
    let turns = [Message::user("u")];
    assert_eq!(encoder.render(&turns, true).unwrap(), "Today is 29 Nov 2026.u<eos>");
    // The folder of a trained model says which date it was; another program's keys stay.
    let saved = small_folder(&json!({}));
    std::fs::write(saved.path().join("setpoint.json"), r#"{"pooling": "last"}"#).unwrap();
    encoder.save(saved.path()).unwrap();
    let again = TextEncoder::from_dir(saved.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(again.render(&turns, true).unwrap(), "Today is 29 Nov 2026.u<eos>");
    assert!(again.printed_date().unwrap().is_fixed);
    assert_eq!(again.fingerprint(), encoder.fingerprint());
    assert!(ModelNotes::read(saved.path()).unwrap().get("pooling").is_some());
    // A setting wins over it, and makes another tokenizer of it.
    let options = EncoderOptions { template_date: Some("2027-01-01".parse().unwrap()), ..EncoderOptions::default() };
    let other = TextEncoder::from_dir(saved.path(), &options).unwrap();
    assert_eq!(other.render(&turns, true).unwrap(), "Today is 01 Jan 2027.u<eos>");
    assert_ne!(other.fingerprint(), encoder.fingerprint());
}

#[test]
fn templates_without_a_date_leave_no_note() {
    let dir = small_folder(&json!({"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": OPENS}));
    assert_eq!(printed_date(dir.path(), &EncoderOptions::default()).unwrap(), None);
    let saved = small_folder(&json!({}));
    TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap().save(saved.path()).unwrap();
    assert!(!saved.path().join("setpoint.json").exists());
    // One whose date is given as a variable has none either.
    std::fs::write(dir.path().join("chat_template.jinja"), DATED).unwrap();
    let kwargs = Map::from_iter([("date_string".to_owned(), json!("1 May"))]);
    let options = EncoderOptions { template_kwargs: kwargs, ..EncoderOptions::default() };
    assert_eq!(printed_date(dir.path(), &options).unwrap(), None);
}

/// As GLM 4.5: a turn begins with the token of its role, and nothing ends it. `<|im_start|>` begins the user's, `<|im_end|>` the model's.
const OPEN_END: &str = "<bos>{% for m in messages %}{% if m.role == 'assistant' %}<|im_end|>\n<think></think>\n{{ m.content.strip() }}{% else %}<|im_start|>\n{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_end|>{{ '\n<think></think>\n' if enable_thinking is defined and not enable_thinking else '' }}{% endif %}";

#[test]
fn an_answer_that_nothing_ends_gets_the_tokenizers_eos() {
    let encoder = encoder(OPEN_END, json!({"enable_thinking": false}));
    assert_eq!((encoder.template_stop(), encoder.appended_stop()), (None, Some(EOS)));
    assert!(encoder.stop_ids().contains(&EOS), "a generation stops at what is trained");
    let header = "<|im_end|>\n<think></think>\n";
    let history = format!("<bos><|im_start|>\none{header}1<|im_start|>\ntwo{header}");
    let expected = ["2<eos>", "zwei<eos>"].map(str::to_owned).to_vec();
    for boundary in [Boundary::Separate, Boundary::Rendered] {
        let found = encode(&encoder, &record(&["2", "zwei"]), boundary).unwrap();
        // The token that begins the next turn does not stop this model, so it is not learned.
        assert_eq!(texts(&encoder, &found), (history.clone(), vec!["1".into()], expected.clone()));
        let shown = segments(&encoder, &found, 0, 1).unwrap();
        let of = |kind| shown.iter().filter(|s| s.kind == kind).map(|s| s.text.as_str()).collect::<Vec<_>>();
        assert_eq!((of(SegmentKind::AssistantEarlier), of(SegmentKind::Stop)), (vec!["1"], vec!["<eos>"]));
    }
    assert!(encode(&encoder, &record(&["2<eos>"]), Boundary::Separate).unwrap_err().contains("`<eos>`"));
    // Where a reward model is read at the end of what is printed, nothing is put behind it.
    let options = EncodeOptions { response_end: ResponseEnd::Template, ..EncodeOptions::default() };
    let found = encoder.encode(0, &record(&["2"]), &options).unwrap().outcome.unwrap();
    assert_eq!(encoder.decode(&found.responses[0].ids).unwrap(), "2");
}

#[test]
fn a_token_of_the_next_turn_that_stops_the_model_ends_earlier_turns() {
    let dir = small_folder(&json!({"bos_token": "<bos>", "eos_token": "<eos>"}));
    std::fs::write(dir.path().join("generation_config.json"), json!({"eos_token_id": [EOS, IM_START]}).to_string())
        .unwrap();
    let options = EncoderOptions {
        template: TemplateChoice::Text { name: "open".into(), source: OPEN_END.into() },
        template_kwargs: Map::from_iter([("enable_thinking".to_owned(), json!(false))]),
        ..EncoderOptions::default()
    };
    let encoder = TextEncoder::from_dir(dir.path(), &options).unwrap();
    assert_eq!(encoder.stop_ids(), [EOS, IM_START]);
    let found = encode(&encoder, &record(&["2"]), Boundary::Separate).unwrap();
    let (_, spans, responses) = texts(&encoder, &found);
    assert_eq!((spans, responses), (vec!["1<|im_start|>".to_owned()], vec!["2<eos>".to_owned()]));
}

#[test]
fn a_template_that_ends_answers_with_words_is_still_refused() {
    let words = "{% for m in messages %}{{ m.role }}: {{ m.content }} END {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    let encoder = encoder(words, json!({}));
    assert_eq!(encoder.appended_stop(), None);
    assert!(encode(&encoder, &record(&["2"]), Boundary::Separate).unwrap_err().contains("no stop token after the"));
}
