//! A client for judges behind OpenAI-compatible chat endpoints, and for servers that continue prompts ([`CompletionRequest`]).
//!
//! [`JudgeClient::ask_all`] sends many requests at once, holds to a rate limit, tries again after what passes (429, 5xx, cut
//! connections, answers that are no JSON), and keeps every usable answer in a file, so that an evaluation that was killed goes on
//! without paying twice. The key comes from an environment variable; it appears in no file and no message, however an endpoint echoes it.

mod cache;
mod chat;
mod client;
mod completion;
mod escapes;
mod gate;
mod http;
mod score;
mod secret;
mod settings;
mod template;

pub use chat::{ChatAnswer, ChatMessage, ChatRequest, TokenLogprob};
pub use client::{ChatResult, JudgeClient, JudgeSpending};
pub use completion::{Completion, CompletionRequest, EndpointRequest};
pub use score::ScoreReader;
pub use settings::{JudgeSettings, OnFailure};
pub use template::fill_template;
