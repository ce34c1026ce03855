//! A turn that is trained keeps everything that its row says.

use serde_json::{Value, json};
use setpoint_data::{
    BadRows, DropReason, EncodeOptions, EncodeProblem, Error, Label, LostText, Message, Prompt, Record, Response,
    TemplateChoice, TextEncoder,
};

use crate::common::small_encoder;

/// ChatML whose turns are printed by this expression.
fn encoder(turn: &str) -> TextEncoder {
    let source = format!(
        "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{% set c = m.content %}}{{% set last = loop.last %}}{turn}<|im_end|>\n{{% endfor %}}\
         {{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
    );
    small_encoder(TemplateChoice::Text { name: "mine".into(), source })
}

fn record(turns: Vec<Message>, responses: Vec<Response>) -> Record {
    Record::new(Prompt::Messages(turns), responses)
}

fn response(content: &str, extra: Value) -> Response {
    let Value::Object(extra) = extra else { panic!("an object") };
    Response { message: Message { extra, ..Message::assistant(content) }, reward: None, label: None }
}

fn problem(encoder: &TextEncoder, record: &Record, options: &EncodeOptions) -> EncodeProblem {
    match encoder.encode(0, record, options).unwrap_err() {
        Error::Encode { problem, .. } => *problem,
        other => panic!("{other}"),
    }
}

fn lost(problem: EncodeProblem) -> (String, &'static str, String) {
    match problem {
        EncodeProblem::Lost { turn, what, text, .. } => (turn, what, text),
        other => panic!("{other}"),
    }
}

#[test]
fn thoughts_that_a_template_strips_are_named() {
    // As QwQ's: the thoughts are cut off.
    let stripping = encoder("{{ c.split('</think>')[-1].strip() }}");
    let responses = vec![
        Response::new("<think>two and two</think>Four.").rewarded(1.0),
        Response::new("<think>a guess</think>Four.").rewarded(-1.0),
    ];
    let row = record(vec![Message::user("2+2?")], responses);
    let options = EncodeOptions::default();
    assert_eq!(lost(problem(&stripping, &row, &options)), ("answer 0".into(), "thoughts", "two and two".into()));
    // The same row with a template that only moves whitespace, as Qwen3's does.
    let moving = encoder(
        "{% if '</think>' in c %}<think>\n{{ c.split('</think>')[0].split('<think>')[-1].strip() }}\n</think>\n\n{{ c.split('</think>')[-1].lstrip() }}{% else %}{{ c }}{% endif %}",
    );
    assert_eq!(moving.encode(0, &row, &options).unwrap().outcome.unwrap().responses.len(), 2);
    // A field that the template does not know.
    let row = record(vec![Message::user("2+2?")], vec![response("Four.", json!({"reasoning_content": "easy"}))]);
    assert_eq!(lost(problem(&encoder("{{ c }}"), &row, &options)).1, "thoughts");
    // Where rewards are computed, it is counted.
    let count = EncodeOptions { lost_text: LostText::Count, ..options };
    let (examples, report) = encoder("{{ c }}").encode_all(&[row], &count).unwrap();
    assert_eq!((examples.len(), report.lost), (1, 1));
    assert!(report.first_lost.unwrap().contains("leaves out or rewrites the thoughts of the answer 0: \"easy\""));
}

#[test]
fn tool_calls_that_a_template_ignores_are_named() {
    let call =
        json!({"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 20}}}]});
    let row = record(vec![Message::user("Add.")], vec![response("", call.clone())]);
    let options = EncodeOptions::default();
    assert_eq!(lost(problem(&encoder("{{ c }}"), &row, &options)), ("answer 0".into(), "tool call", "add".into()));
    let names = "{{ c }}{% for t in m.tool_calls or [] %}{{ t.function.name }}{% endfor %}";
    assert_eq!(lost(problem(&encoder(names), &row, &options)).2, "20");
    let all = "{{ c }}{% for t in m.tool_calls or [] %}{{ t.function | tojson }}{% endfor %}";
    assert!(encoder(all).encode(0, &row, &options).is_ok());
    // An earlier turn counts where it is trained.
    let turns = vec![Message::user("Add."), response("", call).message, Message::new("tool", "21")];
    let row = record(turns, vec![Response::new("21.")]);
    assert!(encoder("{{ c }}").encode(0, &row, &options).is_ok(), "history");
    let sft = EncodeOptions { assistant_spans: true, ..options };
    assert_eq!(lost(problem(&encoder("{{ c }}"), &row, &sft)).0, "assistant turn in message 1");
    assert!(encoder(all).encode(0, &row, &sft).is_ok());
}

#[test]
fn text_that_a_template_rewrites_or_shortens_is_named() {
    let row = record(vec![Message::user("?")], vec![Response::new(" The Sky\n is blue. ")]);
    for turn in ["{{ c | lower }}", "{{ c[:9] }}", "{{ c.replace('\n', '') }}", "{{ c.split() | join(' ') }}", ""] {
        assert_eq!(lost(problem(&encoder(turn), &row, &EncodeOptions::default())).1, "text", "{turn}");
    }
    for turn in ["{{ c | trim }}", "{{ c }}", "> {{ c.lstrip() }}!"] {
        assert!(encoder(turn).encode(0, &row, &EncodeOptions::default()).is_ok(), "{turn}");
    }
    // Only the last turn is printed in full: fine for preferences, not for SFT.
    let turns = vec![Message::user("A?"), Message::assistant("long answer"), Message::user("B?")];
    let row = record(turns, vec![Response::new("short")]);
    let cutting = encoder("{% if last or m.role == 'user' %}{{ c }}{% else %}{{ c[:4] }}{% endif %}");
    assert!(cutting.encode(0, &row, &EncodeOptions::default()).is_ok());
    let sft = EncodeOptions { assistant_spans: true, ..EncodeOptions::default() };
    assert_eq!(lost(problem(&cutting, &row, &sft)).0, "assistant turn in message 1");
}

#[test]
fn empty_turns_are_bad_wherever_they_are_trained() {
    let sft = EncodeOptions { assistant_spans: true, ..EncodeOptions::default() };
    let plain = encoder("{{ c }}");
    for empty in [Message::assistant(""), Message::assistant(" \n"), response("", json!({"tool_calls": []})).message] {
        let row = record(vec![Message::user("A?"), empty, Message::user("B?")], vec![Response::new("b")]);
        assert_eq!(
            problem(&plain, &row, &sft),
            EncodeProblem::EmptyTurn { turn: "assistant turn in message 1".into() }
        );
        assert!(plain.encode(0, &row, &EncodeOptions::default()).is_ok(), "not trained");
        let rows = [record(vec![Message::user("A?")], vec![Response::new("a")]), row];
        let (_, report) = plain.encode_all(&rows, &EncodeOptions { on_bad_row: BadRows::Drop, ..sft.clone() }).unwrap();
        assert_eq!(report.dropped[&DropReason::Invalid], 1);
        assert!(report.to_string().contains("first invalid row: <memory>: row 0: the assistant turn"), "{report}");
    }
}

#[test]
fn different_responses_must_have_different_tokens() {
    let options = EncodeOptions::default();
    let trimming = encoder("{{ c | trim }}");
    let pair = |a: Response, b: Response| record(vec![Message::user("?")], vec![a, b]);
    let same = EncodeProblem::SameTokens { first: 0, second: 1 };
    // Only whitespace differs: contradictory rewards cannot be learned, equal ones can.
    let row = pair(Response::new("a").rewarded(1.0), Response::new("a\n").rewarded(-1.0));
    assert_eq!(problem(&trimming, &row, &options), same);
    let row = pair(Response::new("a").labelled(Label::Chosen), Response::new(" a").labelled(Label::Rejected));
    assert_eq!(problem(&trimming, &row, &options), same);
    assert!(trimming.encode(0, &pair(Response::new("a"), Response::new("a\n")), &options).is_ok());
    // One text twice is what sampling gives.
    let row = pair(Response::new("a").rewarded(1.0), Response::new("a").rewarded(0.5));
    assert!(trimming.encode(0, &row, &options).is_ok());
}
