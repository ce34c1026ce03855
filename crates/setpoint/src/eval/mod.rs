//! Evaluations: the policy against a baseline under a reward model ([`reward`]), AlpacaEval 2 ([`alpaca`]), MT-Bench ([`mt_bench`]) and
//! the task benchmarks ([`tasks`]).

pub mod alpaca;
pub mod mt_bench;
pub mod reward;
pub mod tasks;

mod answers;
mod jobs;
mod judging;
mod local_judge;
mod result;
mod reward_report;
mod tables;

pub use jobs::{Alpaca, MtBench, Reward, Tasks};
pub(crate) use result::folder_name;
pub use result::{Evaluated, write_json};
pub use reward::{EvalConfig, dry_run, report, report_with};
pub use reward_report::{EvalReport, PairReport, written};
