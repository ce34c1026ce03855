//! The front matter of a model card: YAML that the hub reads.

/// A licence, as a base's card states it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct License {
    /// The hub's word for it, such as `apache-2.0` or `other`.
    pub license: String,
    /// The name of one that the hub has no word for.
    pub name: Option<String>,
    /// The address at which such a one can be read.
    pub link: Option<String>,
}

/// The fields. Those that are not known are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontMatter {
    pub base_model: Option<String>,
    pub datasets: Vec<String>,
    pub library_name: &'static str,
    pub license: Option<License>,
    pub pipeline_tag: &'static str,
    pub tags: Vec<String>,
}

impl FrontMatter {
    /// Returns the YAML between its two lines of dashes.
    pub fn yaml(&self) -> String {
        let mut text = "---\n".to_owned();
        let mut field = |name: &str, value: &str| text.push_str(&format!("{name}: {}\n", scalar(value)));
        if let Some(base) = &self.base_model {
            field("base_model", base);
        }
        field("library_name", self.library_name);
        if let Some(License { license, name, link }) = &self.license {
            field("license", license);
            for (key, value) in [("license_name", name), ("license_link", link)] {
                if let Some(value) = value {
                    field(key, value);
                }
            }
        }
        field("pipeline_tag", self.pipeline_tag);
        for (name, items) in [("datasets", &self.datasets), ("tags", &self.tags)] {
            if !items.is_empty() {
                text.push_str(&format!("{name}:\n"));
                items.iter().for_each(|item| text.push_str(&format!("- {}\n", scalar(item))));
            }
        }
        text + "---\n"
    }
}

/// Returns a text as YAML: bare if no reader takes it for anything else, or in quotes.
fn scalar(text: &str) -> String {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let word = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_lowercase().as_str());
    if starts && plain && !word { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_own_library_reads_the_same_fields() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/card.json");
        let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let rows = golden["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        for row in rows {
            let fields = &row["fields"];
            let text = |key: &str| fields[key].as_str().map(str::to_owned);
            let list = |key: &str| {
                let items = fields[key].as_array().into_iter().flatten();
                items.map(|item| item.as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let front = FrontMatter {
                base_model: text("base_model"),
                datasets: list("datasets"),
                library_name: if fields["library_name"] == "peft" { "peft" } else { "transformers" },
                license: text("license").map(|license| License {
                    license,
                    name: text("license_name"),
                    link: text("license_link"),
                }),
                pipeline_tag: match fields["pipeline_tag"].as_str() {
                    Some("text-generation") => "text-generation",
                    _ => "text-classification",
                },
                tags: list("tags"),
            };
            let yaml = front.yaml();
            let inner = yaml.strip_prefix("---\n").and_then(|rest| rest.strip_suffix("---\n")).unwrap();
            let [ours, theirs] = [inner, row["yaml"].as_str().unwrap()]
                .map(|yaml| serde_saphyr::from_str::<serde_json::Value>(yaml).unwrap());
            assert_eq!(ours, theirs, "{yaml}");
            assert_eq!(&ours, fields, "{yaml}");
        }
    }

    #[test]
    fn fields_are_written_as_the_hub_reads_them() {
        let front = FrontMatter {
            base_model: Some("meta-llama/Llama-3.2-1B".into()),
            datasets: vec!["a/b".into(), "c/d".into()],
            library_name: "peft",
            license: Some(License {
                license: "other".into(),
                name: Some("no".into()),
                link: Some("https://x.org/a?b: c".into()),
            }),
            pipeline_tag: "text-generation",
            tags: vec!["setpoint".into(), "1 # \"two\"\n".into()],
        };
        let yaml = front.yaml();
        assert_eq!(
            yaml,
            "---\nbase_model: meta-llama/Llama-3.2-1B\nlibrary_name: peft\nlicense: other\nlicense_name: \"no\"\n\
             license_link: \"https://x.org/a?b: c\"\npipeline_tag: text-generation\ndatasets:\n- a/b\n- c/d\ntags:\n- setpoint\n\
             - \"1 # \\\"two\\\"\\n\"\n---\n"
        );
        // A reader of YAML finds the same texts.
        let read: serde_json::Value = serde_saphyr::from_str(yaml.trim().trim_matches('-')).unwrap();
        assert_eq!(read["license_name"], "no");
        assert_eq!(read["license_link"], "https://x.org/a?b: c");
        assert_eq!(read["tags"][1], "1 # \"two\"\n");
        let little = FrontMatter { base_model: None, datasets: vec![], license: None, ..front };
        assert!(!little.yaml().contains("base_model") && !little.yaml().contains("datasets"));
    }
}
