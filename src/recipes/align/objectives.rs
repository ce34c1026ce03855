//! The objectives of `setpoint-align`, each with its settings, in the one form that the pairwise task takes.

use std::path::PathBuf;

use setpoint_align as align;
use setpoint_align::{Error, OrpoSettings, PairLoss, RpoSettings};

use super::settings::{NllOn, OrpoSection, RpoSection};
use crate::tasks::pair_objective::{PairBatch, PairObjective, PairOutput};

/// An objective whose settings are those of `setpoint-align`.
macro_rules! objectives {
    ($($name:ident($settings:ident) = |$batch:ident, $by:ident| $losses:expr;)*) => {
        $(
            #[doc = concat!("[`align::", stringify!($settings), "`] at work.")]
            #[derive(Debug)]
            pub struct $name(pub align::$settings);

            impl PairObjective for $name {
                fn validate(&self) -> Result<(), Error> {
                    self.0.validate()
                }

                fn losses(&self, $batch: &PairBatch) -> PairOutput {
                    let $by = &self.0;
                    let loss: PairLoss = $losses;
                    loss.into()
                }
            }
        )*
    };
}

objectives! {
    Dpo(DpoSettings) = |batch, by| align::dpo(batch.log_ratios(), by);
    Ipo(IpoSettings) = |batch, by| align::ipo(batch.log_ratios(), batch.tokens.clone(), by);
    Simpo(SimpoSettings) = |batch, by| align::simpo(batch.mean_logps(), by);
    CalDpo(CalDpoSettings) = |batch, by| align::cal_dpo(batch.log_ratios(), by);
    SlicHf(SlicHfSettings) = |batch, by| align::slic_hf(batch.logps.clone(), by);
    Robust(RobustSettings) = |batch, by| align::robust(batch.log_ratios(), by);
    Hinge(HingeSettings) = |batch, by| align::hinge(batch.log_ratios(), by);
    ExoPair(ExoPairSettings) = |batch, by| align::exo_pair(batch.log_ratios(), by);
    NcaPair(NcaPairSettings) = |batch, by| align::nca_pair(batch.log_ratios(), by);
    BcoPair(BcoPairSettings) = |batch, by| align::bco_pair(batch.log_ratios(), by);
    SppoHard(SppoHardSettings) = |batch, by| align::sppo_hard(batch.log_ratios(), by);
    ApoZero(ApoSettings) = |batch, by| align::apo_zero(batch.log_ratios(), by);
    ApoDown(ApoSettings) = |batch, by| align::apo_down(batch.log_ratios(), by);
    Discopop(DiscopopSettings) = |batch, by| align::discopop(batch.log_ratios(), by);
    SigmoidNorm(SigmoidNormSettings) = |batch, by| align::sigmoid_norm(batch.log_ratios(), batch.tokens.clone(), by);
    Dpop(DpopSettings) = |batch, by| align::dpop(batch.log_ratios(), by);
    RpoSq(NemotronSettings) = |batch, by| align::rpo_sq(batch.log_ratios(), batch.rewards[0].clone(), by);
    RpoBwdKl(NemotronSettings) = |batch, by| align::rpo_bwd_kl(batch.log_ratios(), batch.rewards[0].clone(), by);
    RpoFwdKl(NemotronSettings) = |batch, by| align::rpo_fwd_kl(batch.log_ratios(), batch.rewards[0].clone(), by);
}

/// DPO-Shift: its factor may follow the training.
#[derive(Debug)]
pub struct DpoShift(pub align::DpoShiftSettings);

impl PairObjective for DpoShift {
    fn validate(&self) -> Result<(), Error> {
        self.0.validate()
    }

    fn losses(&self, batch: &PairBatch) -> PairOutput {
        let factor = self.0.shift.at(batch.progress);
        let log_ratios = batch.log_ratios();
        let factors = log_ratios.chosen.clone().inner().zeros_like().add_scalar(factor);
        let loss = align::dpo_shift(log_ratios, batch.progress, &self.0);
        PairOutput { loss, metrics: vec![("dpo_shift/factor", factors)] }
    }
}

/// AOT on margins: needs the ranks of the whole batch.
#[derive(Debug)]
pub struct Aot(pub align::AotSettings);

impl PairObjective for Aot {
    fn validate(&self) -> Result<(), Error> {
        self.0.validate()
    }

    fn losses(&self, batch: &PairBatch) -> PairOutput {
        let ref_margins = batch.ranks().ref_margins.clone();
        align::aot(batch.logps.clone(), batch.ref_logps.clone(), ref_margins, &self.0).into()
    }

    fn ranked(&self) -> bool {
        true
    }
}

/// AOT on sides: needs the ranks of the whole batch.
#[derive(Debug)]
pub struct AotUnpaired(pub align::AotSettings);

impl PairObjective for AotUnpaired {
    fn validate(&self) -> Result<(), Error> {
        self.0.validate()
    }

    fn losses(&self, batch: &PairBatch) -> PairOutput {
        align::aot_unpaired(batch.log_ratios(), batch.ranks().log_ratios.clone(), &self.0).into()
    }

    fn ranked(&self) -> bool {
        true
    }
}

/// ORPO: has an NLL of its own.
#[derive(Debug)]
pub struct Orpo(pub OrpoSection);

impl PairObjective for Orpo {
    fn validate(&self) -> Result<(), Error> {
        OrpoSettings { lambda: self.0.lambda }.validate()
    }

    fn losses(&self, batch: &PairBatch) -> PairOutput {
        let nll = match self.0.nll_on {
            NllOn::PromptAndResponse => batch.whole_nll.clone(),
            NllOn::Response => batch.response_nll.clone(),
        };
        let settings = OrpoSettings { lambda: self.0.lambda };
        let output = align::orpo(batch.mean_logps(), nll.clone(), &settings);
        let log_odds = output.log_odds_ratios;
        PairOutput {
            loss: PairLoss { losses: output.losses, rewards: output.rewards },
            metrics: vec![
                // trl's names: the ratio is the log-sigmoid of what it calls chosen.
                ("log_odds_ratio", align::log_sigmoid(log_odds.clone())),
                ("log_odds_chosen", log_odds),
                ("nll_loss", nll.inner()),
            ],
        }
    }

    fn prompt_nll(&self) -> bool {
        self.0.nll_on == NllOn::PromptAndResponse
    }
}

/// Reward distillation: may have several reward models.
#[derive(Debug)]
pub struct Rpo(pub RpoSection);

impl Rpo {
    fn settings(&self) -> RpoSettings {
        RpoSettings { beta: self.0.beta, pessimism: self.0.pessimism }
    }
}

impl PairObjective for Rpo {
    fn validate(&self) -> Result<(), Error> {
        self.settings().validate()
    }

    fn losses(&self, batch: &PairBatch) -> PairOutput {
        // Held-out rows have the rewards of the first model alone.
        let models = batch.rewards.len().min(1 + self.0.ensemble.len());
        align::rpo(batch.log_ratios(), &batch.rewards[..models], &self.settings()).into()
    }

    fn reward_files(&self) -> &[PathBuf] {
        &self.0.ensemble
    }
}
