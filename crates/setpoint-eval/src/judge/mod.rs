//! A client for judges behind OpenAI-compatible chat endpoints.
//!
//! [`JudgeClient::ask_all`] sends many requests at once, holds to a rate limit, tries again after what passes (429, 5xx, cut
//! connections, answers that are no JSON), and keeps every answer in a file, so that an evaluation that was killed goes on without
//! paying twice. The key comes from an environment variable; it appears in no file and no message.

mod cache;
mod chat;
mod client;
mod gate;
mod http;
mod score;
mod settings;
mod template;

pub use chat::{ChatAnswer, ChatMessage, ChatRequest, TokenLogprob};
pub use client::{JudgeClient, JudgeSpending};
pub use score::ScoreReader;
pub use settings::JudgeSettings;
pub use template::fill_template;
