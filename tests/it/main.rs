//! Integration tests of the `setpoint` command and of what holds across its crates. One binary, a module per subject.

#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod architecture;
mod bad_input;
mod compare;
mod devices;
mod fixture;
mod jobs;
mod methods;
mod models;
mod resume;
mod sweep;
