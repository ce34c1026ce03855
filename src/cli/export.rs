//! The command line of `setpoint export`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use setpoint::export::GgufSettings;
use setpoint::session::Existing;

use crate::commands::export::Format;

/// The kinds of files that a model is exported to.
#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// A GGUF file for llama.cpp, and a Modelfile for Ollama next to it
    #[command(after_help = GGUF_HELP)]
    Gguf(GgufArgs),
}

const GGUF_HELP: &str = "Example:\n  setpoint export gguf --model runs/dro/model --type q8_0 --output exported/mine.gguf\n  \
    ollama create my-model -f exported/Modelfile\n\n\
    Language models of every family, as far as llama.cpp computes them. For smaller formats, run llama.cpp's `llama-quantize` on an f16 or bf16 file.";

/// `setpoint export gguf`.
#[derive(Debug, Args)]
pub struct GgufArgs {
    /// Hugging Face model folder or hub model id
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Number format of the matrices; norms and biases are always f32
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub format: Format,
    /// GGUF file to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace files that exist
    #[arg(long)]
    pub overwrite: bool,
}

impl GgufArgs {
    /// Returns the settings of the export.
    pub fn settings(self) -> GgufSettings {
        GgufSettings {
            model: self.model,
            format: self.format.into(),
            output: self.output,
            existing: Existing::given(self.overwrite),
        }
    }
}
