//! Continuous batching (Yu et al., "Orca", OSDI 2022): every pass takes whatever the rows in flight have to read, the next token of some and
//! the prompts of others, and the place of a row that has ended goes to the next one that waits.

use std::iter::Empty;
use std::ops::ControlFlow;

use burn::tensor::{FloatDType, Int, Tensor, TensorData};
use rayon::prelude::*;
use setpoint_ops::{Span, Spans, likeliest};

use super::cache::Cache;
use super::row::Row;
use super::sample::{Choice, Norm};
use crate::{CausalLm, Error, RopeSwitch};

/// Prompt tokens that go through the model at a time: bounds the memory of a pass.
const PROMPT_TOKENS: usize = 1024;

/// Equal tokens at the beginning of two texts from which on they are worth a copy, and worth waiting a pass for.
const SHARED: usize = 16;

/// A row in flight.
pub(super) struct Seat<'a> {
    pub(super) row: Row<'a>,
    /// True if nothing has been done for it yet; its slot then holds another row's values.
    fresh: bool,
}

/// The tokens whose keys and values are in a slot.
#[derive(Clone, Debug, Default)]
struct Cached {
    ids: Vec<u32>,
    /// True if they have the rotary frequencies of long texts.
    is_long: bool,
}

/// The rows in flight, each in the slot of its place in the list.
pub(super) struct Flight<'a, W> {
    waiting: W,
    pub(super) seats: Vec<Seat<'a>>,
    cache: Cache,
    /// The contents of each slot; the tokens of a row that has ended stay until another is read.
    cached: Vec<Cached>,
    switch: RopeSwitch,
}

/// Continues all rows, the first ones first and at most `batch_size` at a time.
pub(super) fn run<'a>(
    model: &CausalLm,
    rows: Vec<Row<'a>>,
    batch_size: usize,
    on_token: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Row<'a>>, Error> {
    let mut done = Vec::with_capacity(rows.len());
    let mut flight = Flight::new(model, rows, batch_size);
    while !flight.seats.is_empty() {
        for (slot, choice) in flight.pass(model)? {
            flight.seats[slot].row.advance(choice, on_token);
        }
        done.extend(flight.land());
    }
    Ok(done)
}

impl<'a> Flight<'a, std::vec::IntoIter<Row<'a>>> {
    fn new(model: &CausalLm, rows: Vec<Row<'a>>, batch_size: usize) -> Self {
        let slots = batch_size.min(rows.len());
        let most = rows.iter().map(Row::most).max().unwrap_or(0);
        let mut waiting = rows.into_iter();
        let seats = waiting.by_ref().take(slots).map(Seat::new).collect();
        let cache = Cache::new(model.decoder(), slots, most, &model.decoder().device());
        Self { waiting, seats, cache, cached: vec![Cached::default(); slots], switch: model.decoder().rope_switch() }
    }
}

impl<'a> Flight<'a, Empty<Row<'a>>> {
    /// Creates a flight of no rows yet, with `slots` places for rows of at most `most` tokens. Its rows are admitted one by one; none waits.
    pub(super) fn empty(model: &CausalLm, slots: usize, most: usize) -> Self {
        let cache = Cache::new(model.decoder(), slots, most, &model.decoder().device());
        let (cached, switch) = (vec![Cached::default(); slots], model.decoder().rope_switch());
        Self { waiting: std::iter::empty(), seats: Vec::new(), cache, cached, switch }
    }

    /// Gives a row the next place. The caller has seen that there is one.
    pub(super) fn admit(&mut self, row: Row<'a>) {
        self.seats.push(Seat::new(row));
    }
}

impl<'a> Seat<'a> {
    fn new(row: Row<'a>) -> Self {
        Self { row, fresh: true }
    }
}

impl<'a, W: Iterator<Item = Row<'a>>> Flight<'a, W> {
    /// Computes one pass. Returns the next token of each row that has been read to its end, with its slot.
    pub(super) fn pass(&mut self, model: &CausalLm) -> Result<Vec<(usize, Choice)>, Error> {
        let spans = Spans::new(self.plan());
        // The rows whose tokens will all have been read, and the place of the last one in the pass.
        let mut ends = Vec::with_capacity(spans.spans().len());
        let mut ready = Vec::with_capacity(spans.spans().len());
        let mut end = 0;
        for span in spans.spans() {
            end += span.len;
            if span.end() == self.seats[span.slot].row.len() {
                ready.push(span.slot);
                ends.push(end as i32 - 1);
            }
        }
        let count = ends.len();
        let some = count > 0 && count < spans.tokens();
        let device = model.decoder().device();
        let wanted = some.then(|| Tensor::<1, Int>::from_data(TensorData::new(ends, [count]), &device));
        let hidden = self.read(model, &spans, wanted.as_ref());
        if ready.is_empty() {
            return Ok(Vec::new());
        }
        self.choose(&ready, model.logits(hidden).cast(FloatDType::F32))
    }

    /// Chooses the tokens that go through the model next. At least one row has something to read.
    fn plan(&mut self) -> Vec<Span> {
        let mut left = PROMPT_TOKENS;
        let mut spans: Vec<Span> = Vec::with_capacity(self.seats.len());
        for slot in 0..self.seats.len() {
            if self.seats[slot].fresh && (left == 0 || !self.begin(slot, &spans)) {
                continue;
            }
            self.lengthen(slot);
            let start = self.cached[slot].ids.len();
            let unread = self.seats[slot].row.len() - start;
            // A next token always goes through; prompts share what is left.
            let len = if unread == 1 { 1 } else { unread.min(left) };
            if len > 0 {
                left = left.saturating_sub(len);
                spans.push(Span { slot, start, len });
            }
        }
        spans
    }

    /// Returns whether the row in a slot has become so long that its text has other rotary frequencies.
    fn is_long(&self, slot: usize) -> bool {
        self.switch.is_long(self.seats[slot].row.len())
    }

    /// Forgets what a row has read if its text has other rotary frequencies from now on, so that all of it is read once more.
    fn lengthen(&mut self, slot: usize) {
        if self.is_long(slot) != self.cached[slot].is_long {
            self.cached[slot] = Cached { ids: Vec::new(), is_long: !self.cached[slot].is_long };
        }
    }

    /// Prepares the slot of a fresh row: takes over what another text has in common with it. False if it is worth waiting for what the
    /// pass that is being planned will have read.
    fn begin(&mut self, slot: usize, planned: &[Span]) -> bool {
        let prompt: &[u32] = &self.seats[slot].row.prompt;
        let is_long = self.is_long(slot);
        let equal = |text: &mut dyn Iterator<Item = u32>| text.zip(prompt).take_while(|(a, b)| a == *b).count();
        // Equal tokens have equal keys and values where their texts have the same frequencies.
        let alike = planned.iter().filter(|span| self.is_long(span.slot) == is_long);
        let coming = alike.map(|span| equal(&mut self.seats[span.slot].row.tokens(0, span.end()))).max();
        // Its own slot last: of equals that is the one to take, for nothing.
        let others = (0..self.cached.len()).filter(|&other| other != slot).chain([slot]);
        let here = others
            .filter(|&other| self.cached[other].is_long == is_long)
            .map(|other| (equal(&mut self.cached[other].ids.iter().copied()), other))
            .max_by_key(|found| found.0);
        let (len, from) = here.unwrap_or((0, slot));
        // The last token is read in any case, for its logits.
        let usable = |len: usize| len.min(prompt.len() - 1);
        if coming.is_some_and(|coming| usable(coming) >= usable(len) + SHARED) {
            return false;
        }
        let len = if usable(len) >= SHARED { usable(len) } else { 0 };
        self.cache.copy(from, slot, len);
        self.cached[slot] = Cached { ids: prompt[..len].to_vec(), is_long };
        self.seats[slot].fresh = false;
        true
    }

    /// Reads the tokens of a pass; answers the hidden states of those `wanted`, or of all, `[w, d]`.
    fn read(&mut self, model: &CausalLm, spans: &Spans, wanted: Option<&Tensor<1, Int>>) -> Tensor<2> {
        let mut ids = Vec::with_capacity(spans.tokens());
        let mut texts = Vec::with_capacity(spans.tokens());
        for span in spans.spans() {
            let (row, cached) = (&self.seats[span.slot].row, &mut self.cached[span.slot].ids);
            cached.extend(row.tokens(span.start, span.end()));
            ids.extend_from_slice(&cached[span.start..]);
            texts.extend(std::iter::repeat_n(row.len(), span.len));
        }
        model.decoder().forward_cached(&ids, &texts, spans, wanted, &mut self.cache)
    }

    /// The next tokens of the rows in some slots, from their logits `[slots, v]`, f32.
    fn choose(&mut self, slots: &[usize], logits: Tensor<2>) -> Result<Vec<(usize, Choice)>, Error> {
        let [_, v] = logits.dims();
        let likeliest = likeliest(logits.clone());
        let norms = slots
            .iter()
            .zip(host(likeliest.norms)?.chunks_exact(2))
            .map(|(&slot, norm)| Norm::new(norm[0], norm[1]).ok_or_else(|| self.seats[slot].row.bad_logits()))
            .collect::<Result<Vec<_>, _>>()?;
        if slots.iter().all(|&slot| self.seats[slot].row.takes_likeliest()) {
            let ids = likeliest.ids.try_into_data().map_err(device_error)?;
            let choices = ids.iter::<i64>().zip(&norms).map(|(id, norm)| norm.likeliest(id as u32));
            return Ok(slots.iter().copied().zip(choices).collect());
        }
        let data = logits.try_into_data().map_err(device_error)?;
        let logits = data.as_slice::<f32>().map_err(device_error)?;
        // The slots ascend.
        let mut chosen = slots.iter().copied().peekable();
        let rows: Vec<&mut Row<'a>> = (0..)
            .zip(&mut self.seats)
            .filter_map(|(slot, seat)| chosen.next_if_eq(&slot).map(|_| &mut seat.row))
            .collect();
        let choices = rows
            .into_par_iter()
            .zip(norms)
            .zip(logits.par_chunks_exact(v))
            .map(|((row, norm), logits)| row.choose(logits, norm))
            .collect::<Vec<_>>();
        Ok(slots.iter().copied().zip(choices).collect())
    }

    /// Takes out the rows that have ended. Their places go to those who wait, or to the last ones in flight: slots in use have no gaps, so
    /// that the cache of all rows is one part of it.
    pub(super) fn land(&mut self) -> Vec<Row<'a>> {
        let mut done = Vec::new();
        for slot in (0..self.seats.len()).rev() {
            if self.seats[slot].row.finish.is_none() {
                continue;
            }
            if let Some(row) = self.waiting.next() {
                done.push(std::mem::replace(&mut self.seats[slot], Seat::new(row)).row);
                continue;
            }
            let last = self.seats.len() - 1;
            done.push(self.seats.swap_remove(slot).row);
            if slot < last && !self.seats[slot].fresh {
                self.cache.copy(last, slot, self.cached[last].ids.len());
                self.cached.swap(last, slot);
                self.cached[last].ids.clear();
            }
        }
        done
    }
}

fn device_error(error: impl ToString) -> Error {
    Error::Device { what: "logits".to_owned(), message: error.to_string() }
}

fn host(tensor: Tensor<2>) -> Result<Vec<f32>, Error> {
    tensor.try_into_vec_as::<f32>().map_err(device_error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::Device;

    use super::*;
    use crate::finite_difference::devices;
    use crate::{GenerationConfig, LoadOptions};

    fn model(name: &str, device: &Device) -> CausalLm {
        let dir = format!("{}/../../tests/golden/transformer/{name}", env!("CARGO_MANIFEST_DIR"));
        CausalLm::load(dir.as_ref(), &LoadOptions::default(), device).unwrap().0
    }

    /// The spans of each pass, `(slot, start, len)`, until all rows have ended.
    fn passes(prompts: &[Vec<u32>], new: &[usize], batch_size: usize) -> Vec<Vec<(usize, usize, usize)>> {
        passes_of("llama_kv2", prompts, new, batch_size)
    }

    fn passes_of(
        name: &str,
        prompts: &[Vec<u32>],
        new: &[usize],
        batch_size: usize,
    ) -> Vec<Vec<(usize, usize, usize)>> {
        let [device, _] = devices();
        let model = model(name, &device);
        let config = |i: usize| Arc::new(GenerationConfig { max_new_tokens: new[i], ..GenerationConfig::default() });
        let rows = (0..prompts.len()).map(|i| Row::new(&model, i, &prompts[i], &config(i), 0).unwrap());
        let mut flight = Flight::new(&model, rows.collect(), batch_size);
        let mut passes = vec![];
        while !flight.seats.is_empty() {
            let spans = Spans::new(flight.plan());
            flight.read(&model, &spans, None);
            passes.push(spans.spans().iter().map(|span| (span.slot, span.start, span.len)).collect());
            for span in spans.spans() {
                let row = &mut flight.seats[span.slot].row;
                if span.end() == row.len() {
                    let norm = Norm::new(0.0, 0.0).unwrap();
                    row.advance(norm.likeliest(1), &mut |_, _| ControlFlow::Continue(()));
                }
            }
            flight.land();
        }
        passes
    }

    #[test]
    fn the_place_of_a_row_that_has_ended_goes_to_the_next() {
        let prompts = [vec![1; 3], vec![2; 2], vec![3; 2]];
        let expected = [
            vec![(0, 0, 3), (1, 0, 2)],
            // Row 1 had one token to go: row 2 is in its place.
            vec![(0, 3, 1), (1, 0, 2)],
            vec![(0, 4, 1), (1, 2, 1)],
            // Row 0 has ended and none waits: row 2 moves up.
            vec![(0, 3, 1)],
        ];
        assert_eq!(passes(&prompts, &[3, 1, 3], 2), expected);
    }

    #[test]
    fn what_prompts_have_in_common_is_read_once() {
        let shared = vec![7; 2 * SHARED];
        let own = |token| [shared.clone(), vec![token, 5]].concat();
        let n = shared.len();
        // The second row waits for the first one, as an equal one does; the last one has too little in common with them.
        let prompts = [own(1), own(2), own(1), vec![7; SHARED]];
        let expected = [vec![(0, 0, n + 2), (3, 0, SHARED)], vec![(0, n + 2, 1), (1, n, 2), (2, n + 1, 1)]];
        assert_eq!(passes(&prompts, &[2, 1, 1, 1], 4), expected);
        // A row that comes later takes over from one that has ended, in its place.
        assert_eq!(passes(&[own(1), own(2)], &[1, 1], 1), [vec![(0, 0, n + 2)], vec![(0, n, 2)]]);
    }

    #[test]
    fn a_row_that_becomes_long_is_read_again() {
        let passes = |prompts: &[Vec<u32>], new: &[usize]| passes_of("phi3_longrope_switch", prompts, new, 4);
        // Texts of more than 20 tokens are long: one that is from the beginning, one that never is, and one that becomes so.
        let prompts = [vec![1; 21], vec![2; 3], vec![3; 19]];
        let expected = [
            vec![(0, 0, 21), (1, 0, 3), (2, 0, 19)],
            vec![(0, 21, 1), (1, 3, 1), (2, 19, 1)],
            vec![(0, 22, 1), (1, 4, 1), (2, 0, 21)],
            vec![(0, 23, 1), (1, 5, 1), (2, 21, 1)],
        ];
        assert_eq!(passes(&prompts, &[4; 3]), expected);
        // Equal beginnings are taken over from a text of the same kind only.
        let prompt = |length: usize, own: u32| [vec![7; length], vec![own]].concat();
        let prompts = [prompt(19, 1), prompt(20, 2), prompt(18, 3), prompt(21, 4)];
        assert_eq!(passes(&prompts, &[1; 4]), [[(0, 0, 20), (1, 0, 21)], [(0, 18, 1), (1, 20, 2)]]);
    }

    #[test]
    fn long_prompts_share_the_passes() {
        let many: Vec<Vec<u32>> = (0..6).map(|i| (0..200).map(|t| (t + 7 * i) % 96).collect()).collect();
        let passes = passes(&many, &[2; 6], 6);
        assert_eq!(passes[0], [(0, 0, 200), (1, 0, 200), (2, 0, 200), (3, 0, 200), (4, 0, 200), (5, 0, 24)]);
        // Next tokens go through beside the rest of the last prompt.
        assert_eq!(passes[1], [(0, 200, 1), (1, 200, 1), (2, 200, 1), (3, 200, 1), (4, 200, 1), (5, 24, 176)]);
    }
}
