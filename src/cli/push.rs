//! The command line of `setpoint push`.

use std::path::PathBuf;

use clap::Args;
use setpoint::push::PushSettings;

/// The text after the flags.
pub const PUSH_HELP: &str = "Examples:\n  setpoint push --model runs/dro/model --to someone/my-model --dry-run\n  \
    HF_TOKEN=… setpoint push --model runs/dro/model --to someone/my-model\n\n\
    A new repository is private. Files that it has already are not sent again. Without HF_TOKEN, the token of `hf auth login` is used.";

/// `setpoint push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Folder of the model, or of an adapter in PEFT's layout
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Repository on the hub; made if it does not exist
    #[arg(long, value_name = "USER/NAME")]
    pub to: String,
    /// Branch that gets the commit; made if it does not exist
    #[arg(long, value_name = "BRANCH", default_value = "main")]
    pub revision: String,
    /// Let everyone read the model; without, a repository that is public is refused
    #[arg(long)]
    pub public: bool,
    /// First line of the commit
    #[arg(long, value_name = "TEXT", default_value = "Upload a model by Setpoint")]
    pub message: String,
    /// Show the files and their sizes, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// No progress bars
    #[arg(long)]
    pub quiet: bool,
}

impl PushArgs {
    /// Returns the settings of the upload.
    pub fn settings(self) -> PushSettings {
        let Self { model, to, revision, public, message, .. } = self;
        PushSettings { model, to, revision, public, message }
    }
}
