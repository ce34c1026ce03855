//! The measures of `setpoint eval`: the benchmarks' prompts, files and scores, the client that asks a judge, and the statistics behind
//! all of them. Nothing here runs a model: answers and log-likelihoods come from outside.
//!
//! The statistics are functions of plain `f64` slices, so every result can be checked by hand, and a run that is repeated with the same
//! seed reports the same digits.
//!
//! | question | function |
//! |---|---|
//! | what is the mean, and how sure are we? | [`Summary::of`], [`Bootstrap::mean`] |
//! | did the policy improve on the baseline, prompt by prompt? | [`Bootstrap::paired_difference`], [`win_rate`], [`sign_test`] |
//! | do two systems differ on right/wrong answers? | [`mcnemar`] |
//! | how far has the policy moved from its reference? | [`kl_estimates`] |
//! | what does a method reach at a given KL, and how much more than another? | [`at_kl`], [`difference_at_kl`] |
//! | was a loss still falling when its training stopped? | [`Trend`] |
//! | does a reward order the pairs as people did? | [`pair_accuracy`], [`wilson_interval`] |
//! | how long are the answers? | [`LengthStats::of`] |
//! | AlpacaEval 2: what does the judge prefer, at equal lengths too? | [`alpaca_win_rate`], [`length_controlled`], [`AlpacaJudge`] |
//! | Arena-Hard 2: how are answers judged against a baseline's, at equal styles too? | [`ArenaJudge`], [`arena_scores`], [`arena_style_scores`] |
//! | MT-Bench: how are answers rated, or paired? | [`single_scores`], [`pair_scores`], [`MtJudge`] |
//! | MMLU, GSM8K, ARC and other tasks ([`Task`]) | [`TaskSet`], [`grade_choice`], [`grade_mass`], [`extract_answer`], [`TaskScore`] |
//! | IFEval: does a response follow instructions that can be verified? | [`read_ifeval`], [`IfEvalRow::verdicts`], [`score_ifeval`] |
//! | RewardBench 1 and 2: does a reward model prefer the right responses? | [`read_reward_bench`], [`score_reward_bench`] |
//! | who answers when a judge is asked? | [`JudgeClient`] |
//! | may two results stand side by side, and do they differ? | [`EvalRun`], [`differences`], [`compare`] |
//!
//! # Example
//! ```
//! use setpoint_eval::{Bootstrap, win_rate};
//!
//! let policy = [0.9, 0.4, 0.7, 0.8, 0.2];
//! let baseline = [0.5, 0.4, 0.1, 0.6, 0.3];
//! let result = win_rate(&policy, &baseline, &Bootstrap::default())?;
//! assert_eq!((result.wins, result.ties, result.losses), (3, 1, 1));
//! assert_eq!(result.rate.value, 0.7); // (3 + ½) / 5
//! assert!(result.rate.low <= 0.7 && 0.7 <= result.rate.high);
//! # Ok::<(), setpoint_eval::Error>(())
//! ```

mod alpaca;
mod arena_hard;
mod bootstrap;
mod csv_table;
mod dataset;
mod error;
mod frontier;
mod ifeval;
mod json_lines;
mod judge;
mod kl;
mod length;
mod logistic;
mod mt_bench;
mod normal;
mod p_value;
mod paired;
mod proportion;
mod python_random;
mod python_text;
mod reward_bench;
mod run;
mod summary;
mod tasks;
#[cfg(test)]
#[path = "../../../tests/common/test_data.rs"]
mod test_data;
mod trend;
mod win_rate;

pub use alpaca::{
    AlpacaAnnotation, AlpacaExample, AlpacaJudge, AlpacaOutput, AlpacaWinRate, GamedRow, GlmPenalty, GlmReference,
    GlmWeights, LengthControlled, alpaca_judge_messages, alpaca_preference, alpaca_swapped, alpaca_win_rate,
    length_controlled, read_annotations, read_examples, read_outputs,
};
pub use arena_hard::{
    ArenaAnswer, ArenaGame, ArenaJudge, ArenaJudging, ArenaJudgment, ArenaMessage, ArenaQuestion, ArenaScore,
    ArenaStyle, ArenaStyleScores, ArenaVerdict, arena_baseline, arena_categories, arena_preference, arena_scores,
    arena_style_scores, read_arena_answers, read_arena_judgments, read_arena_questions,
};
pub use bootstrap::{Bootstrap, BootstrapMethod, Estimate};
pub use error::Error;
pub use frontier::{FrontierPoint, at_kl, difference_at_kl, interpolate};
pub use ifeval::{
    IfEvalInstruction, IfEvalResponse, IfEvalRow, IfEvalScores, IfEvalVerdicts, InstructionScore, language_of,
    read_ifeval, read_ifeval_responses, score_ifeval, sentence_rules,
};
pub use judge::{
    ChatAnswer, ChatMessage, ChatRequest, ChatResult, Completion, CompletionRequest, EndpointRequest, JudgeClient,
    JudgeSettings, JudgeSpending, OnFailure, ScoreReader, TokenLogprob, fill_template,
};
pub use kl::{KlEstimates, MeanError, kl_estimates};
pub use length::LengthStats;
pub use mt_bench::{
    MtAnswer, MtChoice, MtContestant, MtJudge, MtModelScores, MtPairJudgment, MtPairScores, MtPrompt, MtQuestion,
    MtReference, MtScore, MtSingleJudgment, MtWinner, category_of, category_temperature, is_pairwise, needs_reference,
    pair_scores, parse_rating, parse_verdict, read_answers, read_pair_judgments, read_questions, read_single_judgments,
    single_scores,
};
pub use p_value::p_value_text;
pub use paired::{McNemar, SignTest, mcnemar, sign_test};
pub use proportion::{PairAccuracy, Proportion, pair_accuracy, wilson_interval};
pub use reward_bench::{
    RewardBenchRow, RewardBenchScores, RewardBenchVersion, SubsetScore, read_reward_bench, score_reward_bench,
};
pub use run::{
    Comparison, EvalItem, EvalRun, Manifest, ModelIdentity, PairedTest, compare, content_digest, differences,
};
pub use summary::{Summary, mean, mean_and_deviation, quantile};
pub use tasks::{
    ChoiceGrade, Extracted, Gold, MeanScore, Task, TaskDoc, TaskMode, TaskRequest, TaskScore, TaskSet, TextGrade,
    cut_at_stop, extract_answer, grade_choice, grade_mass, grade_text, pooled_mean, question_of,
};
pub use trend::Trend;
pub use win_rate::{WinRate, win_rate};
