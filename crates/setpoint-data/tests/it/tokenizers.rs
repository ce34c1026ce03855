//! Plain tokenisation against transformers'.

use serde_json::Value;
use setpoint_data::{EncodeOptions, EncoderOptions, Prompt, Record, Response, TextEncoder};

use crate::common::{golden, read_json, test_data};

fn compare(name: &str, folder: &str, prefix: &[u32]) {
    let Some(folder) = test_data(folder) else { return };
    let encoder = TextEncoder::from_dir(&folder, &EncoderOptions::default()).unwrap();
    let rows = read_json(golden().join(format!("tokenize_{name}.json")));
    let ids = |v: &Value| v.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect::<Vec<_>>();
    let mut checked = 0;
    for row in rows.as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let expected = ids(&row["ids"]);
        assert_eq!(encoder.encode_text(text).unwrap(), expected, "{name}: {text:?}");
        assert_eq!(encoder.decode(&expected).unwrap(), row["decoded"].as_str().unwrap(), "{name}: {text:?}");
        let visible = encoder.decode_visible(&expected).unwrap();
        assert_eq!(visible, row["decoded_skip_special"].as_str().unwrap(), "{name}: {text:?}");
        let with_special = ids(&row["ids_with_special"]);
        assert_eq!(with_special, [prefix, &expected].concat(), "the test's own assumption about {name}");
        // A prompt has BOS as the tokenizer puts it, unless its text brings it, and no more than one.
        let brings = !prefix.is_empty() && expected.starts_with(prefix);
        let brings_more = expected.iter().skip(1).any(|id| prefix.contains(id));
        if !brings && !brings_more && !with_special.is_empty() {
            assert_eq!(encoder.encode_prompt(&Prompt::Text(text.into())).unwrap(), with_special, "{name}: {text:?}");
            checked += 1;
        }
    }
    assert!(checked >= 15, "{checked}");
}

#[test]
fn gpt2() {
    compare("gpt2", "tokenizers/gpt2", &[]);
}

#[test]
fn tinyllama() {
    compare("tinyllama", "tokenizers/tinyllama", &[1]);
}

#[test]
fn llama3() {
    compare("llama3", "tokenizers/llama3", &[]);
}

#[test]
fn stories260k() {
    compare("stories260K", "model/stories260K", &[1]);
}

#[test]
fn special_tokens_come_from_the_files_there_are() {
    if let Some(folder) = test_data("tokenizers/gpt2") {
        let encoder = TextEncoder::from_dir(&folder, &EncoderOptions::default()).unwrap();
        assert_eq!(encoder.special_tokens().eos, Some(("<|endoftext|>".into(), 50256)));
        assert_eq!((encoder.stop_ids(), encoder.vocab_size()), (&[50256][..], 50257));
    }
    if let Some(folder) = test_data("model/stories260K") {
        // No tokenizer_config.json: the ids of config.json.
        let encoder = TextEncoder::from_dir(&folder, &EncoderOptions::default()).unwrap();
        assert_eq!(encoder.special_tokens().bos, Some(("<s>".into(), 1)));
        assert_eq!(encoder.special_tokens().eos, Some(("</s>".into(), 2)));
        assert_eq!((encoder.stop_ids(), encoder.vocab_size()), (&[2][..], 512));
        assert!(encoder.check_vocabulary(512).is_ok());
        let message = encoder.check_vocabulary(511).unwrap_err().to_string();
        assert!(message.contains("ids up to 511 but the model's vocab_size is 511"), "{message}");
    }
}

#[test]
fn a_plain_example_has_one_bos_and_one_stop() {
    let Some(folder) = test_data("model/stories260K") else { return };
    let encoder = TextEncoder::from_dir(&folder, &EncoderOptions::default()).unwrap();
    for (prompt, response) in [("Once upon", " a time"), ("<s>Once upon", " a time</s>")] {
        let record = Record::new(Prompt::Text(prompt.into()), vec![Response::new(response)]);
        let example = encoder.encode(0, &record, &EncodeOptions::default()).unwrap().outcome.unwrap();
        let ids = [&example.prompt[..], &example.responses[0].ids].concat();
        assert_eq!(ids.iter().filter(|id| **id == 1).count(), 1, "{ids:?}");
        assert_eq!(ids.iter().position(|id| *id == 2), Some(ids.len() - 1), "{ids:?}");
    }
}
