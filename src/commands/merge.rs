//! `setpoint merge`: what is shown of it.

use burn::tensor::FloatDType;
use clap::ValueEnum;
use setpoint::merge::{MergeSettings, merge};
use setpoint::{Outcome, Session};

use crate::progress::say;

/// The number formats of `--dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32-bit floats
    F32,
    /// 16-bit IEEE floats
    F16,
    /// bfloat16
    Bf16,
}

impl From<Dtype> for FloatDType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

/// Merges and says how far the result is from the adapter on its base.
pub fn run(session: &Session, settings: &MergeSettings) -> Outcome {
    let merged = merge(session, settings)?;
    let what = if merged.is_reward { "its scores differ by" } else { "the log-probability of a token differs by" };
    let unit = if merged.is_reward { "" } else { " nats" };
    say(format!(
        "{}: {what} {:.1e}{unit} from the adapter on its base, as a root mean square",
        settings.output.display(),
        merged.difference
    ));
    Ok(())
}
