//! Integration tests: files in, token ids out, compared with what transformers computes.

mod boundaries;
mod common;
mod encoding;
mod hostile_templates;
mod hub;
mod jinja;
mod jinja_tests;
mod kept;
mod real_files;
mod real_ids;
mod templates;
mod thinking;
mod tokenizers;
