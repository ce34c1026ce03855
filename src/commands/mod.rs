//! The commands: each runs a job of the library, or looks at files, and prints what came of it.

pub mod audit;
pub mod chat;
pub mod compare;
pub mod convert;
pub mod demo;
pub mod eval;
pub mod export;
pub mod inspect;
pub mod lend;
pub mod methods;
pub mod plan;
pub mod report;

pub mod sweep;
