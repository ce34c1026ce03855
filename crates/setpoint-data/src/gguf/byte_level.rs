//! Byte-level BPE, the tokenizer of GPT-2, Llama 3, Qwen2 and SmolLM.
//!
//! llama.cpp has the regular expressions that split a text under names. The name is found as its converter does: by the SHA-256 of the ids
//! of a fixed text.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{TokenKind, Vocabulary, merges, special};
use crate::encode::TextEncoder;
use crate::error::Error;
use crate::hash::hex;

/// The text whose ids identify a tokenizer; that of llama.cpp's converter (`get_vocab_base_pre`), so that its table of hashes holds.
const PROBE: &str = concat!(
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u{200d}🌫\u{fe0f} (multiple emojis concatenated) ✅ 🦙🦙 ",
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= ",
    "нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, ",
    "'D you like some tea? We'Ve a'lL"
);

/// The hashes of the ids and llama.cpp's names, of tokenizers that models of the exported families have.
const NAMES: &[(&str, &str)] = &[
    ("0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5", "llama-bpe"),
    // The ids of Llama 3 without BOS.
    ("c136ed14d01c2745d4f60a9596ae66800e2b61fa45643e72436041855ad4089d", "smaug-bpe"),
    ("e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea", "qwen2"),
    ("d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c", "qwen2"),
    ("855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249", "smollm"),
    ("b3f499bb4255f8ca19fccd664443283318f2fd2414d5e0b040fbdd0cc195d6c5", "deepseek-r1-qwen"),
    ("049ecf7629871e3041641907f3de7c733e4dbfdc736f57d882ba0b0845599754", "deepseek-llm"),
    ("347715f544604f9118bb75ed199f68779f423cabb20db6de6f31b908d04d7821", "deepseek-coder"),
    ("9d032fcbd5501f4a38150912590928bfb36091efb5df11b8e2124b0390e3fb1e", "falcon3"),
    ("d4c8f286ea6b520b3d495c4455483cfa2302c0cfcd4be05d781b6a8a0a7cdaf1", "megrez"),
    // StarCoder's, which Granite 3 has.
    ("6221ad2852e85ce96f791f476e0b390cf9b474c9e3d1362f53a24a06dc8220ff", "refact"),
    // GPT-4's, which OLMo 2 has.
    ("a8594e3edff7c29c003940395316294b2c623e09894deebbc65f33f1515df79e", "dbrx"),
    // Phi-4-mini.
    ("ccc2ef013c104be7bae2965776d611e1d7a8a2a9c547dd93a682c9a9fc80352e", "gpt-4o"),
    // Mistral Nemo.
    ("63b97e4253352e6f357cc59ea5b583e3a680eaeaf2632188c2b952de2588485e", "tekken"),
    ("3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454", GPT2),
];

/// The name of GPT-2's regular expression, which the tokenizers library has as `ByteLevel`.
const GPT2: &str = "gpt-2";

/// Returns the vocabulary of a byte-level tokenizer.
pub(super) fn vocabulary(encoder: &TextEncoder, file: &Value, size: usize) -> Result<Vocabulary, Error> {
    let model = &file["model"];
    let pre = pre_tokenizer(encoder, file)?;
    let mut tokens: Vec<String> = (0..size).map(special::padding).collect();
    let mut kinds = vec![TokenKind::Unused; size];
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < size);
        if let Some(id) = id {
            tokens[id].clone_from(text);
            kinds[id] = TokenKind::Normal;
        }
    }
    for token in special::added(file) {
        token.enter(&mut tokens, &mut kinds);
    }
    let merges = merges(model).into_iter().map(|(a, b)| format!("{} {}", spaced(a), spaced(b))).collect();
    let unknown = model["unk_token"].as_str().and_then(|text| encoder.tokenizer().token_to_id(text));
    Ok(Vocabulary {
        model: "gpt2",
        pre,
        tokens,
        kinds,
        scores: Vec::new(),
        merges,
        unknown,
        add_space_prefix: None,
        remark: None,
    })
}

/// Writes a space within a token as the byte-level alphabet does: a plain one separates the two tokens of a merge.
fn spaced(token: &str) -> String {
    token.replace(' ', "Ġ")
}

/// Finds llama.cpp's name of the way in which the tokenizer splits a text.
fn pre_tokenizer(encoder: &TextEncoder, file: &Value) -> Result<&'static str, Error> {
    let ids = encoder.encode_text(PROBE).map_err(|problem| encoder.not_exported(&problem.to_string()))?;
    let bos = encoder.special_tokens().bos.iter().map(|(_, id)| vec![*id]);
    // The hashes are of the ids that transformers gives, BOS included for some tokenizers.
    for prefix in bos.chain([encoder.prefix().to_vec(), Vec::new()]) {
        let hash = hash(&[prefix.as_slice(), &ids].concat());
        if let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == hash) {
            // The same expressions; only llama-bpe takes a word that is a token as a whole.
            let takes_words = file["model"]["ignore_merges"].as_bool() == Some(true);
            return Ok(if *name == "smaug-bpe" && takes_words { "llama-bpe" } else { *name });
        }
    }
    if is_gpt2(file) {
        return Ok(GPT2);
    }
    Err(encoder.not_exported(&format!(
        "llama.cpp's name for its pre-tokenizer is not known (the hash of its ids is {}); expected a tokenizer of Llama 3, Qwen, SmolLM, \
         GPT-2, GPT-4, GPT-4o, StarCoder, Mistral Nemo or DeepSeek",
        hash(&[encoder.prefix(), &ids].concat())
    )))
}

/// Returns whether a tokenizer of any vocabulary splits a text as GPT-2 does.
fn is_gpt2(file: &Value) -> bool {
    let (pre, model) = (&file["pre_tokenizer"], &file["model"]);
    file["normalizer"].is_null()
        && pre["type"] == "ByteLevel"
        && pre["add_prefix_space"] == false
        && pre["use_regex"] != false
        && model["ignore_merges"] != true
}

/// Hashes ids as Python prints a list of them.
fn hash(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    hex(&Sha256::digest(format!("[{}]", ids.join(", "))))
}
