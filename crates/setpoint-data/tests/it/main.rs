//! Integration tests: files in, token ids out, compared with what transformers computes.

mod boundaries;
mod common;
mod encoding;
mod fitting;
mod gguf;
mod hostile_parquet;
mod hostile_templates;
mod hostile_tokenizers;
mod hub;
mod hub_hostile;
mod hub_models;
mod hub_push;
mod jinja_tests;
mod kept;
mod long_conversations;
mod parquet_json;
mod real_files;
mod real_ids;
mod tables;
mod thinking;
mod thoughts;
mod tokenizers;
