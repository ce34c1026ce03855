//! Evaluations: the policy against a baseline under a reward model ([`reward`]), and the benchmarks ([`BENCHMARKS`]).
//!
//! Each benchmark is a folder with a [`Job`](crate::jobs::Job) and a line in the list below.

pub mod reward;

mod answers;
mod job;
mod judging;
mod local_judge;
mod result;
mod reward_report;

pub use job::Reward;
pub(crate) use result::folder_name;
pub use result::{Evaluated, write_json};
pub use reward::{EvalConfig, dry_run, report, report_with};
pub use reward_report::{Answered, EvalReport, PairReport, written};

use crate::job::AnyJob;

/// Declares the folders of the benchmarks and lists their jobs.
macro_rules! benchmarks {
    ($($folder:ident: $benchmark:ident;)*) => {
        $(pub mod $folder;)*

        /// Every benchmark, in the order of the help.
        pub const BENCHMARKS: &[&dyn AnyJob] = &[$(&$folder::$benchmark,)*];
    };
}

benchmarks! {
    alpaca: Alpaca;
    mt_bench: MtBench;
    arena_hard: ArenaHard;
    tasks: Tasks;
    ifeval: IfEval;
    reward_bench: RewardBench;
}
