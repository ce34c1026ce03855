//! The card of a model with an adapter's updates in its weights.

use std::path::Path;

use super::base::{Base, name_of};
use super::{CARD, Card, Kind, is_own};
use crate::failure::Outcome;

/// Writes the card of a merged model: the parts about method, data and results are those of the adapter's card, if this program wrote it.
///
/// # Errors
/// When the card cannot be written.
pub fn write_merged(adapter: &Path, base: &Path, is_reward: bool, output: &Path) -> Outcome {
    let name = name_of(adapter).unwrap_or_else(|| "an adapter".to_owned());
    let theirs = setpoint_files::read_text(&adapter.join(CARD)).ok().filter(|text| is_own(text));
    let parts = theirs.as_deref().and_then(parts).unwrap_or_default();
    let card = Card {
        kind: if is_reward { Kind::Reward } else { Kind::Language },
        is_adapter: false,
        has_template: output.join("chat_template.jinja").is_file(),
        base: Base::of(&base.to_string_lossy()),
        datasets: theirs.as_deref().map(datasets).unwrap_or_default(),
        tags: vec!["merge".to_owned()],
        method: format!("with the adapter {}", super::escaped(&name)),
        body: format!(
            "\nThe updates of the adapter `{}` are added to its weights (`setpoint merge`).\n{parts}",
            super::escaped(&name)
        ),
    };
    card.write(output)
}

/// Returns the parts of an own card from the method on.
fn parts(text: &str) -> Option<String> {
    let begin = text.find("\n## Method\n")?;
    let end = text.find("\n## Use\n")?;
    text.get(begin..end).map(str::to_owned)
}

/// Returns the data sets in the front matter of an own card.
fn datasets(text: &str) -> Vec<String> {
    let front = text.split("\n---\n").next().unwrap_or_default();
    let lines = front.lines().skip_while(|line| *line != "datasets:").skip(1);
    lines.map_while(|line| line.strip_prefix("- ")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::tests::card;

    #[test]
    fn a_merged_model_keeps_what_its_adapters_card_says() {
        let dir = tempfile::tempdir().unwrap();
        let [adapter, output] = ["adapter", "output"].map(|name| dir.path().join(name));
        for place in [&adapter, &output] {
            std::fs::create_dir(place).unwrap();
        }
        let write = || {
            write_merged(&adapter, Path::new("Qwen/Qwen3-0.6B"), false, &output).unwrap();
            std::fs::read_to_string(output.join(CARD)).unwrap()
        };
        let text = write();
        assert!(text.contains("library_name: transformers") && !text.contains("## Method"), "{text}");
        assert!(text.contains("# Qwen3-0.6B, with the adapter adapter\n"), "{text}");
        std::fs::write(adapter.join(CARD), Card { is_adapter: true, ..card() }.text()).unwrap();
        let text = write();
        assert!(text.contains("datasets:\n- someone/pairs\n") && text.contains("| align.beta | 0.1 |"), "{text}");
        assert_eq!(text.matches("## Use").count(), 1);
        std::fs::write(adapter.join(CARD), "# Mine\n\n## Method\n\nMine.\n\n## Use\n").unwrap();
        assert!(!write().contains("Mine."));
    }
}
