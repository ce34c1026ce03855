//! Other spellings of a name that are accepted as the name itself.

/// Names of other tools for the same choice.
const SYNONYMS: &[(&str, &str)] = &[
    ("float32", "f32"),
    ("fp32", "f32"),
    ("float", "f32"),
    ("bfloat16", "bf16"),
    ("float16", "f16"),
    ("fp16", "f16"),
    ("half", "f16"),
];

/// Returns the one of `names` that `found` spells in another way: with capital letters, with hyphens or spaces for underscores, or by
/// the name that other tools have for it. `DPO` is `dpo`, `Per-Prompt` is `per_prompt`, `bfloat16` is `bf16`. A misspelling is none.
pub fn respell<'n>(found: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let found = plain(found);
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == found).map(|(_, name)| *name);
    names.into_iter().find(|name| plain(name) == found || Some(*name) == synonym)
}

/// Returns a name as it is compared: without capital letters, hyphens and spaces.
pub(super) fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace(['-', ' '], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_spellings_are_accepted() {
        const NAMES: [&str; 5] = ["dpo", "per_prompt", "bf16", "f32", "cosine"];
        for (found, name) in [
            ("DPO", Some("dpo")),
            (" Per-Prompt ", Some("per_prompt")),
            ("BFloat16", Some("bf16")),
            ("torch.bfloat16", None),
            ("fp32", Some("f32")),
            // A choice that the setting does not have.
            ("half", None),
            ("cosin", None),
            ("", None),
        ] {
            assert_eq!(respell(found, NAMES), name, "{found:?}");
        }
    }
}
