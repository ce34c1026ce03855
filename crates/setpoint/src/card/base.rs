//! The model that another one was made from, as its card names it.

use std::path::{Component, Path};

use serde_json::Value;
use setpoint_data::Push;

use super::front::License;
use super::{CARD, escaped, is_own};

/// The longest front matter that is read, in bytes.
const LONGEST: usize = 256 << 10;

/// A base model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base {
    /// Its id on the hub, or that of the nearest ancestor that has one.
    pub id: Option<String>,
    /// Its name: the last part of its id or path.
    pub name: Option<String>,
    /// Its licence, if its card states one.
    pub license: Option<License>,
}

impl Base {
    /// Finds out about a model that a setting names: an id of the hub, a snapshot in the hub's cache, or a folder.
    pub fn of(setting: &str) -> Self {
        let path = Path::new(setting);
        let card = front_matter(path);
        let id = match (path.exists(), id_in_cache(path)) {
            (_, Some(id)) => Some(id),
            (false, None) => Push::id_problem(setting).is_none().then(|| setting.to_owned()),
            // A folder that this program filled: the id of its own base.
            (true, None) => card.as_ref().filter(|card| card.own).and_then(|card| card.base_model.clone()),
        };
        let name = match id_in_cache(path) {
            Some(id) => id.rsplit('/').next().map(str::to_owned),
            None => name_of(path),
        };
        Self { id, name, license: card.and_then(|card| card.license) }
    }

    /// Returns the sentence about it.
    pub fn sentence(&self) -> String {
        match (&self.id, &self.name) {
            (Some(id), Some(name)) if id.rsplit('/').next() == Some(name.as_str()) => {
                format!("Its base is [{id}](https://huggingface.co/{id}).")
            }
            (Some(id), Some(name)) => {
                format!("Its base is `{}`, which descends from [{id}](https://huggingface.co/{id}).", escaped(name))
            }
            (Some(id), None) => format!("Its base is [{id}](https://huggingface.co/{id})."),
            (None, Some(name)) => format!("Its base is `{}`.", escaped(name)),
            (None, None) => "It began with random weights.".to_owned(),
        }
    }
}

/// Returns the name of a file or folder: its last part, after the run's if it is the model of a run.
pub fn name_of(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let last = parts.pop()?;
    match parts.pop() {
        Some(run) if path.parent().is_some_and(|dir| dir.join("run.json").is_file()) => Some(format!("{run}/{last}")),
        _ => Some(last.to_owned()),
    }
}

/// Returns the id of a snapshot in the hub's cache, `models--OWNER--NAME/snapshots/COMMIT`.
fn id_in_cache(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.components().filter_map(|part| part.as_os_str().to_str()).collect();
    let at = parts.iter().position(|part| *part == "snapshots")?;
    let id = parts.get(at.checked_sub(1)?)?.strip_prefix("models--")?.replacen("--", "/", 1);
    Push::id_problem(&id).is_none().then_some(id)
}

/// The statements of a card about its model.
struct Stated {
    /// True if this program wrote it.
    own: bool,
    base_model: Option<String>,
    license: Option<License>,
}

/// Reads the front matter of a card. One that cannot be read says nothing.
fn front_matter(dir: &Path) -> Option<Stated> {
    let text = setpoint_files::read_text(&dir.join(CARD)).ok()?;
    let inner = text.trim_start_matches('\u{feff}').strip_prefix("---")?.trim_start_matches('\r').strip_prefix('\n')?;
    let end = inner.find("\n---")?;
    let yaml = inner.get(..end + 1).filter(|yaml| yaml.len() <= LONGEST)?;
    let budget = serde_saphyr::budget! { max_nodes: 20_000, max_aliases: 100, max_anchors: 100, max_depth: 32, max_documents: 1 };
    let options = serde_saphyr::options! { budget: budget, with_snippet: false };
    let fields: Value = serde_saphyr::from_str_with_options(yaml, options).ok()?;
    let word = |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    // One licence or base may be written as a list.
    let first = |key: &str| fields.get(key).and_then(|value| word(value.get(0).unwrap_or(value)));
    let license = first("license").map(|license| License {
        license,
        name: first("license_name"),
        link: first("license_link").filter(|link| link.starts_with("https://")),
    });
    let base_model = first("base_model").filter(|id| Push::id_problem(id).is_none());
    Some(Stated { own: is_own(&text), base_model, license })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::tests::card;

    #[test]
    fn a_base_has_an_id_or_a_name() {
        let base = Base::of("Qwen/Qwen3-0.6B");
        assert_eq!((base.id.as_deref(), base.name.as_deref()), (Some("Qwen/Qwen3-0.6B"), Some("Qwen3-0.6B")));
        assert_eq!(base.sentence(), "Its base is [Qwen/Qwen3-0.6B](https://huggingface.co/Qwen/Qwen3-0.6B).");
        let cached = Base::of("/home/someone/hub/models--Qwen--Qwen3-0.6B/snapshots/0123");
        assert_eq!((cached.id.as_deref(), cached.name.as_deref()), (Some("Qwen/Qwen3-0.6B"), Some("Qwen3-0.6B")));
        let local = Base::of("/home/someone/models/mine");
        assert_eq!((local.id.as_deref(), local.name.as_deref()), (None, Some("mine")));
        assert_eq!(local.sentence(), "Its base is `mine`.");
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("sft/model");
        let name = || Base::of(&model.display().to_string()).name;
        std::fs::create_dir_all(&model).unwrap();
        assert_eq!(name().as_deref(), Some("model"));
        std::fs::write(dir.path().join("sft/run.json"), "{}").unwrap();
        assert_eq!(name().as_deref(), Some("sft/model"));
        assert_eq!(Base::default().sentence(), "It began with random weights.");
    }

    #[test]
    fn the_licence_is_that_of_the_bases_card() {
        let dir = tempfile::tempdir().unwrap();
        let stated = |card: &str| {
            std::fs::write(dir.path().join(CARD), card).unwrap();
            Base::of(&dir.path().display().to_string())
        };
        let license = |card: &str| stated(card).license;
        let apache = License { license: "apache-2.0".into(), ..License::default() };
        assert_eq!(license("---\nlicense: apache-2.0\nlanguage: [en]\n---\n# A\n"), Some(apache.clone()));
        assert_eq!(license("---\r\nlicense:\r\n- apache-2.0\r\n---\r\n# A\r\n"), Some(apache));
        let other = "---\nlicense: other\nlicense_name: qwen\nlicense_link: https://x.org/l\n---\n";
        let expected =
            License { license: "other".into(), name: Some("qwen".into()), link: Some("https://x.org/l".into()) };
        assert_eq!(license(other), Some(expected));
        for none in ["# A\n", "---\nlicense: apache-2.0\n", "---\n: [\n---\n", "---\nlicense: 5\n---\n", ""] {
            assert_eq!(license(none), None, "{none:?}");
        }
        // The base of somebody's card is not the base here; that of an own card is its ancestor.
        assert_eq!(stated("---\nbase_model: a/b\n---\n").id, None);
        let own = stated(&card().text());
        assert_eq!(own.id.as_deref(), Some("Qwen/Qwen3-0.6B"));
        assert!(own.sentence().contains("which descends from [Qwen/Qwen3-0.6B]"), "{}", own.sentence());
    }
}
