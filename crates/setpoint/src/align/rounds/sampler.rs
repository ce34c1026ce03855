//! The policy answers the prompts of a round, on one device or on several.

use std::ops::ControlFlow;

use burn::module::Module;
use setpoint_train::distribute;
use setpoint_transformer::{CausalLm, Error, Generated, GenerationConfig, generate_part};

use super::prompts::Prompts;
use crate::failure::Outcome;
use crate::session::Session;

/// Prompts that are answered together.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Prompts of the round before them.
    pub first: usize,
    /// Their places in the data.
    pub rows: &'a [usize],
}

/// A part with its number, the index of its first response and a prompt for each response.
type Work = (usize, usize, Vec<Vec<u32>>);

/// Returns the responses to the prompts of each part. The parts are dealt to the devices, and a part has the same responses on each of them. They
/// are cut short if the host wants to stop.
///
/// # Errors
/// When a model or device fails.
pub fn sample(
    session: &Session,
    policy: &CausalLm,
    parts: &[Part<'_>],
    prompts: &Prompts,
    (generation, seed, samples): (&GenerationConfig, u64, usize),
) -> Outcome<Vec<Vec<Generated>>> {
    let work = |(number, part): (usize, &Part<'_>)| -> Work {
        let rows = part.rows.iter().flat_map(|&row| std::iter::repeat_n(prompts.ids[row].clone(), samples));
        (number, part.first * samples, rows.collect())
    };
    let work: Vec<Work> = parts.iter().enumerate().map(work).collect();
    let host = &session.host;
    let answer = |model: &CausalLm, (number, first, rows): &Work| -> Result<(usize, Vec<Generated>), Error> {
        let go_on = |_: usize, _: u32| match host.should_stop() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        Ok((*number, generate_part(model, rows, *first, generation, seed, go_on)?))
    };
    let mut found: Vec<Vec<Generated>> = vec![Vec::new(); work.len()];
    let mut take = |_: &Work, (number, generated): (usize, Vec<Generated>)| -> Result<(), Error> {
        found[number] = generated;
        Ok(())
    };
    distribute(&session.devices, &policy.valid(), &work, answer, &mut take)?;
    Ok(found)
}
