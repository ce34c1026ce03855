//! Conversations of many turns: the places of earlier turns are those of each turn's own prompt, and are found in good time.

use std::time::{Duration, Instant};

use setpoint_data::{
    Boundary, BuiltIn, EncodeOptions, Example, Message, Prompt, Record, Response, TemplateChoice, TextEncoder,
};

use crate::common::{say, small_encoder};

/// A conversation of so many questions with answers, and a last question. Some texts are those of other turns.
fn turns(questions: usize) -> Vec<Message> {
    let pair = |i: usize| [Message::user(format!("Q{}?", i % 7)), Message::assistant(format!("A{}.", i % 5))];
    (0..questions).flat_map(pair).chain([Message::user("Last?")]).collect()
}

fn encode(encoder: &TextEncoder, turns: Vec<Message>, boundary: Boundary) -> Example {
    let record = Record::new(Prompt::Messages(turns), vec![Response::new("End.")]);
    let options = EncodeOptions { assistant_spans: true, boundary, ..EncodeOptions::default() };
    encoder.encode(0, &record, &options).unwrap().outcome.unwrap()
}

/// Fails unless the spans of the earlier turns begin where a prompt that ends before them does.
#[track_caller]
fn check(encoder: &TextEncoder, turns: Vec<Message>, boundary: Boundary) {
    let example = encode(encoder, turns.clone(), boundary);
    let answers: Vec<usize> = (0..turns.len()).filter(|&i| turns[i].role == "assistant").collect();
    assert_eq!(example.assistant_spans.len(), answers.len());
    for (span, i) in example.assistant_spans.iter().zip(answers) {
        let before = encoder.encode_prompt(&Prompt::Messages(turns[..i].to_vec())).unwrap();
        assert_eq!(span.start, before.len(), "message {i}");
        assert_eq!(encoder.decode(&example.prompt[span.clone()]).unwrap(), format!("{}<|im_end|>", turns[i].content));
    }
}

fn template(source: &str) -> TextEncoder {
    small_encoder(TemplateChoice::Text { name: "mine".into(), source: source.into() })
}

#[test]
fn the_places_of_many_turns_are_those_of_each() {
    // A header that depends on nothing, on the number of the turn, on the answers before it, and on the place in the conversation.
    let headers =
        ["", " {{ loop.index }}", "{{ '!' if loop.index0 > 0 and 'A3' in messages[loop.index0 - 2].content }}"];
    let mut encoders = vec![small_encoder(TemplateChoice::BuiltIn(BuiltIn::ChatMl))];
    for header in headers {
        let next = header.replace("loop.index0", "messages|length").replace("loop.index", "(messages|length + 1)");
        encoders.push(template(&format!(
            "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}{header}\n{{{{ m.content }}}}<|im_end|>\n{{% endfor %}}\
             {{% if add_generation_prompt %}}<|im_start|>assistant{next}\n{{% endif %}}"
        )));
    }
    for encoder in &encoders {
        for boundary in [Boundary::Separate, Boundary::Rendered] {
            check(encoder, turns(150), boundary);
            // Turns that are not learned, a system turn, and an answer before any question.
            let mut some = turns(150);
            some.insert(0, Message::system("Be brief."));
            check(encoder, some.clone(), boundary);
            some.insert(1, Message::assistant("Hello."));
            check(encoder, some, boundary);
        }
    }
}

#[test]
fn thousands_of_turns_are_encoded_in_good_time() {
    let encoder = small_encoder(TemplateChoice::BuiltIn(BuiltIn::ChatMl));
    for boundary in [Boundary::Separate, Boundary::Rendered] {
        let started = Instant::now();
        let example = encode(&encoder, turns(2_000), boundary);
        assert_eq!(example.assistant_spans.len(), 2_000);
        say(&format!("4,002 turns, {boundary:?}: {:.1} s", started.elapsed().as_secs_f64()));
        assert!(started.elapsed() < Duration::from_secs(60), "{boundary:?}: {:?}", started.elapsed());
    }
}
