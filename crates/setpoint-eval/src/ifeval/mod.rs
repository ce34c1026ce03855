//! IFEval (Zhou et al. 2023): does a response follow instructions that a program can verify?
//!
//! Rows are those of the published data set. Verdicts and metrics follow lm-evaluation-harness (0.4.13), which took them from Google's code; but
//! sentences have other parameters, unless those of an installed NLTK are read.
//! Nothing here runs a model: [`read_ifeval`] reads the rows, [`IfEvalRow::verdicts`] judges a response, and [`score_ifeval`] sums up.
//!
//! [`IfEvalInstruction`] is one of the 25 instructions. Its list, in `instruction.rs`, has a line for each, and the function of that line makes
//! the check from the arguments. The modules below these know how the reference's tools see a text: Python's strings and regular expressions,
//! NLTK's sentences and words, and langdetect's languages. [`sentence_rules`] tells by which parameters sentences are found.

mod arguments;
mod case;
mod combination;
mod content;
mod format;
mod instruction;
mod json;
mod keywords;
mod language;
mod length;
mod nltk;
mod pattern;
mod punkt;
mod rows;
mod scores;
mod word;
mod words;

pub use instruction::IfEvalInstruction;
pub use language::language_of;
pub use punkt::sentence_rules;
pub use rows::{IfEvalResponse, IfEvalRow, read_ifeval, read_ifeval_responses};
pub use scores::{IfEvalScores, IfEvalVerdicts, InstructionScore, score_ifeval};
