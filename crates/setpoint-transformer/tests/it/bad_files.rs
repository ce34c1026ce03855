//! Folders that are not as they should be: each an error that names the file, the tensor, what was expected and what was found.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use setpoint_transformer::{CausalLm, Error, LoadOptions};
use tempfile::TempDir;

use crate::support::{case, devices, json as read_json};

fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(case(name)).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&entry, folder.path().join(entry.file_name().unwrap())).unwrap();
    }
    folder
}

/// The error, as value and as text.
fn refused(dir: &Path) -> (Error, String) {
    let [flex, _] = devices();
    let error = CausalLm::load(dir, &LoadOptions::default(), &flex).unwrap_err();
    let text = error.to_string();
    (error, text)
}

const FILE: &str = "model.safetensors";

/// Replaces the header of the single weight file.
fn edit_header(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join(FILE);
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(&mut header);
    let header = header.to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat();
    fs::write(path, file).unwrap();
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = read_json(path);
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn no_weights() {
    let folder = copy("llama_kv2");
    fs::remove_file(folder.path().join(FILE)).unwrap();
    let (error, text) = refused(folder.path());
    assert!(matches!(error, Error::NoWeights { .. }), "{text}");
}

#[test]
fn damaged_headers() {
    let whole = fs::read(case("llama_kv2").join(FILE)).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap());
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let mut garbage = whole.clone();
    garbage[9] = b'}';
    let cases: [(Vec<u8>, &str); 9] = [
        (whole[..5].to_vec(), "5 bytes long"),
        (whole[..100].to_vec(), "only 100 bytes long: truncated?"),
        (whole[..whole.len() - 1].to_vec(), "truncated?"),
        ([&whole[..], &[0]].concat(), "the file holds"),
        (with_length(u64::MAX), "at most 100000000"),
        (with_length(1 << 40), "at most 100000000"),
        (with_length(90_000_000), "states a header of 90000000 bytes"),
        (with_length(length - 8), "damaged header"),
        (garbage, "damaged header"),
    ];
    for (bytes, expected) in cases {
        let folder = copy("llama_kv2");
        fs::write(folder.path().join(FILE), bytes).unwrap();
        let (error, text) = refused(folder.path());
        assert!(matches!(error, Error::Header { .. }), "{text}");
        assert!(text.contains(expected) && text.contains(FILE), "{text}");
    }
}

#[test]
fn offsets_that_do_not_fit() {
    let name = "model.norm.weight";
    for edit in [
        (|info: &mut Value| info["data_offsets"] = json!([0, u64::MAX])) as fn(&mut Value),
        |info| info["data_offsets"][1] = json!(info["data_offsets"][0].as_u64().unwrap() + 4),
        |info| info["shape"] = json!([u64::MAX, u64::MAX]),
        |info| info["shape"] = json!([31]),
    ] {
        let folder = copy("llama_kv2");
        edit_header(folder.path(), |header| edit(&mut header[name]));
        let (error, text) = refused(folder.path());
        assert!(matches!(error, Error::Header { .. }), "{text}");
    }
}

#[test]
fn missing_and_unexpected_tensors() {
    let rename = |from: &str, to: &str| {
        let folder = copy("llama_kv2");
        edit_header(folder.path(), |header| {
            let info = header.as_object_mut().unwrap().shift_remove(from).unwrap();
            header[to] = info;
        });
        refused(folder.path())
    };
    let (error, text) = rename("model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up.weight");
    assert!(
        matches!(&error, Error::MissingTensor { tensor, expected, more: 0, .. }
        if tensor == "model.layers.1.mlp.up_proj.weight" && *expected == [48, 32]),
        "{text}"
    );
    let (error, text) = rename("lm_head.weight", "score.weight");
    assert!(matches!(error, Error::MissingTensor { .. }) && text.contains("tie_word_embeddings"), "{text}");

    // One layer more in the file than in the config, and the reverse.
    let fewer = copy("llama_kv2");
    edit_json(&fewer.path().join("config.json"), |config| config["num_hidden_layers"] = json!(1));
    let (error, text) = refused(fewer.path());
    assert!(
        matches!(&error, Error::UnexpectedTensor { tensor, more: 8, .. } if tensor.starts_with("model.layers.1.")),
        "{text}"
    );
    let more = copy("llama_kv2");
    edit_json(&more.path().join("config.json"), |config| config["num_hidden_layers"] = json!(3));
    let (error, text) = refused(more.path());
    assert!(
        matches!(&error, Error::MissingTensor { tensor, more: 8, .. } if tensor.starts_with("model.layers.2.")),
        "{text}"
    );
}

#[test]
fn buffers_of_old_files_are_passed_over() {
    let folder = copy("llama_kv2");
    let path = folder.path().join(FILE);
    let bytes = fs::read(&path).unwrap();
    edit_header(folder.path(), |header| {
        let end = bytes.len() as u64 - 8 - u64::from_le_bytes(bytes[..8].try_into().unwrap());
        header["model.layers.0.self_attn.rotary_emb.inv_freq"] =
            json!({"dtype": "F32", "shape": [4], "data_offsets": [end, end + 16]});
    });
    let file = [&fs::read(&path).unwrap()[..], &[0; 16]].concat();
    fs::write(&path, file).unwrap();
    let [flex, _] = devices();
    CausalLm::load(folder.path(), &LoadOptions::default(), &flex).unwrap();
}

#[test]
fn shapes_and_formats() {
    let folder = copy("llama_kv2");
    edit_header(folder.path(), |header| header["model.layers.0.mlp.down_proj.weight"]["shape"] = json!([48, 32]));
    let (error, text) = refused(folder.path());
    assert!(
        matches!(&error, Error::WrongShape { expected, found, .. } if *expected == [32, 48] && *found == [48, 32]),
        "{text}"
    );
    let folder = copy("llama_kv2");
    edit_header(folder.path(), |header| header["model.norm.weight"]["dtype"] = json!("I32"));
    let (error, text) = refused(folder.path());
    assert!(matches!(&error, Error::UnsupportedDtype { found, .. } if found == "I32"), "{text}");
    assert!(text.contains("model.norm.weight"), "{text}");
}

#[test]
fn indices() {
    let index = "model.safetensors.index.json";
    let tensor = "model.norm.weight";
    for shard in ["../model.safetensors", "/etc/passwd", "a/model.safetensors", "..", ".", "", "a\\b.safetensors"] {
        let folder = copy("llama_sharded");
        edit_json(&folder.path().join(index), |index| index["weight_map"][tensor] = json!(shard));
        let (error, text) = refused(folder.path());
        assert!(matches!(&error, Error::ShardPath { tensor: found, .. } if found == tensor), "{text}");
    }

    let folder = copy("llama_sharded");
    fs::remove_file(folder.path().join("model-00002-of-00003.safetensors")).unwrap();
    let (error, text) = refused(folder.path());
    assert!(matches!(&error, Error::Read { .. }) && text.contains("model-00002-of-00003"), "{text}");

    let folder = copy("llama_sharded");
    edit_json(&folder.path().join(index), |index| {
        let right = index["weight_map"][tensor].as_str().unwrap();
        let wrong = if right.contains("00001") {
            "model-00002-of-00003.safetensors"
        } else {
            "model-00001-of-00003.safetensors"
        };
        index["weight_map"][tensor] = json!(wrong);
    });
    let (error, text) = refused(folder.path());
    assert!(matches!(&error, Error::ShardLacksTensor { tensor: found, .. } if found == tensor), "{text}");

    for (value, expected) in
        [(json!({}), "is missing"), (json!({"weight_map": 3}), "is 3"), (json!({"weight_map": {"a": 1}}), "is 1")]
    {
        let folder = copy("llama_sharded");
        fs::write(folder.path().join(index), value.to_string()).unwrap();
        let (_, text) = refused(folder.path());
        assert!(text.contains("`weight_map`") && text.contains(expected), "{text}");
    }

    // The same tensor twice.
    let folder = copy("llama_sharded");
    let copy_of = folder.path().join("extra.safetensors");
    fs::copy(folder.path().join("model-00001-of-00003.safetensors"), &copy_of).unwrap();
    edit_json(&folder.path().join(index), |index| index["weight_map"]["x"] = json!("extra.safetensors"));
    let (_, text) = refused(folder.path());
    assert!(text.contains("is also in"), "{text}");
}

/// The hub's cache consists of links, so weights may be links to anywhere; one that leads nowhere is named.
#[cfg(unix)]
#[test]
fn links() {
    use std::os::unix::fs::symlink;

    let whole = copy("llama_sharded");
    let [flex, _] = devices();
    let cached = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(whole.path()).unwrap().map(|entry| entry.unwrap()) {
        symlink(entry.path(), cached.path().join(entry.file_name())).unwrap();
    }
    CausalLm::load(cached.path(), &LoadOptions::default(), &flex).unwrap();

    let shard = "model-00002-of-00003.safetensors";
    type Make = fn(&Path);
    let broken: [(&str, Make); 4] = [
        ("a link to nothing", |path| symlink("nothing", path).unwrap()),
        ("a link to itself", |path| symlink(path, path).unwrap()),
        ("a link to a device", |path| symlink("/dev/zero", path).unwrap()),
        ("a folder", |path| fs::create_dir(path).unwrap()),
    ];
    for (what, make) in broken {
        for name in [shard, "model.safetensors.index.json"] {
            let folder = copy("llama_sharded");
            fs::remove_file(folder.path().join(name)).unwrap();
            make(&folder.path().join(name));
            let (_, text) = refused(folder.path());
            // An index that is none leaves a folder without weights, or is named itself.
            assert!(text.contains(name) || text.contains("model.safetensors"), "{what} for {name}: {text}");
            assert!(!text.contains('\n'), "{what} for {name}: {text}");
        }
    }
}

#[test]
fn another_kind_of_model() {
    let folder = copy("llama_kv2");
    edit_json(&folder.path().join("config.json"), |config| {
        config["architectures"] = json!(["LlamaForSequenceClassification"])
    });
    let (error, text) = refused(folder.path());
    assert!(matches!(error, Error::Architecture { .. }), "{text}");
}
