//! Uploads to the hub, played by a server on loopback, against the requests of `huggingface_hub` (tests/golden/make_hub_push.py).

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use setpoint_data::{DatasetConfig, Error, Hub, Push, PushFile, Pushed, hex, read_records_from};
use sha2::{Digest as _, Sha256};

use crate::common::read_json;

const ID: &str = "someone/a-model";
const TOKEN: &str = "hf_of_the_test";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as the golden file has it.
type Request = Value;

/// The hub's memory.
#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// The repository: whether it is private.
    repository: Option<bool>,
    /// The content of large files, by the first digits of their digest; parts in their order.
    storage: HashMap<String, Vec<u8>>,
    /// Identifier and content of each file of the last commit.
    files: HashMap<String, (String, Vec<u8>)>,
    /// Paths that are answered with a status and a text instead, so many times.
    refusals: Vec<(&'static str, u16, &'static str, usize)>,
    /// True if new repositories are public whatever was asked for.
    careless: bool,
    /// Another place that large files are sent to.
    storage_at: Option<String>,
}

struct Server {
    endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(state));
        let (shared, here) = (state.clone(), endpoint.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &shared, &here);
            }
        });
        Self { endpoint, state }
    }

    fn hub(&self) -> Hub {
        Hub::new(&self.endpoint, "no cache").with_token(TOKEN).with_timeout(Duration::from_secs(5))
    }

    fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn is_large(name: &str) -> bool {
    matches!(name, "model.safetensors" | "tokenizer.json")
}

/// Reads a request, notes it, and answers it.
fn answer(mut stream: TcpStream, state: &Mutex<State>, here: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some(first) = lines.first() else { return };
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let header = |name: &str| {
        lines[1..].iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    assert_eq!(header("transfer-encoding"), None, "the storage takes no body in chunks");
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let kind = header("content-type").unwrap_or_default();
    let mut request = json!({
        "method": method, "path": path, "token": header("authorization").as_deref() == Some(&format!("Bearer {TOKEN}")),
    });
    if kind.contains("json") {
        let text = std::str::from_utf8(&body).unwrap();
        request["kind"] = json!(kind);
        request["body"] = match kind.contains("ndjson") {
            true => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>().into(),
            false => serde_json::from_str(text).unwrap(),
        };
    } else if !body.is_empty() {
        request["bytes"] = json!(STANDARD.encode(&body));
    }
    let mut state = state.lock().unwrap();
    state.requests.push(request.clone());
    let (status, value, more) = respond(&mut state, &request, &body, here);
    let text = match &value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n{text}",
        text.len()
    );
}

/// Returns status, body and further headers.
fn respond(state: &mut State, request: &Request, body: &[u8], here: &str) -> (u16, Value, String) {
    let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
    if let Some((_, status, text, left)) =
        state.refusals.iter_mut().find(|(part, _, _, left)| path.contains(part) && *left > 0)
    {
        *left -= 1;
        return (*status, json!({ "error": text }), String::new());
    }
    let ok = |value: Value| (200, value, String::new());
    match (method, path.split('?').next().unwrap()) {
        ("GET", "/api/models/someone/a-model") => match state.repository {
            Some(private) => ok(json!({ "id": ID, "private": private })),
            None => (404, json!({ "error": "Repository not found" }), String::new()),
        },
        ("POST", "/api/repos/create") => {
            state.repository = Some(request["body"]["visibility"] == "private" && !state.careless);
            ok(json!({}))
        }
        ("POST", path) if path.contains("/preupload/") => {
            let mode = |name: &str| if is_large(name) { "lfs" } else { "regular" };
            let files = request["body"]["files"].as_array().unwrap().iter().map(|file| {
                let name = file["path"].as_str().unwrap();
                let oid = state.files.get(name).map(|(oid, _)| oid);
                json!({ "path": name, "uploadMode": mode(name), "shouldIgnore": name == "ignored.txt", "oid": oid })
            });
            ok(json!({ "files": files.collect::<Vec<_>>() }))
        }
        ("POST", path) if path.ends_with("/objects/batch") => {
            let storage = state.storage_at.clone().unwrap_or_else(|| here.to_owned());
            let objects = request["body"]["objects"].as_array().unwrap().iter().map(|object| {
                let oid = &object["oid"].as_str().unwrap()[..8];
                if state.storage.contains_key(oid) {
                    return json!({ "oid": object["oid"], "size": object["size"] });
                }
                let place = format!("{storage}/storage/{oid}");
                let upload = match object["size"].as_u64().unwrap() {
                    25 => {
                        let parts = (1..=3).map(|i| (i.to_string(), json!(format!("{place}?part={i}"))));
                        let mut header: serde_json::Map<String, Value> = parts.collect();
                        header.insert("chunk_size".into(), json!("10"));
                        json!({ "href": format!("{here}/complete/{oid}"), "header": header })
                    }
                    _ => json!({ "href": place }),
                };
                let verify = json!({ "href": format!("{here}/{ID}.git/info/lfs/objects/verify") });
                json!({ "oid": object["oid"], "size": object["size"], "actions": { "upload": upload, "verify": verify } })
            });
            ok(json!({ "transfer": "multipart", "objects": objects.collect::<Vec<_>>() }))
        }
        ("PUT", place) => {
            let oid = place.strip_prefix("/storage/").unwrap().to_owned();
            state.storage.entry(oid).or_default().extend_from_slice(body);
            (200, Value::Null, format!("ETag: \"{}\"\r\n", &hex(&Sha256::digest(body))[..8]))
        }
        ("POST", path) if path.contains("/commit/") => {
            for line in request["body"].as_array().unwrap() {
                let (key, value) = (line["key"].as_str().unwrap(), &line["value"]);
                let Some(name) = value["path"].as_str() else { continue };
                let (oid, content) = match key {
                    "file" => {
                        let content = STANDARD.decode(value["content"].as_str().unwrap()).unwrap();
                        (git_hash(&content), content)
                    }
                    _ => {
                        let oid = value["oid"].as_str().unwrap();
                        let Some(content) = state.storage.get(&oid[..8]).cloned() else {
                            return (422, json!({ "error": "no such object" }), String::new());
                        };
                        assert_eq!(hex(&Sha256::digest(&content)), oid, "{name}");
                        (oid.to_owned(), content)
                    }
                };
                state.files.insert(name.to_owned(), (oid, content));
            }
            ok(json!({ "commitUrl": "", "commitOid": COMMIT }))
        }
        ("GET", "/api/datasets/someone/a-model/revision/main") => {
            let names: Vec<Value> = state.files.keys().map(|name| json!({ "rfilename": name })).collect();
            ok(json!({ "sha": COMMIT, "siblings": names }))
        }
        ("GET", path) => {
            let name = path.strip_prefix("/datasets/someone/a-model/resolve/main/").unwrap();
            let (oid, content) = &state.files[name];
            let text = String::from_utf8(content.clone()).unwrap();
            (200, text.into(), format!("ETag: \"{oid}\"\r\nX-Repo-Commit: {COMMIT}\r\n"))
        }
        _ => ok(json!({})),
    }
}

/// The identifier that git gives a file.
fn git_hash(content: &[u8]) -> String {
    use sha1::Sha1;

    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()));
    hash.update(content);
    hex(&hash.finalize())
}

fn write_files(dir: &Path, files: &[(&str, &[u8])]) -> Vec<PushFile> {
    let write = |(name, content): &(&str, &[u8])| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        PushFile { name: (*name).to_owned(), path, bytes: content.len() as u64 }
    };
    files.iter().map(write).collect()
}

fn push_to(hub: &Hub, files: &[PushFile], revision: &str, public: bool) -> Result<Pushed, Error> {
    hub.push(&Push { id: ID, revision, public, message: "A message", files }, &mut |_, _| {})
}

/// Pushes two files and returns the refusal.
fn refused(server: &Server) -> String {
    let dir = tempfile::tempdir().unwrap();
    let files = write_files(dir.path(), &[("config.json", b"{}"), ("model.safetensors", &[7; 25])]);
    push_to(&server.hub(), &files, "main", false).unwrap_err().to_string()
}

/// The requests that change something, without regard to their order: large files may be sent at the same time.
fn changing(requests: Vec<Request>) -> Vec<String> {
    let checks = |request: &Request| request["path"] != "/api/validate-yaml" && request["method"] != "GET";
    let mut lines: Vec<String> = requests.iter().filter(|request| checks(request)).map(canonical).collect();
    lines.sort();
    lines
}

/// JSON text whose keys are in order.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let parts: Vec<String> = keys.iter().map(|key| format!("{key}:{}", canonical(&map[*key]))).collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[test]
fn the_requests_are_those_of_huggingface_hub() {
    let golden = read_json(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/hub_push.json"));
    let dir = tempfile::tempdir().unwrap();
    let contents: Vec<(String, Vec<u8>)> = golden["files"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, content)| (name.clone(), STANDARD.decode(content.as_str().unwrap()).unwrap()))
        .collect();
    let named: Vec<(&str, &[u8])> =
        contents.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let files = write_files(dir.path(), &named);
    let server = Server::start(State::default());
    let mut told = Vec::new();
    let push = Push { id: ID, revision: "second", public: false, message: "A message", files: &files };
    let pushed = server.hub().push(&push, &mut |sent, total| told.push((sent, total))).unwrap();
    assert_eq!(pushed.commit.as_deref(), Some(COMMIT));
    assert_eq!((pushed.changed, pushed.created, pushed.private), (4, true, true));
    let bytes: usize = contents.iter().map(|(_, content)| content.len()).sum();
    assert_eq!(pushed.sent, bytes as u64);
    assert!(told.is_sorted() && told.last() == Some(&(57, 57)), "{told:?}");
    let expected = golden["first"].as_array().unwrap().clone();
    assert_eq!(changing(server.take_requests()), changing(expected));
    for (name, content) in &contents {
        assert_eq!(&server.state.lock().unwrap().files[name].1, content, "{name}");
    }
    // A second time there is nothing to do, and huggingface_hub makes no commit either.
    let again = push_to(&server.hub(), &files, "second", false).unwrap();
    assert_eq!((again.commit, again.changed, again.sent, again.created), (None, 0, 0, false));
    assert!(server.take_requests().iter().all(|request| request["path"] != "/api/repos/create"
        && !request["path"].as_str().unwrap().contains("commit")
        && request["method"] != "PUT"));
}

#[test]
fn a_push_that_breaks_off_goes_on_with_the_files_that_are_missing() {
    let refusals = vec![("/commit/", 409, "the branch moved", 1)];
    let server = Server::start(State { refusals, ..State::default() });
    let dir = tempfile::tempdir().unwrap();
    let files = write_files(dir.path(), &[("README.md", b"# A\n"), ("model.safetensors", &[7; 25])]);
    let message = push_to(&server.hub(), &files, "main", false).unwrap_err().to_string();
    assert!(message.contains("status 409") && message.contains("the branch moved"), "{message}");
    assert!(message.contains("Run the same command again"), "{message}");
    assert!(server.take_requests().iter().any(|request| request["method"] == "PUT"));
    let pushed = push_to(&server.hub(), &files, "main", false).unwrap();
    assert_eq!((pushed.changed, pushed.created), (2, false));
    assert_eq!(pushed.sent, 4, "the large file was there already");
    assert!(server.take_requests().iter().all(|request| request["method"] != "PUT"));
    // Only the file that changed is in the next commit.
    std::fs::write(dir.path().join("README.md"), "# B\n").unwrap();
    assert_eq!(push_to(&server.hub(), &files, "main", false).unwrap().changed, 1);
}

#[test]
fn pushed_files_can_be_downloaded() {
    let server = Server::start(State::default());
    let dir = tempfile::tempdir().unwrap();
    let rows = "{\"prompt\": \"a\", \"completion\": \"ä\"}\n";
    let files = write_files(dir.path(), &[("train.jsonl", rows.as_bytes()), ("README.md", b"# A\n")]);
    push_to(&server.hub(), &files, "main", false).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(&server.endpoint, cache.path());
    let records = read_records_from(&DatasetConfig::new(ID), &hub).unwrap();
    let texts: Vec<String> = records.map(|record| record.unwrap().responses[0].text().to_owned()).collect();
    assert_eq!(texts, ["ä"]);
}

#[test]
fn what_passes_is_tried_again() {
    let refusals = vec![("/storage/", 503, "", 2), ("/preupload/", 429, "", 1)];
    let server = Server::start(State { refusals, ..State::default() });
    let dir = tempfile::tempdir().unwrap();
    let files = write_files(dir.path(), &[("model.safetensors", &[7; 25])]);
    assert_eq!(push_to(&server.hub(), &files, "main", false).unwrap().sent, 25);
}

#[test]
fn every_refusal_is_a_sentence_with_a_remedy() {
    let cases: [(&str, u16, &str); 9] = [
        ("/api/models/", 401, "the hub does not accept the token"),
        ("/repos/create", 403, "this token may not write to someone/a-model"),
        ("/preupload/", 404, "no such repository or branch"),
        ("/commit/", 409, "the repository changed meanwhile"),
        ("/commit/", 412, "the repository changed meanwhile"),
        ("/storage/", 413, "a file is larger than the hub takes"),
        ("/preupload/", 429, "too many requests"),
        ("/objects/batch", 500, "status 500"),
        ("/preupload/", 307, "Has someone/a-model another name now?"),
    ];
    for (path, status, expected) in cases {
        let refusals = vec![(path, status, "said the server of hf_of_the_test\u{1b}[2J", 9)];
        let server = Server::start(State { refusals, ..State::default() });
        let message = refused(&server);
        assert!(message.starts_with("cannot push to someone/a-model (http://127.0.0.1:"), "{message}");
        assert!(message.contains(expected) && message.contains(&status.to_string()), "{message}");
        assert!(!message.contains(TOKEN) && !message.contains('\u{1b}'), "{message}");
        assert!(status == 307 || message.contains("said the server of …"), "{message}");
    }
}

#[test]
fn nobody_gets_to_read_a_model_that_was_to_be_private() {
    let server = Server::start(State { repository: Some(false), ..State::default() });
    let message = refused(&server);
    assert!(message.contains("the repository is public") && message.contains("--public"), "{message}");
    assert_eq!(server.take_requests().len(), 1);
    let dir = tempfile::tempdir().unwrap();
    let files = write_files(dir.path(), &[("config.json", b"{}")]);
    assert!(!push_to(&server.hub(), &files, "main", true).unwrap().private);
    let server = Server::start(State { careless: true, ..State::default() });
    assert!(refused(&server).contains("made a public repository where a private one was asked for"));
    assert!(server.take_requests().iter().all(|request| !request["path"].as_str().unwrap().contains("preupload")));
}

#[test]
fn the_token_stays_at_home() {
    let elsewhere = Server::start(State::default());
    let server = Server::start(State { storage_at: Some(elsewhere.endpoint.clone()), ..State::default() });
    let dir = tempfile::tempdir().unwrap();
    let files = write_files(dir.path(), &[("tokenizer.json", b"{}")]);
    // The other server keeps the bytes, and this one misses them when it is told to look: only the request matters here.
    let _ = push_to(&server.hub(), &files, "main", false);
    let stored = elsewhere.take_requests();
    assert!(stored.len() == 1 && stored[0]["method"] == "PUT" && stored[0]["token"] == false, "{stored:?}");
    assert!(server.take_requests().iter().any(|request| request["token"] == true));
    let leaking = format!("{{\"key\": \"{TOKEN}\"}}");
    let files = write_files(dir.path(), &[("config.json", leaking.as_bytes())]);
    let message = push_to(&server.hub(), &files, "main", false).unwrap_err().to_string();
    assert!(message.contains("config.json contains the token of the hub"), "{message}");
    assert!(!message.contains(TOKEN));
}

#[test]
fn wrong_use_is_refused_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_files(dir.path(), &[("config.json", b"{}"), ("ignored.txt", b"x")]);
    let nowhere = Hub::new("http://127.0.0.1:1", "no cache");
    let message = push_to(&nowhere, &files, "main", false).unwrap_err().to_string();
    assert!(message.contains("there is no token: set HF_TOKEN"), "{message}");
    let message = push_to(&nowhere.clone().with_token("a b"), &files, "main", false).unwrap_err().to_string();
    assert!(message.contains("check HF_TOKEN") && !message.contains("a b"), "{message}");
    let message = push_to(&nowhere.with_token(TOKEN), &files, "main", false).unwrap_err().to_string();
    assert!(message.starts_with("cannot push to someone/a-model (http://127.0.0.1:1): "), "{message}");
    let server = Server::start(State::default());
    let message = push_to(&server.hub(), &files, "main", false).unwrap_err().to_string();
    assert!(message.contains("ignored.txt: the repository's .gitignore excludes it"), "{message}");
    let push = Push { id: "a-model", revision: "main", public: false, message: "", files: &files };
    assert!(server.hub().push(&push, &mut |_, _| {}).unwrap_err().to_string().contains("USER/NAME"));
    // A server that takes the request and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = Hub::new(format!("http://{}", silent.local_addr().unwrap()), "no cache").with_token(TOKEN);
    let hub = hub.with_timeout(Duration::from_millis(20));
    let message = push_to(&hub, &files, "main", false).unwrap_err().to_string();
    assert!(message.contains("no answer in time"), "{message}");
}
