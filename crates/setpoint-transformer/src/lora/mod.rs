//! Low-rank adapters: Hu et al., "LoRA", <https://arxiv.org/abs/2106.09685>, as PEFT computes and stores them.
//!
//! An adapter is a part of its model: each targeted [`Linear`](crate::Linear) has two factors with the names that they have in PEFT's file.
//! [`attach`] adds new ones and freezes the model, [`AdapterFolder`] reads and [`save_adapter`] writes PEFT's folders, [`merged`] computes the
//! model without an adapter that is equal to one with it, and [`without_adapter`] is the model as it was. [`with_dropout`] is the model as a
//! training step computes it.

mod adapter;
mod config;
mod dropout;
mod folder;
mod merge;
mod norms;
mod save;
mod targets;

pub(crate) use adapter::maps;
pub use adapter::{AdapterSize, HasDecoder, adapter_size, attach, is_adapter_parameter, without_adapter};
pub use config::{LoraConfig, LoraPattern};
pub(crate) use dropout::{Dropout, Masks};
pub use dropout::{MaskSeed, with_dropout};
pub use folder::{AdapterFolder, AdapterTask};
pub use merge::merged;
pub(crate) use norms::RowNorms;
pub use save::{AdapterAbout, save_adapter};
pub use targets::{Selection, Targets};
