//! Configuration of the jobs: how it is read ([`load`]), the sections that several jobs share ([`sections`]), and whether its results
//! can be written ([`output`]).

mod explain;
pub(crate) mod flat;
pub mod load;
mod names;
pub mod output;
mod positions;
mod ranges;
pub mod sections;
mod suggest;
mod table;

pub use crate::failure::Problem;
pub use setpoint_data::DatasetConfig;

pub use load::{Config, Given, Problems, from_toml};
pub use names::settings_named;
pub use suggest::nearest;
