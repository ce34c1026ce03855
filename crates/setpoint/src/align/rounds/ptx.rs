//! The rows of other data that PPO keeps learning (PPO-ptx): one for each response.

use std::sync::Arc;

use setpoint_data::{DatasetConfig, EncodeOptions, EncodeReport, Responses, TextEncoder};
use setpoint_transformer::ModelConfig;

use super::super::settings::AlignConfig;
use super::prompts::next_of;
use crate::failure::{Failure, Outcome};
use crate::identity::{KeptRows, Origin, Row, conversation};
use crate::session::Session;
use crate::tasks::ppo::PtxRow;
use crate::tasks::sft::SftExample;
use crate::{setup, sft};

/// The rows of `[sft_data]`.
#[derive(Debug, Clone)]
pub struct Ptx {
    rows: Vec<Arc<PtxRow>>,
    identity: Vec<Row>,
    seed: u64,
}

impl Ptx {
    /// Reads and encodes the rows, if the settings name any.
    ///
    /// # Errors
    /// When they cannot be read, or no token of them can be learned.
    pub fn read(
        session: &Session,
        config: &AlignConfig,
        encoder: &TextEncoder,
        shape: &ModelConfig,
    ) -> Outcome<Option<Self>> {
        let Some(data) = &config.sft_data else { return Ok(None) };
        let encode = sft::turns(&EncodeOptions { assistant_spans: true, ..config.encode.clone() });
        let (reading, encode) = (sft::reading(data, Some(Responses::Auto)), setup::within(&encode, shape));
        let read = setup::examples(&reading, &encode, encoder, "SFT data", session)?;
        let (mut rows, mut identity) = (Vec::new(), Vec::new());
        for example in read.examples.iter().flat_map(SftExample::all) {
            if let Some(row) = PtxRow::of(&example) {
                rows.push(Arc::new(row));
                identity.push(Row::of_conversation(&example.name, example.set, &example.ids, &example.counted));
            }
        }
        if rows.is_empty() {
            return Err(Failure::usage("sft_data.path", format!("no token of {} can be learned", data.name())));
        }
        Ok(Some(Self { rows, identity, seed: config.train.seed }))
    }

    /// Adds the rows to what a run is made of. `data`: where they are.
    ///
    /// # Errors
    /// When they cannot be described.
    pub fn identify(&self, origin: &mut Origin, data: &DatasetConfig) -> Outcome {
        origin.data("sft_data", data, KeptRows::of(&self.identity)?, conversation);
        Ok(())
    }

    /// Returns the rows of a round: the next `count` of one shuffled pass over them after another.
    pub fn of_round(&self, round: u64, count: usize) -> Vec<Arc<PtxRow>> {
        next_of(self.rows.len(), self.seed, round, count).into_iter().map(|row| self.rows[row].clone()).collect()
    }

    /// Adds one row of mean length for each of `responses` to the description of a round.
    pub fn lengthen(&self, report: &mut EncodeReport, responses: usize) {
        let costs = || self.rows.iter().map(|row| row.cost());
        let total = costs().sum::<usize>() as u128;
        report.prompt_tokens += (total * responses as u128 / self.rows.len().max(1) as u128) as usize;
        report.longest.max += costs().max().unwrap_or_default();
    }
}
