//! Results as files: what was measured, on what, by whom; and whether two of them may stand side by side.

mod compare;
mod manifest;

pub use compare::{Comparison, PairedTest, compare, differences};
pub use manifest::{EvalItem, EvalRun, Manifest, ModelIdentity, content_digest};
