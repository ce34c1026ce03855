//! Records, chat templates and tokens: from a file of conversations to exact token ids.
//!
//! ```text
//! jsonl · json · csv · parquet · folder · hub id  ──read──▶  Record  ──template, tokenizer──▶  Example
//! ```
//!
//! - [`read_records`] opens a [`DatasetConfig`] ([`read_rows`] where its rows are no records) and yields [`Record`]s: SFT conversations, preferences, labelled rows and
//!   point-wise rows are all one type. [`Format`] says which columns become what; it is detected from them.
//! - [`ChatTemplate`] renders Jinja templates as transformers does.
//! - [`TextEncoder`] makes an [`Example`] of a record: one BOS, one stop token within the response, a boundary between prompt
//!   and response that no token spans. Whatever is dropped, cut or tokenised apart is counted in an [`EncodeReport`].
//! - [`Duplicates`] and [`NgramIndex`] find texts that repeat others, and texts that share words with an evaluation set.
//! - [`T0`], [`content_hash`] and [`segments`] answer the questions that come next: do all prompts begin alike, which numbers
//!   belong to these ids, and what does a row look like.
//!
//! This crate knows nothing of tensors.

mod choice;
mod config;
mod counted;
mod duplicates;
mod encode;
mod error;
mod format;
mod gguf;
mod hash;
mod inspect;
mod notes;
mod pieces;
mod read;
mod record;
mod seam;
mod select;
mod sources;
mod spool;
mod store;
mod t0;
mod template;
#[cfg(test)]
#[path = "../../../tests/common/test_data.rs"]
mod test_data;
mod unique;
mod write;

pub use self::choice::{Choice, choice_schema, deserialize_choice};
pub use self::config::{
    BadRows, DatasetConfig, Margins, Responses, Rewards, TextPrompts, Ties, UltraFeedbackScore, Use, Uses,
};
pub use self::counted::counted;
pub use self::duplicates::{Duplicates, NgramIndex, Overlap, Repeated, SHINGLE_WORDS, jaccard};
pub use self::encode::{
    Boundary, DropReason, EncodeOptions, EncodeReport, EncodeTally, Encoded, EncodedResponse, EncoderOptions, Example,
    Lengths, LongRows, LostText, PrintedDate, ResponseEnd, SetCounts, SpecialTokens, TextEncoder, printed_date,
};
pub use self::error::{EncodeProblem, Error, RowProblem};
pub use self::format::{Format, Row, text_prompts_as_turns};
pub use self::gguf::{GgufTokenizer, TokenKind};
pub use self::hash::{content_hash, content_hash_of_store, hex};
pub use self::inspect::{Segment, SegmentKind, segments};
pub use self::notes::ModelNotes;
pub use self::pieces::Pieces;
pub use self::read::{
    Hub, HubModel, Push, PushFile, Pushed, ReadReport, RecordChunks, RecordStream, RowStream, SourceReport,
    load_records, read_records, read_records_from, read_rows, read_rows_from,
};
pub use self::record::{Label, Message, Prompt, Record, Response, Source};
pub use self::select::select_responses;
pub use self::sources::{DataSource, StoppingStrategy};
pub use self::spool::Spool;
pub use self::store::ExampleStore;
pub use self::t0::T0;
pub use self::template::{
    BuiltIn, ChatTemplate, OWN_VARIABLES, TemplateChoice, TemplateDate, TemplateError, TemplateVariables,
    template_source,
};
pub use self::write::{pair_row, pointwise_row, sft_row, write_pointwise};
