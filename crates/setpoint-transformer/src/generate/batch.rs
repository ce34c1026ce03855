use std::ops::ControlFlow;

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::cache::LayerCache;
use super::sample::{Seen, choose};
use super::{Finish, Generated, GenerationConfig};
use crate::attention::Mask;
use crate::block::Pass;
use crate::{CausalLm, Decoder, Error};

/// Prompt tokens that go through the model at a time, all rows together: bounds the memory of the attention scores.
const PREFILL_TOKENS: usize = 4096;

/// A prompt on its way.
pub(super) struct Row<'a> {
    pub(super) index: usize,
    pub(super) prompt: &'a [u32],
    /// The number of new tokens at which it ends.
    limit: usize,
    rng: ChaCha8Rng,
    seen: Seen,
    ids: Vec<u32>,
    logps: Vec<f32>,
    finish: Option<Finish>,
}

impl<'a> Row<'a> {
    pub(super) fn new(
        model: &CausalLm,
        index: usize,
        prompt: &'a [u32],
        config: &GenerationConfig,
        seed: u64,
    ) -> Result<Self, Error> {
        let vocab_size = model.decoder().vocab_size();
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt { row: index });
        }
        if let Some(position) = prompt.iter().position(|&id| id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { row: index, position, found: prompt[position], vocab_size });
        }
        let max = config.max_length.unwrap_or(usize::MAX).min(model.decoder().max_positions());
        if prompt.len() >= max {
            return Err(Error::PromptTooLong { row: index, found: prompt.len(), max });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64);
        Ok(Self {
            index,
            prompt,
            limit: config.max_new_tokens.min(max - prompt.len()),
            rng,
            seen: Seen::new(prompt),
            ids: Vec::new(),
            logps: Vec::new(),
            finish: None,
        })
    }

    pub(super) fn into_generated(self) -> Generated {
        Generated { ids: self.ids, logps: self.logps, finish: self.finish.unwrap_or(Finish::Length) }
    }

    /// Draws the next token.
    fn advance(
        &mut self,
        logits: &[f32],
        config: &GenerationConfig,
        on_token: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let choice = choose(logits, &self.seen, config, &mut self.rng)
            .ok_or(Error::BadLogits { row: self.index, step: self.ids.len() })?;
        self.ids.push(choice.id);
        self.logps.push(choice.logp);
        self.seen.insert(choice.id);
        let flow = on_token(self.index, choice.id);
        self.finish = if config.stop_token_ids.contains(&choice.id) {
            Some(Finish::Stop)
        } else if self.ids.len() == self.limit {
            Some(Finish::Length)
        } else {
            flow.is_break().then_some(Finish::Interrupted)
        };
        Ok(())
    }
}

/// Continues the rows together until all have ended.
pub(super) fn run<'a>(
    model: &CausalLm,
    rows: Vec<Row<'a>>,
    config: &GenerationConfig,
    on_token: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Row<'a>>, Error> {
    let device = model.decoder().device();
    let (mut live, mut done) = (rows, Vec::new());
    let mut batch = Batch::new(model.decoder(), &live, &device);
    let prompts: Vec<&[u32]> = live.iter().map(|row| row.prompt).collect();
    let mut hidden = batch.prefill(&prompts);
    loop {
        let logits = host(model.logits(hidden))?;
        let vocab_size = logits.len() / live.len();
        for (row, logits) in live.iter_mut().zip(logits.chunks_exact(vocab_size)) {
            row.advance(logits, config, on_token)?;
        }
        let stay: Vec<usize> = (0..live.len()).filter(|&i| live[i].finish.is_none()).collect();
        if stay.len() < live.len() {
            let (ended, rest): (Vec<_>, Vec<_>) = live.into_iter().partition(|row| row.finish.is_some());
            done.extend(ended);
            live = rest;
            if live.is_empty() {
                return Ok(done);
            }
            batch.keep(&stay);
        }
        // Every live row has just drawn a token.
        let ids: Vec<u32> = live.iter().filter_map(|row| row.ids.last().copied()).collect();
        hidden = batch.step(&ids);
    }
}

/// Rows aligned on the right, with what the layers remember of them.
struct Batch<'a> {
    decoder: &'a Decoder,
    device: Device,
    caches: Vec<LayerCache>,
    /// The column of each row's first token.
    starts: Vec<usize>,
    /// Columns in the caches.
    seen: usize,
}

impl<'a> Batch<'a> {
    fn new(decoder: &'a Decoder, rows: &[Row<'_>], device: &Device) -> Self {
        let length = rows.iter().map(|row| row.prompt.len()).max().unwrap_or(0);
        Self {
            decoder,
            device: device.clone(),
            caches: decoder.layers.iter().map(|_| LayerCache::default()).collect(),
            starts: rows.iter().map(|row| length - row.prompt.len()).collect(),
            seen: 0,
        }
    }

    /// Reads the prompts; answers the hidden state of each row's last token, `[b, d]`.
    fn prefill(&mut self, prompts: &[&[u32]]) -> Tensor<2> {
        let length = self.starts[0] + prompts[0].len();
        let columns = (PREFILL_TOKENS / prompts.len()).max(1);
        let mut from = 0;
        loop {
            let to = (from + columns).min(length);
            let ids = prompts.iter().zip(&self.starts).flat_map(|(prompt, &start)| {
                // What stands before a row's first token is hidden from all others.
                (from..to).map(move |column| column.checked_sub(start).map_or(0, |position| prompt[position]))
            });
            let x = self.extend(ids.collect(), to - from);
            if to == length {
                return self.last(x);
            }
            from = to;
        }
    }

    /// Reads one more token of each row; answers its hidden state, `[b, d]`.
    fn step(&mut self, ids: &[u32]) -> Tensor<2> {
        let x = self.extend(ids.to_vec(), 1);
        self.last(x)
    }

    fn extend(&mut self, ids: Vec<u32>, columns: usize) -> Tensor<3> {
        let rows = self.starts.len();
        let rope = &self.decoder.rope;
        let aligned = self.starts.iter().all(|&start| start == 0);
        let pass = if aligned {
            Pass {
                rotation: rope.range(self.seen, columns, &self.device),
                mask: Mask::cached(&[0], self.seen, columns, &self.device),
            }
        } else {
            let positions = self.starts.iter().flat_map(|&start| {
                // Below every i32: bounded by the model's longest sequence.
                (self.seen..self.seen + columns).map(move |column| column.saturating_sub(start) as i32)
            });
            Pass {
                rotation: rope.at(&positions.collect::<Vec<_>>(), rows, &self.device),
                mask: Mask::cached(&self.starts, self.seen, columns, &self.device),
            }
        };
        let ids = ids.into_iter().map(|id| id as i32).collect::<Vec<_>>();
        let ids = Tensor::from_data(TensorData::new(ids, [rows, columns]), &self.device);
        self.seen += columns;
        self.decoder.extend(ids, &pass, &mut self.caches)
    }

    fn last(&self, x: Tensor<3>) -> Tensor<2> {
        let [_, s, _] = x.dims();
        // [b, s, d] -> [b, d]
        self.decoder.norm.forward(x.narrow(1, s - 1, 1)).squeeze_dim(1)
    }

    fn keep(&mut self, rows: &[usize]) {
        self.starts = rows.iter().map(|&row| self.starts[row]).collect();
        let index = rows.iter().map(|&row| row as i32).collect::<Vec<_>>();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &self.device);
        for cache in &mut self.caches {
            cache.keep(&index);
        }
    }
}

fn host(logits: Tensor<2>) -> Result<Vec<f32>, Error> {
    logits
        .cast(FloatDType::F32)
        .try_into_vec_as::<f32>()
        .map_err(|error| Error::Device { what: "logits".to_owned(), message: error.to_string() })
}
