//! Quantised checkpoints: their matrices look like those of any other checkpoint, and are dequantised when they are read. Here are those
//! of bitsandbytes; [`fp8`] has those of 8-bit floats.
//!
//! NF4 has `X.weight` with the codes and next to it `X.weight.absmax`, `.quant_map`, `.quant_state.bitsandbytes__nf4` (JSON), and with
//! double quantisation `.nested_absmax` and `.nested_quant_map`. Int8 has `X.weight` with the codes, `X.SCB` with the scale of each row,
//! and `X.weight_format`.

use burn::tensor::FloatDType;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde_json::{Map, Value};

use super::Checkpoint;
use super::fp8;
use super::numbers;
use super::reader::Entry;
use crate::Error;
use crate::nf4::{Double, Nf4Matrix, Scales, VALUES};

const STATE: &str = ".quant_state.bitsandbytes__";
const NF4: &str = "nf4";
const SCALES: &str = ".SCB";

/// The codes and scales of a matrix.
#[derive(Clone, Debug)]
pub(super) enum Packed {
    Nf4 {
        codes: Entry,
        absmax: Entry,
        nested: Option<Nested>,
        block: usize,
    },
    Int8 {
        codes: Entry,
        scales: Entry,
    },
    /// 8-bit floats; `block` rows and columns share a scale.
    Fp8 {
        codes: Entry,
        scales: Entry,
        block: [usize; 2],
    },
}

/// The scales of double quantisation.
#[derive(Clone, Debug)]
pub(super) struct Nested {
    absmax: Entry,
    values: Entry,
    block: usize,
    offset: f32,
}

impl Checkpoint {
    /// Replaces the parts of each quantised matrix by the matrix.
    pub(super) fn unite_quantized(&mut self) -> Result<(), Error> {
        let states: Vec<String> = self.tensors.keys().filter(|name| name.contains(STATE)).cloned().collect();
        for state in states {
            self.unite_nf4(&state)?;
        }
        let scales: Vec<String> = self.tensors.keys().filter(|name| name.ends_with(SCALES)).cloned().collect();
        let of_floats = self.fp8_scales();
        // transformers dequantises to the format of the model: that of the tensors that are not quantised.
        let mut formats: Vec<FloatDType> = self
            .tensors
            .iter()
            .filter(|(name, _)| !scales.contains(name) && of_floats.binary_search(name).is_err())
            .filter_map(|(_, entry)| numbers::float(entry.info.dtype))
            .collect();
        formats.sort_by_key(|format| numbers::stored(*format));
        formats.dedup();
        let dtype = match formats[..] {
            [format] => numbers::stored(format),
            _ => Dtype::F32,
        };
        for name in scales {
            self.unite_int8(&name, dtype)?;
        }
        for name in of_floats {
            self.unite_fp8(&name, dtype)?;
        }
        Ok(())
    }

    fn unite_nf4(&mut self, state: &str) -> Result<(), Error> {
        let Some((name, kind)) = state.split_once(STATE) else { return Ok(()) };
        if kind != NF4 {
            return Err(self.damaged(state, format!("the 4-bit format `{kind}` is not read; expected `{NF4}`")));
        }
        let bytes = self.bytes(&self.tensors[state])?;
        let json: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| {
            self.damaged(state, format!("not a JSON object: {}", setpoint_files::words::json_reason(&error)))
        })?;
        let wrong = |key: &str, expected: &str| {
            let found = json.get(key).map_or_else(|| "absent".to_owned(), Value::to_string);
            self.damaged(state, format!("`{key}` is {found}; expected {expected}"))
        };
        let size = |key: &str| {
            let size = json.get(key).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
            size.filter(|size| *size > 0).ok_or_else(|| wrong(key, "a whole number above 0"))
        };
        if json.get("quant_type").and_then(Value::as_str) != Some(NF4) {
            return Err(wrong("quant_type", "\"nf4\""));
        }
        let dtype = match json.get("dtype").and_then(Value::as_str) {
            Some("bfloat16") => Dtype::BF16,
            Some("float16") => Dtype::F16,
            Some("float32") => Dtype::F32,
            _ => return Err(wrong("dtype", "\"bfloat16\", \"float16\" or \"float32\"")),
        };
        let sizes: Option<Vec<usize>> = json.get("shape").and_then(Value::as_array).and_then(|sizes| {
            sizes.iter().map(|size| size.as_u64().and_then(|size| usize::try_from(size).ok())).collect()
        });
        let shape = match sizes.as_deref() {
            // So that their product fits.
            Some(&[rows, width]) if rows.max(width) <= u32::MAX as usize => vec![rows, width],
            _ => return Err(wrong("shape", "two sizes")),
        };
        let block = size("blocksize")?;
        let nested = match json.contains_key("nested_offset") {
            true => Some((
                size("nested_blocksize")?,
                json.get("nested_offset").and_then(Value::as_f64).ok_or_else(|| wrong("nested_offset", "a number"))?
                    as f32,
            )),
            false => None,
        };
        let part =
            |this: &mut Self, suffix: &str, expected: Dtype| this.take(&format!("{name}{suffix}"), expected, state);
        let codes = part(self, "", Dtype::U8)?;
        let absmax = part(self, ".absmax", if nested.is_some() { Dtype::U8 } else { Dtype::F32 })?;
        let values = part(self, ".quant_map", Dtype::F32)?;
        if self.floats(&values)? != VALUES {
            return Err(self.damaged(state, "`quant_map` does not hold the 16 values of NF4".to_owned()));
        }
        let nested = match nested {
            Some((block, offset)) => Some(Nested {
                absmax: part(self, ".nested_absmax", Dtype::F32)?,
                values: part(self, ".nested_quant_map", Dtype::F32)?,
                block,
                offset,
            }),
            None => None,
        };
        self.tensors.remove(state);
        let packed = Packed::Nf4 { codes: codes.clone(), absmax, nested, block };
        self.tensors.insert(name.to_owned(), Entry::packed(codes, dtype, shape, packed));
        Ok(())
    }

    fn unite_int8(&mut self, scales: &str, dtype: Dtype) -> Result<(), Error> {
        let Some(module) = scales.strip_suffix(SCALES) else { return Ok(()) };
        let name = format!("{module}.weight");
        if self.tensors.get(&name).is_none_or(|entry| entry.info.dtype != Dtype::I8) {
            // A tensor that happens to have the name.
            return Ok(());
        }
        let codes = self.take(&name, Dtype::I8, scales)?;
        let entry = self.take(scales, Dtype::F32, scales)?;
        if codes.info.shape.len() != 2 || entry.info.shape != codes.info.shape[..1] {
            let message = format!(
                "has {:?} scales for codes of shape {:?}; expected one a row",
                entry.info.shape, codes.info.shape
            );
            return Err(self.damaged_at(&entry, message));
        }
        // Older files do not say that the codes are in rows.
        if let Some(format) = self.tensors.remove(&format!("{module}.weight_format"))
            && self.bytes(&format)? != [0]
        {
            return Err(self.damaged_at(&format, "has a `weight_format` other than 0, rows of codes".to_owned()));
        }
        let shape = codes.info.shape.clone();
        let packed = Packed::Int8 { codes: codes.clone(), scales: entry };
        self.tensors.insert(name, Entry::packed(codes, dtype, shape, packed));
        Ok(())
    }

    /// Takes a part of the matrix that `whole` describes out of the list.
    fn take(&mut self, name: &str, expected: Dtype, whole: &str) -> Result<Entry, Error> {
        let found = match self.tensors.remove(name) {
            Some(entry) if entry.info.dtype == expected => return Ok(entry),
            Some(entry) => format!("has dtype {:?}", entry.info.dtype),
            None => "is missing".to_owned(),
        };
        Err(self.damaged(whole, format!("its part `{name}` {found}; expected {expected:?}")))
    }

    /// Returns the numbers of a quantised matrix, as bytes of its format.
    pub(super) fn unpack(&self, entry: &Entry, packed: &Packed) -> Result<Vec<u8>, Error> {
        let (rows, width) = (entry.info.shape[0], entry.info.shape[1]);
        let mut row = vec![0.0; width];
        let mut bytes = Vec::with_capacity(rows * width * entry.info.dtype.bitsize() / 8);
        if let Some(matrix) = self.matrix(entry)? {
            for i in 0..rows {
                matrix.dequantize_rows(i..i + 1, &mut row);
                push(&row, entry.info.dtype, &mut bytes);
            }
        }
        if let Packed::Fp8 { codes, scales, block } = packed {
            let (codes, scales) = (self.bytes(codes)?, self.numbers_of(scales)?);
            let across = width.div_ceil(block[1]);
            for (i, codes) in codes.chunks(width.max(1)).enumerate() {
                let begin = i / block[0] * across;
                fp8::dequantize(codes, &scales[begin..begin + across], block[1], &mut row);
                push(&row, entry.info.dtype, &mut bytes);
            }
        }
        if let Packed::Int8 { codes, scales } = packed {
            let (codes, scales) = (self.bytes(codes)?, self.floats(scales)?);
            for (codes, scale) in codes.chunks(width.max(1)).zip(scales) {
                for (x, &code) in row.iter_mut().zip(codes) {
                    // Two roundings, as in bitsandbytes.
                    *x = f32::from(code as i8) * scale * (1.0 / 127.0);
                }
                push(&row, entry.info.dtype, &mut bytes);
            }
        }
        Ok(bytes)
    }

    /// Returns the codes and scales of a matrix, if the files hold it in NF4.
    pub(crate) fn nf4(&self, name: &str) -> Result<Option<Nf4Matrix>, Error> {
        self.matrix(&self.tensors[name])
    }

    fn matrix(&self, entry: &Entry) -> Result<Option<Nf4Matrix>, Error> {
        let Some(Packed::Nf4 { codes, absmax, nested, block }) = entry.packed.as_deref() else { return Ok(None) };
        let shape = [entry.info.shape[0], entry.info.shape[1]];
        let scales = self.scales(absmax, nested.as_ref())?;
        let dtype = numbers::float(entry.info.dtype).unwrap_or(FloatDType::F32);
        let matrix = Nf4Matrix::from_parts(shape, self.bytes(codes)?, *block, scales, dtype);
        matrix.map(Some).map_err(|message| self.damaged_at(codes, message))
    }

    fn scales(&self, absmax: &Entry, nested: Option<&Nested>) -> Result<Scales, Error> {
        let Some(nested) = nested else { return Ok(Scales::Single(self.floats(absmax)?)) };
        let values = self.floats(&nested.values)?;
        if values.len() != 256 {
            let message = format!("`nested_quant_map` holds {} values; expected 256", values.len());
            return Err(self.damaged_at(&nested.values, message));
        }
        Ok(Scales::Double(Double {
            codes: self.bytes(absmax)?,
            absmax: self.floats(&nested.absmax)?,
            block: nested.block,
            offset: nested.offset,
            values,
        }))
    }

    /// Returns the numbers of a tensor, in whatever format they are.
    fn numbers_of(&self, entry: &Entry) -> Result<Vec<f32>, Error> {
        let format = numbers::float(entry.info.dtype).unwrap_or(FloatDType::F32);
        Ok(numbers::widen(&self.bytes(entry)?, format))
    }

    fn floats(&self, entry: &Entry) -> Result<Vec<f32>, Error> {
        Ok(numbers::widen(&self.bytes(entry)?, FloatDType::F32))
    }

    /// Returns the error for the tensor `name`.
    fn damaged(&self, name: &str, message: String) -> Error {
        let path =
            self.tensors.get(name).map_or_else(|| self.dir.clone(), |entry| self.files[entry.file].path().to_owned());
        Error::Header { path, message: format!("tensor `{name}`: {message}") }
    }

    /// Returns the error for a part of a quantised matrix.
    pub(super) fn damaged_at(&self, entry: &Entry, message: String) -> Error {
        Error::Header {
            path: self.files[entry.file].path().to_owned(),
            message: format!("a quantised matrix {message}"),
        }
    }
}

impl Entry {
    /// Creates the entry of a matrix whose codes are those of another entry.
    pub(super) fn packed(codes: Entry, dtype: Dtype, shape: Vec<usize>, packed: Packed) -> Self {
        let info = TensorInfo { dtype, shape, data_offsets: codes.info.data_offsets };
        Self { file: codes.file, info, packed: Some(Box::new(packed)) }
    }
}

/// Appends a row in a format.
fn push(row: &[f32], dtype: Dtype, bytes: &mut Vec<u8>) {
    match dtype {
        Dtype::BF16 => bytes.extend(row.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes())),
        Dtype::F16 => bytes.extend(row.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
        _ => bytes.extend(row.iter().flat_map(|x| x.to_le_bytes())),
    }
}
