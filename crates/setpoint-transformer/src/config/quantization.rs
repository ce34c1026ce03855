use serde_json::{Map, Value};

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
    /// 8-bit floats (`float8_e4m3fn`) with a scale for each block of a matrix, for each row, or for the whole matrix.
    Fp8,
}

const KEY: &str = "quantization_config";

impl Quantization {
    /// Reads the key, if the file has it.
    pub(super) fn read(top: &Reader<'_>) -> Result<Option<Self>, Error> {
        let Some(map) = top.object(KEY)? else { return Ok(None) };
        let reader = top.nested(KEY, map);
        let is_set = |key: &str| -> Result<bool, Error> { Ok(reader.optional_bool(key)?.unwrap_or(false)) };
        let (four, eight) = (is_set("load_in_4bit")?, is_set("load_in_8bit")?);
        match reader.optional_text("quant_method")? {
            Some("bitsandbytes") => {}
            Some("fp8") => return fp8(&reader).map(Some),
            Some("fbgemm_fp8") => return Ok(Some(Self::Fp8)),
            Some("compressed-tensors") => return compressed_tensors(top, &reader, map).map(Some),
            None if four || eight => {}
            None => return Err(top.unsupported(KEY, METHOD)),
            Some(method) => return Err(other_method(top, method)),
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

const METHOD: &str =
    "that of bitsandbytes (`quant_method` \"bitsandbytes\"), NF4 or int8, and 8-bit floats (`quant_method` \"fp8\")";

/// Returns the size of the blocks that share a scale, in rows and columns: `weight_block_size` of a `config.json` with 8-bit floats, or 128
/// by 128, as in transformers.
pub(crate) fn fp8_block(config: &Map<String, Value>) -> Option<[usize; 2]> {
    match config.get(KEY).and_then(|map| map.get("weight_block_size")) {
        None | Some(Value::Null) => Some([128, 128]),
        Some(sizes) => block_size(sizes),
    }
}

fn block_size(value: &Value) -> Option<[usize; 2]> {
    let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0);
    match value.as_array()?.as_slice() {
        [rows, columns] => Some([size(rows)?, size(columns)?]),
        _ => None,
    }
}

/// Reads the settings of transformers' own 8-bit floats, which DeepSeek's and Qwen's checkpoints have. How activations are quantised makes no
/// difference to the weights.
fn fp8(reader: &Reader<'_>) -> Result<Quantization, Error> {
    if !matches!(reader.optional_text("fmt")?, None | Some("e4m3" | "float8_e4m3fn")) {
        return Err(reader.unsupported("fmt", "\"e4m3\""));
    }
    if reader.value("weight_block_size").is_some_and(|value| block_size(value).is_none()) {
        return Err(reader.unsupported("weight_block_size", "two whole numbers above 0, or null"));
    }
    Ok(Quantization::Fp8)
}

/// Reads the settings of llm-compressor's checkpoints, of which those with 8-bit floats are read.
fn compressed_tensors(top: &Reader<'_>, reader: &Reader<'_>, map: &Map<String, Value>) -> Result<Quantization, Error> {
    let groups = map.get("config_groups").and_then(Value::as_object);
    let is_fp8 = |group: &Value| {
        let weights = &group["weights"];
        weights["type"] == "float"
            && weights["num_bits"] == 8
            && matches!(weights["strategy"].as_str(), Some("channel" | "tensor"))
    };
    let fits = groups.is_some_and(|groups| !groups.is_empty() && groups.values().all(is_fp8));
    let format = reader.optional_text("format")?;
    if fits && matches!(format, None | Some("float-quantized" | "naive-quantized")) {
        return Ok(Quantization::Fp8);
    }
    Err(other_method(top, format.filter(|_| !fits).unwrap_or("compressed-tensors")))
}

/// Returns the refusal of a way to quantise, with what to do instead.
fn other_method(top: &Reader<'_>, method: &str) -> Error {
    let ending = match method {
        "gptq" => ", often the same id without -GPTQ",
        "awq" => ", often the same id without -AWQ",
        _ => "",
    };
    top.other_format(format!("the weights are quantised by `{method}`, which is not read"), ending)
}

/// Refuses checkpoints of Apple's MLX: their codes have a layout of their own, and newer ones have both keys.
pub(super) fn refuse_mlx(top: &Reader<'_>) -> Result<(), Error> {
    let is_mlx = |key: &str| {
        top.value(key).is_some_and(|value| {
            value.get("bits").is_some() && value.get("group_size").is_some() && value.get("quant_method").is_none()
        })
    };
    if is_mlx("quantization") || is_mlx(KEY) {
        return Err(top.other_format("the weights are quantised for Apple's MLX, which is not read".to_owned(), ""));
    }
    Ok(())
}
