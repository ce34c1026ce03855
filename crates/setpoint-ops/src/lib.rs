//! Fused operations with hand-written backward passes: what a transformer spends its time on beside matrix products.
//!
//! Each operation exists once as a composition of Burn's primitives, generic over `B: Backend` (`composed`), and, where a profile says that
//! it pays, again as a kernel: for the CPU backend flex (`flex`), multi-threaded and vectorised, and for GPUs (`cube`). All have the same
//! backward pass in formulas, written by hand, so that what is kept for it is chosen and not what a chain of primitives happens to keep.
//!
//! The functions take and return ordinary tensors on any device, with or without autodiff. Tokens of a batch stand one after the other,
//! `[t, ..]`, without padding; a [`Packing`] says which of them belong together.

// The extension macro names a backend that Burn has deprecated; it is the second opinion of the property tests as long as it is there.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

mod adamw;
mod backend;
mod blockwise;
mod composed;
#[cfg(feature = "cube")]
mod cube;
mod differentiate;
mod draw;
mod dropout;
mod exp;
#[cfg(feature = "flex")]
mod flex;
mod functions;
#[cfg(all(feature = "cube", feature = "fusion"))]
mod fused;
mod generation;
mod heads;
#[cfg(feature = "cube")]
mod launches;
mod nf4;
mod packing;

pub use adamw::{AdamWStep, adamw, add_rows, sum_of_squares};
pub use blockwise::{BLOCK, Blockwise, CodeValues};
#[cfg(feature = "cuda-sources")]
pub use cube::{CudaKernel, CudaSource, cuda_sources};
#[cfg(feature = "cube")]
pub use cube::{DISABLED_KERNELS, check_disabled_kernels};
pub use draw::{Draw, draw};
pub use dropout::{DropoutMask, dropout, extend_key};
pub use functions::{
    Logits, LowRank, RowLengths, TokenScores, attention, geglu, linear, linear_lora, rescale, rms_norm, rotate,
    row_norms, swiglu, token_logps,
};
pub use generation::{Likeliest, Span, Spans, cache_copy, cache_write, cached_attention, likeliest};
pub use heads::Heads;
#[cfg(feature = "cube")]
pub use launches::count_launches;
pub use nf4::{Nf4, Nf4Double, Nf4Host, Nf4Layout, linear_lora_nf4, linear_nf4};
pub use packing::{Packing, Segment};
