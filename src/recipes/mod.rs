//! One file per job: its settings, what it does, what it reports. Read a recipe from top to bottom to know a job.

pub mod align;
pub mod annotate;
pub mod audit;
pub mod chat;
pub mod compare;
pub mod demo;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod logps;
pub mod methods;
pub mod report;
pub mod reward;
pub mod search;
pub mod serve;
pub mod sft;
pub mod sweep;

mod generating;
mod identity;
mod partial;
pub mod place;
pub mod plan;
mod reading;
mod rows_file;
mod saving;
mod scoring;
mod setup;
mod shared;
pub mod training;

pub use identity::{content, is_place};
pub use partial::Existing;
pub use setup::Session;
pub use shared::Shared;
