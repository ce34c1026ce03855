//! Property tests of the objectives, on every compiled device and in f32 and f64.

mod accumulation;
mod dro;
mod goldens;
mod pairwise;
mod platform;
mod stable;
mod tabular;
