//! The part that `setpoint sweep` and `setpoint compare` share: a list of trials, each trained and evaluated in a process of its own, and their
//! figures collected.
//!
//! A trial is an ordinary run folder. Its settings stand in `align.toml` and `eval-PART.toml`, so that `setpoint align` and `setpoint eval`
//! repeat it; what is finished is marked by `trained.json` and `eval-PART.json`, each written whole or not at all, and is never repeated.
//! Processes of their own give each trial its own peak of memory and let several run at once.

mod figures;
mod held_out;
mod loss;
mod runner;
mod select;
mod space;
mod trial;

pub use figures::{Entry, Figures, Metric, cell, csv, failures, plus_minus};
pub use held_out::{HeldOut, Part, split};
pub use loss::still_falling;
pub use runner::{Crew, TrialJob, open, steps};
pub use select::{Rule, Select};
pub use space::{Point, Space, written};
pub use trial::{Done, Reached, Trained, Trial, blamed, carry_out, with_point};
