//! Models of images or sound next to text: those whose text part is read, and why the others are refused.

use serde_json::{Map, Value};

/// A model with an image tower whose text part is a model of one of the families.
#[derive(Debug)]
pub(crate) struct Multimodal {
    /// The name of the whole (`model_type`).
    pub(crate) model_type: &'static str,
    /// transformers' name of the whole (`architectures`).
    pub(crate) class: &'static str,
    /// The families that the text part may be of (`text_config.model_type`). Files that do not name it mean the first.
    pub(crate) texts: &'static [&'static str],
    /// The keys of the whole that concern images alone.
    pub(crate) keys: &'static [&'static str],
}

/// The models whose text part is read.
const WITH_TEXT_PART: &[Multimodal] = &[
    Multimodal {
        model_type: "gemma3",
        class: "Gemma3ForConditionalGeneration",
        texts: &["gemma3_text"],
        keys: &[
            "boi_token_id",
            "boi_token_index",
            "eoi_token_id",
            "eoi_token_index",
            "image_token_id",
            "image_token_index",
            "mm_tokens_per_image",
        ],
    },
    Multimodal {
        model_type: "mistral3",
        class: "Mistral3ForConditionalGeneration",
        texts: &["mistral", "ministral3"],
        keys: &[
            "image_token_id",
            "image_token_index",
            "multimodal_projector_bias",
            "projector_hidden_act",
            "spatial_merge_size",
            "vision_feature_layer",
        ],
    },
];

impl Multimodal {
    /// Returns every model whose text part is read.
    pub(crate) fn all() -> impl Iterator<Item = &'static Self> {
        WITH_TEXT_PART.iter()
    }

    /// Finds the model that a `config.json` describes, if its text part is read.
    pub(crate) fn of(config: &Map<String, Value>) -> Option<&'static Self> {
        let name = config.get("model_type")?.as_str()?;
        Self::all().find(|model| model.model_type == name)
    }
}

/// Keys that a model of text alone does not have.
const OTHER_INPUTS: [&str; 3] = ["vision_config", "audio_config", "thinker_config"];

/// Names of multimodal models whose text part is not read, with what to name instead.
pub(super) const REFUSED: &[(&[&str], &str)] = &[
    (
        &["gemma3n", "gemma3n_text"],
        "Gemma 3n has layers that are not computed; name a Gemma 3 model, such as google/gemma-3-4b-it",
    ),
    (
        &["mllama", "mllama_text_model"],
        "Llama 3.2 Vision has layers for images between those of Llama 3.1; name the text model, \
         meta-llama/Llama-3.1-8B-Instruct or meta-llama/Llama-3.1-70B-Instruct",
    ),
    (
        &["phi4_multimodal", "phi4mm"],
        "the parts for images and sound are not computed; name the text model that it was made from, \
         microsoft/Phi-4-mini-instruct",
    ),
    (&["phi3_v"], "the part for images is not computed; name a text model, such as microsoft/Phi-3.5-mini-instruct"),
    (
        &["qwen2_5_omni", "qwen2_5_vl", "qwen2_5_vl_text", "qwen2_audio", "qwen2_vl", "qwen2_vl_text"],
        "the parts for images and sound are not computed, and the text part numbers positions in three ways; name a text model, such as \
         Qwen/Qwen2.5-7B-Instruct",
    ),
    (
        &["qwen3_vl", "qwen3_vl_text"],
        "the part for images is not computed, and the text part numbers positions in three ways; name a text model, such as Qwen/Qwen3-8B",
    ),
    (
        &["llava", "llava_next", "llava_next_video", "llava_onevision", "pixtral", "video_llava", "vipllava"],
        "LLaVA, Granite Vision and Pixtral have a part for images, which is not computed; name the text model that it was made from",
    ),
    (
        &["idefics2", "idefics3", "smolvlm"],
        "the part for images is not computed; name the text model that it was made from, such as HuggingFaceTB/SmolLM2-1.7B-Instruct",
    ),
    (&["paligemma"], "the part for images is not computed; name a text model, such as google/gemma-2-2b-it"),
];

/// Says why a model is refused whose file has settings for images or sound.
pub(super) fn reason(config: &Map<String, Value>) -> Option<&'static str> {
    let has = |key: &&str| config.get(*key).is_some_and(|value| !value.is_null());
    let found = OTHER_INPUTS.iter().any(has);
    found.then_some("models of images or sound are not computed; name the text model that it was made from")
}
