//! Scores against published results, and the judge's client against a server that misbehaves.

mod alpaca;
mod common;
