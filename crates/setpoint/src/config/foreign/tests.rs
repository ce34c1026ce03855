use std::collections::BTreeSet;

use super::*;
use crate::align::AlignConfig;
use crate::config::has_setting;
use crate::config::load::to_table;
use crate::eval::tasks::TasksConfig;
use crate::generate::GenerateConfig;
use crate::reward::RewardConfig;

/// Returns whether any job has a setting, for any method of `setpoint align`.
fn exists(key: &str) -> bool {
    let of_method = |name: &str| {
        setpoint_align::METHODS
            .iter()
            .any(|about| setpoint_align::Method::named(about.name).is_some_and(|m| to_table(&m).contains_key(name)))
    };
    has_setting::<AlignConfig>(key)
        || has_setting::<RewardConfig>(key)
        || has_setting::<GenerateConfig>(key)
        || has_setting::<TasksConfig>(key)
        || key.strip_prefix("align.").is_some_and(of_method)
}

#[test]
fn every_name_leads_to_a_setting_that_exists() {
    let mut names = BTreeSet::new();
    for foreign in FOREIGN {
        assert!(names.insert(foreign.name), "`{}` is listed twice", foreign.name);
        assert!(foreign.setting().is_none_or(exists), "{foreign:?}");
        assert!(!foreign.is_carried() || !foreign.tools.is_empty(), "{foreign:?} is carried over from no tool");
        assert!(!foreign.is_carried() || !foreign.name.contains('*'), "{foreign:?} is a pattern");
    }
}

#[test]
fn names_that_are_converted_together_are_next_to_each_other() {
    let groups: Vec<&Foreign> = FOREIGN.chunk_by(|one, next| one.goes_with(next)).map(|group| &group[0]).collect();
    for (at, group) in groups.iter().enumerate() {
        let again = groups[at + 1..].iter().find(|other| group.goes_with(other));
        assert!(again.is_none(), "{group:?} is apart from {again:?}");
    }
}

#[test]
fn a_name_is_answered_with_its_counterpart() {
    let said = |name: &str| foreign(name).map(|foreign| foreign.remedy(name));
    for (name, sentence) in [
        (
            "per-device-train-batch-size",
            "`per_device_train_batch_size` is a name of trl and LLaMA-Factory; here it is `train.micro_batch`, \
             as in train.micro_batch = { examples = 8 }",
        ),
        ("cutoff_len", "`cutoff_len` is a name of LLaMA-Factory; here it is `encode.max_length`"),
        ("output_dir", "`output_dir` is a name of trl, axolotl, LLaMA-Factory; here it is the flag --run DIR"),
        ("padding_free", "`padding_free` is a name of trl and not needed here: rows are packed without padding"),
        ("wandb_project", "`wandb_project` is a name of axolotl; here it is `tracker.project`"),
        ("use_comet", "`use_comet` is a name of other tools and not needed here"),
        (
            "datasets",
            "`datasets` is a name of trl and axolotl; here it is `data.path`, as in data.path = \"FILE\"; each of several data \
             sets is a section [[data]]",
        ),
        (
            "optim",
            "`optim` is a name of trl and LLaMA-Factory; here it is `train.optimizer.state`, as in \
             train.optimizer.state = \"8bit\" or \"f32\": the optimizer is AdamW",
        ),
        (
            "load_in_4bit",
            "`load_in_4bit` is a name of trl and axolotl; here it is `model.quantize`, as in model.quantize = \"nf4\", with a \
             section [adapter]",
        ),
        (
            "load_in_8bit",
            "`load_in_8bit` is a name of other tools; here weights are quantised in one format: set model.quantize = \"nf4\", \
             with a section [adapter]",
        ),
        ("freeze_layers", "`freeze_layers` is a name of other tools; here all weights are trained"),
        (
            "fsdp_config",
            "`fsdp_config` is a name of trl, axolotl, LLaMA-Factory; here it is `train.optimizer.shard`, as in \
             train.optimizer.shard = true, the default with several devices: --device cuda:0-7",
        ),
        (
            "zero_stage",
            "`zero_stage` is a name of other tools; here it is `train.optimizer.shard`, as in train.optimizer.shard = true, \
             the default with several devices: --device cuda:0-7",
        ),
        // The same name here, and a misspelling of one.
        ("learning_rate", ""),
        ("logging_stps", ""),
    ] {
        assert_eq!(said(name).unwrap_or_default(), sentence, "{name}");
    }
}
