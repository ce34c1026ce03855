//! A tokenizer small enough to reason about, and the data that lives outside the repository.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use setpoint_data::{EncoderOptions, TemplateChoice, TextEncoder};

#[path = "../../../../tests/common/test_data.rs"]
mod test_data;

pub use self::test_data::test_data;

/// The folder of golden data about templates, which is part of the repository.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/templates")
}

pub fn read_json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

/// Says something to the process that started this one.
pub fn say(line: &str) {
    use std::io::Write as _;
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Ids of the merges, behind the bytes.
pub const NEWLINES: u32 = 256;
pub const SPACE_A: u32 = 257;
pub const AB: u32 = 258;
/// Added tokens of the small tokenizer, behind the merges.
pub const ADDED: [&str; 5] = ["<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"];
pub const BOS: u32 = 259;
pub const EOS: u32 = 260;
pub const IM_START: u32 = 261;
pub const IM_END: u32 = 262;
pub const END_OF_TEXT: u32 = 263;

/// The character that stands for a byte in byte-level BPE: printable Latin-1 for itself, the others from U+0100 on.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !printable(*b)).count();
    char::from_u32(256 + before as u32).unwrap()
}

/// `tokenizer.json` of a byte-level BPE without a pre-tokeniser's pattern: id = byte, and three merges (`\n\n`, ` a`, `ab`)
/// that apply wherever the two stand beside each other.
pub fn small_tokenizer() -> Value {
    let text = |s: &str| s.bytes().map(byte_char).collect::<String>();
    let mut vocab: serde_json::Map<String, Value> =
        (0..=255u8).map(|b| (byte_char(b).to_string(), u32::from(b).into())).collect();
    let merges = [("\n", "\n", NEWLINES), (" ", "a", SPACE_A), ("a", "b", AB)];
    for (a, b, id) in merges {
        vocab.insert(text(a) + &text(b), id.into());
    }
    let added = ADDED.iter().enumerate().map(|(i, content)| {
        json!({"id": BOS as usize + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    json!({
        "version": "1.0",
        // As gpt2's published file has it: must not be obeyed.
        "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"},
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "post_processor": {
            "type": "Sequence",
            "processors": [
                {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
                {"type": "TemplateProcessing",
                 "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                 "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                 "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}}},
            ],
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab,
            "merges": merges.map(|(a, b, _)| format!("{} {}", text(a), text(b)))},
    })
}

/// A folder with the small tokenizer and this `tokenizer_config.json`.
pub fn small_folder(config: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), small_tokenizer().to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

/// The small tokenizer with a template.
pub fn small_encoder(template: TemplateChoice) -> TextEncoder {
    let dir = small_folder(&json!({"bos_token": "<bos>", "eos_token": {"content": "<eos>"}}));
    TextEncoder::from_dir(dir.path(), &EncoderOptions { template, ..EncoderOptions::default() }).unwrap()
}
