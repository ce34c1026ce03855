//! Adapters of other tools, and their quantised bases.

use toml::Value;

use super::{converted, has, remark};

#[test]
fn four_bits_are_nf4_below_an_adapter() {
    let is_double = |text: &str| {
        let model = converted(text).settings["model"].clone();
        assert_eq!(model["quantize"].as_str(), Some("nf4"), "{text}");
        model.get("double_quant").and_then(Value::as_bool)
    };
    let trl = "use_peft: true\nmodel_name_or_path: m\nloss_type: [sigmoid]\nload_in_4bit: true";
    assert_eq!(is_double(trl), Some(false));
    assert_eq!(is_double(&format!("{trl}\nuse_bnb_nested_quant: true")), None);
    assert_eq!(is_double("base_model: m\nadapter: qlora\nlora_r: 8\nload_in_4bit: true"), None);
    let factory = "stage: sft\nmodel_name_or_path: m\nfinetuning_type: lora\ncutoff_len: 8";
    assert_eq!(is_double(&format!("{factory}\nquantization_bit: 4")), None);
    assert_eq!(is_double(&format!("{factory}\nquantization_bit: 4\ndouble_quantization: false")), Some(false));

    let eight = converted(&format!("{factory}\nquantization_bit: 8"));
    assert!(remark(&eight, "quantization_bit").contains("4 bits alone"), "{:?}", eight.remarks);
    let full = converted("model_name_or_path: m\nloss_type: [sigmoid]\nload_in_4bit: true");
    assert!(remark(&full, "load_in_4bit").contains("section [adapter]"), "{:?}", full.remarks);
    for file in [eight, full] {
        assert!(file.settings["model"].get("quantize").is_none(), "{:?}", file.settings);
    }
}

#[test]
fn adapters_have_the_defaults_of_their_tool() {
    for (text, expected) in [
        (
            "use_peft: true\nmodel_name_or_path: m\nloss_type: [sigmoid]",
            r#"adapter = { rank = 16, alpha = 32.0, dropout = 0.05, targets = ["q_proj", "v_proj"] }"#,
        ),
        (
            "use_peft: true\nmodel_name_or_path: m\nloss_type: [ipo]\nlora_r: 4\nlora_dropout: 0\nlora_target_modules: all-linear\nuse_rslora: true",
            r#"adapter = { rank = 4, alpha = 32.0, targets = "all-linear", rslora = true }"#,
        ),
        (
            "stage: sft\nmodel_name_or_path: m\nfinetuning_type: lora\nlora_rank: 6\nadditional_target: embed_tokens, lm_head\ncutoff_len: 8",
            r#"adapter = { rank = 6, alpha = 12.0, targets = "all-linear", modules_to_save = ["embed_tokens", "lm_head"] }"#,
        ),
        (
            "base_model: m\nadapter: lora\nlora_r: 8\nlora_alpha: 4\nlora_target_modules: [up_proj]\nloraplus_lr_ratio: 8\npeft_use_dora: true",
            r#"adapter = { rank = 8, alpha = 4.0, targets = ["up_proj"], dora = true, plus_ratio = 8.0 }"#,
        ),
        ("base_model: m\nadapter: lora\nlora_r: 8\nlora_model_dir: old", r#"adapter = { path = "old" }"#),
    ] {
        has(&converted(text), expected);
    }
    let full = converted("stage: sft\nmodel_name_or_path: m\nfinetuning_type: full\nlora_rank: 6\ncutoff_len: 8");
    assert!(!full.settings.contains_key("adapter"), "{:?}", full.settings);
    for (text, rate) in [("0.1", Some(0.1)), ("'5e-2'", Some(0.05)), ("0.0", None)] {
        let found = converted(&format!("base_model: m\nadapter: lora\nlora_r: 8\nlora_dropout: {text}"));
        let dropout = found.settings["adapter"].get("dropout").and_then(Value::as_float);
        assert_eq!(dropout, rate, "{text}");
        assert!(found.remarks.iter().all(|remark| remark.name != "lora_dropout"), "{:?}", found.remarks);
    }
    for text in ["1.0", "-0.1", "much"] {
        let wrong = converted(&format!("base_model: m\nadapter: lora\nlora_r: 8\nlora_dropout: {text}"));
        assert!(remark(&wrong, "lora_dropout").contains("at least 0 and below 1, found"), "{:?}", wrong.remarks);
    }
}
