//! Tokenizers as GGUF files hold them: against llama.cpp's converter, and with llama.cpp's own way to tokenise.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use setpoint_data::{DatasetConfig, EncoderOptions, GgufTokenizer, Prompt, TextEncoder, TokenKind, load_records};
use sha2::{Digest, Sha256};

use crate::common::{golden, read_json, test_data};

fn encoder(dir: &Path) -> TextEncoder {
    TextEncoder::from_dir(dir, &EncoderOptions::default()).unwrap()
}

fn hashed(items: impl Iterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    for item in items {
        hash.update(item);
        hash.update([0]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn byte_level_tokenizers_are_those_of_the_converter() {
    let expected = read_json(golden().join("../gguf.json"));
    for (name, expected) in expected["tokenizers"].as_object().unwrap() {
        let Some(dir) = test_data(name) else { return };
        let found = encoder(&dir).gguf_tokenizer(expected["size"].as_u64().unwrap() as usize).unwrap();
        assert_eq!((found.model, found.pre), ("gpt2", expected["pre"].as_str().unwrap()), "{name}");
        assert_eq!(hashed(found.tokens.iter().cloned()), expected["tokens"], "{name}");
        assert_eq!(found.tokens.last().unwrap(), expected["last"].as_str().unwrap(), "{name}");
        let kinds = found.kinds.iter().map(|&kind| (kind as i32).to_string());
        assert_eq!(hashed(kinds), expected["kinds"], "{name}");
        assert_eq!(hashed(found.merges.into_iter()), expected["merges"], "{name}");
        assert_eq!((found.scores.len(), found.add_space_prefix), (0, None), "{name}");
    }
}

/// Tokenises as llama.cpp does with a vocabulary of scores: of the neighbours whose text is a token, those that make the token with the
/// highest score are joined first, of equal ones the leftmost.
fn by_scores(tokenizer: &GgufTokenizer, ids: &HashMap<&str, usize>, text: &str) -> Vec<u32> {
    let mut text = text.replace(' ', "▁");
    if tokenizer.add_space_prefix == Some(true) && !text.is_empty() {
        text.insert(0, '▁');
    }
    let mut parts: Vec<&str> = text.char_indices().map(|(i, c)| &text[i..i + c.len_utf8()]).collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        let mut start = 0;
        for (i, pair) in parts.windows(2).enumerate() {
            let joined = &text[start..start + pair[0].len() + pair[1].len()];
            start += pair[0].len();
            if let Some(&id) = ids.get(joined)
                && best.is_none_or(|(score, _)| tokenizer.scores[id] > score)
            {
                best = Some((tokenizer.scores[id], i));
            }
        }
        let Some((_, i)) = best else { break };
        let start: usize = parts[..i].iter().map(|part| part.len()).sum();
        parts[i] = &text[start..start + parts[i].len() + parts[i + 1].len()];
        parts.remove(i + 1);
    }
    let id = |text: &str| ids.get(text).map(|&id| id as u32);
    let bytes = |part: &str| part.bytes().map(|byte| id(&format!("<0x{byte:02X}>")).unwrap()).collect();
    parts.into_iter().flat_map(|part| id(part).map_or_else(|| bytes(part), |id| vec![id])).collect()
}

#[test]
fn scores_tokenise_as_the_merges_do() {
    let Some(data) = test_data("sft/alpaca_en_demo.json") else { return };
    let config = DatasetConfig { max_rows: Some(700), ..DatasetConfig::new(data.to_str().unwrap()) };
    let (records, _) = load_records(&config).unwrap();
    let mut texts: Vec<String> = Vec::new();
    for record in records {
        match &record.prompt {
            Prompt::Messages(turns) => texts.extend(turns.iter().map(|turn| turn.content.clone())),
            Prompt::Text(text) => texts.push(text.clone()),
        }
        texts.extend(record.responses.iter().map(|response| response.text().to_owned()));
    }
    let rows = read_json(golden().join("tokenize_stories260K.json"));
    texts.extend(rows.as_array().unwrap().iter().map(|row| row["text"].as_str().unwrap().to_owned()));
    texts.extend(["a  b   c    d", "\n\n\t x", "ÄÖ 🦙🦙 ▁▁ \u{0}", "aaaaaaaaabababa"].map(str::to_owned));
    // Special tokens are split off before either algorithm begins. The one above takes the square of a text's length.
    texts.retain(|text| !text.contains('<'));
    for text in &mut texts {
        *text = text.chars().take(100).collect();
    }
    assert!(texts.len() > 1000, "{}", texts.len());
    for (name, size) in [("model/stories260K", 512), ("tokenizers/tinyllama", 32_000)] {
        let Some(dir) = test_data(name) else { return };
        let encoder = encoder(&dir);
        let tokenizer = encoder.gguf_tokenizer(size).unwrap();
        assert_eq!((tokenizer.model, tokenizer.pre, tokenizer.merges.len()), ("llama", "default", 0));
        assert_eq!((tokenizer.tokens.len(), tokenizer.scores.len()), (size, size));
        let count = |kind| tokenizer.kinds.iter().filter(|found| **found == kind).count();
        assert_eq!((count(TokenKind::Byte), count(TokenKind::Control), count(TokenKind::Unknown)), (256, 2, 1));
        let ids: HashMap<&str, usize> = tokenizer.tokens.iter().map(String::as_str).zip(0..).collect();
        assert_eq!(tokenizer.remark.is_some(), name.ends_with("tinyllama"));
        // The tokenizer of TinyLlama puts no space before a text that begins with one, as the remark says.
        let differs = |text: &&String| tokenizer.remark.is_some() && text.starts_with([' ', '▁']);
        for text in texts.iter().filter(|text| !differs(text)) {
            assert_eq!(by_scores(&tokenizer, &ids, text), encoder.encode_text(text).unwrap(), "{name}: {text:?}");
        }
    }
}

/// A copy of stories260K's tokenizer after a change.
fn changed(change: impl FnOnce(&mut Value)) -> Option<tempfile::TempDir> {
    let mut file = read_json(test_data("model/stories260K")?.join("tokenizer.json"));
    change(&mut file);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    Some(dir)
}

fn refused(dir: &Path, size: usize) -> String {
    encoder(dir).gguf_tokenizer(size).unwrap_err().to_string()
}

fn add_token(file: &mut Value) {
    let token = json!({"id": 512, "content": "<|im_end|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    file["added_tokens"].as_array_mut().unwrap().push(token);
}

/// `tokenizer.model` with the pieces of a tokenizer and these scores.
fn model_file(file: &Value, score: impl Fn(usize) -> f32) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let mut texts: Vec<(usize, &String)> = file["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(text, id)| (id.as_u64().unwrap() as usize, text))
        .collect();
    texts.sort();
    // The algorithm: BPE.
    let mut bytes = field(2, &[3 << 3, 2]);
    for (id, text) in texts {
        let kind = match id {
            0 => 2,
            1 | 2 => 3,
            3..259 => 6,
            _ => 1,
        };
        let score = [&[2 << 3 | 5][..], &score(id).to_le_bytes()].concat();
        bytes.extend(field(1, &[field(1, text.as_bytes()), score, vec![3 << 3, kind]].concat()));
    }
    bytes
}

#[test]
fn added_tokens_need_the_file_of_scores() {
    let Some(dir) = changed(add_token) else { return };
    let message = refused(dir.path(), 520);
    assert!(message.contains("`<|im_end|>` is added") && message.contains("tokenizer.model"), "{message}");

    let file = read_json(dir.path().join("tokenizer.json"));
    let path = dir.path().join("tokenizer.model");
    std::fs::write(&path, model_file(&file, |id| -(id as f32))).unwrap();
    let found = encoder(dir.path()).gguf_tokenizer(520).unwrap();
    assert_eq!(found.scores[300], -300.0);
    assert_eq!((found.tokens[512].as_str(), found.kinds[512]), ("<|im_end|>", TokenKind::Control));
    assert_eq!((found.tokens[519].as_str(), found.kinds[519]), ("[PAD519]", TokenKind::Unused));
    // A model that is trained from this one has the scores, too.
    let trained = tempfile::tempdir().unwrap();
    encoder(dir.path()).save(trained.path()).unwrap();
    assert_eq!(encoder(trained.path()).gguf_tokenizer(520).unwrap().scores, found.scores);

    // A file of another model.
    let mut other = file.clone();
    let vocab = other["model"]["vocab"].as_object_mut().unwrap();
    let id = vocab.remove("▁was").or_else(|| vocab.remove("▁t")).unwrap();
    vocab.insert("▁other".to_owned(), id);
    std::fs::write(&path, model_file(&other, |_| 0.0)).unwrap();
    assert!(refused(dir.path(), 520).contains("they do not belong together"));
    std::fs::write(&path, "{}").unwrap();
    assert!(refused(dir.path(), 520).contains("not a SentencePiece model"));
}

#[test]
fn tokenizers_that_llama_cpp_does_not_have_are_refused() {
    let change = |path: &str, value: Value| {
        changed(|file| *file.pointer_mut(path).unwrap() = value).map(|dir| refused(dir.path(), 512))
    };
    let Some(message) = change("/normalizer", json!({"type": "NFKC"})) else { return };
    assert!(message.contains("its `normalizer` or `pre_tokenizer` does more than to write spaces as `▁`"), "{message}");
    let merges = changed(|file| {
        file["model"]["merges"].as_array_mut().unwrap().swap(3, 100);
        file["model"]["merges"].as_array_mut().unwrap().remove(50);
    });
    assert!(refused(merges.unwrap().path(), 512).contains("do not follow from the merges"));
    // Byte-level, with a way to split that llama.cpp has under no name.
    let digits = changed(|file| {
        file["normalizer"] = Value::Null;
        file["pre_tokenizer"] = json!({"type": "Digits", "individual_digits": true});
        file["model"]["byte_fallback"] = json!(false);
    });
    assert!(refused(digits.unwrap().path(), 512).contains("llama.cpp's name for its pre-tokenizer is not known"));
    let words = changed(|file| {
        file["normalizer"] = Value::Null;
        file["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
        file["added_tokens"] = json!([]);
        file["post_processor"] = Value::Null;
    });
    assert!(refused(words.unwrap().path(), 512).contains("its model is of type `WordLevel`"));
    let Some(whole) = changed(|_| ()) else { return };
    assert!(refused(whole.path(), 511).contains("vocab_size is 511"));
}
