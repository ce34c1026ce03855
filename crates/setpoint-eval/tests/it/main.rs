//! Scores against published results, and the judge's client against a server that misbehaves.

mod alpaca;
mod common;
mod hub_server;
mod judge_client;
mod judged;
mod mt_bench;
mod server;
mod tasks;
