//! `setpoint eval`: the policy against a baseline under a reward model ([`reward`]), AlpacaEval 2 ([`alpaca`]), MT-Bench ([`mt_bench`]),
//! the task benchmarks ([`tasks`]), and results side by side ([`compare`]).

pub mod alpaca;
pub mod compare;
pub mod mt_bench;
pub mod reward;
pub mod tasks;

mod answers;
mod judging;
mod local_judge;
pub(super) mod result;
mod reward_report;

pub use result::spending;
pub use reward::{EvalConfig, dry_run, report, run};
pub use reward_report::{EvalReport, written};
