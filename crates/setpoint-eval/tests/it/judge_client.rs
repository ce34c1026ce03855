//! The client against a server that misbehaves.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use setpoint_eval::{ChatMessage, ChatRequest, Error, JudgeClient, JudgeSettings};

use crate::server::{Action, Server, completion};

/// Cargo sets it for tests; its value stands in for a key.
const KEY_VARIABLE: &str = "CARGO_PKG_DESCRIPTION";

fn key() -> String {
    std::env::var(KEY_VARIABLE).unwrap()
}

fn settings(server: &Server) -> JudgeSettings {
    JudgeSettings {
        model: Some("judge-1".into()),
        base_url: server.base_url.clone(),
        api_key_env: KEY_VARIABLE.into(),
        timeout_seconds: 5.0,
        backoff_seconds: 0.01,
        concurrency: 4,
        ..JudgeSettings::default()
    }
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest { messages: vec![ChatMessage::new("user", text)], max_tokens: Some(5), ..ChatRequest::default() }
}

fn contents(client: &JudgeClient, texts: &[&str]) -> Vec<Result<String, String>> {
    let requests: Vec<ChatRequest> = texts.iter().map(|t| ask(t)).collect();
    let mut seen = Vec::new();
    let answers = client.ask_all(&requests, &mut |done| seen.push(done)).unwrap();
    assert_eq!(seen.last(), Some(&texts.len()), "progress ends at the number of requests");
    answers.into_iter().map(|a| a.map(|a| a.content)).collect()
}

#[test]
fn what_passes_is_tried_again() {
    let mishaps = [
        Action::Status(500, String::new(), "oops".into()),
        Action::Cut,
        Action::Half,
        Action::Status(200, String::new(), "<html>gateway</html>".into()),
        Action::Json(json!({"choices": []})),
        Action::Json(json!({"choices": [{"message": {"content": 7}}]})),
        Action::Status(503, String::new(), String::new()),
    ];
    let n = mishaps.len();
    let server = Server::start(move |i, _| mishaps.get(i).cloned().unwrap_or(Action::Say("fine".into())));
    let client = JudgeClient::open(&JudgeSettings { prompt_price: Some(2e6), ..settings(&server) }).unwrap();
    assert_eq!(contents(&client, &["a"]), [Ok("fine".to_owned())]);
    let spent = client.spending();
    assert_eq!((spent.answered, spent.retried, spent.failed), (1, n as u64, 0));
    assert_eq!((spent.prompt_tokens, spent.completion_tokens), (10, 2));
    assert_eq!(spent.cost, Some(20.0)); // ten tokens at two each
    assert!(server.arrived.lock().unwrap()[0].head.contains(&format!("Bearer {}", key())));
}

#[test]
fn a_refusal_is_an_answer_and_is_paid_once() {
    let choice = json!({"message": {"content": null, "refusal": "no"}, "finish_reason": "stop"});
    let server = Server::start(move |_, request| {
        assert!(request.body["max_tokens"].is_null() && request.body["max_completion_tokens"] == 5, "{}", request.body);
        Action::Json(json!({"choices": [choice]}))
    });
    let settings = JudgeSettings { max_tokens_key: "max_completion_tokens".into(), ..settings(&server) };
    let client = JudgeClient::open(&settings).unwrap();
    assert_eq!(contents(&client, &["a"]), [Ok(String::new())]);
    assert_eq!(server.count(), 1);
}

#[test]
fn retry_after_holds_back_all_workers() {
    let server = Server::start(|i, _| match i {
        0 => Action::Status(429, "retry-after: 0.6\r\n".into(), "slow down".into()),
        _ => Action::Say("fine".into()),
    });
    let client = JudgeClient::open(&JudgeSettings { concurrency: 1, ..settings(&server) }).unwrap();
    let begin = Instant::now();
    assert!(contents(&client, &["a", "b"]).iter().all(Result::is_ok));
    assert!(begin.elapsed() >= Duration::from_millis(590), "{:?}", begin.elapsed());
    assert_eq!((server.count(), client.spending().retried), (3, 1));
}

#[test]
fn a_server_that_never_recovers_fails_its_requests_alone() {
    let server = Server::start(|_, request| match request.body["messages"][0]["content"].as_str() {
        Some("slow") => Action::Slow(Duration::from_secs(2)),
        Some("refused") => Action::Status(400, String::new(), "too long".into()),
        _ => Action::Say("fine".into()),
    });
    let client = JudgeClient::open(&JudgeSettings { retries: 1, timeout_seconds: 0.3, ..settings(&server) }).unwrap();
    let got = contents(&client, &["slow", "a", "refused"]);
    assert!(got[0].as_ref().is_err_and(|e| e.contains("timeout") && e.contains("2 attempts")), "{got:?}");
    assert_eq!(got[1].as_deref(), Ok("fine"));
    assert!(got[2].as_ref().is_err_and(|e| e.contains("400") && e.contains("too long")), "{got:?}");
    assert_eq!((client.spending().failed, client.spending().retried), (2, 1), "a refusal is not repeated");
    assert!(client.first_failure().is_some_and(|reason| reason.contains("too long")), "the refusal came first");
}

#[test]
fn a_refused_key_ends_everything_and_is_not_repeated_in_the_message() {
    let key = key();
    let server = Server::start(move |_, _| Action::Status(401, String::new(), format!("wrong key {key}")));
    let client = JudgeClient::open(&settings(&server)).unwrap();
    let texts: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    let requests: Vec<ChatRequest> = texts.iter().map(|t| ask(t)).collect();
    let error = client.ask_all(&requests, &mut |_| ()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Judge { .. }) && message.contains("401"), "{message}");
    assert!(message.contains("wrong key [key]"), "{message}");
    assert!(server.count() <= 8, "{} requests were sent after the first refusal", server.count());
    assert!(!format!("{client:?}").contains(&self::key()));
}

#[test]
fn an_endpoint_that_asks_for_an_hour_or_for_money_is_not_waited_for() {
    for (headers, body) in [("retry-after: 3600\r\n", "later"), ("", "{\"error\":{\"code\":\"insufficient_quota\"}}")] {
        let server = Server::start(move |_, _| Action::Status(429, headers.into(), body.into()));
        let client = JudgeClient::open(&settings(&server)).unwrap();
        let error = client.ask_all(&[ask("a")], &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::Judge { .. }), "{error}");
        assert_eq!(server.count(), 1);
    }
}

#[test]
fn an_evaluation_that_was_killed_goes_on_without_paying_twice() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("judge/cache.jsonl");
    // The server quotes the key it was sent.
    let server = Server::start(|_, request| {
        let key = request.head.lines().find(|l| l.to_lowercase().starts_with("authorization")).unwrap();
        Action::Say(format!("{} for {key}", request.body["messages"][0]["content"]))
    });
    let open = |path: &Path| JudgeClient::open(&JudgeSettings { cache: Some(path.to_owned()), ..settings(&server) });
    let first = {
        let client = open(&cache).unwrap();
        let busy = open(&cache).unwrap_err();
        assert!(busy.to_string().contains("in use"), "{busy}");
        contents(&client, &["a", "b", "a"])
    };
    assert_eq!(server.count(), 2, "equal requests are sent once");
    assert_eq!(first[0], first[2]);
    let text = std::fs::read_to_string(&cache).unwrap();
    assert!(!text.contains(&key()) && text.contains("[key]"), "the key is in the cache: {text}");

    // The process dies in the middle of a line.
    std::fs::write(&cache, format!("{text}{{\"key\":\"abc\",\"resp")).unwrap();
    let client = open(&cache).unwrap();
    let again = contents(&client, &["a", "b", "c"]);
    assert_eq!(again[..2], first[..2]);
    assert_eq!(server.count(), 3, "only `c` is new");
    assert_eq!((client.spending().cached, client.spending().answered, client.spending().prompt_tokens), (2, 1, 10));
    drop(client);
    assert_eq!(std::fs::read_to_string(&cache).unwrap().lines().count(), 3, "the torn line is gone");

    // Another model, another question.
    let other = JudgeSettings { model: Some("judge-2".into()), cache: Some(cache.clone()), ..settings(&server) };
    assert!(contents(&JudgeClient::open(&other).unwrap(), &["a"])[0].is_ok());
    assert_eq!(server.count(), 4);

    std::fs::write(&cache, "nonsense\n").unwrap();
    assert!(matches!(open(&cache), Err(Error::Row { row: 1, .. })));
}

#[test]
fn concurrency_and_pace_are_kept() {
    let server = Server::start(|_, _| Action::Slow(Duration::from_millis(100)));
    let texts: Vec<String> = (0..8).map(|i| i.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let client = JudgeClient::open(&JudgeSettings { concurrency: 3, ..settings(&server) }).unwrap();
    assert!(contents(&client, &texts).iter().all(Result::is_ok));
    let most = server.most.load(std::sync::atomic::Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at once");

    let server = Server::start(|_, _| Action::Json(completion("x")));
    let paced = JudgeSettings { requests_per_minute: Some(600.0), ..settings(&server) };
    let begin = Instant::now();
    contents(&JudgeClient::open(&paced).unwrap(), &texts[..6]);
    assert!(begin.elapsed() >= Duration::from_millis(490), "six requests at ten a second: {:?}", begin.elapsed());
}

#[test]
fn wrong_settings_are_named() {
    let ok = JudgeSettings { model: Some("m".into()), api_key_env: String::new(), ..JudgeSettings::default() };
    assert!(ok.problems().is_empty());
    let key_of = |s: JudgeSettings| s.problems().first().map(|p| p.0);
    assert_eq!(key_of(JudgeSettings { model: None, ..ok.clone() }), Some("model"));
    assert_eq!(key_of(JudgeSettings { base_url: "api.openai.com".into(), ..ok.clone() }), Some("base_url"));
    assert_eq!(key_of(JudgeSettings { base_url: "https://me:pw@host/v1".into(), ..ok.clone() }), Some("base_url"));
    assert_eq!(key_of(JudgeSettings { max_tokens_key: "limit".into(), ..ok.clone() }), Some("max_tokens_key"));
    assert_eq!(key_of(JudgeSettings { concurrency: 0, ..ok.clone() }), Some("concurrency"));
    assert_eq!(key_of(JudgeSettings { timeout_seconds: f64::NAN, ..ok.clone() }), Some("timeout_seconds"));
    let unset = JudgeSettings { api_key_env: "SETPOINT_NO_SUCH_KEY".into(), ..ok };
    let error = JudgeClient::open(&unset).unwrap_err();
    assert!(error.to_string().contains("SETPOINT_NO_SUCH_KEY"), "{error}");
}
