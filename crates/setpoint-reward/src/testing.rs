//! What the tests of this crate share.

use burn::tensor::Device;
use setpoint_transformer::{CausalLm, ModelConfig};

use crate::model::{HeadInit, RewardModel};

/// The backends that every test of tensors runs on.
#[allow(deprecated)]
pub(crate) fn devices() -> [Device; 2] {
    [Device::flex(), Device::ndarray()]
}

/// A language model of two small layers with 24 tokens.
pub(crate) fn tiny_config() -> ModelConfig {
    ModelConfig::from_json(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 24, "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "initializer_range": 0.3, "pad_token_id": 0, "eos_token_id": 2}"#,
    )
    .unwrap()
}

/// A random reward model of that shape.
pub(crate) fn tiny_model(device: &Device) -> (RewardModel, ModelConfig) {
    let config = tiny_config();
    let head = HeadInit::Normal { std: 0.3, seed: 5 };
    RewardModel::from_causal_lm(CausalLm::init(&config, 4, device), &config, head)
}
