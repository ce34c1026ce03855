//! The outputs of the baseline and of the model, in pairs.

use std::collections::HashMap;
use std::path::Path;

use setpoint_data::counted;
use setpoint_eval::AlpacaOutput;

use crate::failure::{Failure, Outcome};

/// An output of the baseline and the model's for the same instruction.
pub(super) type OutputPair = (AlpacaOutput, AlpacaOutput);

/// Returns the baseline's outputs, each with the model's for its instruction, as `annotate_head2head` of alpaca_eval pairs them: if an instruction
/// occurs several times, every output of one with every output of the other, and rows that are the same once.
pub(super) fn paired(baseline: &[AlpacaOutput], outputs: &[AlpacaOutput], path: &Path) -> Outcome<Vec<OutputPair>> {
    let mut by_instruction: HashMap<&str, Vec<&AlpacaOutput>> = HashMap::new();
    for output in outputs {
        by_instruction.entry(output.instruction.as_str()).or_default().push(output);
    }
    let mut pairs: Vec<OutputPair> = Vec::new();
    let mut seen: HashMap<&str, Vec<usize>> = HashMap::new();
    for base in baseline {
        let own = by_instruction.get(base.instruction.as_str()).ok_or_else(|| {
            let start: String = base.instruction.chars().take(60).collect();
            Failure::run(format!("{}: no output for the instruction `{start}`", path.display()))
        })?;
        let seen = seen.entry(base.instruction.as_str()).or_default();
        for own in own {
            if seen.iter().all(|&at| (&pairs[at].0, &pairs[at].1) != (base, *own)) {
                seen.push(pairs.len());
                pairs.push((base.clone(), (*own).clone()));
            }
        }
    }
    if pairs.len() != baseline.len() || outputs.len() != baseline.len() {
        log::info!(
            "{} of the baseline and {} of the model form {}, as alpaca_eval pairs them",
            counted(baseline.len(), "output"),
            counted(outputs.len(), "output"),
            counted(pairs.len(), "pair")
        );
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn outputs(rows: &[(&str, &str)]) -> Vec<AlpacaOutput> {
        let row = |(instruction, output): &(&str, &str)| AlpacaOutput {
            instruction: (*instruction).to_owned(),
            output: (*output).to_owned(),
            generator: "g".to_owned(),
            extra: Map::new(),
        };
        rows.iter().map(row).collect()
    }

    fn found(baseline: &[(&str, &str)], own: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = paired(&outputs(baseline), &outputs(own), Path::new("own.json")).unwrap();
        pairs.into_iter().map(|(base, own)| (base.output, own.output)).collect()
    }

    #[test]
    fn repeated_instructions_are_paired_as_in_alpaca_eval() {
        // pandas.merge(baseline, own, on="instruction").drop_duplicates()
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let plain = found(&[("p", "a"), ("q", "b")], &[("q", "2"), ("p", "1"), ("r", "3")]);
        assert_eq!(plain, [pair("a", "1"), pair("b", "2")]);
        let all = found(&[("p", "a"), ("q", "b"), ("p", "c")], &[("p", "1"), ("q", "2"), ("p", "3")]);
        assert_eq!(all, [pair("a", "1"), pair("a", "3"), pair("b", "2"), pair("c", "1"), pair("c", "3")]);
        let same = found(&[("p", "a"), ("p", "a")], &[("p", "1"), ("p", "1"), ("p", "2")]);
        assert_eq!(same, [pair("a", "1"), pair("a", "2")]);
    }

    #[test]
    fn an_instruction_without_an_output_is_named() {
        let missing = paired(&outputs(&[("Say it", "a")]), &outputs(&[("p", "1")]), Path::new("own.json"));
        let said = missing.unwrap_err().sentence();
        assert_eq!(said, "own.json: no output for the instruction `Say it`");
    }
}
