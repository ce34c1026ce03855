//! Every refusal of the server is OpenAI's error object with its status, and a server that is told to end answers what it has begun.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;

use super::fixture::{Ran, command, model, setpoint};
use super::serving::{Reply, Server, reply};

const CHAT: &str = "/v1/chat/completions";
const PLAIN: &str = "/v1/completions";

/// Fails the test unless a reply is an error of this status, type and text.
#[track_caller]
fn assert_error(reply: &Reply, status: u16, kind: &str, said: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert!(reply.head.to_lowercase().contains("content-type: application/json"), "{reply:?}");
    let error = reply.json()["error"].clone();
    assert_eq!(error["type"], kind, "{reply:?}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(said)), "{said:?} in {reply:?}");
    assert!(error.get("param").is_some() && error.get("code").is_some(), "{reply:?}");
}

#[test]
fn wrong_requests_are_refused_in_one_sentence() {
    let server =
        Server::start(model(), &["--name", "tiny", "--set", "generate.batch_size=2", "--set", "serve.queue=3"]);
    let turn = json!([{ "role": "user", "content": "Hello." }]);
    let invalid = "invalid_request_error";
    for (path, body, said) in [
        (CHAT, json!({}), "`messages` is missing"),
        (CHAT, json!({ "messages": [] }), "`messages` is empty"),
        (CHAT, json!({ "messages": turn, "temperature": -1 }), "`temperature` must be"),
        (CHAT, json!({ "messages": turn, "tools": [{ "type": "function" }] }), "`tools` is not supported"),
        (
            CHAT,
            json!({ "messages": turn, "response_format": { "type": "json_object" } }),
            "`response_format` is not supported",
        ),
        (CHAT, json!({ "messages": turn, "top_logprobs": 3 }), "`top_logprobs` needs `logprobs: true`"),
        (CHAT, json!({ "messages": turn, "prompt": "a" }), "`prompt` is unknown"),
        (CHAT, json!({ "messages": turn, "chat_template_kwargs": 1 }), "`chat_template_kwargs` must be"),
        (CHAT, json!({ "messages": turn, "chat_template_kwargs": { "tools": [] } }), "cannot set `tools`"),
        (CHAT, json!({ "messages": turn, "n": 6 }), "asks for 6 answers; this server takes at most 5"),
        (PLAIN, json!({ "model": "tiny" }), "`prompt` is missing"),
        (PLAIN, json!({ "prompt": [1, 100_000] }), "the token 100000"),
        (
            PLAIN,
            json!({ "prompt": "a", "stop_token_ids": [3, 100_000] }),
            "`stop_token_ids` has the token 100000; the model's vocabulary has",
        ),
        (CHAT, json!({ "messages": turn, "stop_token_ids": [u32::MAX] }), "`stop_token_ids` has the token 4294967295"),
        (PLAIN, json!({ "prompt": "a ".repeat(2000) }), "reads at most 256, the answer included"),
        (PLAIN, json!({ "prompt": "a", "echo": true }), "`echo` is not supported"),
        (PLAIN, json!({ "prompt": "a", "best_of": 2 }), "`best_of` is not supported"),
        (
            PLAIN,
            json!({ "prompt": ["a", "b"], "n": 128, "max_tokens": 255, "logprobs": 20 }),
            "log-probabilities, and at most 1048576 are told at once",
        ),
        (PLAIN, json!({ "prompt": "a", "logprobs": 21 }), "`logprobs` must be a whole number from 0 to 20"),
    ] {
        assert_error(&server.post(path, &body), 400, invalid, said);
    }
    let long = server.post(PLAIN, &json!({ "prompt": "a ".repeat(2000) })).json();
    assert_eq!(
        (&long["error"]["code"], &long["error"]["param"]),
        (&json!("context_length_exceeded"), &json!("prompt"))
    );
    assert_error(&server.request("POST", CHAT, "", "{\"messages\": "), 400, invalid, "the body is not JSON");
    let unknown = server.post(CHAT, &json!({ "model": "gpt-5", "messages": turn }));
    assert_error(&unknown, 404, invalid, "there is no model `gpt-5` here; this server has `tiny`");
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    assert_error(&server.post("/v1/embeddings", &json!({})), 404, invalid, "there is no endpoint `/v1/embeddings`");
    assert_error(&server.post("/v1/score", &json!({ "input": [] })), 404, invalid, "is a language model");
    assert_error(&server.get("/v1/models/%FF"), 400, invalid, "is not UTF-8 text");
    for method in ["GET", "OPTIONS", "DELETE", "PATCH"] {
        let reply = server.request(method, CHAT, "", "");
        assert_error(&reply, 405, invalid, &format!("does not take {method} requests"));
        assert!(reply.head.to_lowercase().contains("allow: post"), "{reply:?}");
    }
    let head = server.request("HEAD", CHAT, "", "");
    assert!(head.status == 405 && head.body.is_empty(), "{head:?}");
    let large = json!({ "prompt": "a".repeat((1 << 20) + 1) });
    assert_error(&server.post(PLAIN, &large), 413, invalid, "more than 1048576 bytes");
    let page = server.request("POST", CHAT, "Origin: https://example.com\r\n", "{}");
    assert_error(&page, 403, invalid, "answered only with a key");
    // After all this it answers.
    assert_eq!(server.post(CHAT, &json!({ "model": "tiny", "messages": turn, "max_tokens": 2 })).status, 200);
}

#[test]
fn the_farthest_numbers_that_are_allowed_are_answered() {
    let server = Server::start(model(), &[]);
    for (field, values) in [
        ("temperature", vec![json!(5e-324), json!(1e-30), json!(1.7e308)]),
        ("top_p", vec![json!(5e-324), json!(1)]),
        ("top_k", vec![json!(u64::MAX), json!(1), json!(-1)]),
        ("repetition_penalty", vec![json!(5e-324), json!(1e-39), json!(1e39), json!(1.7e308)]),
        ("seed", vec![json!(u64::MAX), json!(i64::MIN)]),
        ("logprobs", vec![json!(0), json!(20)]),
        ("stop", vec![json!([]), json!(["\u{0}", "é".repeat(512)])]),
        ("stop_token_ids", vec![json!([]), json!([0, 0])]),
        ("max_tokens", vec![json!(u32::MAX)]),
    ] {
        for value in values {
            for top_p in [1.0, 0.9] {
                let mut body =
                    json!({ "prompt": "Hello.", "temperature": 1, "top_p": top_p, "seed": 1, "max_tokens": 12 });
                body[field] = value.clone();
                let answer = server.post(PLAIN, &body).ok();
                let count = answer["usage"]["completion_tokens"].as_u64();
                assert!(count.is_some_and(|count| count > 0), "{body}: {answer}");
                let logps = answer["choices"][0]["logprobs"]["token_logprobs"].as_array();
                assert!(logps.is_none_or(|logps| logps.iter().all(serde_json::Value::is_number)), "{answer}");
            }
        }
    }
    // A program in Python sends what JSON does not have.
    for number in ["NaN", "Infinity", "-Infinity", "1e999"] {
        let body = format!("{{\"prompt\": \"a\", \"temperature\": {number}}}");
        let reply = server.request("POST", PLAIN, "", &body);
        assert_error(&reply, 400, "invalid_request_error", "the body is not JSON");
    }
}

#[test]
fn with_a_key_only_requests_that_bear_it_are_answered() {
    let server = Server::start_with(model(), &[], Some("sk-secret-1"));
    assert!(server.said.contains("with the key") && !server.said.contains("sk-secret"), "{}", server.said);
    for headers in ["", "Authorization: Bearer sk-secret-2\r\n", "Authorization: sk-secret-1\r\n"] {
        for path in ["/v1/models", "/metrics", "/nowhere"] {
            assert_error(&server.request("GET", path, headers, ""), 401, "invalid_request_error", "asks for its key");
        }
    }
    let key = "Authorization: Bearer sk-secret-1\r\n";
    assert_eq!(server.request("GET", "/v1/models", key, "").status, 200);
    let body = json!({ "prompt": "a", "max_tokens": 1 }).to_string();
    assert_eq!(server.request("POST", PLAIN, key, &body).status, 200);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_full_queue_refuses_and_loses_nothing() {
    let server = Server::start(model(), &["--set", "generate.batch_size=1", "--set", "serve.queue=1"]);
    let body = json!({ "prompt": "Hello", "temperature": 1, "max_tokens": 150, "n": 2 });
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(|| server.post(PLAIN, &body))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let refused: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert!(!refused.is_empty() && refused.len() < 12, "{} of 12", refused.len());
    for reply in refused {
        assert_error(reply, 429, "rate_limit_error", "the queue is full");
        assert!(reply.head.to_lowercase().contains("retry-after: 1"), "{reply:?}");
    }
    for reply in replies.iter().filter(|reply| reply.status != 429) {
        assert_eq!(reply.ok()["choices"].as_array().unwrap().len(), 2);
    }
    // There is room again.
    assert_eq!(server.post(PLAIN, &body).status, 200);
}

#[test]
fn a_request_that_takes_too_long_ends_with_408_and_leaves_the_batch() {
    let server = Server::start(model(), &["--set", "serve.timeout_seconds=0.1"]);
    let slow = json!({ "prompt": "Hello", "temperature": 1, "max_tokens": 240, "n": 128 });
    assert_error(&server.post(PLAIN, &slow), 408, "timeout_error", "not answered within 0.1 seconds");
    // Its answers have left, so that there is time for another.
    let quick = json!({ "prompt": "a", "temperature": 0, "max_tokens": 1 });
    let answered = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        server.post(PLAIN, &quick).status == 200
    });
    assert!(answered);
    // Half a request.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(b"POST /v1/completions HTTP/1.0\r\nContent-Length: 50\r\n\r\n{").unwrap();
    assert_error(&reply(stream), 408, "timeout_error", "not answered within");
}

#[cfg(unix)]
#[test]
fn a_server_that_is_told_to_end_answers_what_it_has_begun() {
    for name in ["TERM", "INT"] {
        let server = Server::start(model(), &["--set", "generate.batch_size=2"]);
        let body =
            json!({ "prompt": "Hello", "temperature": 1, "seed": 1, "max_tokens": 200, "stream": true, "logprobs": 0 });
        let headers = "Content-Type: application/json\r\n";
        // Two in work, two that wait.
        let mut streams: Vec<TcpStream> =
            (0..4).map(|_| server.send("POST", PLAIN, headers, &body.to_string())).collect();
        let mut first = [0; 1];
        streams[0].read_exact(&mut first).unwrap();
        // All have been read once two wait, or none has to.
        for _ in 0..100 {
            let metrics = server.get("/metrics").body;
            if metrics.contains("setpoint_answers_waiting 2") || metrics.contains("setpoint_answers_running 0") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        server.signal(name);
        for (i, stream) in streams.into_iter().enumerate() {
            let reply = reply_after(&first[..usize::from(i == 0)], stream);
            assert_eq!(reply.events().pop().as_deref(), Some("[DONE]"), "{name}, stream {i}: {reply:?}");
        }
        let address = server.address.clone();
        let ran = server.end();
        assert_eq!(ran.code, 0, "{ran:#?}");
        assert!(!ran.stderr.contains("error") && !ran.stderr.contains("panicked"), "{ran:#?}");
        assert!(TcpStream::connect(&address).is_err(), "nobody listens");
    }
}

/// Reads a reply of which some bytes have been read.
#[cfg(unix)]
fn reply_after(read: &[u8], mut stream: TcpStream) -> Reply {
    let mut text = read.to_vec();
    stream.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    Reply { status: 200, head: head.to_owned(), body: body.to_owned() }
}

#[test]
fn a_client_that_goes_leaves_its_place() {
    let server = Server::start(model(), &["--set", "generate.batch_size=1", "--set", "serve.queue=0"]);
    let body = json!({ "prompt": "Hello", "temperature": 1, "max_tokens": 240, "stream": true, "logprobs": 0 });
    let mut stream = server.send("POST", PLAIN, "", &body.to_string());
    stream.read_exact(&mut [0; 1]).unwrap();
    drop(stream);
    let quick = json!({ "prompt": "a", "max_tokens": 1 });
    let answered = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        server.post(PLAIN, &quick).status == 200
    });
    assert!(answered);
}

#[test]
fn wrong_settings_are_refused_before_the_model_is_read() {
    let policy = model().display().to_string();
    let serve = |arguments: &[&str]| {
        let mut command = command(&["serve", "--model", &policy]);
        command.args(arguments).env_remove("SETPOINT_API_KEY");
        Ran::of(&command.output().unwrap())
    };
    for (arguments, said) in [
        (&["--host", "0.0.0.0"][..], &["serve.host", "others can reach 0.0.0.0", "SETPOINT_API_KEY"][..]),
        (&["--host", ""], &["`serve.host` is empty"]),
        (&["--port", "70000"], &["--port", "at most 65535"]),
        (&["--name", ""], &["`serve.name` must have"]),
        (&["--set", "serve.queue=70000"], &["`serve.queue` must be at most 65536"]),
        (&["--set", "serve.timeout_seconds=0"], &["`serve.timeout_seconds` must be from 0.1"]),
        (&["--set", "generate.samples=2"], &["generate.samples", "a request says this itself"]),
        (&["--set", "generate.seed=2"], &["generate.seed", "a request says this itself"]),
        (&["--set", "generate.only_finished=true"], &["finish_reason"]),
        (&["--set", "generate.batch_size=0"], &["`generate.batch_size` must be at least 1"]),
        (&["--set", "generate.batch_size=1000000000000"], &["`generate.batch_size` must be at most 65536"]),
        (&["--device", "flex,flex"], &["answers on one device"]),
    ] {
        serve(arguments).fails(2, said);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    serve(&["--port", &port]).fails(1, &[&format!("cannot listen at 127.0.0.1, port {port}"), "--port 8001"]);
    let mut with_bad_key = command(&["serve", "--model", &policy, "--dry-run"]);
    with_bad_key.env("SETPOINT_API_KEY", "two words");
    Ran::of(&with_bad_key.output().unwrap()).fails(2, &["SETPOINT_API_KEY", "printable ASCII"]);
    let ran = setpoint(&["serve", "--model", &policy, "--port", "0", "--dry-run"]).ok();
    assert!(ran.stdout.contains("would serve") && ran.stdout.contains("http://127.0.0.1:"), "{ran:#?}");
}
