//! "Did you mean …?", by one rule for settings, methods, tasks and every other name.

use super::spelling::plain;

/// More bytes than any name has, also one of another tool.
const LONGEST: usize = 200;

/// Returns the known name that `name` was probably meant to be.
///
/// A wrong suggestion is worse than none. So names must agree in their first letter, a quarter of the longer one may differ, and names of
/// up to three letters, which are all similar to each other (`ppo` and `dpo`), are suggested only for another spelling of themselves
/// (`DPO`). A beginning stands for a name if no other name has it.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No name is so long, and comparing takes time.
    if name.len() > LONGEST {
        return None;
    }
    let name = plain(name);
    let known: Vec<(&str, String)> = known.into_iter().map(|known| (known, plain(known))).collect();
    let distance = |other: &str| strsim::damerau_levenshtein(&name, other);
    let length = |text: &str| text.chars().count();
    let close = |other: &str| {
        let distance = distance(other);
        distance == 0
            || length(other) > 3
                && name.chars().next() == other.chars().next()
                && distance <= length(&name).max(length(other)) / 4
    };
    if let Some((near, _)) = known.iter().filter(|(_, other)| close(other)).min_by_key(|(_, other)| distance(other)) {
        return Some(near);
    }
    let mut begun = known.iter().filter(|(_, other)| length(&name) > 3 && other.starts_with(&name));
    match (begun.next(), begun.next()) {
        (Some((only, _)), None) => Some(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_suggested_for_their_misspellings_alone() {
        const METHODS: [&str; 12] =
            ["dro", "dro_v", "dpo", "ipo", "rpo", "cpo", "kto", "qrpo", "orpo", "simpo", "slic_hf", "rebel"];
        let method = |name| nearest(name, METHODS);
        for name in ["ppo", "grpo", "dapo", "gspo", "rloo", "trpo", "xpo", "reinforce", "", "best_of_n"] {
            assert_eq!(method(name), None, "{name}");
        }
        for (name, meant) in [
            ("sipmo", "simpo"),
            ("DPO", "dpo"),
            ("dro-v", "dro_v"),
            ("SimPO", "simpo"),
            ("slic", "slic_hf"),
            ("rebl", "rebel"),
        ] {
            assert_eq!(method(name), Some(meant), "{name}");
        }
        let setting = |name| nearest(name, ["beta", "steps", "learning_rate", "temperature", "top_p", "top_k"]);
        for (name, meant) in [
            ("bta", Some("beta")),
            ("betta", Some("beta")),
            ("stps", Some("steps")),
            ("learning-rate", Some("learning_rate")),
            ("learningrate", Some("learning_rate")),
            ("temp", Some("temperature")),
            ("top", None),
            ("loss", None),
        ] {
            assert_eq!(setting(name), meant, "{name}");
        }
        assert_eq!(nearest(&"beta".repeat(100_000), ["beta", &"beta".repeat(99_999)]), None);
    }
}
