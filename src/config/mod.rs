//! Configuration of the jobs: how it is read ([`load`]) and the sections that several jobs share ([`sections`]).

pub mod load;
mod ranges;
pub mod sections;
mod table;

pub use load::{Config, Given, Problem, Problems};
