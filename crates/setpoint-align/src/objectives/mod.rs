//! The objectives: one file each (or one per family), and the one list of them.
//!
//! A file holds the settings with their defaults and ranges, what the objective needs, and its formula as a pure function
//! on the few numbers per sequence that it looks at. The function returns unreduced losses, holds no state, and runs on any
//! device and float dtype, with a graph if the log-probs have one. [`crate::weighted_sum`] reduces.

use crate::list::objectives;
use crate::method::{Mix, Pairwise, PairwiseMethod, Training, Weighted};
use crate::objective::{About, TrainsOn};
use crate::online::{GrpoSettings, PpoSettings, ReinforcePpSettings, RlooSettings};
use crate::pairwise::WeightedObjective;
use crate::settings::Settings;

objectives! {
    prompts {
        dro: Dro(Dro) = "dro" or "rao";
    }
    pairs {
        dpo: Dpo(DpoSettings) = "dpo";
        ipo: Ipo(IpoSettings) = "ipo";
        orpo: Orpo(OrpoSettings) = "orpo";
        simpo: Simpo(SimpoSettings) = "simpo";
        rpo: Rpo(RpoSettings) = "rpo";
        cal_dpo: CalDpo(CalDpoSettings) = "cal_dpo";
        slic_hf: SlicHf(SlicHfSettings) = "slic_hf";
        robust: Robust(RobustSettings) = "robust";
        hinge: Hinge(HingeSettings) = "hinge";
        exo_pair: ExoPair(ExoPairSettings) = "exo_pair";
        nca_pair: NcaPair(NcaPairSettings) = "nca_pair";
        bco_pair: BcoPair(BcoPairSettings) = "bco_pair";
        sppo_hard: SppoHard(SppoHardSettings) = "sppo_hard";
        apo: ApoZero(ApoZero) = "apo_zero", ApoDown(ApoDown) = "apo_down";
        aot: Aot(Aot) = "aot", AotUnpaired(AotUnpaired) = "aot_unpaired";
        discopop: Discopop(DiscopopSettings) = "discopop";
        sigmoid_norm: SigmoidNorm(SigmoidNormSettings) = "sigmoid_norm";
        dpop: Dpop(DpopSettings) = "dpop";
        dpo_shift: DpoShift(DpoShiftSettings) = "dpo_shift";
        beta_dpo: BetaDpo(BetaDpoSettings) = "beta_dpo";
        nemotron: RpoSq(RpoSq) = "rpo_sq", RpoBwdKl(RpoBwdKl) = "rpo_bwd_kl", RpoFwdKl(RpoFwdKl) = "rpo_fwd_kl";
    }
    rows {
        kto: Kto(KtoSettings) = "kto";
        qrpo: Qrpo(QrpoSettings) = "qrpo";
    }
    rows_with_a_value {
        dro_v: DroV(DroVSettings) = "dro_v";
    }
    best_responses {
        nll: Nll(NllSettings) = "nll";
    }
    sampled {
        Ppo(PpoSettings) = "ppo" or "rlhf";
        Rloo(RlooSettings) = "rloo";
        Grpo(GrpoSettings) = "grpo";
        ReinforcePp(ReinforcePpSettings) = "reinforce_pp";
    }
}
