//! Integration tests of the `setpoint` command and of what holds across its crates. One binary, a module per subject.

#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod adapters;
mod all_families;
mod architecture;
mod arena_hard;
mod audit;
mod bad_input;
mod compare;
mod convert;
mod demo;
mod devices;
mod dro_defaults;
mod dro_settings;
mod duplicates;
// The judge's client is tested against the same server.
#[allow(dead_code, reason = "not every mishap is tried here")]
#[path = "../../crates/setpoint-eval/tests/it/server.rs"]
mod endpoint;
mod eval;
mod eval_tasks;
mod export;
mod extremes;
mod first_hour;
mod fixture;
mod frontier;
mod guides;
mod hardware;
#[path = "../../crates/setpoint-eval/tests/it/hub_server.rs"]
mod hub_server;
mod ifeval;
mod jobs;
mod judges;
mod large_files;
mod layers;
mod links;
mod max_kl;
mod methods;
mod mix;
mod model_hub;
mod models;
mod nll;
mod odd_files;
mod old_runs;
mod outputs;
mod plan;
mod positions;
mod ppo;
mod publishing;
mod push;
mod readme;
mod reference_models;
mod reference_samples;
mod remedies;
#[cfg(feature = "remote")]
mod remote;
mod report;
mod responses;
mod resume;
mod resume_folder;
mod reward_bench;
mod reward_columns;
mod reward_command;
mod reward_ends;
mod round_checks;
mod round_faults;
mod rounds;
mod rows;
mod same_run;
mod saving;
mod select;
// The engine is tested with the same task.
#[path = "../../crates/setpoint-train/tests/common/seeded.rs"]
mod seeded;
mod serve;
mod serve_limits;
mod servers;
mod serving;
mod settings;
mod settings_page;
mod settings_printed;
mod settings_schema;
mod several_devices;
mod stopping;
mod sweep;
mod template_settings;
mod terminal;
#[path = "../common/test_data.rs"]
mod test_data;
mod trackers;
#[cfg(feature = "remote")]
mod traffic;
#[path = "../common/watchdog.rs"]
mod watchdog;
