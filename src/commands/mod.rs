//! The commands that are no jobs: each looks at files, or at the work that a job would do, and prints what it finds.

pub mod chat;
pub mod convert;
pub mod demo;
pub mod duplicates;
pub mod eval_compare;
pub mod export;
pub mod inspect;
pub mod lend;
pub mod merge;
pub mod methods;
pub mod plan;
pub mod push;
pub mod report;
pub mod shell;
