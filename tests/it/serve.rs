//! Answers over HTTP are those of `generate`, streamed or not, alone or with others; scores are those of `annotate`.

use std::path::Path;

use serde_json::{Value, json};
use setpoint_eval::{ChatMessage, ChatRequest, JudgeClient, JudgeSettings};

use super::fixture::{demo, model, setpoint};
use super::serving::{Reply, Server};

const CHAT: &str = "/v1/chat/completions";
const PLAIN: &str = "/v1/completions";

const QUESTIONS: [&str; 4] =
    ["How much is two and two?", "Which day comes after Friday?", "Hello.", "Name a colour that is not red, please."];

fn turn(question: &str) -> Value {
    json!([{ "role": "user", "content": question }])
}

/// The answers that `generate` gives to a question, without empty ones, which it leaves out.
fn generated(model: &Path, question: &str, settings: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let (data, output) = (dir.path().join("prompts.jsonl"), dir.path().join("answers.jsonl"));
    std::fs::write(&data, json!({ "prompt": turn(question) }).to_string() + "\n").unwrap();
    let paths = [model, &data, &output].map(|path| path.display().to_string());
    let mut arguments = vec!["generate", "--quiet", "--model", &paths[0], "--data", &paths[1], "--output", &paths[2]];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    setpoint(&arguments).ok();
    let written = std::fs::read_to_string(&output).unwrap();
    let Some(line) = written.lines().next() else { return Vec::new() };
    let row: Value = serde_json::from_str(line).unwrap();
    row["responses"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The texts of a reply, by the index of their choices.
fn texts(reply: &Reply) -> Vec<String> {
    let choices = reply.ok()["choices"].as_array().unwrap().clone();
    let text = |(i, choice): (usize, &Value)| {
        assert_eq!(choice["index"], i);
        let text = if choice["text"].is_string() { &choice["text"] } else { &choice["message"]["content"] };
        text.as_str().unwrap().to_owned()
    };
    choices.iter().enumerate().map(text).collect()
}

#[test]
fn answers_are_those_of_generate() {
    let server = Server::start(model(), &["--name", "tiny", "--set", "generate.batch_size=3"]);
    assert!(server.said.contains("serving tiny (language model, 3 answers at a time)"), "{}", server.said);
    for question in &QUESTIONS[..2] {
        let body = json!({ "model": "tiny", "messages": turn(question), "temperature": 0, "max_tokens": 12 });
        let mut greedy = texts(&server.post(CHAT, &body));
        greedy.retain(|text| !text.is_empty());
        let settings = ["generate.temperature=0", "generate.max_new_tokens=12"];
        assert_eq!(greedy, generated(model(), question, &settings), "{question}");
        // The answers to a prompt draw from the streams of the samples of `generate`.
        let body =
            json!({ "messages": turn(question), "temperature": 0.8, "top_p": 0.9, "seed": 5, "n": 3, "max_tokens": 9 });
        let mut sampled = texts(&server.post(CHAT, &body));
        sampled.retain(|text| !text.is_empty());
        let settings = [
            "generate.temperature=0.8",
            "generate.top_p=0.9",
            "generate.seed=5",
            "generate.samples=3",
            "generate.max_new_tokens=9",
        ];
        assert_eq!(sampled, generated(model(), question, &settings), "{question}");
    }
}

#[test]
fn an_answer_does_not_depend_on_its_company() {
    let server = Server::start(model(), &["--set", "generate.batch_size=4"]);
    let bodies: Vec<Value> = (0..12)
        .map(|i| {
            let messages = turn(QUESTIONS[i % QUESTIONS.len()]);
            let temperature = if i % 3 == 0 { 0.0 } else { 1.0 };
            json!({ "messages": messages, "temperature": temperature, "seed": i, "max_tokens": 5 + 7 * (i % 4), "n": 1 + i % 2 })
        })
        .collect();
    let together: Vec<Vec<String>> = std::thread::scope(|scope| {
        let ask = |body: &Value| texts(&server.post(CHAT, body));
        let threads: Vec<_> = bodies.iter().map(|body| scope.spawn(move || ask(body))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (body, together) in bodies.iter().zip(together) {
        assert_eq!(texts(&server.post(CHAT, body)), together, "{body}");
    }
    let metrics = server.get("/metrics").body;
    assert!(
        metrics.contains("setpoint_http_responses_total{endpoint=\"/v1/chat/completions\",status=\"200\"} 24"),
        "{metrics}"
    );
    assert!(metrics.contains("setpoint_answers_waiting 0"), "{metrics}");
}

#[test]
fn a_stream_adds_up_to_the_answer() {
    let server = Server::start(model(), &[]);
    let asked = json!({ "messages": turn(QUESTIONS[0]), "temperature": 1, "seed": 3, "n": 2, "max_tokens": 15 });
    let whole = server.post(CHAT, &asked);
    let mut streamed = asked.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({ "include_usage": true });
    let reply = server.post(CHAT, &streamed);
    assert!(reply.status == 200 && reply.head.to_lowercase().contains("content-type: text/event-stream"), "{reply:?}");
    let mut events = reply.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let (last, parts) = events.split_last().unwrap();
    assert_eq!((&last["usage"], &last["choices"]), (&whole.ok()["usage"], &json!([])));
    let mut found = [String::new(), String::new()];
    let mut ends = [Value::Null, Value::Null];
    for part in parts {
        assert!(
            part["object"] == "chat.completion.chunk" && part["usage"].is_null() && part["id"] == last["id"],
            "{part}"
        );
        let choice = &part["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        assert!(ends[index].is_null(), "nothing comes after the end: {part}");
        found[index] += choice["delta"]["content"].as_str().unwrap_or_default();
        ends[index] = choice["finish_reason"].clone();
    }
    assert_eq!(found.to_vec(), texts(&whole));
    for (i, end) in ends.iter().enumerate() {
        assert_eq!(*end, whole.ok()["choices"][i]["finish_reason"]);
    }
    // Plain completions, too.
    let asked = json!({ "prompt": QUESTIONS[1], "temperature": 0, "max_tokens": 10, "stream": true, "logprobs": 1 });
    let events = server.post(PLAIN, &asked).events();
    let parts: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let text: String = parts.iter().map(|part| part["choices"][0]["text"].as_str().unwrap()).collect();
    let mut whole = asked.clone();
    whole["stream"] = false.into();
    let reply = server.post(PLAIN, &whole);
    assert_eq!(vec![text], texts(&reply));
    assert_eq!(parts.len() as u64, reply.ok()["usage"]["completion_tokens"].as_u64().unwrap(), "a part for each token");
}

#[test]
fn stop_sequences_end_an_answer_before_they_begin() {
    let server = Server::start(model(), &[]);
    let mut body = json!({ "prompt": QUESTIONS[0], "temperature": 0, "max_tokens": 24 });
    let whole = texts(&server.post(PLAIN, &body)).remove(0);
    let characters: Vec<char> = whole.chars().collect();
    assert!(characters.len() > 6, "{whole:?}");
    let stop: String = characters[3..5].iter().collect();
    let before = whole.split(&stop).next().unwrap();
    body["stop"] = json!(["never in any answer", stop]);
    let reply = server.post(PLAIN, &body);
    assert_eq!(texts(&reply), [before]);
    assert_eq!(reply.ok()["choices"][0]["finish_reason"], "stop");
    body["stream"] = true.into();
    let events = server.post(PLAIN, &body).events();
    let part = |event: &String| serde_json::from_str::<Value>(event).unwrap()["choices"][0]["text"].clone();
    let text: String =
        events[..events.len() - 1].iter().map(|event| part(event).as_str().unwrap().to_owned()).collect();
    assert_eq!(text, before);
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let server = Server::start(model(), &[]);
    let body = json!({ "messages": turn(QUESTIONS[0]), "temperature": 0, "max_tokens": 6, "logprobs": true, "top_logprobs": 3,
        "return_token_ids": true });
    let answer = server.post(CHAT, &body).ok();
    let choice = &answer["choices"][0];
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());
    assert_eq!(content.len(), choice["token_ids"].as_array().unwrap().len());
    for entry in content {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // The likeliest token was taken.
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&entry["token"], &entry["logprob"]));
        assert!(top.windows(2).all(|pair| pair[0]["logprob"].as_f64() >= pair[1]["logprob"].as_f64()), "{entry}");
        assert!(entry["logprob"].as_f64().unwrap() < 0.0, "{entry}");
    }
    // Continued from the prompt and the first tokens by number, the rest is the same, with the same log-probabilities.
    let ids = |value: &Value| value.as_array().unwrap().clone();
    let prompt = [ids(&choice["prompt_token_ids"]), ids(&choice["token_ids"])[..2].to_vec()].concat();
    let body = json!({ "prompt": prompt, "temperature": 0, "max_tokens": content.len() - 2, "logprobs": 1, "return_token_ids": true });
    let rest = server.post(PLAIN, &body).ok();
    let rest = &rest["choices"][0];
    assert_eq!(ids(&rest["token_ids"]), ids(&choice["token_ids"])[2..]);
    for (found, expected) in ids(&rest["logprobs"]["token_logprobs"]).iter().zip(&content[2..]) {
        let difference = found.as_f64().unwrap() - expected["logprob"].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "{found} against {expected}");
    }
    assert_eq!(rest["logprobs"]["text_offset"][0], 0);
}

#[test]
fn several_prompts_are_answered_in_their_order() {
    let server = Server::start(model(), &[]);
    let ask = |prompt: Value, n: usize| {
        texts(&server.post(PLAIN, &json!({ "prompt": prompt, "temperature": 1, "seed": 9, "n": n, "max_tokens": 6 })))
    };
    let both = ask(json!([QUESTIONS[0], QUESTIONS[1]]), 2);
    assert_eq!(both, [ask(json!(QUESTIONS[0]), 2), ask(json!(QUESTIONS[1]), 2)].concat());
}

#[test]
fn the_model_and_the_health_of_the_server_can_be_asked_for() {
    let server = Server::start(model(), &[]);
    let name = model().display().to_string();
    let list = server.get("/v1/models").ok();
    assert_eq!(
        (&list["object"], &list["data"][0]["id"], &list["data"][0]["object"]),
        (&json!("list"), &json!(name), &json!("model"))
    );
    assert_eq!(server.get(&format!("/v1/models/{}", name.replace('/', "%2F"))).ok()["id"], name);
    assert_eq!(server.get("/v1/models/other").status, 404);
    assert_eq!(server.get("/health").ok(), json!({ "status": "ok" }));
    let metrics = server.get("/metrics");
    assert!(metrics.status == 200 && metrics.head.contains("text/plain; version=0.0.4"), "{metrics:?}");
}

#[test]
fn the_judges_client_is_answered() {
    let server = Server::start(model(), &["--name", "judge"]);
    let settings = JudgeSettings {
        model: Some("judge".to_owned()),
        base_url: format!("http://{}/v1", server.address),
        api_key_env: String::new(),
        retries: 0,
        ..JudgeSettings::default()
    };
    let client = JudgeClient::open(&settings).unwrap();
    let request = |question: &str| ChatRequest {
        messages: vec![ChatMessage::new("user", question)],
        max_tokens: Some(5),
        top_logprobs: Some(4),
        ..ChatRequest::default()
    };
    let requests: Vec<ChatRequest> = QUESTIONS.iter().map(|question| request(question)).collect();
    let answers = client.ask_all(&requests, &mut |_| ()).unwrap();
    for answer in answers {
        let answer = answer.unwrap();
        assert!(answer.finish_reason.is_some() && answer.prompt_tokens > 5, "{answer:?}");
        assert_eq!(answer.top_logprobs.len() as u64, answer.completion_tokens, "{answer:?}");
        assert!(answer.top_logprobs.iter().all(|top| top.len() == 4), "{answer:?}");
    }
}

#[test]
fn generate_asks_this_server_as_any_other() {
    let server = Server::start(model(), &["--name", "policy"]);
    let base_url = format!("server.base_url=http://{}/v1", server.address);
    let greedy = ["generate.temperature=0", "generate.max_new_tokens=12"];
    let asked = [&greedy[..], &[base_url.as_str(), "server.model=policy"]].concat();
    for question in QUESTIONS {
        assert_eq!(generated(model(), question, &asked), generated(model(), question, &greedy), "{question}");
    }
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("endpoint=\"/v1/completions\",status=\"200\"} 4"), "{metrics}");
}

#[test]
fn an_adapter_is_served_with_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("sft");
    let (base, data) = (model().display().to_string(), demo("pretrain/sft.jsonl").display().to_string());
    let mut arguments = vec!["sft", "--quiet", "--model", &base, "--data", &data];
    let run_path = run.display().to_string();
    arguments.extend(["--run", &run_path]);
    for set in
        ["adapter.rank=4", "train.learning_rate=0.02", "train.max_steps=3", "train.batch_size=4", "samples.prompts=1"]
    {
        arguments.extend(["--set", set]);
    }
    setpoint(&arguments).ok();
    let adapter = run.join("model");
    let server = Server::start(&adapter, &["--name", "adapter"]);
    let body = json!({ "model": "adapter", "messages": turn(QUESTIONS[0]), "temperature": 0, "max_tokens": 12 });
    let settings = ["generate.temperature=0", "generate.max_new_tokens=12"];
    assert_eq!(texts(&server.post(CHAT, &body)), generated(&adapter, QUESTIONS[0], &settings));
}

#[test]
fn a_reward_model_scores_as_annotate_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (base, pairs, run) =
        (model().display().to_string(), demo("preferences.jsonl").display().to_string(), path("run"));
    let mut arguments = vec!["reward", "--quiet", "--model", &base, "--data", &pairs, "--run", &run];
    for set in ["train.max_steps=2", "train.batch_size=4", "train.learning_rate=0.01", "data.max_rows=16"] {
        arguments.extend(["--set", set]);
    }
    setpoint(&arguments).ok();
    let reward = dir.path().join("run/model");
    let rows = [
        json!(QUESTIONS[0]),
        json!([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye."}]),
    ];
    let responses = ["The sum is four.", "Do not bother me.", "Saturday."];
    let text: String =
        rows.iter().map(|prompt| json!({ "prompt": prompt, "responses": responses }).to_string() + "\n").collect();
    std::fs::write(path("rows.jsonl"), text).unwrap();
    let (model, data, output) = (reward.display().to_string(), path("rows.jsonl"), path("rewards.jsonl"));
    setpoint(&["annotate", "--quiet", "--model", &model, "--data", &data, "--output", &output]).ok();
    let annotated: Vec<f64> = std::fs::read_to_string(&output)
        .unwrap()
        .lines()
        .flat_map(|line| serde_json::from_str::<Value>(line).unwrap()["rewards"].as_array().unwrap().clone())
        .map(|reward| reward.as_f64().unwrap())
        .collect();
    let server = Server::start(&reward, &["--name", "judge"]);
    assert!(server.said.contains("judge (reward model) at"), "{}", server.said);
    let items: Vec<Value> = rows
        .iter()
        .flat_map(|prompt| responses.map(|response| json!({ "prompt": prompt, "response": response })))
        .collect();
    let reply = server.post("/v1/score", &json!({ "model": "judge", "input": items })).ok();
    let data = reply["data"].as_array().unwrap();
    assert_eq!(data.len(), annotated.len());
    for (i, (entry, expected)) in data.iter().zip(&annotated).enumerate() {
        assert!(entry["index"] == i && entry["object"] == "score", "{entry}");
        let score = entry["score"].as_f64().unwrap();
        assert!((score - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{score} against {expected}");
    }
    assert!(reply["usage"]["prompt_tokens"].as_u64().unwrap() > 20, "{reply}");
    for (body, said) in [
        (json!({ "input": [] }), "`input` must be a list of 1 to"),
        (json!({ "input": [{ "prompt": "a" }] }), "`input[0]` has no `response`"),
        (json!({ "input": [{ "response": "a" }] }), "`input[0]` has no `prompt`"),
        (json!({ "input": [{ "prompt": 5, "response": "a" }] }), "`input[0].prompt` must be a text"),
        (json!({ "input": [{ "prompt": "a", "response": 5 }] }), "`input[0].response` must be a text"),
        (json!({ "input": [{ "prompt": "a", "response": "b", "reward": 1 }] }), "`input[0].reward` is unknown"),
        (json!({ "input": [{ "prompt": "a", "response": "b ".repeat(400) }] }), "reads at most 256"),
        (json!({ "prompt": "a" }), "`input` is missing"),
    ] {
        let reply = server.post("/v1/score", &body);
        assert!(reply.status == 400 && reply.body.contains(said), "{said:?} in {reply:?}");
    }
    let many = vec![json!({ "prompt": "a", "response": "b" }); 300];
    let reply = server.post("/v1/score", &json!({ "input": many }));
    assert!(reply.status == 400 && reply.body.contains("at most 288 (setting serve.queue)"), "{reply:?}");
    let reply = server.post(CHAT, &json!({ "messages": turn("Hello.") }));
    assert!(reply.status == 404 && reply.body.contains("ask /v1/score"), "{reply:?}");
}
