//! Published data sets by the place that a setting names.

use std::path::Path;

use setpoint_data::DatasetConfig;

/// Returns a split of the data set at a place: a file, the folder of a copy, or a hub id, `owner/name` or `owner/name@revision`.
pub(crate) fn dataset_at(source: &str, split: &str) -> DatasetConfig {
    let (path, revision) = match source.split_once('@') {
        Some((id, revision)) if !Path::new(source).exists() => (id, Some(revision)),
        _ => (source, None),
    };
    let mut config = DatasetConfig { split: split.to_owned(), ..DatasetConfig::new(path) };
    config.revision = revision.map_or(config.revision, str::to_owned);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_follows_the_id_but_is_part_of_a_files_name() {
        let config = dataset_at("owner/name@v1", "test");
        assert_eq!(
            (config.path.as_str(), config.revision.as_str(), config.split.as_str()),
            ("owner/name", "v1", "test")
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows@2.jsonl");
        std::fs::write(&path, "").unwrap();
        assert_eq!(dataset_at(&path.to_string_lossy(), "test").path, path.to_string_lossy());
    }
}
