//! The command line of `setpoint merge`.

use std::path::PathBuf;

use clap::Args;
use setpoint::merge::MergeSettings;
use setpoint::session::Existing;

use crate::commands::merge::Dtype;

/// The text after the flags.
pub const MERGE_HELP: &str = "Example:\n  setpoint merge --model runs/sft/model --output merged\n\n\
    The updates are added in f32 and rounded once. The merged model is read again and compared with the adapter on its base.";

/// `setpoint merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Folder of the adapter, in PEFT's layout, or its hub id
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Folder of the model that the adapter was trained on, if it is not the one that the adapter names
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Folder to write the merged model to
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Number format of the merged weights; by default that of the base
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<Dtype>,
    /// Replace a model that exists
    #[arg(long)]
    pub overwrite: bool,
}

impl MergeArgs {
    /// Returns the settings of the merge.
    pub fn settings(self) -> MergeSettings {
        MergeSettings {
            model: self.model,
            base: self.base,
            output: self.output,
            dtype: self.dtype.map(Into::into),
            existing: Existing::given(self.overwrite),
        }
    }
}
