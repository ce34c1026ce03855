//! `setpoint align`: trains a policy so that each response gets the probability its reward implies (DRO), or by DPO.
//!
//! Everything that can be wrong with the input is found before the run folder is made and any weights are read. The reference model is
//! loaded once, gives two numbers per response, and leaves memory before the policy trains.

mod prepare;
mod settings;

use std::collections::HashSet;
use std::path::Path;

use setpoint_align::{DisplacementDetector, DisplacementSettings, DpoSettings, ScoredResponse, prompt_log_mass};
use setpoint_transformer::CausalLm;

use super::plan::MemoryPlan;
use super::training::{Companions, finished, open_run, sampler, train};
use super::{Session, setup};
use crate::failure::Outcome;
use crate::progress;
use crate::tasks::ScoredPrompt;
use crate::tasks::dpo::DpoTask;
use crate::tasks::dro::DroTask;

pub use prepare::{prepare, sequences, with_reference};
pub use settings::{AlignConfig, DpoSection, DroSection, Method, Update};

/// Trains, and leaves the model in `<folder>/model`.
pub fn run(session: &Session, config: &AlignConfig, folder: &Path, resume: bool) -> Outcome {
    let prepared = prepare(session, config)?;
    let run = open_run(folder, resume, config, &session.device)?;
    let reference = setup::reference_path(config.reference.as_deref(), &config.model)?;
    let (prompts, eval) = with_reference(session, config, &prepared, reference, Some(folder))?;

    let mut settings = config.train.clone();
    settings.fingerprint = prepared.fingerprint(config, reference)?;
    let device = session.device.clone().autodiff();
    let mut model = setup::policy(&config.model, &prepared.model_config, settings.seed, &device)?;
    model.model.recompute = MemoryPlan::of(&prepared.model_config, &prepared.report, &settings).recompute;
    let chosen_tokens = mean_chosen_tokens(&prompts);
    let shown = eval.as_ref().unwrap_or(&prompts).iter().map(|prompt| {
        let first = &prompt.sequences[0];
        first.ids[..first.prompt_len].to_vec()
    });
    let sampler = sampler(&config.samples, &config.model, &prepared.model_config, &prepared.encoder, shown)?;
    let detector = |expected: f64| {
        DisplacementDetector::new(DisplacementSettings { expected, ..DisplacementSettings::default() }).ok()
    };
    let save = |model: CausalLm| -> Outcome {
        let dir = run.join("model");
        model.save(&prepared.model_config, &dir, &setup::save_options(&config.model, &prepared.model_config)?)?;
        prepared.encoder.save(&dir)?;
        progress::note(format!("the aligned model: {}", dir.display()));
        Ok(())
    };
    match &config.align {
        Method::Dro(dro) => {
            let log_z0 = prepared.log_z0(dro)?;
            if dro.update == Update::PerPrompt {
                settings.batch_size = 1;
            }
            if !session.quiet {
                progress::note(format!(
                    "DRO: beta {}, log_z0 {log_z0:.2} nats, break-even reward {:.3}",
                    dro.beta,
                    setpoint_align::break_even_reward(log_z0, dro.beta)
                ));
            }
            let task = dro_task(dro, log_z0, prompts);
            let eval = eval.map(|prompts| dro_task(dro, log_z0, prompts));
            let expected = expected_shift(&task);
            let companions =
                Companions { eval: eval.as_ref(), displacement: detector(expected), chosen_tokens, sampler };
            save(finished(train(session, "DRO", &run, &task, model, &settings, companions)?))
        }
        Method::Dpo(dpo) => {
            let task = dpo_task(dpo, prompts);
            let eval = eval.map(|prompts| dpo_task(dpo, prompts));
            let companions = Companions { eval: eval.as_ref(), displacement: detector(0.0), chosen_tokens, sampler };
            save(finished(train(session, "DPO", &run, &task, model, &settings, companions)?))
        }
    }
}

/// Checks everything and says what a run would do.
pub fn dry_run(session: &Session, config: &AlignConfig) -> Outcome {
    let prepared = prepare(session, config)?;
    let examples = prepared.train.prompts.len();
    let mut settings = config.train.clone();
    if let Method::Dro(dro) = &config.align {
        progress::note(format!("log_z0 = {:.3} nats", prepared.log_z0(dro)?));
        if dro.update == Update::PerPrompt {
            settings.batch_size = 1;
        }
    }
    super::plan::describe(config, &prepared.model_config, &prepared.report, &settings, examples)
}

fn dro_task(dro: &DroSection, log_z0: f64, prompts: Vec<ScoredPrompt>) -> DroTask {
    let log_mass = prompts
        .iter()
        .map(|prompt| {
            // A response that occurs twice counts once.
            let mut seen = HashSet::new();
            let distinct: Vec<ScoredResponse> = (0..prompt.sequences.len())
                .filter(|&j| seen.insert(&prompt.sequences[j].ids))
                .map(|j| ScoredResponse { ref_logp: prompt.ref_logps[j], reward: prompt.rewards[j] })
                .collect();
            prompt_log_mass(&distinct, dro.beta)
        })
        .collect();
    DroTask { prompts, settings: dro.objective(log_z0), aggregate: dro.aggregate, log_mass }
}

fn dpo_task(dpo: &DpoSection, prompts: Vec<ScoredPrompt>) -> DpoTask {
    let pairs = prompts.iter().enumerate().filter_map(|(i, prompt)| prompt.pair.map(|(w, l)| (i, w, l))).collect();
    DpoTask { prompts, pairs, settings: DpoSettings { beta: dpo.beta, label_smoothing: dpo.label_smoothing } }
}

/// Where DRO's targets put the chosen responses on average, nats; below it the detector warns.
fn expected_shift(task: &DroTask) -> f64 {
    let targets: Vec<f64> = task
        .prompts
        .iter()
        .flat_map(|prompt| {
            prompt.rewards.iter().zip(&prompt.roles).filter(|(_, role)| **role == Some(setpoint_align::Role::Chosen))
        })
        .map(|(reward, _)| reward / task.settings.beta - task.settings.log_z0)
        .collect();
    if targets.is_empty() { 0.0 } else { targets.iter().sum::<f64>() / targets.len() as f64 }
}

fn mean_chosen_tokens(prompts: &[ScoredPrompt]) -> f64 {
    let lengths: Vec<usize> = prompts
        .iter()
        .flat_map(|p| p.sequences.iter().zip(&p.roles))
        .filter(|(_, role)| **role == Some(setpoint_align::Role::Chosen))
        .map(|(sequence, _)| sequence.ids.len() - sequence.prompt_len)
        .collect();
    if lengths.is_empty() { 1.0 } else { lengths.iter().sum::<usize>() as f64 / lengths.len() as f64 }
}
