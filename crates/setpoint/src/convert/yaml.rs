//! Plain words for what is wrong with YAML.

use serde_saphyr::{Error, Location, UserMessageFormatter};

/// Says why a text is not read as YAML, and in which line.
pub(super) fn reason(error: &Error) -> String {
    let line = error.location().filter(|location| *location != Location::UNKNOWN);
    let line = line.map(|location| format!("line {}: ", location.line())).unwrap_or_default();
    format!("not valid YAML: {line}{}", sentence(error))
}

fn sentence(error: &Error) -> String {
    match error {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => sentence(error),
        Error::Eof { .. } => "the file ends too early".into(),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the name {key:?} is given twice"),
        Error::DuplicateMappingKey { key: None, .. } => "a name is given twice".into(),
        Error::NullIntoString { .. } => "a name is missing before `:`, or is `null`".into(),
        Error::MultipleDocuments { .. } => "it holds several documents; expected one".into(),
        Error::MergeValueNotMapOrSeqOfMaps { .. } => "`<<` merges something that is not `key: value` lines".into(),
        Error::UnknownAnchor { .. } => "a `*name` refers to an `&name` that is not there".into(),
        Error::NonFiniteFloat { value, .. } => format!("{value} is not a number that a setting can have"),
        Error::IndentationError { required, actual, .. } => {
            format!("it is indented by {actual} spaces; expected {required}")
        }
        Error::ContainerEndMismatch { .. } => "a list or a table in brackets ends that did not begin".into(),
        Error::RecursiveReferencesRequireWeakTypes { .. } => "an `&name` refers to itself".into(),
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "it has more values, levels or references (`*name`) than a configuration has".into()
        }
        Error::UnsupportedTag { tag, .. } => format!("the tag `{tag}` is not read"),
        other => {
            let text = other.render_with_formatter(&UserMessageFormatter);
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            // The place is said already.
            let text = text.strip_prefix("line ").and_then(|rest| rest.split_once(": ")).map_or(text, |(_, rest)| rest);
            text.split(" at line ").next().unwrap_or(text).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::convert::convert;

    #[test]
    fn no_message_is_in_the_words_of_the_library() {
        let aliases = format!("a: &x [1]\nb: [{}]\n", "*x, ".repeat(200));
        let deep = format!("a: {}1{}\n", "[".repeat(100), "]".repeat(100));
        for (text, expected) in [
            ("a: 1\na: 2\n", "line 2: the name \"a\" is given twice"),
            ("a: 1\n\"x\\ny\": 2\n\"x\\ny\": 3\n", "the name \"x\\ny\" is given twice"),
            (aliases.as_str(), "more values, levels or references"),
            (deep.as_str(), "more values, levels or references"),
            ("null: 1\n", "a name is missing before `:`"),
            ("a: *x\n", "refers to an `&name` that is not there"),
            ("a: [1, 2\n", "line "),
            ("a: 1\n---\nb: 1\n", ""),
            ("a: \"x\n", "line "),
            ("a: b: c\n", "line "),
        ] {
            let said = convert(text, None, None).unwrap_err().sentence();
            assert!(said.starts_with("not valid YAML: ") && said.contains(expected), "{text:?}: {said}");
            for word in ["Options", "budget", "Policy", "deserialize", "Option<", "{ ", "serde", "\n"] {
                assert!(!said.contains(word), "{text:?}: {said}");
            }
        }
    }
}
