//! A batch that rows join and leave while it runs, for a server.

use std::iter::Empty;
use std::ops::ControlFlow;
use std::sync::Arc;

use burn::module::Module;

use super::batch::Flight;
use super::row::Row;
use super::{Finish, GenerationConfig};
use crate::{CausalLm, Error};

/// Names a row of a [`LiveBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(usize);

/// A row that joins a [`LiveBatch`].
#[derive(Clone, Debug)]
pub struct NewRow {
    /// The tokens that are continued.
    pub prompt: Vec<u32>,
    /// The settings of its sampling. `batch_size` is that of the batch.
    pub config: Arc<GenerationConfig>,
    /// The seed.
    pub seed: u64,
    /// The random stream of that seed. Row `i` of [`generate`](fn@super::generate) draws from stream `i`.
    pub stream: u64,
    /// The number of likeliest tokens that are told with each new token.
    pub alternatives: usize,
}

/// A token that a row of a [`LiveBatch`] has drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The row.
    pub row: RowId,
    /// The token.
    pub id: u32,
    /// Its log-probability under the model's own distribution, as in [`Generated`](super::Generated), in nats.
    pub logp: f32,
    /// The likeliest tokens with their log-probabilities, the likeliest first: as many as the row asked for.
    pub alternatives: Vec<(u32, f32)>,
    /// The reason for which the row has left the batch, if this is its last token.
    pub finish: Option<Finish>,
}

/// Rows that are continued together, each with settings of its own. Rows join at any time, and leave when they end or are removed.
///
/// A row yields what [`generate`](fn@super::generate) yields for its prompt, settings, seed and stream. The other rows enter only as rounding.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use setpoint_transformer::{CausalLm, GenerationConfig, LiveBatch, NewRow};
/// # fn example(model: &CausalLm) -> Result<(), setpoint_transformer::Error> {
/// let mut batch = LiveBatch::new(model, 8, 2048);
/// let config = Arc::new(GenerationConfig { max_new_tokens: 16, ..GenerationConfig::default() });
/// batch.admit(NewRow { prompt: vec![9707, 11], config, seed: 0, stream: 0, alternatives: 0 })?;
/// while !batch.is_empty() {
///     for drawn in batch.step()? {
///         println!("{} {:?}", drawn.id, drawn.finish);
///     }
/// }
/// # Ok(()) }
/// ```
pub struct LiveBatch {
    model: CausalLm,
    flight: Flight<'static, Empty<Row<'static>>>,
    places: usize,
    next: usize,
}

impl LiveBatch {
    /// Creates a batch without rows, with room for `places` rows of at most `most` tokens each. Memory is taken as rows need it.
    pub fn new(model: &CausalLm, places: usize, most: usize) -> Self {
        let model = model.valid();
        let flight = Flight::empty(&model, places, most);
        Self { model, flight, places, next: 0 }
    }

    /// Returns the number of rows in the batch.
    pub fn len(&self) -> usize {
        self.flight.seats.len()
    }

    /// Returns whether the batch has no rows.
    pub fn is_empty(&self) -> bool {
        self.flight.seats.is_empty()
    }

    /// Returns whether every place is taken.
    pub fn is_full(&self) -> bool {
        self.len() >= self.places
    }

    /// Adds a row, which goes through the model from the next [`step`](Self::step) on.
    ///
    /// # Errors
    /// [`Error::GenerationSetting`], [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::TokenOutOfRange`].
    ///
    /// # Panics
    /// If the batch is full.
    pub fn admit(&mut self, row: NewRow) -> Result<RowId, Error> {
        assert!(!self.is_full(), "a place for each row");
        let NewRow { prompt, config, seed, stream, alternatives } = row;
        config.validate()?;
        let index = self.next;
        let row = Row::new(&self.model, index, prompt, &config, seed)?;
        self.flight.admit(row.on_stream(stream).with_alternatives(alternatives));
        self.next += 1;
        Ok(RowId(index))
    }

    /// Takes a row out before its end; nothing happens if it is not in the batch.
    pub fn remove(&mut self, row: RowId) {
        if let Some(seat) = self.flight.seats.iter_mut().find(|seat| seat.row.index == row.0) {
            seat.row.finish = Some(Finish::Interrupted);
            self.flight.land();
        }
    }

    /// Computes one pass and returns the tokens that it drew, at most one a row. There may be none while long prompts are read.
    ///
    /// # Errors
    /// [`Error::BadLogits`] and [`Error::Device`]. The batch is of no use afterwards.
    pub fn step(&mut self) -> Result<Vec<Drawn>, Error> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for (slot, mut choice) in self.flight.pass(&self.model)? {
            let (id, logp, alternatives) = (choice.id, choice.logp, std::mem::take(&mut choice.alternatives));
            let row = &mut self.flight.seats[slot].row;
            row.advance(choice, &mut |_, _| ControlFlow::Continue(()));
            all.push(Drawn { row: RowId(row.index), id, logp, alternatives, finish: row.finish });
        }
        self.flight.land();
        Ok(all)
    }
}
