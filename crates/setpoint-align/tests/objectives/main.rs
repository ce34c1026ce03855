//! Property tests of the objectives, on every compiled device and in f32 and f64.

mod accumulation;
mod dro;
mod dro_settings;
mod further;
mod goldens;
mod listed;
mod online;
mod online_bandit;
mod online_goldens;
mod pair_goldens;
mod pairwise;
mod platform;
mod rows;
mod stable;
mod tabular;
