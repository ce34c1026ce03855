//! Tokenizers that no tool writes: each is an error within seconds, without a panic that is seen and without much memory.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use setpoint_data::{EncoderOptions, TextEncoder};

use crate::common::say;

/// Names the case for a process that runs it alone.
const CASE: &str = "SETPOINT_TEST_TOKENIZER";

/// A tokenizer of a few tokens, with some of its components replaced.
fn tokenizer(parts: Value) -> Value {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "<unk>": 2}, "unk_token": "<unk>"},
    });
    for (key, value) in parts.as_object().unwrap() {
        file[key] = value.clone();
    }
    file
}

fn split(regex: &str) -> Value {
    json!({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}})
}

fn replace(from: &str, to: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": from}, "content": to})
}

fn sequence(normalizers: Vec<Value>) -> Value {
    json!({"normalizer": {"type": "Sequence", "normalizers": normalizers}})
}

fn nested(depth: usize, list: &str, inner: Value) -> Value {
    (0..depth).fold(inner, |inner, _| {
        let mut outer = json!({"type": "Sequence"});
        outer[list] = json!([inner]);
        outer
    })
}

fn charsmap(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": text}})
}

fn added(id: Value) -> Value {
    let token = json!({"id": id, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    json!({"added_tokens": [token]})
}

fn bpe(vocab: Value, merges: Value) -> Value {
    json!({"model": {"type": "BPE", "vocab": vocab, "merges": merges, "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false}})
}

fn template(special: Value) -> Value {
    json!({"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": special}})
}

/// A trie that sends every byte far outside its array, or to a text at a place that is not there.
fn junk_trie(units: &[u32], texts: &[u8]) -> Vec<u8> {
    let mut bytes = (4 * units.len() as u32).to_le_bytes().to_vec();
    units.iter().for_each(|unit| bytes.extend(unit.to_le_bytes()));
    bytes.extend(texts);
    bytes
}

fn cases() -> Vec<(&'static str, Value)> {
    let many = |count: usize| sequence((0..count).map(|_| replace("a", &"a".repeat(16))).collect());
    let unigram = |vocab: Value, unk: Value| json!({"model": {"type": "Unigram", "vocab": vocab, "unk_id": unk}});
    vec![
        // Searches without end.
        ("nested repetition", split("(a+)+$")),
        ("nested repetition of alternatives", split("(a|aa)+$")),
        ("nested stars", split("(?:a*)*c")),
        ("back reference", split(r"(a*)(a*)(a*)\1\2\3c")),
        ("five repetitions in a row", split("a*a*a*a*a*a*a*c")),
        ("a regex of 100 KB", split(&"a?".repeat(50_000))),
        ("a regex of many groups", split(&format!("{}a{}", "(".repeat(5000), ")".repeat(5000)))),
        ("a regex that does not parse", split("(a")),
        (
            "the same in a normalizer",
            json!({"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}}),
        ),
        // Texts that grow.
        ("seven times sixteen", many(7)),
        ("four times sixteen", many(4)),
        ("an empty pattern", sequence(vec![replace("", &"b".repeat(5000)), replace("b", "bbbbbbbb")])),
        ("a long prefix", json!({"normalizer": {"type": "Prepend", "prepend": "a".repeat(1 << 20)}})),
        ("a thousand steps", sequence((0..1000).map(|_| json!({"type": "NFC"})).collect())),
        (
            "a decoder that grows",
            json!({"decoder": {"type": "Sequence", "decoders": (0..7).map(|_| replace("a", &"a".repeat(16))).collect::<Vec<_>>()}}),
        ),
        // Components that do not work.
        ("pieces of length 0", json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}})),
        ("pieces of negative length", json!({"pre_tokenizer": {"type": "FixedLength", "length": -1}})),
        ("an unknown component", json!({"pre_tokenizer": {"type": "Shredder"}})),
        ("deep normalizers", json!({"normalizer": nested(30, "normalizers", json!({"type": "NFC"}))})),
        ("deep pre-tokenizers", json!({"pre_tokenizer": nested(30, "pretokenizers", json!({"type": "Whitespace"}))})),
        (
            "deep processors",
            json!({"post_processor": nested(30, "processors", json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}))}),
        ),
        ("deep decoders", json!({"decoder": nested(30, "decoders", json!({"type": "Fuse"}))})),
        ("a map that is no base64", json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!!"}})),
        ("an empty map", charsmap(&[])),
        ("a map that claims 4 GB", charsmap(&[0xff, 0xff, 0xff, 0xff, 0, 0])),
        ("a map without a trie", charsmap(&[0, 0, 0, 0])),
        ("a map that leads outside", charsmap(&junk_trie(&[0xffff_ffff; 4], b"x\0"))),
        ("a map to texts that are not there", charsmap(&junk_trie(&vec![0x0000_0161; 256], b"x\0"))),
        (
            "a map of random bytes",
            charsmap(&(0..1000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>()),
        ),
        ("a map to long texts", charsmap(&junk_trie(&[0], &vec![b'x'; 1 << 20]))),
        ("a map that is no UTF-8", charsmap(&junk_trie(&[0], &[0xff, 0]))),
        // Ids.
        ("an added token's id of 10^12", added(json!(1_000_000_000_000_u64))),
        ("an added token's id beyond the vocabulary", added(json!(4_000_000_000_u64))),
        ("a negative id", added(json!(-1))),
        (
            "a vocabulary's id of 10^12",
            json!({"model": {"type": "WordLevel", "vocab": {"a": 1_000_000_000_000_u64}, "unk_token": "a"}}),
        ),
        ("a vocabulary's negative id", bpe(json!({"a": -1}), json!([]))),
        ("a merge of tokens that are not there", bpe(json!({"a": 0, "b": 1}), json!(["x y"]))),
        ("a merge into a token that is not there", bpe(json!({"a": 0, "b": 1}), json!(["a b"]))),
        ("a merge of one part", bpe(json!({"a": 0}), json!(["a"]))),
        ("a template without its token", template(json!({}))),
        (
            "a template with an id that is none",
            template(json!({"<s>": {"id": "<s>", "ids": [4_000_000_000_u64], "tokens": ["<s>"]}})),
        ),
        (
            "a template of many tokens with many ids",
            json!({"post_processor": {"type": "TemplateProcessing", "pair": [],
                "single": vec![json!({"SpecialToken": {"id": "<s>", "type_id": 0}}); 20_000],
                "special_tokens": {"<s>": {"id": "<s>", "ids": vec![0; 10_000], "tokens": vec!["a"; 10_000]}}}}),
        ),
        (
            "a template that repeats the text",
            json!({"post_processor": {"type": "TemplateProcessing", "pair": [], "special_tokens": {},
                "single": vec![json!({"Sequence": {"id": "A", "type_id": 0}}); 5000]}}),
        ),
        (
            "a template with more ids than tokens",
            template(json!({"<s>": {"id": "<s>", "ids": [0, 1, 2], "tokens": ["<s>"]}})),
        ),
        ("an unknown token that is not there", unigram(json!([["a", 0.0]]), json!(7))),
        ("no unknown token", unigram(json!([["b", -1.0]]), json!(null))),
        ("an empty unigram", unigram(json!([]), json!(null))),
        ("no vocabulary", json!({"model": {"type": "WordLevel"}})),
        ("no model", json!({"model": null})),
        (
            "words without end",
            json!({"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "b": 1}, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 1_000_000_000_000_000_000_u64}}),
        ),
        (
            "an unknown token of a WordPiece that is not there",
            json!({"model": {"type": "WordPiece", "vocab": {"b": 1}, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}}),
        ),
        ("not an object", json!({"added_tokens": 7})),
        ("two tokens with one id", bpe(json!({"a": 0, "b": 1, "c": 1}), json!([]))),
    ]
}

/// Reads and uses a tokenizer; whether every step worked.
fn works(case: &Value) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), case.to_string()).unwrap();
    let encoder = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).map_err(|e| e.to_string())?;
    let text = format!("{}!", "a".repeat(200_000));
    for text in [text.as_str(), "", "ab ba", "é日\u{0}"] {
        let ids = encoder.encode_text(text).map_err(|e| e.to_string())?;
        encoder.decode(&ids).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Each case in a process of its own, as an abort cannot be caught, with 3 GB of addresses.
#[cfg(unix)]
#[test]
fn each_is_an_error_in_good_time() {
    // Slow, or odd, and still tokenizers.
    const WORK: &[&str] = &[
        "no unknown token",
        "words without end",
        "a map without a trie",
        "nested stars",
        "back reference",
        "five repetitions in a row",
        "a template with more ids than tokens",
    ];
    let mut wrong = Vec::new();
    for (name, _) in cases() {
        let begun = Instant::now();
        let output = Command::new("sh")
            .args(["-c", "ulimit -v 3000000; exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "hostile_tokenizers::one_case", "--ignored", "--nocapture", "--test-threads=1"])
            .env(CASE, name)
            .output()
            .unwrap();
        let took = begun.elapsed();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let refused = said.contains("REFUSED: ") || (WORK.contains(&name) && said.contains("WORKED"));
        if !output.status.success() || !refused || said.contains("panicked") || took > Duration::from_secs(10) {
            wrong.push(format!("{name} ({took:?}): {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases().len() >= 40);
}

#[test]
#[ignore = "started by each_is_an_error_in_good_time"]
fn one_case() {
    let name = std::env::var(CASE).unwrap();
    let (_, parts) = cases().into_iter().find(|(n, _)| *n == name).unwrap();
    match works(&tokenizer(parts)) {
        Ok(()) => say("WORKED"),
        Err(message) => {
            assert!(message.lines().count() == 1 && message.len() < 2000, "{message}");
            say(&format!("REFUSED: {message}"));
        }
    }
}

#[test]
fn the_tokenizer_without_anything_replaced_works() {
    assert_eq!(works(&tokenizer(json!({"pre_tokenizer": {"type": "Whitespace"}}))), Ok(()));
    // A repetition of a group is run with a deadline, and gives the same tokens.
    let parts = json!({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?:ab)+"}, "behavior": "Isolated", "invert": false}});
    assert_eq!(works(&tokenizer(parts)), Ok(()));
    // Several replacements that make a text longer are measured, and allowed while it stays short.
    let dir = tempfile::tempdir().unwrap();
    let grows = sequence(vec![replace("a", "bbbbbbbbb"), replace("c", "ddddddddd"), replace("e", "b")]);
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer(grows).to_string()).unwrap();
    let encoder = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(encoder.encode_text("e").unwrap(), [1]);
}

#[test]
fn dropout_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = tokenizer(bpe(json!({"a": 0, "b": 1, "ab": 2, "abab": 3}), json!(["a b", "ab ab"])));
    for (dropout, told) in [(json!(null), None), (json!(0.0), None), (json!(0.5), Some(0.5)), (json!(1.0), Some(1.0))] {
        file["model"]["dropout"] = dropout;
        std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
        let encoder = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
        assert_eq!(encoder.dropout(), told);
        let all = (0..50).all(|_| encoder.encode_text("abababab").unwrap() == [3, 3]);
        assert!(all, "{told:?}");
    }
}

#[test]
fn a_configuration_is_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let file = tokenizer(json!({"pre_tokenizer": {"type": "Whitespace"}}));
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    for (text, expected) in
        [("[]", "expected an object, found a list of 0"), ("{", "not valid JSON: it ends within an object")]
    {
        std::fs::write(dir.path().join("tokenizer_config.json"), text).unwrap();
        let said = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}
