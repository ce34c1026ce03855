//! `setpoint demo`: the whole job on a small model and data that come with the program.
//!
//! Each step is one of the commands, with the settings that it writes beside its results: what the demo does can be repeated, changed and
//! looked at command by command.

use std::path::{Path, PathBuf};

use setpoint_align::{Dro, Method, Pairwise};
use setpoint_data::DatasetConfig;
use setpoint_train::{AdamWConfig, MicroBatch, Schedule, ScheduleKind, TrainConfig, Warmup};

use crate::progress;
use setpoint::align::{AlignConfig, audit};
use setpoint::annotate::AnnotateConfig;
use setpoint::config::output::{Target, require_target};
use setpoint::config::sections::ModelSection;
use setpoint::eval::{self, EvalConfig, EvalReport};
use setpoint::generate::SamplingSection;
use setpoint::reward::RewardConfig;
use setpoint::session::{TextTable, duration};
use setpoint::sft::SftConfig;
use setpoint::{Failure, Outcome};
use setpoint::{Session, align, annotate, reward, setup, sft};

/// The files that come with the program.
const FILES: [(&str, &[u8]); 9] = [
    ("sft.jsonl", include_bytes!("../../examples/demo/pretrain/sft.jsonl")),
    ("preferences.jsonl", include_bytes!("../../examples/demo/preferences.jsonl")),
    ("responses.jsonl", include_bytes!("../../examples/demo/responses.jsonl")),
    ("eval_prompts.jsonl", include_bytes!("../../examples/demo/eval_prompts.jsonl")),
    ("eval_preferences.jsonl", include_bytes!("../../examples/demo/eval_preferences.jsonl")),
    ("tokenizer/tokenizer.json", include_bytes!("../../examples/demo/tokenizer/tokenizer.json")),
    ("tokenizer/tokenizer_config.json", include_bytes!("../../examples/demo/tokenizer/tokenizer_config.json")),
    ("tokenizer/generation_config.json", include_bytes!("../../examples/demo/generation_config.json")),
    ("config.json", include_bytes!("../../examples/demo/config.json")),
];

/// A shorter memory than usual: the runs have some hundred steps.
const OPTIMIZER: AdamWConfig =
    AdamWConfig { betas: (0.9, 0.98), eps: 1e-8, weight_decay: 0.0, in_backward: false, plus_ratio: 1.0 };

/// Runs the demo in `folder`.
pub fn run(session: &Session, folder: &Path, seed: u64) -> Outcome {
    carry_out(session, folder, seed).map_err(|failure| match failure {
        Failure::Stopped { .. } => {
            let message =
                format!("stopped; to begin again, remove {} or choose another --run folder", folder.display());
            Failure::Stopped { message }
        }
        other => other,
    })
}

fn carry_out(session: &Session, folder: &Path, seed: u64) -> Outcome {
    let started = std::time::Instant::now();
    require_target(folder, Target::Folder, "--run")?;
    let data = unpack(folder)?;
    let quiet = Session { quiet: true, ..session.clone() };
    let step = |number: usize, text: &str| {
        progress::note("");
        progress::note(format!("[{number}/7] {text}"));
        // Those of an earlier step do not belong to the next run.
        session.host.take_warnings();
    };

    step(1, "SFT: a model of 0.5 million parameters, from random weights");
    let sft = folder.join("sft");
    sft::run(session, &sft_config(&data, seed), &sft, false)?;

    step(2, "reward model: Bradley–Terry on preference pairs, from the SFT model");
    let judge = folder.join("reward");
    reward::run(session, &reward_config(&data, &sft, seed), &judge, false)?;

    step(3, "annotate: a reward for every response");
    let rewards = folder.join("rewards.jsonl");
    annotate::run(session, &annotate_config(&data, &judge, &rewards))?;

    step(4, "audit: what the rewards ask of the policy");
    let dro = align_config(&sft, &rewards, dro_method(), seed);
    let report = audit::report(&quiet, &dro, None)?;
    progress::say(audit::figures(&report));
    audit::beyond_figures(&report).for_each(progress::say);

    step(5, "align by DRO");
    let dro_run = folder.join("dro");
    align::run(session, &dro, &dro_run, false)?;

    step(6, "align by DPO, on the best and the worst response of each prompt");
    let dpo_run = folder.join("dpo");
    align::run(session, &align_config(&sft, &rewards, dpo_method(), seed), &dpo_run, false)?;

    step(7, "evaluate on held-out prompts and pairs");
    let mut reports = Vec::new();
    for (name, run) in [("DRO", &dro_run), ("DPO", &dpo_run)] {
        let config = eval_config(&data, &run.join("model"), &sft.join("model"), &judge.join("model"), seed);
        // The second evaluation reads the same rows: one report of them will do.
        let report = eval::report(if reports.is_empty() { session } else { &quiet }, &config)?;
        let text = serde_json::to_string_pretty(&eval::written(&report)?)? + "\n";
        setup::write_text(&folder.join(format!("eval-{}.json", name.to_lowercase())), &text)?;
        reports.push((name, report));
    }
    progress::say(format!("\n{}", table(&reports)));
    progress::say(format!(
        "\nwritten to {}: data/, sft/, reward/, rewards.jsonl, dro/, dpo/, eval-*.json; {}\n\
         talk to it: setpoint chat --model {}",
        folder.display(),
        duration(started.elapsed().as_secs_f64()),
        dro_run.join("model").display()
    ));
    Ok(())
}

/// Writes the files that come with the program to `folder/data`.
fn unpack(folder: &Path) -> Outcome<PathBuf> {
    let data = folder.join("data");
    if folder.join("sft").exists() {
        return Err(Failure::usage(
            "--run",
            format!("{} holds a demo already: remove it or choose another folder", folder.display()),
        ));
    }
    std::fs::create_dir_all(data.join("tokenizer"))
        .map_err(|e| Failure::run(format!("cannot create {}: {e}", data.display())))?;
    for (name, bytes) in FILES {
        let path = data.join(name);
        std::fs::write(&path, bytes).map_err(|e| Failure::run(format!("cannot write {}: {e}", path.display())))?;
    }
    Ok(data)
}

fn dataset(path: PathBuf) -> DatasetConfig {
    DatasetConfig::new(path.to_string_lossy())
}

fn trained(run: &Path) -> ModelSection {
    ModelSection { path: Some(run.join("model")), ..ModelSection::default() }
}

fn sft_config(data: &Path, seed: u64) -> SftConfig {
    SftConfig {
        model: ModelSection {
            from_scratch: Some(data.join("config.json")),
            tokenizer: Some(data.join("tokenizer")),
            ..ModelSection::default()
        },
        data: dataset(data.join("sft.jsonl")),
        train: TrainConfig {
            max_steps: Some(380),
            batch_size: 32,
            micro_batch: MicroBatch::Tokens(4096),
            learning_rate: 6e-3,
            optimizer: OPTIMIZER,
            schedule: Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Ratio(0.1) },
            seed,
            ..TrainConfig::default()
        },
        ..SftConfig::default()
    }
}

fn reward_config(data: &Path, sft: &Path, seed: u64) -> RewardConfig {
    RewardConfig {
        model: trained(sft),
        data: dataset(data.join("preferences.jsonl")),
        eval_data: Some(dataset(data.join("eval_preferences.jsonl"))),
        train: TrainConfig {
            max_steps: Some(80),
            batch_size: 32,
            micro_batch: MicroBatch::Tokens(4096),
            learning_rate: 2e-3,
            optimizer: OPTIMIZER,
            seed,
            ..RewardConfig::default().train
        },
        ..RewardConfig::default()
    }
}

fn annotate_config(data: &Path, judge: &Path, output: &Path) -> AnnotateConfig {
    AnnotateConfig {
        model: trained(judge),
        data: dataset(data.join("responses.jsonl")),
        output: Some(output.to_owned()),
        ..AnnotateConfig::default()
    }
}

fn dro_method() -> Method {
    Method::Dro(Dro { beta: Some(0.5), ..Dro::default() })
}

fn dpo_method() -> Method {
    Method::Dpo(Pairwise::default())
}

fn align_config(sft: &Path, rewards: &Path, method: Method, seed: u64) -> AlignConfig {
    let learning_rate = match method {
        Method::Dro(_) => 5e-4,
        _ => 3e-4,
    };
    AlignConfig {
        model: trained(sft),
        data: dataset(rewards.to_owned()),
        align: method,
        train: TrainConfig {
            max_steps: Some(40),
            batch_size: 32,
            micro_batch: MicroBatch::Tokens(8192),
            learning_rate,
            optimizer: OPTIMIZER,
            seed,
            ..AlignConfig::default().train
        },
        ..AlignConfig::default()
    }
}

fn eval_config(data: &Path, model: &Path, baseline: &Path, judge: &Path, seed: u64) -> EvalConfig {
    let section = |path: &Path| ModelSection { path: Some(path.to_owned()), ..ModelSection::default() };
    EvalConfig {
        model: section(model),
        baseline: section(baseline),
        reward: section(judge),
        data: dataset(data.join("eval_prompts.jsonl")),
        pairs: Some(dataset(data.join("eval_preferences.jsonl"))),
        generate: SamplingSection {
            samples: Some(4),
            seed,
            max_new_tokens: Some(48),
            temperature: Some(1.0),
            batch_size: Some(64),
            ..SamplingSection::default()
        },
        ..EvalConfig::default()
    }
}

/// The comparison, a row a method.
fn table(reports: &[(&str, EvalReport)]) -> String {
    let mut table = TextTable::framed([
        "held-out prompts",
        "reward of samples",
        "difference to SFT [95 %]",
        "win rate [95 %]",
        "KL to SFT",
        "chosen log-ratio",
        "rejected log-ratio",
        "pair accuracy",
    ]);
    if let Some((_, report)) = reports.first() {
        let reward = format!("{:.2}", report.baseline_reward);
        table.push(["SFT", reward.as_str(), "", "", "", "", "", ""]);
    }
    for (name, report) in reports {
        let (rate, difference) = (&report.win_rate.rate, &report.win_rate.difference);
        let pairs = report.pairs.as_ref();
        table.push([
            (*name).to_owned(),
            format!("{:.2}", report.reward),
            format!("{:+.2} [{:+.2}, {:+.2}]", difference.value, difference.low, difference.high),
            format!("{:.2} [{:.2}, {:.2}]", rate.value, rate.low, rate.high),
            format!("{:.2} ± {:.2}", report.kl.k1.mean, report.kl.k1.std_error),
            pairs.map_or_else(String::new, |p| format!("{:+.2}", p.chosen_log_ratio.value)),
            pairs.map_or_else(String::new, |p| format!("{:+.2}", p.rejected_log_ratio.value)),
            pairs.map_or_else(String::new, |p| format!("{:.3}", p.accuracy.accuracy.value)),
        ]);
    }
    progress::drawn(&table)
}
