//! Integration tests: files in, token ids out, compared with what transformers computes.

mod boundaries;
mod common;
mod encoding;
mod hub;
mod jinja;
mod kept;
mod real_files;
mod real_ids;
mod templates;
mod tokenizers;
