//! The dropout of an adapter: what a training step drops, and that nothing else drops anything.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor};
use setpoint_transformer::lora::{
    AdapterAbout, AdapterFolder, AdapterTask, LoraConfig, MaskSeed, attach, merged, save_adapter, with_dropout,
    without_adapter,
};
use setpoint_transformer::{CausalLm, Packing, Part, Recompute, pack};

use crate::lora::{adapted, by_path, folder, host, logits, loss};
use crate::support::{arrays, case, devices, json, load, workspace};

const ROW: [u32; 8] = [3, 17, 5, 44, 9, 3, 17, 6];

/// An adapter of the golden files, whose `B` is not 0, with dropout.
fn model(name: &str, device: &Device) -> CausalLm {
    let (_, mut adapter) = adapted(name, FloatDType::F32, device);
    adapter.config.dropout = Some(0.3);
    let (base, _) = load(&folder(name).join(adapter.base.as_ref().unwrap()), device);
    adapter.load(base).unwrap()
}

fn at_step(model: &CausalLm, step: u64) -> CausalLm {
    with_dropout(model, MaskSeed::of_step(1, step)).unwrap()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1e-3f32, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1e-5 * size, "{what}[{i}]: {found} against {expected}");
    }
}

/// PEFT in training, with masks that Python makes from their description (`tests/golden/make_lora_dropout.py`).
#[test]
fn logits_losses_and_gradients_are_those_of_peft() {
    for (name, device) in
        ["llama", "llama_dora", "qwen2_dora"].into_iter().flat_map(|name| devices().map(|device| (name, device)))
    {
        let expected = arrays(&workspace().join(format!("tests/golden/lora_dropout/{name}.safetensors")));
        let values = |key: &str| expected[key].values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let row: Vec<u32> = expected["input_ids"].values.iter().map(|&id| id as u32).collect();
        let model = model(name, &device.clone().autodiff());
        let model = with_dropout(&model, MaskSeed::of_step(7, 5)).unwrap();
        let what = format!("{name} on {device:?}");
        let logits = logits(&model, &row);
        assert_close(&host(logits.clone().inner()), &values("logits"), &what);
        let loss = loss(logits, &row);
        assert_close(&host(loss.clone().inner()), &values("loss"), &what);
        let (found, _) = by_path(&model, &mut loss.backward());
        assert_eq!(found.len(), expected.len() - 3, "{what}: exactly what PEFT trains has a gradient");
        for (path, gradient) in found {
            assert_close(&gradient, &values(&format!("grad.{path}")), &format!("{what}, {path}"));
        }
    }
}

#[test]
fn a_step_has_masks_of_its_own_and_everything_else_has_none() {
    for (name, device) in ["llama", "llama_dora"].into_iter().flat_map(|name| devices().map(|device| (name, device))) {
        let (without, _) = adapted(name, FloatDType::F32, &device);
        assert!(with_dropout(&without, MaskSeed::of_step(1, 1)).is_none(), "the file's rate is 0");
        let model = model(name, &device);
        let of = |model: &CausalLm| host(logits(model, &ROW));
        assert_eq!(of(&model), of(&without), "{name}: an evaluation drops nothing");
        let (first, second) = (at_step(&model, 1), at_step(&model, 2));
        assert_eq!(of(&first), of(&at_step(&model, 1)), "{name}");
        assert_eq!(of(&first), of(&first.clone().valid()), "{name}");
        assert_ne!(of(&first), of(&model), "{name}");
        assert_ne!(of(&first), of(&second), "{name}");
        for plain in [merged(first.clone()), without_adapter(&first)] {
            assert!(with_dropout(&plain, MaskSeed::of_step(1, 1)).is_none(), "{name}");
        }
        assert_eq!(of(&merged(first.clone())), of(&merged(model.clone())), "{name}: masks are not merged");
    }
}

/// On every device the same elements are dropped.
#[test]
fn devices_agree() {
    for name in ["llama", "llama_dora"] {
        let [flex, ndarray] = devices().map(|device| host(logits(&at_step(&model(name, &device), 3), &ROW)));
        assert_close(&ndarray, &flex, name);
    }
}

/// A text alone, next to others, and as a prompt with two continuations; all tokens, and some.
#[test]
fn masks_do_not_depend_on_the_packing() {
    for name in ["llama", "llama_dora", "qwen2"] {
        let device = &devices()[0];
        let model = at_step(&model(name, device), 4);
        let hidden = |ids: &[u32], packing: &Packing, wanted: Option<&[usize]>| {
            host(model.model.forward(pack(&[ids], device), packing, wanted))
        };
        let text = |ending: &[u32]| [&ROW[..], ending].concat();
        let texts = [text(&[7, 8, 9]), text(&[1, 8])];
        let alone = [0, 1].map(|i: usize| hidden(&texts[i], &Packing::rows([texts[i].len()]), None));
        let d = alone[0].len() / texts[0].len();
        let rows = hidden(&texts.concat(), &Packing::rows([texts[0].len(), texts[1].len()]), None);
        assert_close(&rows, &alone.concat(), name);
        let mut shared = Packing::builder();
        shared.push(2, None);
        let prompt = shared.push(ROW.len(), None);
        shared.push(3, Some(prompt));
        shared.push(2, Some(prompt));
        let shared = shared.build();
        let ids = [&[30, 31][..], &texts[0], &texts[1][ROW.len()..]].concat();
        let all = hidden(&ids, &shared, None);
        let from = |row: usize, count: usize| &all[row * d..(row + count) * d];
        assert_close(from(2, texts[0].len()), &alone[0], name);
        assert_close(from(2 + texts[0].len(), 2), &alone[1][ROW.len() * d..], name);
        let some = hidden(&ids, &shared, Some(&[1, 5, 12]));
        assert_close(&some, &[from(1, 1), from(5, 1), from(12, 1)].concat(), name);
    }
}

/// The gradients of a step by the paths of their parameters, and its loss.
fn gradients(model: &CausalLm, recompute: Recompute) -> (HashMap<String, Vec<f32>>, Vec<f32>) {
    let mut model = at_step(model, 5);
    model.model.recompute = recompute;
    let ids = pack(&[&ROW], &model.decoder().device());
    let (hidden, tape) = model.model.forward_taped(ids, &Packing::rows([ROW.len()]), None);
    let loss: Tensor<1> = loss(model.logits(hidden), &ROW);
    let mut gradients = loss.clone().backward();
    let (mut found, _) = by_path(&model, &mut gradients);
    tape.unwrap().backward(&mut gradients, &mut |part, gradients| {
        if let Part::Block(i, block) = part {
            let below = by_path(block, gradients).0;
            found.extend(below.into_iter().map(|(path, gradient)| (format!("model.layers.{i}.{path}"), gradient)));
        }
    });
    (found, host(loss.inner()))
}

#[test]
fn recomputed_blocks_drop_the_same_elements() {
    for name in ["llama", "llama_dora"] {
        let model = model(name, &devices()[0].clone().autodiff());
        let (expected, loss) = gradients(&model, Recompute::None);
        let (found, loss_again) = gradients(&model, Recompute::Block);
        assert_close(&loss_again, &loss, name);
        assert_eq!(found.len(), expected.len(), "{name}");
        assert!(expected.keys().any(|path| path.contains("lora_A")), "{name}");
        for (path, gradient) in &expected {
            assert_close(&found[path], gradient, &format!("{name}, {path}"));
        }
    }
}

/// `B` is 0 and the lengths are those of the weights: whatever is dropped changes no bit, so the first log-ratios are 0.
#[test]
fn a_new_adapter_with_dropout_changes_no_bit() {
    for dora in [false, true] {
        let device = devices()[0].clone().autodiff();
        let (base, _) = load(&case("llama_kv2"), &device);
        let config = LoraConfig { rank: 4, dora, dropout: Some(0.5), ..LoraConfig::default() };
        let model = at_step(&attach(base.clone(), &config, 7).unwrap(), 1);
        assert_eq!(host(logits(&model, &ROW).inner()), host(logits(&base, &ROW).inner()), "dora {dora}");
        let (found, _) = by_path(&model, &mut loss(logits(&model, &ROW), &ROW).backward());
        assert!(found.keys().any(|path| path.contains("lora_B")));
        for (path, gradient) in found {
            assert_eq!(gradient.iter().all(|x| *x == 0.0), path.contains("lora_A"), "{path}");
        }
    }
}

#[test]
fn the_rate_is_kept_in_the_folder() {
    let device = &devices()[0];
    let (base, _) = load(&case("llama_kv2"), device);
    let config = LoraConfig { rank: 4, dropout: Some(0.05), ..LoraConfig::default() };
    let dir = tempfile::tempdir().unwrap();
    let about = AdapterAbout { base: "base".into(), revision: None, task: AdapterTask::CausalLm };
    save_adapter(&attach(base.clone(), &config, 7).unwrap(), &config, &about, dir.path()).unwrap();
    assert_eq!(json(&dir.path().join("adapter_config.json"))["lora_dropout"], 0.05);
    let again = AdapterFolder::open(dir.path()).unwrap();
    assert_eq!(again.config.dropout, Some(0.05));
    assert!(with_dropout(&again.load(base).unwrap(), MaskSeed::of_step(1, 1)).is_some());
}
