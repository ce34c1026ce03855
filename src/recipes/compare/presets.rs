//! What each method is tried with when the settings are not given: the ranges of the DRO paper's Table 4.

use toml::Value;

use crate::config::load::to_table;
use crate::recipes::align::Method;
use crate::recipes::search::Space;

/// The β of the paper's methods that have one.
const BETAS: [f64; 4] = [0.05, 0.1, 0.5, 1.0];
/// The learning rates of DPO, IPO and DRO; SLiC-HF has all but the last.
const RATES: [f64; 4] = [1e-7, 2e-7, 5e-7, 1e-6];

/// Table 4's range of a method. Where the table is not clear or has no row, what is tried is said here and in `docs/COMPARE.md`:
///
/// * SLiC-HF's λ ends in "5, 0", read as 5.0. IPO's α is a setting that IPO does not have, and is left out.
/// * SimPO's γ is a margin in the table's range; the setting is its ratio to β.
/// * DRO's log Z₀ is the interval [−50, 500]: tried with its ends and the 50 that the paper reports, and with its prompt term.
/// * Methods without a row are tried with the same β where they have one, else with their defaults.
pub fn preset(method: &Method) -> Space {
    let floats = |values: &[f64]| values.iter().copied().map(Value::Float).collect::<Vec<_>>();
    let mut space = Space::default();
    match method.name() {
        "slic_hf" => {
            space.add("align.lambda", floats(&[0.05, 0.1, 0.5, 1.0, 5.0]));
            space.add(RATE, floats(&RATES[..3]));
        }
        "orpo" => space.add("align.lambda", floats(&[0.01, 0.05, 0.1, 1.0])),
        "simpo" => {
            space.add("align.beta", floats(&[1.0, 2.0, 2.5]));
            space.add(SIMPO_MARGIN, floats(&[0.3, 0.5, 0.7, 1.0, 1.5]));
        }
        "dro" => {
            space.add("align.beta", floats(&BETAS));
            space.add(RATE, floats(&RATES));
            space.add("align.log_z0", floats(&[-50.0, 50.0, 500.0]));
            space.add("align.prompt_term", vec!["full".into()]);
        }
        "dpo" | "ipo" => {
            space.add("align.beta", floats(&BETAS));
            space.add(RATE, floats(&RATES));
        }
        _ if to_table::<Method>(method).get("beta").is_some_and(Value::is_float) => {
            space.add("align.beta", floats(&BETAS));
        }
        _ => {}
    }
    space
}

/// The setting of learning rates.
pub const RATE: &str = "train.learning_rate";
/// SimPO's γ in nats, as Table 4 has it; it becomes `align.gamma_beta_ratio` with the β of the point.
pub const SIMPO_MARGIN: &str = "align.gamma_beta_ratio";

/// Makes SimPO's γ of a preset's point the ratio that is set.
pub fn with_ratio(point: &mut [(String, Value)]) {
    let beta = point.iter().find(|(key, _)| key == "align.beta").and_then(|(_, value)| value.as_float());
    if let (Some(beta), Some((_, gamma))) = (beta, point.iter_mut().find(|(key, _)| key == SIMPO_MARGIN))
        && let Some(nats) = gamma.as_float()
    {
        *gamma = Value::Float(nats / beta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipes::align::{AlignConfig, METHODS};
    use crate::recipes::search::with_point;

    #[test]
    fn every_preset_is_one_that_its_method_takes() {
        for about in METHODS.iter().filter(|about| about.name != "mix") {
            let method = Method::named(about.name).unwrap();
            let base = AlignConfig { align: method.clone(), ..AlignConfig::default() };
            for mut point in preset(&method).grid() {
                if about.name == "simpo" {
                    with_ratio(&mut point);
                }
                // Model and data are not there; the method's settings are what is looked at.
                let wrong = with_point(&base, &point).err().unwrap_or_default();
                let about_settings: Vec<_> =
                    wrong.iter().filter(|p| p.place.contains("align") || p.place.contains("train")).collect();
                assert!(about_settings.is_empty(), "{}: {about_settings:?}", about.name);
            }
        }
    }

    #[test]
    fn table_4_has_so_many_points() {
        let size = |name: &str| preset(&Method::named(name).unwrap()).size();
        let sizes = ["dpo", "slic_hf", "ipo", "orpo", "simpo", "rpo", "dro"].map(size);
        assert_eq!(sizes, [16, 15, 16, 4, 15, 4, 48]);
    }

    #[test]
    fn the_margin_becomes_a_ratio() {
        let point = |beta: f64, gamma: f64| {
            let mut point =
                vec![("align.beta".to_owned(), Value::Float(beta)), (SIMPO_MARGIN.to_owned(), Value::Float(gamma))];
            with_ratio(&mut point);
            point[1].1.as_float().unwrap()
        };
        // γ = β · ratio.
        assert_eq!(point(2.0, 1.0), 0.5);
        assert_eq!(point(2.5, 0.5), 0.2);
    }
}
