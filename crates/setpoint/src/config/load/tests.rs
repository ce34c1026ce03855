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
    assert!(text.iter().any(|t| t.contains("c.toml:4") && t.contains("did you mean `align.steps`?")), "{text:#?}");
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
    assert!(text.iter().any(|t| t.contains("did you mean `inner.beta`?")), "{text:#?}");
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
    assert!(refused("inner.beta=nan").contains("inner.beta"));
    let message = refused(&format!("a{}=1", ".a".repeat(20_000)));
    assert!(message.contains("the key has 20001 parts; expected at most 32") && message.len() < 300, "{message}");
    let seed = Given { set: vec!["seed=9000000000000000000".into()], ..Given::default() };
    assert_eq!(load::<Outer>(&seed).unwrap().seed, 9_000_000_000_000_000_000);
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Nested {
    inner: Option<Inner>,
    either: Either,
    entries: Vec<Inner>,
    pair: (f64, f64),
    names: Vec<String>,
}
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Number(f64),
    Range { from: f64, to: f64 },
}
impl Default for Either {
    fn default() -> Self {
        Either::Number(0.5)
    }
}
impl Config for Nested {
    fn validate(&self, _: &mut Problems<'_>) {}
}

fn said<C: Config>(given: &Given) -> Vec<String> {
    load::<C>(given).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn a_list_is_no_table_of_settings() {
    let set = |pair: &str| said::<Nested>(&Given { set: vec![pair.to_owned()], ..Given::default() });
    for (pair, key) in [
        ("inner=[0.5,3,\"a\"]", "inner"),
        ("inner=[0.5,\"x\"]", "inner"),
        ("inner=[[]]", "inner"),
        ("inner=[]", "inner"),
        ("entries=[[0.5,3,\"a\"]]", "entries[0]"),
    ] {
        let said = set(pair);
        assert_eq!(said.len(), 1, "{pair}: {said:#?}");
        assert!(said[0].contains(&format!("`{key}` is a table of settings; found a list")), "{pair}: {said:#?}");
    }
    for pair in ["pair=[1,2]", "names=[\"a\"]", "entries=[{beta=0.5,steps=1}]", "inner={beta=0.5,steps=1}"] {
        assert_eq!(set(pair), Vec::<String>::new(), "{pair}");
    }
    let tagged = Given { set: vec!["align=[\"one\",0.5,3]".to_owned()], ..Given::default() };
    assert!(said::<Tagged>(&tagged)[0].contains("`align` is a table of settings; found a list"));
}

#[test]
fn a_value_that_a_flag_replaces_is_checked_as_well() {
    for text in ["seed = 2\ninner = []\n", "seed = 2\ninner = 5\n", "seed = 2\n[[inner]]\nbeta = 1.0\n"] {
        let (_dir, mut given) = file(text);
        given.flag("inner.steps", Some(7_i64), "--steps 7");
        let said = said::<Outer>(&given);
        assert_eq!(said.len(), 1, "{text}: {said:#?}");
        assert!(said[0].contains("c.toml:2: `inner`") && said[0].contains("table of settings"), "{text}: {said:#?}");
    }
    // A choice may be replaced by another one that is a table.
    let (_dir, mut given) = file("either = 0.25\n");
    given.set.extend(["either.from=0.1".into(), "either.to=0.2".into()]);
    assert_eq!(said::<Nested>(&given), Vec::<String>::new());
}

#[test]
fn thousands_of_wrong_settings_are_counted_within_seconds() {
    let many = |line: fn(usize) -> String| (0..4000).map(line).collect::<String>();
    let start = std::time::Instant::now();
    for (text, shown) in [
        (many(|i| format!("a{i} = 1\n")), 20),
        (many(|i| format!("[a{i}]\n")), 20),
        (many(|i| format!("[[a{i}]]\n")), 20),
        (many(|i| format!("inner.a{i} = 1\n")), 20),
        (many(|i| format!("seed.a{i} = 1\n")), 1),
        (many(|i| format!("a.a{i} = 1\n")), 1),
        (format!("{} = 1\n", "a".repeat(300_000)), 1),
    ] {
        let (_dir, given) = file(&text);
        let said = said::<Outer>(&given);
        assert_eq!(said.iter().filter(|said| said.contains("c.toml:")).count(), shown, "{said:#?}");
        let rest = format!("the settings: {} more problems are not shown; correct these first", 4000 - shown);
        assert_eq!(said.last() == Some(&rest), shown == 20, "{said:#?}");
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
