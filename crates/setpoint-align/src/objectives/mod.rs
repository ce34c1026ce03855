//! The objectives: one file, one pure function each.
//!
//! Each takes the few numbers per sequence that it needs, returns a named struct with unreduced
//! losses, and holds no state. They run on any device and float dtype, with a graph where the
//! log-probs have one. [`crate::weighted_sum`] reduces.

pub mod dpo;
pub mod dro;
