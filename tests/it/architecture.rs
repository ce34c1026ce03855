//! Who may import whom (ARCHITECTURE.md), read from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Each crate and the crates of the workspace it may depend on, the lowest first.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("setpoint-files", &[]),
    ("setpoint-data", &["setpoint-files"]),
    ("setpoint-align", &[]),
    ("setpoint-ops", &[]),
    ("setpoint-transformer", &["setpoint-files", "setpoint-ops"]),
    ("setpoint-train", &["setpoint-transformer", "setpoint-files", "setpoint-ops"]),
    ("setpoint-reward", &["setpoint-train", "setpoint-transformer", "setpoint-align"]),
    ("setpoint-eval", &["setpoint-data", "setpoint-files"]),
    (
        "setpoint",
        &[
            "setpoint-eval",
            "setpoint-reward",
            "setpoint-train",
            "setpoint-transformer",
            "setpoint-align",
            "setpoint-data",
            "setpoint-files",
        ],
    ),
    (
        "setpoint-cli",
        &[
            "setpoint",
            "setpoint-eval",
            "setpoint-align",
            "setpoint-reward",
            "setpoint-train",
            "setpoint-transformer",
            "setpoint-ops",
            "setpoint-data",
        ],
    ),
];

/// Features of `burn` that choose a backend: the root package's business.
const BACKENDS: &[&str] = &["flex", "ndarray", "wgpu", "vulkan", "metal", "webgpu", "cuda", "rocm", "cpu", "tch"];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

#[test]
fn crates_import_downwards_only() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_IMPORT.iter().map(|(name, list)| (*name, list.iter().copied().collect())).collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name} stands in no line of MAY_IMPORT"));
        seen.insert(name.to_owned());
        for dependency in package["dependencies"].as_array().unwrap() {
            let imported = dependency["name"].as_str().unwrap();
            // Tests turn on the kernels' features, also those of the crate itself.
            let for_tests = dependency["kind"] == "dev" && imported == "setpoint-ops";
            if allowed.contains_key(imported) && !for_tests {
                assert!(may.contains(imported), "{name} must not import {imported}");
            }
        }
    }
    assert_eq!(seen.len(), allowed.len(), "crates missing from the workspace: have {seen:?}");
}

#[test]
fn every_crate_can_be_published() {
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        for key in ["description", "license", "repository", "readme"] {
            assert!(package[key].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {key}");
        }
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        for file in [package["readme"].as_str().unwrap(), "LICENSE-MIT", "LICENSE-APACHE"] {
            assert!(folder.join(file).is_file(), "{name} has no {file}");
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            // A crate that its own tests need is left out of the package.
            let published = dependency["name"] != package["name"];
            let versioned = dependency["path"].is_null() || dependency["req"] != "*";
            assert!(!published || versioned, "{name}: {} has no version", dependency["name"]);
        }
    }
}

#[test]
fn the_text_lists_the_same_imports() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).unwrap();
    for (name, may) in MAY_IMPORT.iter().filter(|(name, _)| *name != "setpoint-cli") {
        let short = |name: &&str| format!("`{}`", name.trim_start_matches("setpoint-"));
        let mut imports: Vec<String> = may.iter().map(short).collect();
        imports.sort();
        let imports = if imports.is_empty() { "none".to_owned() } else { imports.join(", ") };
        let row = format!("| `{name}` | {imports} |");
        assert!(text.contains(&row), "ARCHITECTURE.md must have the row {row}");
    }
}

#[test]
fn library_crates_name_no_backend() {
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        // The one crate with kernels of its own says for which backends they are written, and turns none on by itself.
        if let Some(features) = package["features"].as_object().filter(|_| name != "setpoint-cli") {
            assert!(!features.contains_key("default"), "{name} must have no default features");
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["name"] != "burn" {
                continue;
            }
            assert_eq!(dependency["req"], "=0.22.1", "{name} must pin burn exactly");
            assert_eq!(dependency["uses_default_features"], false, "{name} must not take burn's default features");
            let normal = dependency["kind"].is_null();
            for feature in dependency["features"].as_array().unwrap() {
                let feature = feature.as_str().unwrap();
                assert!(!(normal && BACKENDS.contains(&feature)), "{name} enables the backend {feature}");
            }
        }
    }
}

#[test]
fn the_crates_keep_their_promise_about_burn() {
    let metadata = metadata();
    let burn = |name: &str| {
        metadata["packages"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .any(|d| d["name"] == "burn")
    };
    for name in ["setpoint-data", "setpoint-eval", "setpoint-files"] {
        assert!(!burn(name), "{name} uses no Burn");
    }
    assert!(burn("setpoint-align"), "setpoint-align is tensors alone");
}
