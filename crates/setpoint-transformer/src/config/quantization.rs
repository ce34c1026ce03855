use super::read::Reader;
use crate::Error;

/// The way in which the matrices of a checkpoint are quantised (`quantization_config` in `config.json`). They are dequantised when they
/// are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// bitsandbytes' 4-bit NormalFloat, see [`Nf4Matrix`](crate::Nf4Matrix).
    Nf4,
    /// bitsandbytes' 8-bit whole numbers with a scale for each row.
    Int8,
}

impl Quantization {
    /// Reads the key, if the file has it.
    pub(super) fn read(top: &Reader<'_>) -> Result<Option<Self>, Error> {
        const KEY: &str = "quantization_config";
        let Some(map) = top.object(KEY)? else { return Ok(None) };
        let reader = top.nested(KEY, map);
        let is_set = |key: &str| -> Result<bool, Error> { Ok(reader.optional_bool(key)?.unwrap_or(false)) };
        let (four, eight) = (is_set("load_in_4bit")?, is_set("load_in_8bit")?);
        match reader.optional_text("quant_method")? {
            Some("bitsandbytes") => {}
            None if four || eight => {}
            None => return Err(top.unsupported(KEY, METHOD)),
            Some(_) => return Err(reader.unsupported("quant_method", METHOD)),
        }
        if eight {
            if is_set("llm_int8_has_fp16_weight")? {
                return Err(reader.unsupported("llm_int8_has_fp16_weight", "false"));
            }
            return Ok(Some(Self::Int8));
        }
        if !four {
            return Err(reader.missing("load_in_4bit", "true, or `load_in_8bit` with true"));
        }
        match reader.optional_text("bnb_4bit_quant_type")? {
            Some("nf4") => {}
            Some(_) => return Err(reader.unsupported("bnb_4bit_quant_type", "\"nf4\"")),
            None => return Err(reader.missing("bnb_4bit_quant_type", "\"nf4\" (without the key it is \"fp4\")")),
        }
        match reader.optional_text("bnb_4bit_quant_storage")? {
            None | Some("uint8") => Ok(Some(Self::Nf4)),
            Some(_) => Err(reader.unsupported("bnb_4bit_quant_storage", "\"uint8\"")),
        }
    }
}

const METHOD: &str = "that of bitsandbytes (`quant_method` \"bitsandbytes\"), NF4 or int8";
