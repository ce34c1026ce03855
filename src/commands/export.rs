//! `setpoint export`: writes a model for other programs.

use clap::ValueEnum;
use setpoint::Outcome;
use setpoint::export::{GgufSettings, gguf};
use setpoint_transformer::gguf::NumberFormat;

use crate::progress::{note, say};

/// The number formats of `--type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// 32-bit floats
    F32,
    /// 16-bit IEEE floats
    F16,
    /// bfloat16
    Bf16,
    /// 8-bit whole numbers in blocks of 32, each with a scale
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<Format> for NumberFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::F32 => Self::F32,
            Format::F16 => Self::F16,
            Format::Bf16 => Self::Bf16,
            Format::Q8_0 => Self::Q8_0,
        }
    }
}

/// Exports a model and says what was written.
pub fn run(settings: &GgufSettings) -> Outcome {
    let exported = gguf(settings)?;
    let size = exported.bytes as f64 / 1e6;
    say(format!("{}: {size:.1} MB", settings.output.display()));
    if let Some(first) = exported.in_f16.first() {
        let count = exported.in_f16.len();
        note(format!("{count} tensors are in f16, as their rows are no multiple of 32 numbers: {first} is the first"));
    }
    if let Some(remark) = exported.remark {
        note(format!("note: {remark}"));
    }
    let modelfile = exported.modelfile.display();
    say(format!("{modelfile}: to run it, `ollama create NAME -f {modelfile}`"));
    Ok(())
}
