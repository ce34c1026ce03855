//! The objectives: one file, one pure function each.
//!
//! Each takes the few numbers per sequence that it needs, returns a named struct with unreduced
//! losses, and holds no state. They run on any device and float dtype, with a graph where the
//! log-probs have one. [`crate::weighted_sum`] reduces.

pub mod cal_dpo;
pub mod dpo;
pub mod dro;
pub mod ipo;
pub mod orpo;
pub mod rpo;
pub mod simpo;
pub mod slic_hf;
