//! Numbers of things in sentences.

/// Returns a number with its noun, in the plural unless there is one: `1 row`, `3 rows`, `2 boundaries`. The last word of `noun` is its
/// noun, in the singular.
///
/// ```
/// use setpoint_data::counted;
///
/// assert_eq!(counted(1, "boundary"), "1 boundary");
/// assert_eq!(counted(0, "prompt"), "0 prompts");
/// ```
pub fn counted(count: usize, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if count == 1 => format!("1 {noun}"),
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_agree_with_their_numbers() {
        let shown = [(1, "row"), (2, "row"), (0, "boundary"), (1, "boundary"), (3, "key"), (4, "bad row")];
        let shown = shown.map(|(count, noun)| counted(count, noun));
        assert_eq!(shown, ["1 row", "2 rows", "0 boundaries", "1 boundary", "3 keys", "4 bad rows"]);
    }
}
