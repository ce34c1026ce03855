//! The head of a GGUF file: counts, keys, and where each tensor is.

use std::io::{self, Write};

/// The multiple of bytes at which each tensor begins, counted from the end of the head.
pub(super) const ALIGNMENT: u64 = 32;

const VERSION: u32 = 3;

/// The value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    U32(u32),
    /// A number.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of whole numbers.
    I32s(Vec<i32>),
    /// A list of numbers.
    F32s(Vec<f32>),
    /// A list of texts.
    Texts(Vec<String>),
}

/// A tensor's entry in the head.
pub(super) struct Info<'a> {
    pub(super) name: &'a str,
    /// The shape, the widest stride first, as safetensors has it. The file has it the other way round.
    pub(super) shape: &'a [usize],
    /// The code of the number format.
    pub(super) code: u32,
    /// The length in bytes.
    pub(super) bytes: u64,
}

/// Writes everything that precedes the first tensor.
pub(super) fn write_header<'a>(
    out: &mut dyn Write,
    keys: &[(String, Value)],
    tensors: impl ExactSizeIterator<Item = Info<'a>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        text(&mut head, key);
        value.encode(&mut head);
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        text(&mut head, tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        for &size in tensor.shape.iter().rev() {
            head.extend((size as u64).to_le_bytes());
        }
        head.extend(tensor.code.to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset += tensor.bytes.next_multiple_of(ALIGNMENT);
    }
    let padded = (head.len() as u64).next_multiple_of(ALIGNMENT);
    head.resize(padded as usize, 0);
    out.write_all(&head)
}

impl Value {
    /// Appends the code of the type and the value.
    fn encode(&self, out: &mut Vec<u8>) {
        const ARRAY: u32 = 9;
        let list = |out: &mut Vec<u8>, code: u32, length: usize| {
            out.extend(ARRAY.to_le_bytes());
            out.extend(code.to_le_bytes());
            out.extend((length as u64).to_le_bytes());
        };
        match self {
            Self::U32(value) => {
                out.extend(4_u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Self::F32(value) => {
                out.extend(6_u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Self::Bool(value) => {
                out.extend(7_u32.to_le_bytes());
                out.push(u8::from(*value));
            }
            Self::Text(value) => {
                out.extend(8_u32.to_le_bytes());
                text(out, value);
            }
            Self::I32s(values) => {
                list(out, 5, values.len());
                values.iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::F32s(values) => {
                list(out, 6, values.len());
                values.iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::Texts(values) => {
                list(out, 8, values.len());
                values.iter().for_each(|value| text(out, value));
            }
        }
    }
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}
