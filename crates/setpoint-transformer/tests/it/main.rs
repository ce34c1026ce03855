//! The crate against what transformers computes, and against files that are not as they should be.

mod bad_files;
mod checkpoint;
mod config;
mod definition;
mod dora;
mod dropout;
mod evidence;
mod extremes;
mod families;
#[path = "../../src/finite_difference.rs"]
mod finite_difference;
mod generate;
mod gguf;
mod golden;
mod live;
mod lora;
mod multimodal;
mod nf4;
#[path = "../oracle.rs"]
mod oracle;
mod quantized;
mod support;
mod tables;
#[path = "../../../../tests/common/test_data.rs"]
mod test_data;
mod weight_files;
