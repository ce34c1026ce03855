//! Scores against published results, and the judge's client against a server that misbehaves.

mod arena_hard;
mod hub_server;
mod ifeval;
mod judge_client;
mod judged;
mod mt_bench;
mod reward_bench;
mod server;
mod tasks;
#[path = "../../../../tests/common/test_data.rs"]
mod test_data;
