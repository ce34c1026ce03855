//! Setpoint aligns language models to exact reward targets. This crate is the whole of it as a library: the command `setpoint` parses
//! arguments, opens devices and shows progress, and leaves the work to the functions here.
//!
//! A job is a module with a configuration and a function `run`. Here a small model with random weights is trained on the chosen responses
//! of a file of preferences, and then aligned to the preferences:
//!
//! ```
//! use burn::tensor::Device;
//! use setpoint::config::from_toml;
//! use setpoint::{Failure, Session, align, sft};
//!
//! fn main() -> Result<(), Failure> {
//! #   let demo = std::env::current_dir()?.join("../../examples/demo");
//! #   let folder = tempfile::tempdir()?;
//! #   std::fs::create_dir(folder.path().join("tokenizer"))?;
//! #   for name in ["config.json", "preferences.jsonl", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"] {
//! #       std::fs::copy(demo.join(name), folder.path().join(name))?;
//! #   }
//! #   std::env::set_current_dir(folder.path())?;
//!     let session = Session::on(Device::flex());
//!     let config = from_toml(r#"
//!         model = { from_scratch = "config.json", tokenizer = "tokenizer" }
//!         data = { path = "preferences.jsonl", max_rows = 8 }
//!         train = { max_steps = 1, batch_size = 8 }
//!     "#)?;
//!     sft::run(&session, &config, "runs/sft".as_ref(), false)?;
//!     let config = from_toml(r#"
//!         model.path = "runs/sft/model"
//!         data = { path = "preferences.jsonl", max_rows = 8 }
//!         align = { method = "dpo", beta = 0.1 }
//!         train = { max_steps = 1, batch_size = 8 }
//!     "#)?;
//!     align::run(&session, &config, "runs/dpo".as_ref(), false)?;
//!     assert!(std::path::Path::new("runs/dpo/model/model.safetensors").is_file());
//! #   std::env::set_current_dir(&demo)?;
//!     Ok(())
//! }
//! ```
//!
//! Every setting has a default, and the settings are those of the command's TOML files: `setpoint inspect config align` lists them. A
//! [`Session`] says on which devices jobs compute; its [`Host`](session::Host) shows their progress and can ask a training to stop. A run
//! that was stopped goes on in its folder, bit for bit, with `true` as the last argument.
//!
//! # Jobs
//!
//! | module | does |
//! |---|---|
//! | [`sft`] | fine-tunes a model on conversations |
//! | [`reward`] | trains a reward model on pairs |
//! | [`annotate`] | gives every response a reward |
//! | [`select`] | selects responses by their rewards |
//! | [`align`] | aligns a policy by DRO or one of the other methods; [`align::audit`] checks DRO's targets before |
//! | [`generate`], [`logps`] | sample responses, and score them |
//! | [`serve`] | answers requests over HTTP |
//! | [`eval`] | compares policies, runs AlpacaEval, MT-Bench and the task benchmarks |
//! | [`sweep`], [`compare`] | run a method under many settings, and several methods side by side |
//!
//! [`jobs`] lists them with their commands; [`job`] says what a job is made of. [`config`] reads and checks settings, [`convert`] makes them
//! from those of other tools, [`frontier`] compares methods at equal KL, [`tasks`] holds what the engine trains, and [`setup`] the steps that jobs begin with. The layers below are
//! crates of their own: `setpoint_align` (objectives), `setpoint_train` (the engine), `setpoint_transformer`, `setpoint_reward`,
//! `setpoint_eval` and `setpoint_data`.
//!
//! # Your own rewards
//!
//! Anything that can score a response is a [`RewardSource`](annotate::RewardSource):
//!
//! ```
//! use burn::tensor::Device;
//! use setpoint::annotate::{AnnotateConfig, RewardError, RewardSource, Scored, run_with};
//! use setpoint::config::DatasetConfig;
//! use setpoint::{Failure, Session};
//!
//! struct Brevity;
//!
//! impl RewardSource for Brevity {
//!     fn describe(&self) -> String {
//!         "brevity".to_owned()
//!     }
//!
//!     fn rate(&self, items: &[Scored<'_>], _: &mut dyn FnMut(usize)) -> Result<Vec<f64>, RewardError> {
//!         Ok(items.iter().map(|item| -(item.response.len() as f64)).collect())
//!     }
//! }
//!
//! # fn main() -> Result<(), Failure> {
//! # let folder = tempfile::tempdir()?;
//! let config = AnnotateConfig {
//!     data: DatasetConfig::new("../../examples/demo/responses.jsonl"),
//!     output: Some(folder.path().join("rewarded.jsonl")),
//!     ..AnnotateConfig::default()
//! };
//! run_with(&Session::on(Device::flex()), &config, &Brevity)?;
//! # assert!(std::fs::read_to_string(folder.path().join("rewarded.jsonl"))?.contains("\"rewards\":[-"));
//! # Ok(())
//! # }
//! ```
//!
//! [`eval::report_with`] and [`eval::alpaca::run_with`] take the same source as a judge; [`sources`] are those that settings can name.

pub mod adapter;
pub mod align;
pub mod annotate;
pub mod compare;
pub mod config;
pub mod convert;
pub mod duplicates;
pub mod eval;
pub mod export;
pub mod failure;
pub mod fetching;
pub mod frontier;
pub mod generate;
pub mod hub;
pub mod job;
pub mod jobs;
pub mod logps;
pub mod merge;
pub mod model_folder;
pub mod process_group;
pub mod push;
pub mod report;
pub mod reward;
pub mod search;
pub mod select;
pub mod serve;
pub mod server;
pub mod session;
pub mod setup;
pub mod sft;
pub mod sources;
pub mod sweep;
pub mod tasks;
pub mod training;
pub mod visible;

mod card;
mod files;
mod identity;
mod judge;
mod partial;
mod reference_samples;
mod sampling;
mod saving;
mod scoring;

pub use failure::{Failure, Outcome};
pub use session::Session;

/// The manual's page about this crate, whose program must compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/RUST.md")]
pub struct ManualPage;
