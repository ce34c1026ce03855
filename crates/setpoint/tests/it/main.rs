//! Integration tests of the library.

mod golden;
mod golden_methods;
mod golden_rewarded;
mod on_disk;
mod own_rewards;
mod progress;
