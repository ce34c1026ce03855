//! RewardBench (Lambert et al. 2024) and RewardBench 2 (Malik et al. 2025): does a reward model prefer the right responses?
//!
//! Rows are those of the published data sets, scores those of the `rewardbench` package. Nothing here runs a model:
//! [`read_reward_bench`] reads the rows, and [`score_reward_bench`] scores the rewards of their responses.
//!
//! # Example
//! ```
//! use setpoint_eval::{RewardBenchRow, RewardBenchVersion, score_reward_bench};
//!
//! let row = |id: &str| RewardBenchRow {
//!     id: id.to_owned(),
//!     subset: "Math".to_owned(),
//!     prompt: "1 + 1?".to_owned(),
//!     responses: ["2", "3", "4", "11"].map(str::to_owned).to_vec(),
//!     correct: 1,
//! };
//! // The right response is the best in the first row, and shares the first place in the second.
//! let rewards = [vec![0.9, 0.1, 0.2, 0.3], vec![0.5, 0.5, 0.2, 0.1]];
//! let scores = score_reward_bench(RewardBenchVersion::V2, &[row("1"), row("2")], &rewards)?;
//! assert_eq!(scores.subsets["Math"].score, 0.75);
//! # Ok::<(), setpoint_eval::Error>(())
//! ```

mod rows;
mod scores;
mod ties;

pub use rows::{RewardBenchRow, RewardBenchVersion, read_reward_bench};
pub use scores::{RewardBenchScores, SubsetScore, score_reward_bench};
