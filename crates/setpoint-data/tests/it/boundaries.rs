//! Over random texts: the ids are the text, with one BOS and one stop token, and no token spans the boundary.

use std::sync::OnceLock;

use proptest::prelude::*;
use setpoint_data::{
    BuiltIn, EncodeOptions, EncoderOptions, Example, Message, Prompt, Record, Response, TemplateChoice, TextEncoder,
};

use crate::common::{BOS, EOS, IM_END, small_encoder, test_data};

/// Texts in which the small tokenizer's merges are frequent, with characters of one to four bytes.
fn words() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        proptest::sample::select(vec![
            "a", "b", " ", "\n", "\n\n", "x", "é", "日", "😀", "ab", "'s", "12", "\t", ".", "Hello",
        ]),
        1..10,
    )
    .prop_map(|words| words.concat())
}

fn conversation() -> impl Strategy<Value = (Vec<Message>, String)> {
    (proptest::collection::vec((words(), words()), 0..3), words(), words(), words()).prop_map(
        |(earlier, system, user, answer)| {
            let turns = earlier.into_iter().flat_map(|(u, a)| [Message::user(u), Message::assistant(format!("A{a}"))]);
            let turns = [Message::system(system)].into_iter().chain(turns).chain([Message::user(user)]);
            (turns.collect(), answer + ".")
        },
    )
}

fn encode(encoder: &TextEncoder, record: &Record) -> Example {
    let options = EncodeOptions { assistant_spans: true, ..EncodeOptions::default() };
    encoder.encode(0, record, &options).unwrap().outcome.unwrap()
}

fn joined(example: &Example) -> Vec<u32> {
    [&example.prompt[..], &example.responses[0].ids].concat()
}

fn count(ids: &[u32], id: u32) -> usize {
    ids.iter().filter(|i| **i == id).count()
}

fn chatml() -> &'static TextEncoder {
    static ENCODER: OnceLock<TextEncoder> = OnceLock::new();
    ENCODER.get_or_init(|| small_encoder(TemplateChoice::BuiltIn(BuiltIn::ChatMl)))
}

/// A tokenizer of the test data, loaded once.
fn published(name: &'static str, template: TemplateChoice) -> Option<TextEncoder> {
    let folder = test_data(name)?;
    Some(TextEncoder::from_dir(&folder, &EncoderOptions { template, ..EncoderOptions::default() }).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn conversations((turns, answer) in conversation()) {
        let encoder = chatml();
        let record = Record::new(Prompt::Messages(turns.clone()), vec![Response::new(answer.clone())]);
        let example = encode(encoder, &record);
        let prompt = encoder.render(&turns, true).unwrap();
        prop_assert_eq!(encoder.decode(&example.prompt).unwrap(), prompt.clone());
        prop_assert_eq!(encoder.decode(&example.responses[0].ids).unwrap(), format!("{answer}<|im_end|>"));
        prop_assert_eq!(encoder.decode(&joined(&example)).unwrap(), format!("{prompt}{answer}<|im_end|>"));
        let response = &example.responses[0].ids;
        prop_assert_eq!((count(response, IM_END), response.last()), (1, Some(&IM_END)));
        let earlier: Vec<_> = turns.iter().filter(|m| m.role == "assistant").collect();
        prop_assert_eq!(example.assistant_spans.len(), earlier.len());
        for (span, turn) in example.assistant_spans.iter().zip(earlier) {
            let text = encoder.decode(&example.prompt[span.clone()]).unwrap();
            prop_assert_eq!(text, format!("{}<|im_end|>", turn.content));
        }
    }

    #[test]
    fn plain_texts(prompt in words(), answer in words()) {
        let encoder = chatml();
        let answer = answer + ".";
        let example = encode(encoder, &Record::new(Prompt::Text(prompt.clone()), vec![Response::new(answer.clone())]));
        let ids = joined(&example);
        prop_assert_eq!(encoder.decode(&ids).unwrap(), format!("<bos>{prompt}{answer}<eos>"));
        prop_assert_eq!(encoder.decode(&example.prompt).unwrap(), format!("<bos>{prompt}"));
        prop_assert_eq!((count(&ids, BOS), ids[0]), (1, BOS));
        prop_assert_eq!((count(&ids, EOS), ids.last()), (1, Some(&EOS)));
    }
}

/// Runs a property over a published tokenizer, or not at all where it is absent.
fn over<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    });
    if let Err(failure) = runner.run(&strategy, test) {
        panic!("{failure}");
    }
}

#[test]
fn conversations_in_llama3s_tokens() {
    let template = TemplateChoice::BuiltIn(BuiltIn::Llama3);
    let Some(encoder) = published("tokenizers/llama3", template) else { return };
    assert_eq!(encoder.stop_ids()[0], 128_009);
    over(64, conversation(), |(turns, answer)| {
        let record = Record::new(Prompt::Messages(turns.clone()), vec![Response::new(answer.clone())]);
        let example = encode(&encoder, &record);
        let prompt = encoder.render(&turns, true).unwrap();
        let ids = joined(&example);
        prop_assert_eq!(encoder.decode(&ids).unwrap(), format!("{prompt}{}<|eot_id|>", answer.trim()));
        prop_assert_eq!((count(&ids, 128_000), ids[0]), (1, 128_000));
        let response = &example.responses[0].ids;
        prop_assert_eq!((count(response, 128_009), response.last()), (1, Some(&128_009)));
        Ok(())
    });
}

/// SentencePiece puts a `▁` before a text: a response that is tokenised apart must not get one.
fn sentencepiece(name: &'static str) {
    let Some(encoder) = published(name, TemplateChoice::Own) else { return };
    over(64, (words(), words()), |(prompt, answer)| {
        let answer = answer + ".";
        let record = Record::new(Prompt::Text(prompt.clone()), vec![Response::new(answer.clone())]);
        let example = encode(&encoder, &record);
        let ids = joined(&example);
        // These decoders drop one space at the beginning, so the text in one piece is the measure.
        let whole = encoder.encode_text(&format!("{prompt}{answer}")).unwrap();
        prop_assert_eq!(encoder.decode_visible(&ids).unwrap(), encoder.decode_visible(&whole).unwrap());
        prop_assert_eq!((count(&ids, 1), ids[0]), (1, 1));
        prop_assert_eq!((count(&ids, 2), ids.last()), (1, Some(&2)));
        prop_assert_eq!(&encoder.encode_prompt(&record.prompt).unwrap(), &example.prompt);
        Ok(())
    });
    // Every place at which a text can be cut: some of them are within a token.
    let text = "Once upon a time, there was a little girl.";
    let whole = encoder.decode_visible(&encoder.encode_text(text).unwrap()).unwrap();
    let mut merged = 0;
    for at in 1..text.len() {
        let record = Record::new(Prompt::Text(text[..at].into()), vec![Response::new(&text[at..])]);
        let encoded = encoder.encode(0, &record, &EncodeOptions::default()).unwrap();
        merged += encoded.merged;
        assert_eq!(encoder.decode_visible(&joined(&encoded.outcome.unwrap())).unwrap(), whole, "cut at {at}");
    }
    assert!(merged > 10 && merged < text.len() - 1, "{merged} of {} places merge", text.len() - 1);
}

#[test]
fn plain_texts_in_stories260k() {
    sentencepiece("model/stories260K");
}

#[test]
fn plain_texts_in_tinyllamas_tokens() {
    sentencepiece("tokenizers/tinyllama");
}

#[test]
fn plain_texts_in_gpt2s_tokens() {
    let Some(encoder) = published("tokenizers/gpt2", TemplateChoice::Own) else { return };
    over(64, (words(), words()), |(prompt, answer)| {
        let answer = answer + ".";
        let record = Record::new(Prompt::Text(prompt.clone()), vec![Response::new(answer.clone())]);
        let ids = joined(&encode(&encoder, &record));
        prop_assert_eq!(encoder.decode(&ids).unwrap(), format!("{prompt}{answer}<|endoftext|>"));
        prop_assert_eq!(count(&ids, 50256), 1);
        Ok(())
    });
}
