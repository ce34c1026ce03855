//! The values that each method is tried with when the settings are not given: the ranges of the DRO paper's Table 4, as the objectives
//! list them.

use setpoint_align::{About, Values};
use toml::Value;

use crate::search::Space;

/// Returns the values that a method is tried with.
pub fn preset(about: &About) -> Space {
    let mut space = Space::default();
    for axis in about.search {
        let values = match axis.values {
            Values::Numbers(numbers) => numbers.iter().copied().map(Value::Float).collect(),
            Values::Names(names) => names.iter().copied().map(Value::from).collect(),
        };
        space.add(axis.key, values);
    }
    space
}

/// The setting of learning rates.
pub const RATE: &str = "train.learning_rate";

/// Converts a point of a preset to settings: values that are listed as multiples of another setting become ratios.
pub fn resolve(about: &About, point: &mut [(String, Value)]) {
    let number = |point: &[(String, Value)], key: &str| {
        point.iter().find(|(other, _)| other == key).and_then(|(_, value)| value.as_float())
    };
    for axis in about.search {
        let divisor = axis.divided_by.and_then(|key| number(point, key));
        let (Some(divisor), Some(multiple)) = (divisor, number(point, axis.key)) else { continue };
        point
            .iter_mut()
            .filter(|(key, _)| key == axis.key)
            .for_each(|(_, value)| *value = Value::Float(multiple / divisor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use setpoint_align::{METHODS, Method};

    use crate::align::AlignConfig;
    use crate::search::with_point;

    #[test]
    fn every_preset_is_one_that_its_method_takes() {
        for about in METHODS.iter().filter(|about| about.name != "mix") {
            let method = Method::named(about.name).unwrap();
            let base = AlignConfig { align: method.clone(), ..AlignConfig::default() };
            for mut point in preset(about).grid() {
                resolve(about, &mut point);
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
        let size = |name: &str| preset(&Method::named(name).unwrap().about()).size();
        let sizes = ["dpo", "slic_hf", "ipo", "orpo", "simpo", "rpo", "dro"].map(size);
        assert_eq!(sizes, [16, 15, 16, 4, 15, 4, 48]);
    }

    #[test]
    fn the_margin_becomes_a_ratio() {
        let point = |beta: f64, gamma: f64| {
            let setting = |key: &str, value: f64| (key.to_owned(), Value::Float(value));
            let mut point = vec![setting("align.beta", beta), setting("align.gamma_beta_ratio", gamma)];
            resolve(&Method::named("simpo").unwrap().about(), &mut point);
            point[1].1.as_float().unwrap()
        };
        // γ = β · ratio.
        assert_eq!(point(2.0, 1.0), 0.5);
        assert_eq!(point(2.5, 0.5), 0.2);
    }
}
