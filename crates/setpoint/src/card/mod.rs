//! The model card, `README.md` in the folder of a trained model, as the Hugging Face hub reads it: its base, its method with the settings,
//! the data, the results of the final evaluation, the licence, and how to load it.
//!
//! A card follows from the settings and the metrics of a run alone, so a resumed run writes the same bytes. It holds no place of this
//! machine: data sets and models appear by their ids on the hub, or by the last part of their paths. Its last line is a checksum, by which
//! a card that somebody has changed is recognised: such a one stays as it is.

mod base;
mod front;
mod merged;
mod run;

use std::path::Path;

use setpoint_data::hex;
use setpoint_files::words;
use sha2::{Digest, Sha256};

use self::base::Base;
use self::front::FrontMatter;
pub use self::merged::write_merged;
pub use self::run::write_of_run;
use crate::failure::{Failure, Outcome};
use crate::files::write_text;

/// The file's name.
pub const CARD: &str = "README.md";
/// The beginning and the end of the last line, around its checksum.
const SEAL: (&str, &str) = ("<!-- setpoint ", " -->\n");

/// The kind of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Language,
    Reward,
}

/// A model card.
#[derive(Debug, Clone, PartialEq)]
struct Card {
    kind: Kind,
    /// True if the folder holds an adapter alone.
    is_adapter: bool,
    /// True if the model holds conversations.
    has_template: bool,
    base: Base,
    /// The ids of data sets on the hub.
    datasets: Vec<String>,
    /// Words by which the hub finds the model, after `setpoint`.
    tags: Vec<String>,
    /// The method, as the title names it: `DRO`.
    method: String,
    /// The parts about method, data and results, in Markdown.
    body: String,
}

impl Card {
    /// Returns the whole file, with its checksum.
    fn text(&self) -> String {
        let front = FrontMatter {
            base_model: self.base.id.clone(),
            datasets: self.datasets.clone(),
            library_name: if self.is_adapter { "peft" } else { "transformers" },
            license: self.base.license.clone(),
            pipeline_tag: match self.kind {
                Kind::Language => "text-generation",
                Kind::Reward => "text-classification",
            },
            tags: std::iter::once("setpoint".to_owned()).chain(self.tags.iter().cloned()).collect(),
        };
        let what = match (self.kind, self.is_adapter) {
            (Kind::Language, false) => "language model",
            (Kind::Language, true) => "adapter of a language model",
            (Kind::Reward, false) => "reward model",
            (Kind::Reward, true) => "adapter that makes a language model a reward model",
        };
        let text = format!(
            "{}\n# {}\n\nThis {what} was made by Setpoint {}. {}\n{}\n## Use\n\n`MODEL` is this folder or repository.\n\n{}\n\
             ## Versions\n\nSetpoint {}, Burn 0.22.1\n\n",
            front.yaml(),
            self.title(),
            env!("CARGO_PKG_VERSION"),
            self.base.sentence(),
            self.body,
            self.usage(),
            env!("CARGO_PKG_VERSION"),
        );
        sealed(text)
    }

    fn title(&self) -> String {
        match &self.base.name {
            Some(name) => format!("{}, {}", escaped(name), self.method),
            None => self.method.clone(),
        }
    }

    /// Returns how other programs and this one load the model.
    fn usage(&self) -> String {
        let (class, load) = match (self.kind, self.is_adapter) {
            (Kind::Language, false) => ("AutoModelForCausalLM", "transformers"),
            (Kind::Language, true) => ("AutoPeftModelForCausalLM", "peft"),
            (Kind::Reward, false) => ("AutoModelForSequenceClassification", "transformers"),
            (Kind::Reward, true) => ("AutoPeftModelForSequenceClassification", "peft"),
        };
        let labels = if (self.kind, self.is_adapter) == (Kind::Reward, true) { ", num_labels=1" } else { "" };
        let command = match (self.kind, self.has_template) {
            (Kind::Language, true) => "setpoint chat --model MODEL",
            (Kind::Language, false) => "setpoint generate --model MODEL --prompt \"Once upon a time\"",
            (Kind::Reward, _) => "setpoint annotate --model MODEL --data responses.jsonl --output rewards.jsonl",
        };
        let imports = match load {
            "peft" => format!("from peft import {class}\nfrom transformers import AutoTokenizer"),
            _ => format!("from transformers import {class}, AutoTokenizer"),
        };
        format!(
            "```python\n{imports}\n\ntokenizer = AutoTokenizer.from_pretrained(\"MODEL\")\n\
             model = {class}.from_pretrained(\"MODEL\"{labels})\n```\n\n```sh\n{command}\n```\n"
        )
    }

    /// Writes the card into a folder, unless there is one that somebody else has written.
    fn write(&self, dir: &Path) -> Outcome {
        let path = dir.join(CARD);
        match setpoint_files::read_text(&path) {
            Ok(there) if !is_own(&there) => {
                log::info!("{} stays as it is: it is not, or not only, by Setpoint", path.display());
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::run(format!("{}: {}", path.display(), words::system(&error.source)))),
        }
        write_text(&path, &self.text())
    }
}

/// Adds a last line with the checksum of a text.
fn sealed(text: String) -> String {
    let checksum = hex(&Sha256::digest(&text));
    format!("{text}{}{checksum}{}", SEAL.0, SEAL.1)
}

/// Returns whether a text is a card of this program that nobody has changed.
fn is_own(text: &str) -> bool {
    let Some((before, rest)) = text.rsplit_once(SEAL.0) else { return false };
    rest.strip_suffix(SEAL.1).is_some_and(|checksum| checksum == hex(&Sha256::digest(before)))
}

/// Returns a text on one line, so that it neither ends a cell of a table nor begins anything else.
fn escaped(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.replace('|', "\\|").replace('<', "&lt;").replace('`', "'")
}

/// Returns a table with two columns or more, or nothing for one without rows.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut text = line(&mut head.iter().map(|cell| (*cell).to_owned()));
    text += &line(&mut head.iter().map(|_| "---".to_owned()));
    for row in rows {
        text += &line(&mut row.iter().map(|cell| escaped(cell)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn card() -> Card {
        Card {
            kind: Kind::Language,
            is_adapter: false,
            has_template: true,
            base: Base { id: Some("Qwen/Qwen3-0.6B".into()), name: Some("Qwen3-0.6B".into()), ..Base::default() },
            datasets: vec!["someone/pairs".into()],
            tags: vec!["dpo".into()],
            method: "DPO".into(),
            body: "\n## Method\n\n| setting | value |\n| --- | --- |\n| align.beta | 0.1 |\n".into(),
        }
    }

    #[test]
    fn a_card_says_what_the_hub_asks_for() {
        let text = card().text();
        assert!(text.starts_with("---\nbase_model: Qwen/Qwen3-0.6B\n"), "{text}");
        for expected in [
            "\n# Qwen3-0.6B, DPO\n",
            "## Method",
            "AutoModelForCausalLM.from_pretrained(\"MODEL\")",
            "setpoint chat --model MODEL",
            "## Versions",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let adapter = Card { is_adapter: true, kind: Kind::Reward, ..card() };
        let text = adapter.text();
        assert!(
            text.contains("library_name: peft\n") && text.contains("pipeline_tag: text-classification\n"),
            "{text}"
        );
        assert!(
            text.contains("AutoPeftModelForSequenceClassification.from_pretrained(\"MODEL\", num_labels=1)"),
            "{text}"
        );
    }

    #[test]
    fn a_card_that_somebody_wrote_or_changed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CARD);
        let read = || std::fs::read_to_string(&path).unwrap();
        card().write(dir.path()).unwrap();
        assert_eq!(read(), card().text());
        let other = Card { method: "KTO".into(), ..card() };
        other.write(dir.path()).unwrap();
        assert_eq!(read(), other.text(), "its own card is replaced");
        for kept in ["# Mine\n".to_owned(), other.text().replace("# Qwen3", "# My Qwen3"), other.text() + "\nMine.\n"] {
            std::fs::write(&path, &kept).unwrap();
            card().write(dir.path()).unwrap();
            assert_eq!(read(), kept);
        }
    }

    #[test]
    fn cells_stay_in_their_table() {
        let rows = [vec!["a|b".to_owned(), "x\ny <script> `z`".to_owned()]];
        assert_eq!(table(&["p", "q"], &rows), "| p | q |\n| --- | --- |\n| a\\|b | x y &lt;script> 'z' |\n");
    }
}
