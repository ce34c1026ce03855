//! `setpoint demo`: the whole job on a small model and data that come with the program.
//!
//! Each step is one of the commands, with the settings that it writes beside its results: what the demo does can be repeated, changed and
//! looked at command by command.

mod gold;
mod results;

use std::path::{Path, PathBuf};

use setpoint_align::{DpoSettings, Dro, Method, NllSettings, Pairwise};
use setpoint_data::{DatasetConfig, EncodeOptions};
use setpoint_train::{AdamWConfig, MicroBatch, MomentsFormat, Schedule, ScheduleKind, TrainConfig, Warmup};

use self::gold::Gold;
use self::results::{Measured, side_by_side, table, verdict};
use crate::progress;
use setpoint::align::{AlignConfig, audit};
use setpoint::annotate::AnnotateConfig;
use setpoint::config::output::{Target, require_target};
use setpoint::config::sections::ModelSection;
use setpoint::eval::{self, EvalConfig};
use setpoint::generate::SamplingSection;
use setpoint::report::Report;
use setpoint::reward::RewardConfig;
use setpoint::session::{Shared, duration};
use setpoint::sft::SftConfig;
use setpoint::{Failure, Outcome};
use setpoint::{Session, align, annotate, reward, setup, sft};

/// The files that come with the program.
const FILES: [(&str, &[u8]); 9] = [
    ("sft.jsonl", include_bytes!("../../../examples/demo/pretrain/sft.jsonl")),
    ("preferences.jsonl", include_bytes!("../../../examples/demo/preferences.jsonl")),
    ("responses.jsonl", include_bytes!("../../../examples/demo/responses.jsonl")),
    ("eval_prompts.jsonl", include_bytes!("../../../examples/demo/eval_prompts.jsonl")),
    ("eval_preferences.jsonl", include_bytes!("../../../examples/demo/eval_preferences.jsonl")),
    ("tokenizer/tokenizer.json", include_bytes!("../../../examples/demo/tokenizer/tokenizer.json")),
    ("tokenizer/tokenizer_config.json", include_bytes!("../../../examples/demo/tokenizer/tokenizer_config.json")),
    ("tokenizer/generation_config.json", include_bytes!("../../../examples/demo/generation_config.json")),
    ("config.json", include_bytes!("../../../examples/demo/config.json")),
];

/// The facts that the gold judge knows.
const GOLD: &[u8] = include_bytes!("../../../examples/demo/gold.json");

/// Steps of each alignment.
const STEPS: u64 = 160;

/// A shorter memory than usual: the runs have some hundred steps.
const OPTIMIZER: AdamWConfig = AdamWConfig {
    betas: (0.9, 0.98),
    eps: 1e-8,
    weight_decay: 0.0,
    state: MomentsFormat::F32,
    in_backward: false,
    shard: true,
    plus_ratio: 1.0,
    value_ratio: 1.0,
};

/// A training of the demo: a method with its settings.
struct Variant {
    /// Its folder.
    name: &'static str,
    /// The method as tables call it.
    method: &'static str,
    /// The setting that tells it from others of its method.
    setting: &'static str,
    learning_rate: f64,
    align: fn() -> Method,
}

/// DRO and DPO at two values of β each, and maximum likelihood of the best response at two learning rates: what each of them gains is only
/// worth something at the same distance from the SFT model. Learning rates and values of β were chosen on seed 0 (`docs/RESULTS.md`).
const VARIANTS: [Variant; 6] = [
    Variant { name: "dro-0.5", method: "DRO", setting: "β 0.5", learning_rate: DRO_RATE, align: || dro(0.5) },
    Variant { name: "dro-0.25", method: "DRO", setting: "β 0.25", learning_rate: DRO_RATE, align: || dro(0.25) },
    Variant { name: "dpo-3", method: "DPO", setting: "β 3", learning_rate: DPO_RATE, align: || dpo(3.0) },
    Variant { name: "dpo-1", method: "DPO", setting: "β 1", learning_rate: DPO_RATE, align: || dpo(1.0) },
    Variant { name: "nll-slow", method: "NLL", setting: "lr 3e-4", learning_rate: 3e-4, align: nll },
    Variant { name: "nll-fast", method: "NLL", setting: "lr 1e-3", learning_rate: 1e-3, align: nll },
];

const DRO_RATE: f64 = 6e-4;
const DPO_RATE: f64 = 3e-4;

/// The DRO that the demo's last lines recommend to talk to.
const SHOWN: &str = "dro-0.25";

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
        progress::note(format!("[{number}/6] {text}"));
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

    step(4, "audit: where the targets send probability, at β 0.25");
    let report = audit::report(&quiet, &align_config(&sft, &rewards, dro(0.25), DRO_RATE, seed), None)?;
    audit::lines(&report).iter().for_each(progress::say);

    step(5, "align: DRO, DPO on the best and the worst response, and NLL of the best response alone");
    for (i, variant) in VARIANTS.iter().enumerate() {
        progress::note(format!(
            "{} of {}: {} {}, in {}",
            i + 1,
            VARIANTS.len(),
            variant.method,
            variant.setting,
            variant.name
        ));
        let config = align_config(&sft, &rewards, (variant.align)(), variant.learning_rate, seed);
        let run = folder.join(variant.name);
        // The first one shows what all of them print.
        match i {
            0 => align::run(session, &config, &run, false)?,
            _ => without_remarks(|| align::run(&quiet, &config, &run, false))?,
        }
        session.host.take_warnings();
    }

    step(6, "evaluate on held-out prompts: reward, gold quality, KL from the SFT model");
    let gold = Gold::read(GOLD)?;
    // All of them are compared with one SFT model: its answers are sampled and judged once.
    let shared = folder.join("shared");
    std::fs::create_dir_all(&shared).map_err(|e| Failure::run(format!("cannot create {}: {e}", shared.display())))?;
    let quiet = Session { shared: Some(Shared::new(&shared)), ..quiet };
    let mut measured = Vec::new();
    for variant in &VARIANTS {
        let config = eval_config(
            &data,
            &folder.join(variant.name).join("model"),
            &sft.join("model"),
            &judge.join("model"),
            seed,
        );
        let report = eval::report(&quiet, &config)?;
        let result = Measured::of(variant, report, &gold)?;
        let path = folder.join(format!("eval-{}.json", variant.name));
        setup::write_text(&path, &(serde_json::to_string_pretty(&result.written()?)? + "\n"))?;
        measured.push(result);
    }
    progress::say(format!("\n{}", table(&measured)));
    progress::say(format!("\n{}", verdict(&measured)?));
    progress::say(format!("\n{}", side_by_side(&measured)));
    let page = folder.join("report.html");
    let names = VARIANTS.iter().map(|variant| folder.join(variant.name));
    let results = VARIANTS.iter().map(|variant| folder.join(format!("eval-{}.json", variant.name)));
    let paths: Vec<PathBuf> = names.chain(results).collect();
    setup::write_text(&page, &Report::read(&paths)?.html()?)?;
    progress::say(format!(
        "\nwritten to {}: data/, sft/, reward/, rewards.jsonl, a folder and an eval-*.json for\n\
         each training, and report.html, with reward and gold quality against KL; {}\n\
         talk to it: setpoint chat --model {}",
        folder.display(),
        duration(started.elapsed().as_secs_f64()),
        folder.join(SHOWN).join("model").display()
    ));
    Ok(())
}

/// Runs a part whose remarks and warnings would repeat those of another one.
fn without_remarks(part: impl FnOnce() -> Outcome) -> Outcome {
    let level = log::max_level();
    log::set_max_level(log::LevelFilter::Error);
    let done = part();
    log::set_max_level(level);
    done
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

/// Keeps rows within the positions of the demo's model, so that the settings in its run folders hold for runs of the reader's own.
fn within_model(encode: EncodeOptions) -> EncodeOptions {
    EncodeOptions { max_length: Some(256), ..encode }
}

fn sft_config(data: &Path, seed: u64) -> SftConfig {
    SftConfig {
        model: ModelSection {
            from_scratch: Some(data.join("config.json")),
            tokenizer: Some(data.join("tokenizer")),
            ..ModelSection::default()
        },
        data: dataset(data.join("sft.jsonl")),
        encode: within_model(SftConfig::default().encode),
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
        encode: within_model(RewardConfig::default().encode),
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

fn dro(beta: f64) -> Method {
    Method::Dro(Dro { beta: Some(beta), ..Dro::default() })
}

fn dpo(beta: f64) -> Method {
    Method::Dpo(Pairwise { objective: DpoSettings { beta, ..DpoSettings::default() }, ..Pairwise::default() })
}

fn nll() -> Method {
    Method::Nll(NllSettings::default())
}

fn align_config(sft: &Path, rewards: &Path, method: Method, learning_rate: f64, seed: u64) -> AlignConfig {
    AlignConfig {
        model: trained(sft),
        data: dataset(rewards.to_owned()),
        encode: within_model(AlignConfig::default().encode),
        align: method,
        train: TrainConfig {
            max_steps: Some(STEPS),
            batch_size: 16,
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
