//! The accuracies, as lm-evaluation-harness names them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::rows::IfEvalRow;
use crate::error::{Error, check_paired};
use crate::tasks::MeanScore;

/// Tells of each instruction of a prompt whether a response follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IfEvalVerdicts {
    /// As it is.
    pub strict: Vec<bool>,
    /// Also without its first line, its last line, both, or its asterisks.
    pub loose: Vec<bool>,
}

/// The frequency with which one kind of instruction was followed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct InstructionScore {
    /// The share by the strict verdicts.
    pub strict: f64,
    /// The share by the loose verdicts.
    pub loose: f64,
    /// Instructions of this kind.
    pub n: usize,
}

/// The accuracies of a model. A prompt counts if all its instructions are followed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IfEvalScores {
    /// The share of prompts, by the strict verdicts.
    pub prompt_level_strict_acc: MeanScore,
    /// The share of instructions, by the strict verdicts.
    pub inst_level_strict_acc: MeanScore,
    /// The share of prompts, by the loose verdicts.
    pub prompt_level_loose_acc: MeanScore,
    /// The share of instructions, by the loose verdicts.
    pub inst_level_loose_acc: MeanScore,
    /// Kind by kind.
    pub instructions: BTreeMap<&'static str, InstructionScore>,
}

/// Sums up the verdicts; `verdicts[i]` belongs to `rows[i]`.
///
/// # Errors
/// No rows, or not as many verdicts as rows and as instructions.
pub fn score_ifeval(rows: &[IfEvalRow], verdicts: &[IfEvalVerdicts]) -> Result<IfEvalScores, Error> {
    check_paired("rows", rows.len(), "lists of verdicts", verdicts.len())?;
    if rows.is_empty() {
        return Err(Error::TooFew { what: "rows of IFEval", found: 0, needed: 1 });
    }
    let mut kinds: BTreeMap<&'static str, Vec<(bool, bool)>> = BTreeMap::new();
    for (row, verdicts) in rows.iter().zip(verdicts) {
        for found in [&verdicts.strict, &verdicts.loose] {
            check_paired("instructions", row.instructions.len(), "verdicts", found.len())?;
        }
        for (i, instruction) in row.instructions.iter().enumerate() {
            kinds.entry(instruction.name()).or_default().push((verdicts.strict[i], verdicts.loose[i]));
        }
    }
    let share = |of: &[(bool, bool)], strict: bool| {
        let right = of.iter().filter(|pair| if strict { pair.0 } else { pair.1 }).count();
        right as f64 / of.len() as f64
    };
    let score =
        |of: &Vec<(bool, bool)>| InstructionScore { strict: share(of, true), loose: share(of, false), n: of.len() };
    let strict: Vec<&[bool]> = verdicts.iter().map(|v| v.strict.as_slice()).collect();
    let loose: Vec<&[bool]> = verdicts.iter().map(|v| v.loose.as_slice()).collect();
    Ok(IfEvalScores {
        prompt_level_strict_acc: of_prompts(&strict),
        inst_level_strict_acc: of_instructions(&strict),
        prompt_level_loose_acc: of_prompts(&loose),
        inst_level_loose_acc: of_instructions(&loose),
        instructions: kinds.iter().map(|(name, of)| (*name, score(of))).collect(),
    })
}

fn of_prompts(verdicts: &[&[bool]]) -> MeanScore {
    let all = |list: &&[bool]| f64::from(u8::from(list.iter().all(|followed| *followed)));
    MeanScore::of(&verdicts.iter().map(all).collect::<Vec<f64>>())
}

/// The share of all instructions. Those of one prompt depend on each other, so the error is that of a ratio over prompts (Cochran 1977,
/// section 3.12).
fn of_instructions(verdicts: &[&[bool]]) -> MeanScore {
    let right = |list: &[bool]| list.iter().filter(|followed| **followed).count() as f64;
    let n: usize = verdicts.iter().map(|list| list.len()).sum();
    let value = verdicts.iter().map(|list| right(list)).sum::<f64>() / n as f64;
    let squares: f64 = verdicts.iter().map(|list| (right(list) - value * list.len() as f64).powi(2)).sum();
    let prompts = verdicts.len() as f64;
    let std_error = if prompts > 1.0 { (prompts / (prompts - 1.0) * squares).sqrt() / n as f64 } else { 0.0 };
    MeanScore { value, std_error, n }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::super::instruction::IfEvalInstruction;
    use super::*;

    fn row(names: &[&str]) -> IfEvalRow {
        let instructions = names.iter().map(|name| IfEvalInstruction::new(name, &Map::new()).unwrap()).collect();
        IfEvalRow { key: 1, prompt: String::new(), instructions }
    }

    #[test]
    fn prompts_count_as_a_whole_and_instructions_one_by_one() {
        let rows = [row(&["startend:quotation", "punctuation:no_comma"]), row(&["punctuation:no_comma"])];
        let verdicts = [
            IfEvalVerdicts { strict: vec![true, false], loose: vec![true, true] },
            IfEvalVerdicts { strict: vec![true], loose: vec![true] },
        ];
        let scores = score_ifeval(&rows, &verdicts).unwrap();
        assert_eq!((scores.prompt_level_strict_acc.value, scores.prompt_level_strict_acc.n), (0.5, 2));
        assert_eq!(scores.prompt_level_strict_acc.std_error, 0.5, "the deviation of 0 and 1, √½, over √2");
        // 2 of 3; the deviations of the prompts are 1 − 4/3 and 1 − 2/3, so √(2 · 2/9) / 3.
        let instructions = scores.inst_level_strict_acc;
        assert!((instructions.value - 2.0 / 3.0).abs() < 1e-15 && instructions.n == 3);
        assert!((instructions.std_error - 2.0 / 9.0).abs() < 1e-12, "{instructions:?}");
        assert_eq!((scores.prompt_level_loose_acc.value, scores.inst_level_loose_acc.std_error), (1.0, 0.0));
        let comma = InstructionScore { strict: 0.5, loose: 1.0, n: 2 };
        assert_eq!(scores.instructions["punctuation:no_comma"], comma);
        assert_eq!(scores.instructions.len(), 2);
    }

    #[test]
    fn missing_verdicts_are_an_error() {
        let verdicts = IfEvalVerdicts { strict: vec![true], loose: Vec::new() };
        assert!(score_ifeval(&[], &[]).unwrap_err().to_string().contains("rows of IFEval"));
        let rows = [row(&["punctuation:no_comma"])];
        assert!(score_ifeval(&rows, &[]).is_err());
        assert!(score_ifeval(&rows, &[verdicts]).unwrap_err().to_string().contains("instructions has 1"));
    }
}
