//! The methods: the one list of them, from which settings, messages, `setpoint methods` and the docs are made.

use serde::{Deserialize, Serialize};
use setpoint_align::{
    AotSettings, ApoSettings, BcoPairSettings, CalDpoSettings, DiscopopSettings, DpoSettings, DpoShiftSettings,
    DpopSettings, DroVSettings, ExoPairSettings, HingeSettings, IpoSettings, NcaPairSettings, NemotronSettings,
    PromptTerm, QrpoSettings, RobustSettings, SigmoidNormSettings, SimpoSettings, SlicHfSettings, SppoHardSettings,
};

use super::dro::DroSection;
use super::pairwise::{MixSection, OrpoSection, Pairwise, PairwiseMethod, RpoSection, Weighted};
use super::rows::KtoSection;
use crate::config::Problems;
use crate::recipes::align::objectives as by;
use crate::tasks::pair_objective::{PairObjective, WeightedObjective};

/// What a method is and what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct About {
    /// Its name in a config file.
    pub name: &'static str,
    /// What it is called.
    pub title: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// What it is trained on.
    pub trains_on: TrainsOn,
    /// Whether there is a reference model.
    pub reference: bool,
    /// Whether rewards are needed; where not, pairs and labels may still be formed from them.
    pub rewards: bool,
}

/// What a method is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainsOn {
    /// All responses of a prompt at once.
    Responses,
    /// Pairs of responses.
    Pairs,
    /// Single responses.
    Rows,
}

const REFERENCE: bool = true;
const REWARDS: bool = true;

/// Makes the enums and the list from one table of the pairwise methods.
macro_rules! methods {
    ($($variant:ident $name:literal $settings:ty as $objective:path, $reference:expr, $rewards:expr, $title:literal, $source:literal;)*) => {
        /// `[align]`: the method and its settings.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "method", rename_all = "snake_case")]
        pub enum Method {
            /// Direct Reward Optimization.
            #[serde(alias = "rao")]
            Dro(DroSection),
            $(#[doc = $title] #[serde(rename = $name)] $variant(Pairwise<$settings>),)*
            /// Kahneman–Tversky Optimization.
            Kto(KtoSection),
            /// Quantile Reward Policy Optimization.
            Qrpo(QrpoSettings),
            /// Richemond et al.'s Direct Reward Optimisation, with a learned value.
            DroV(DroVSettings),
            /// Several pairwise losses with weights.
            Mix(MixSection),
        }

        /// One loss of `method = "mix"`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "method", rename_all = "snake_case")]
        pub enum MixedLoss {
            $(#[doc = $title] #[serde(rename = $name)] $variant(Weighted<$settings>),)*
        }

        /// Every method.
        pub const METHODS: &[About] = &[
            About {
                name: "dro",
                title: "Direct Reward Optimization",
                source: "the DRO paper (later RAO), Algorithm 1",
                trains_on: TrainsOn::Responses,
                reference: true,
                rewards: true,
            },
            $(About {
                name: $name,
                title: $title,
                source: $source,
                trains_on: TrainsOn::Pairs,
                reference: $reference,
                rewards: $rewards,
            },)*
            About {
                name: "kto",
                title: "Kahneman–Tversky Optimization",
                source: "Ethayarajh et al. 2024",
                trains_on: TrainsOn::Rows,
                reference: true,
                rewards: false,
            },
            About {
                name: "qrpo",
                title: "Quantile Reward Policy Optimization",
                source: "Matrenok et al. 2025",
                trains_on: TrainsOn::Rows,
                reference: true,
                rewards: true,
            },
            About {
                name: "dro_v",
                title: "Direct Reward Optimisation with a learned value, another algorithm of the same name",
                source: "Richemond et al. 2024",
                trains_on: TrainsOn::Rows,
                reference: true,
                rewards: true,
            },
            About {
                name: "mix",
                title: "several pairwise losses with weights",
                source: "as trl's lists of `loss_type`",
                trains_on: TrainsOn::Pairs,
                reference: true,
                rewards: false,
            },
        ];

        impl Method {
            /// The method of a name, with its defaults.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    "dro" | "rao" => Some(Self::Dro(DroSection::default())),
                    $($name => Some(Self::$variant(Pairwise::default())),)*
                    "kto" => Some(Self::Kto(KtoSection::default())),
                    "qrpo" => Some(Self::Qrpo(QrpoSettings::default())),
                    "dro_v" => Some(Self::DroV(DroVSettings::default())),
                    "mix" => Some(Self::Mix(MixSection::default())),
                    _ => None,
                }
            }

            /// Its name in a config file.
            pub fn name(&self) -> &'static str {
                match self {
                    Self::Dro(_) => "dro",
                    $(Self::$variant(_) => $name,)*
                    Self::Kto(_) => "kto",
                    Self::Qrpo(_) => "qrpo",
                    Self::DroV(_) => "dro_v",
                    Self::Mix(_) => "mix",
                }
            }

            /// The method as its task needs it; `None` for those that do not train on pairs.
            pub fn pairwise(&self) -> Option<PairwiseMethod> {
                match self {
                    Self::Dro(_) | Self::Kto(_) | Self::Qrpo(_) | Self::DroV(_) => None,
                    $(Self::$variant(section) => {
                        let objective: Box<dyn PairObjective> = Box::new($objective(section.objective.clone()));
                        Some(PairwiseMethod {
                            ensemble: objective.reward_files().to_vec(),
                            objectives: vec![WeightedObjective { name: $name, weight: 1.0, objective }],
                            pairs: section.pairs,
                            nll_weight: section.nll_weight,
                        })
                    })*
                    Self::Mix(mix) => {
                        let objectives: Vec<WeightedObjective> = mix.losses.iter().map(MixedLoss::objective).collect();
                        Some(PairwiseMethod {
                            ensemble: objectives.iter().flat_map(|o| o.objective.reward_files().to_vec()).collect(),
                            objectives,
                            pairs: mix.pairs,
                            nll_weight: mix.nll_weight,
                        })
                    }
                }
            }
        }

        impl MixedLoss {
            fn objective(&self) -> WeightedObjective {
                match self {
                    $(Self::$variant(part) => WeightedObjective {
                        name: $name,
                        weight: part.weight,
                        objective: Box::new($objective(part.objective.clone())),
                    },)*
                }
            }
        }
    };
}

methods! {
    Dpo "dpo" DpoSettings as by::Dpo, REFERENCE, !REWARDS, "Direct Preference Optimization, with label smoothing cDPO", "Rafailov et al. 2023; Mitchell 2023";
    Ipo "ipo" IpoSettings as by::Ipo, REFERENCE, !REWARDS, "Identity Preference Optimization", "Azar et al. 2023";
    Orpo "orpo" OrpoSection as by::Orpo, !REFERENCE, !REWARDS, "Odds Ratio Preference Optimization", "Hong et al. 2024";
    Simpo "simpo" SimpoSettings as by::Simpo, !REFERENCE, !REWARDS, "Simple Preference Optimization", "Meng et al. 2024";
    Rpo "rpo" RpoSection as by::Rpo, REFERENCE, REWARDS, "reward-model distillation, with an ensemble and pessimistic", "Fisch et al. 2024";
    CalDpo "cal_dpo" CalDpoSettings as by::CalDpo, REFERENCE, !REWARDS, "Calibrated DPO", "Xiao et al. 2024";
    SlicHf "slic_hf" SlicHfSettings as by::SlicHf, !REFERENCE, !REWARDS, "Sequence Likelihood Calibration", "Zhao et al. 2023";
    Robust "robust" RobustSettings as by::Robust, REFERENCE, !REWARDS, "provably robust DPO, for flipped labels", "Chowdhury et al. 2024";
    Hinge "hinge" HingeSettings as by::Hinge, REFERENCE, !REWARDS, "RSO's hinge", "Liu et al. 2023";
    ExoPair "exo_pair" ExoPairSettings as by::ExoPair, REFERENCE, !REWARDS, "Efficient Exact Optimization", "Ji et al. 2024";
    NcaPair "nca_pair" NcaPairSettings as by::NcaPair, REFERENCE, !REWARDS, "Noise Contrastive Alignment", "Chen et al. 2024";
    BcoPair "bco_pair" BcoPairSettings as by::BcoPair, REFERENCE, !REWARDS, "Binary Classifier Optimization", "Jung et al. 2024";
    SppoHard "sppo_hard" SppoHardSettings as by::SppoHard, REFERENCE, !REWARDS, "Self-Play Preference Optimization, hard labels", "Wu et al. 2024";
    ApoZero "apo_zero" ApoSettings as by::ApoZero, REFERENCE, !REWARDS, "Anchored Preference Optimization: chosen up, rejected down", "D'Oosterlinck et al. 2024";
    ApoDown "apo_down" ApoSettings as by::ApoDown, REFERENCE, !REWARDS, "Anchored Preference Optimization: both down, rejected more", "D'Oosterlinck et al. 2024";
    Aot "aot" AotSettings as by::Aot, REFERENCE, !REWARDS, "Alignment via Optimal Transport, of margins", "Melnyk et al. 2024";
    AotUnpaired "aot_unpaired" AotSettings as by::AotUnpaired, REFERENCE, !REWARDS, "Alignment via Optimal Transport, of sides", "Melnyk et al. 2024";
    Discopop "discopop" DiscopopSettings as by::Discopop, REFERENCE, !REWARDS, "the discovered log-ratio modulated loss", "Lu et al. 2024";
    SigmoidNorm "sigmoid_norm" SigmoidNormSettings as by::SigmoidNorm, REFERENCE, !REWARDS, "length-normalised DPO", "Lambert et al. 2024 (Tülu 3)";
    Dpop "dpop" DpopSettings as by::Dpop, REFERENCE, !REWARDS, "DPO-Positive", "Pal et al. 2024 (Smaug)";
    DpoShift "dpo_shift" DpoShiftSettings as by::DpoShift, REFERENCE, !REWARDS, "DPO-Shift, fixed or over the training", "Yang et al. 2025";
    RpoSq "rpo_sq" NemotronSettings as by::RpoSq, REFERENCE, REWARDS, "Nemotron's reward-aware loss: squared distance", "Adler et al. 2024 (Nemotron-4)";
    RpoBwdKl "rpo_bwd_kl" NemotronSettings as by::RpoBwdKl, REFERENCE, REWARDS, "Nemotron's reward-aware loss: KL, ground truth first", "Adler et al. 2024 (Nemotron-4)";
    RpoFwdKl "rpo_fwd_kl" NemotronSettings as by::RpoFwdKl, REFERENCE, REWARDS, "Nemotron's reward-aware loss: KL, policy first", "Adler et al. 2024 (Nemotron-4)";
}

impl Method {
    /// What the method needs; of a mixture, what any of its losses does.
    pub fn about(&self) -> About {
        let of = |name: &str| METHODS.iter().copied().find(|about| about.name == name);
        let own = of(self.name()).unwrap_or(METHODS[0]);
        let Self::Mix(_) = self else { return own };
        let parts: Vec<About> =
            self.pairwise().iter().flat_map(|mix| &mix.objectives).filter_map(|part| of(part.name)).collect();
        About {
            reference: parts.iter().any(|part| part.reference),
            rewards: parts.iter().any(|part| part.rewards),
            ..own
        }
    }

    /// Whether it looks at the log-probabilities of prompts: for DRO's prompt term, or an NLL that counts the prompt.
    pub fn scores_prompts(&self) -> bool {
        match self {
            Self::Dro(dro) => dro.prompt_term != PromptTerm::Off,
            method => method.pairwise().is_some_and(|m| m.objectives.iter().any(|o| o.objective.prompt_nll())),
        }
    }

    /// Notes what is out of range.
    pub fn check(&self, problems: &mut Problems<'_>) {
        let checked = match self {
            Self::Dro(dro) => return dro.check(problems),
            Self::Kto(kto) => kto.objective().validate(),
            Self::Qrpo(qrpo) => qrpo.validate(),
            Self::DroV(dro_v) => dro_v.validate(),
            pairwise => return pairwise.check_pairwise(problems),
        };
        if let Err(error) = checked {
            problems.add("align", error.to_string());
        }
    }

    fn check_pairwise(&self, problems: &mut Problems<'_>) {
        let Some(method) = self.pairwise() else { return };
        let mixed = matches!(self, Self::Mix(_));
        let place = if mixed { "align.losses" } else { "align" };
        for part in &method.objectives {
            if let Err(error) = part.objective.validate() {
                problems.add(place, error.to_string());
            }
            problems.require(part.weight.is_finite(), place, format!("the weight of `{}` must be a number", part.name));
        }
        problems.require(
            method.nll_weight.is_finite() && method.nll_weight >= 0.0,
            "align.nll_weight",
            "must be at least 0",
        );
        if mixed {
            problems.require(
                !method.objectives.is_empty(),
                "align.losses",
                "a mixture has at least one loss, as in align.losses = [{ method = \"dpo\", weight = 1.0 }]",
            );
            let files = method.objectives.iter().filter(|o| !o.objective.reward_files().is_empty()).count();
            problems.require(files <= 1, "align.losses", "only one of the losses can have an `ensemble`");
        }
    }
}
