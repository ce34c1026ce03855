use super::*;
use serde::Deserialize;

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Inner {
    beta: f64,
    steps: usize,
    name: Option<String>,
}
#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Outer {
    seed: u64,
    inner: Inner,
}
impl Default for Outer {
    fn default() -> Self {
        Outer { seed: 1, inner: Inner { beta: 0.1, steps: 3, name: None } }
    }
}
impl Config for Outer {
    fn validate(&self, problems: &mut Problems<'_>) {
        problems.require(self.inner.beta > 0.0, "inner.beta", "`inner.beta` must be positive");
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
enum Method {
    One(Inner),
}
#[derive(Debug, Serialize, Deserialize)]
struct Tagged {
    align: Method,
}
impl Default for Tagged {
    fn default() -> Self {
        Tagged { align: Method::One(Inner { beta: 0.1, steps: 3, name: None }) }
    }
}
impl Config for Tagged {
    fn validate(&self, _: &mut Problems<'_>) {}
}

#[test]
fn settings_of_a_method_are_blamed_one_by_one() {
    let (_dir, given) = file("[align]\nmethod = \"one\"\nbeta = \"x\"\nstps = 1\n");
    let text: Vec<String> = load::<Tagged>(&given).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 2, "{text:#?}");
    assert!(text.iter().any(|t| t.contains("c.toml:3") && t.contains("align.beta")), "{text:#?}");
    assert!(text.iter().any(|t| t.contains("c.toml:4") && t.contains("did you mean `steps`?")), "{text:#?}");
}

fn file(text: &str) -> (tempfile::TempDir, Given) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    (dir, Given { file: Some(path), ..Given::default() })
}

#[test]
fn layers_override_in_order() {
    let (_dir, mut given) = file("seed = 2\n[inner]\nbeta = 0.5\n");
    given.flag("inner.steps", Some(7_i64), "--steps 7");
    given.set.push("inner.name=run one".into());
    given.set.push("inner.steps=9".into());
    let config: Outer = load(&given).unwrap();
    assert_eq!(config, Outer { seed: 2, inner: Inner { beta: 0.5, steps: 9, name: Some("run one".into()) } });
}

#[test]
fn every_problem_is_reported_with_its_line() {
    let (_dir, mut given) = file("seed = \"x\"\n\n[inner]\nbta = 1\nsteps = -3\nbeta = -1.0\n");
    given.set.push("nonsense".into());
    let problems = load::<Outer>(&given).unwrap_err();
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let at = |line: usize| text.iter().filter(|t| t.contains(&format!("c.toml:{line}:"))).count();
    assert_eq!((at(1), at(4), at(5), at(6)), (1, 1, 1, 1), "{text:#?}");
    assert!(text.iter().any(|t| t.contains("did you mean `beta`?")), "{text:#?}");
    assert!(text.iter().any(|t| t.contains("--set nonsense")), "{text:#?}");
    assert_eq!(problems.len(), 5, "{text:#?}");
}

#[test]
fn one_sentence_says_what_is_wrong_with_a_setting() {
    for pair in ["inner.steps=nan", "inner.steps=[nan]", "inner.steps={a=1}", "seed={a={b=[1]}}"] {
        let given = Given { set: vec![pair.to_owned()], ..Given::default() };
        let problems = load::<Outer>(&given).unwrap_err();
        assert_eq!(problems.len(), 1, "{pair}: {problems:#?}");
    }
}

#[test]
fn syntax_errors_name_the_line() {
    let (_dir, given) = file("seed = 1\n[inner\n");
    let problems = load::<Outer>(&given).unwrap_err();
    assert!(problems[0].place.ends_with("c.toml:2"), "{problems:?}");
}

#[test]
fn numbers_without_bounds_and_keys_without_end_are_refused() {
    let refused = |pair: &str| {
        let given = Given { set: vec![pair.to_owned()], ..Given::default() };
        load::<Outer>(&given).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let message = refused("inner.steps=1000000000000000000");
    assert!(message.contains("`inner.steps` is 1000000000000000000; expected at most 4294967296"), "{message}");
    for value in ["18446744073709551615", "1e18", "-1", "nan", "inf"] {
        let message = refused(&format!("inner.steps={value}"));
        assert!(message.contains("inner.steps"), "{value}: {message}");
    }
    assert!(refused("inner.beta=nan").contains("not a number"));
    let message = refused(&format!("a{}=1", ".a".repeat(20_000)));
    assert!(message.contains("the key has 20001 parts; expected at most 32") && message.len() < 300, "{message}");
    let seed = Given { set: vec!["seed=9000000000000000000".into()], ..Given::default() };
    assert_eq!(load::<Outer>(&seed).unwrap().seed, 9_000_000_000_000_000_000);
}
