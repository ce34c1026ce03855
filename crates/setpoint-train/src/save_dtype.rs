//! The number format of the files of a finished model.

use burn::tensor::FloatDType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The number format in which a finished model is saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SaveDtype {
    /// The format in which it was trained.
    #[default]
    Auto,
    /// The format of the checkpoint that it was trained from.
    Base,
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit IEEE floats.
    F16,
}

impl SaveDtype {
    /// Returns the format, or `None` for that of the parameters. `base`: the format of the checkpoint that the model was trained from, if
    /// there is one.
    pub fn resolve(self, base: Option<FloatDType>) -> Option<FloatDType> {
        match self {
            Self::Auto => None,
            Self::Base => base,
            Self::F32 => Some(FloatDType::F32),
            Self::Bf16 => Some(FloatDType::BF16),
            Self::F16 => Some(FloatDType::F16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_training_unless_a_setting_says_otherwise() {
        let base = Some(FloatDType::BF16);
        assert_eq!(SaveDtype::default().resolve(base), None);
        assert_eq!(SaveDtype::Base.resolve(base), base);
        assert_eq!(SaveDtype::Base.resolve(None), None);
        assert_eq!(SaveDtype::F32.resolve(base), Some(FloatDType::F32));
        let read: SaveDtype = serde_json::from_str("\"bf16\"").unwrap();
        assert_eq!(read, SaveDtype::Bf16);
    }
}
