//! AlpacaEval 2 (Dubois et al. 2024, "Length-Controlled AlpacaEval"): preferences of a judge over a baseline, as win rates.
//!
//! A preference lies in `[1, 2]`: 1 says that the baseline (`output_1`) is better, 2 that the model (`output_2`) is. The scores are
//! those of the `alpaca_eval` package: [`alpaca_win_rate`] is its `get_winrate`, [`length_controlled`] its GLM.
//!
//! # Example
//! ```
//! use setpoint_eval::{AlpacaAnnotation, alpaca_win_rate};
//!
//! let row = |preference| AlpacaAnnotation { preference: Some(preference), baseline_length: 900, model_length: 400 };
//! let scores = alpaca_win_rate(&[row(1.9), row(1.2), row(1.5), row(2.0)])?;
//! assert_eq!((scores.n_wins, scores.n_wins_base, scores.n_draws), (2, 1, 1));
//! assert!((scores.win_rate - 65.0).abs() < 1e-9); // the mean of 0.9, 0.2, 0.5 and 1
//! # Ok::<(), setpoint_eval::Error>(())
//! ```

mod annotation;
mod judge;
#[cfg(test)]
mod leaderboard_tests;
mod length_control;
mod reference;
mod win_rate;

pub use annotation::{AlpacaAnnotation, AlpacaExample, AlpacaOutput, read_annotations, read_examples, read_outputs};
pub use judge::{AlpacaJudge, alpaca_judge_messages, alpaca_preference, alpaca_swapped};
pub use length_control::{GlmPenalty, GlmWeights, LengthControlled, length_controlled};
pub use reference::{GamedRow, GlmReference};
pub use win_rate::{AlpacaWinRate, alpaca_win_rate};
