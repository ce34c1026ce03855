//! Configuration of the jobs: how it is read ([`load`]), the sections that several jobs share ([`sections`]), and whether its results
//! can be written ([`output`]).

pub(crate) mod annotated;
mod collect;
mod explain;
pub(crate) mod flat;
mod foreign;
pub mod load;
mod names;
pub mod output;
mod positions;
mod problems;
mod ranges;
pub mod schema;
pub mod sections;
mod sources;
mod spelling;
mod suggest;
mod table;

pub use crate::failure::Problem;
pub use setpoint_data::DatasetConfig;

pub use foreign::{Carry, FOREIGN, Foreign, Here, Rule, Tool, foreign};
pub use load::{Config, Given, from_toml};
pub use names::{has_setting, settings_named};
pub use problems::Problems;
pub(crate) use problems::without_secret;
pub use spelling::respell;
pub use suggest::nearest;
