//! Integration tests: files in, token ids out, compared with what transformers computes.

mod boundaries;
mod common;
mod encoding;
mod hub;
mod real_files;
mod templates;
mod tokenizers;
