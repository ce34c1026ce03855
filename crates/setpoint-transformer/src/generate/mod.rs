//! Batched sampling with a key-value cache.
//!
//! Rows of different length share a pass without padding; a row that ends makes room for the next prompt at once. Prompts that begin alike are
//! read once. Each row has its own positions, sees its own tokens only and draws from its own random stream. What it yields therefore
//! follows from the model, its prompt, the seed and its index alone; its neighbours and the batch size enter only through the order in which
//! the backend's matrix products add, as rounding.

mod batch;
mod cache;
mod config;
mod forward;
mod live;
mod row;
mod sample;

use std::ops::ControlFlow;
use std::sync::Arc;

use burn::module::Module;

use crate::{CausalLm, Error};
pub use config::GenerationConfig;
pub use live::{Drawn, LiveBatch, NewRow, RowId};
use row::Row;

/// The continuation of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens. If a stop token ended them, it is the last one.
    pub ids: Vec<u32>,
    /// The log-probability of each token under the model's own distribution, before penalty, temperature and truncation; after the
    /// temperature with [`GenerationConfig::tempered_logps`].
    ///
    /// # Units
    ///
    /// Nats.
    pub logps: Vec<f32>,
    /// The reason for which there are no more.
    pub finish: Finish,
}

/// The reason for which a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// One of [`GenerationConfig::stop_token_ids`] was sampled.
    Stop,
    /// The row has as many tokens as the settings or the model allow.
    Length,
    /// The callback of [`generate_stream`] asked for it.
    Interrupted,
}

/// Continues each prompt. Row `i` of the result belongs to prompt `i`.
///
/// No graph is recorded, whatever device the model is on.
///
/// # Errors
///
/// Before anything is computed: [`Error::GenerationSetting`], [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::TokenOutOfRange`].
/// Later [`Error::BadLogits`] and [`Error::Device`].
///
/// ```no_run
/// # use burn::tensor::Device;
/// # use setpoint_transformer::{CausalLm, GenerationConfig, LoadOptions, generate};
/// # fn example(device: &Device) -> Result<(), setpoint_transformer::Error> {
/// let dir = std::path::Path::new("Qwen2.5-0.5B-Instruct");
/// let (model, config) = CausalLm::load(dir, &LoadOptions::default(), device)?;
/// let settings = GenerationConfig { max_new_tokens: 64, ..GenerationConfig::for_model(dir, &config)? };
/// for row in generate(&model, &[vec![9707, 11]], &settings, 42)? {
///     println!("{:?} {:?}", row.ids, row.finish);
/// }
/// # Ok(()) }
/// ```
pub fn generate(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    seed: u64,
) -> Result<Vec<Generated>, Error> {
    generate_stream(model, prompts, config, seed, |_, _| ControlFlow::Continue(()))
}

/// As [`generate`](fn@generate), handing out each token as soon as it is drawn: `on_token(row, id)`, the stop token included. On `Break` the
/// row ends with [`Finish::Interrupted`] (unless it had ended anyway), the others go on.
///
/// # Errors
///
/// As [`generate`](fn@generate).
pub fn generate_stream(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    seed: u64,
    on_token: impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Generated>, Error> {
    generate_part(model, prompts, 0, config, seed, on_token)
}

/// As [`generate_stream`], for prompts of which the first has the index `first`: part of a longer list, whose parts may be generated one
/// after the other. `on_token` is told the index in that list.
///
/// # Errors
///
/// As [`generate`](fn@generate).
pub fn generate_part(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    first: usize,
    config: &GenerationConfig,
    seed: u64,
    mut on_token: impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Generated>, Error> {
    config.validate()?;
    let shared = Arc::new(config.clone());
    let rows = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| Row::new(model, first + index, prompt, &shared, seed))
        .collect::<Result<Vec<_>, _>>()?;
    run(model, rows, config.batch_size, &mut on_token)
}

/// As [`generate_stream`], with the random stream that each row draws from. What a row yields follows from its prompt, the seed and its
/// stream, wherever it is in the list.
///
/// # Errors
///
/// As [`generate`](fn@generate).
///
/// # Panics
///
/// If there are not as many streams as prompts.
pub fn generate_on_streams(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    streams: &[u64],
    config: &GenerationConfig,
    seed: u64,
    mut on_token: impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Generated>, Error> {
    assert_eq!(prompts.len(), streams.len(), "one stream for each prompt");
    config.validate()?;
    let shared = Arc::new(config.clone());
    let rows = prompts
        .iter()
        .zip(streams)
        .enumerate()
        .map(|(index, (prompt, &stream))| Ok(Row::new(model, index, prompt, &shared, seed)?.on_stream(stream)))
        .collect::<Result<Vec<_>, Error>>()?;
    run(model, rows, config.batch_size, &mut on_token)
}

/// Continues rows, and returns their continuations in the order of their indices.
fn run(
    model: &CausalLm,
    mut rows: Vec<Row<'_>>,
    batch_size: usize,
    on_token: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Generated>, Error> {
    // The longest first, so that a lack of memory shows at once.
    rows.sort_by_key(|row| std::cmp::Reverse(row.prompt.len()));
    let mut done = batch::run(&model.valid(), rows, batch_size, on_token)?;
    done.sort_by_key(|row| row.index);
    Ok(done.into_iter().map(Row::into_generated).collect())
}

/// Checks every prompt as [`generate`](fn@generate) does before it computes anything.
///
/// # Errors
///
/// [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::TokenOutOfRange`].
pub fn check_prompts(model: &CausalLm, prompts: &[Vec<u32>], config: &GenerationConfig) -> Result<(), Error> {
    let shared = Arc::new(config.clone());
    prompts.iter().enumerate().try_for_each(|(index, prompt)| Row::new(model, index, prompt, &shared, 0).map(drop))
}
