//! The crate against what transformers computes, and against files that are not as they should be.

mod bad_files;
mod checkpoint;
mod config;
mod generate;
mod golden;
mod support;
#[path = "../../../../tests/common/test_data.rs"]
mod test_data;
