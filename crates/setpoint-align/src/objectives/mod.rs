//! The objectives: one pure function each, in a file named for it or for its family.
//!
//! Each takes the few numbers per sequence that it needs, returns a named struct with unreduced
//! losses, and holds no state. They run on any device and float dtype, with a graph where the
//! log-probs have one. [`crate::weighted_sum`] reduces.

pub mod aot;
pub mod apo;
pub mod bco_pair;
pub mod cal_dpo;
pub mod discopop;
pub mod dpo;
pub mod dpo_shift;
pub mod dpop;
pub mod dro;
pub mod dro_v;
pub mod exo_pair;
pub mod hinge;
pub mod ipo;
pub mod kto;
pub mod nca_pair;
pub mod nemotron;
pub mod nll;
pub mod orpo;
pub mod qrpo;
pub mod robust;
pub mod rpo;
pub mod sigmoid_norm;
pub mod simpo;
pub mod slic_hf;
pub mod sppo_hard;
