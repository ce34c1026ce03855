//! The hub, played by a server on loopback.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use setpoint_data::{DatasetConfig, Error, Hub, read_records, read_records_from};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const DATASET: &str = "someone/pairs";

/// The files of the data set, and what was asked for.
struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

fn files() -> HashMap<&'static str, &'static str> {
    HashMap::from([
        ("README.md", "# Pairs"),
        ("data/train-00000-of-00002.jsonl", "{\"prompt\": \"a\", \"completion\": \"1\"}\n"),
        ("data/train-00001-of-00002.jsonl", "{\"prompt\": \"b\", \"completion\": \"2\"}\n"),
        ("data/test-00000-of-00001.jsonl", "{\"prompt\": \"c\", \"completion\": \"3\"}\n"),
    ])
}

/// Serves what `hf-hub` asks for: the list of files, and each file in ranges. Ends with the test's process.
fn serve(extra: &'static [&'static str]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = log.clone();
            std::thread::spawn(move || answer(stream, extra, &log));
        }
    });
    Server { endpoint, requests }
}

fn answer(mut stream: TcpStream, extra: &[&str], log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|l| !l.is_empty()).collect();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().unwrap().push(path.clone());
    let files = files();
    let respond = |stream: &mut TcpStream, status: &str, headers: &str, body: &str| {
        let length = body.len();
        let _ =
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
    };
    if path == format!("/api/datasets/{DATASET}/revision/main") {
        let mut names: Vec<&str> = files.keys().chain(extra).copied().collect();
        names.sort_unstable();
        let siblings: Vec<_> = names.into_iter().map(|n| serde_json::json!({"rfilename": n})).collect();
        let body = serde_json::json!({"siblings": siblings, "sha": COMMIT}).to_string();
        return respond(&mut stream, "200 OK", "Content-Type: application/json\r\n", &body);
    }
    let file = path.strip_prefix(&format!("/datasets/{DATASET}/resolve/main/")).and_then(|name| files.get(name));
    let Some(text) = file else { return respond(&mut stream, "404 Not Found", "", "no such file") };
    let range = headers.iter().find_map(|h| h.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let (from, to) = range.as_deref().and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap();
    let to = to.parse::<usize>().map_or(text.len(), |last| last + 1);
    let headers = format!(
        "Content-Range: bytes {from}-{}/{}\r\nETag: \"{:x}\"\r\nX-Repo-Commit: {COMMIT}\r\n",
        to - 1,
        text.len(),
        path.len() * 1000 + text.len() + path.bytes().map(usize::from).sum::<usize>(),
    );
    respond(&mut stream, "206 Partial Content", &headers, &text[from..to]);
}

fn texts(config: &DatasetConfig, hub: &Hub) -> Result<Vec<String>, Error> {
    read_records_from(config, hub)?.map(|r| r.map(|r| r.responses[0].text().to_owned())).collect()
}

#[test]
fn a_split_is_downloaded_once() {
    let server = serve(&[]);
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(&server.endpoint, cache.path());
    let config = DatasetConfig::new(DATASET);
    assert_eq!(texts(&config, &hub).unwrap(), ["1", "2"]);
    let asked = |name: &str| server.requests.lock().unwrap().iter().filter(|r| r.contains(name)).count();
    assert_eq!(asked("test-00000"), 0, "only the split is fetched");
    let before = asked("train-00000");
    assert_eq!(texts(&config, &hub).unwrap(), ["1", "2"]);
    assert_eq!(asked("train-00000"), before, "the second time it comes from the cache");
    let config = DatasetConfig { split: "test".into(), ..config };
    assert_eq!(texts(&config, &hub).unwrap(), ["3"]);
    // Without a server, the snapshot in the cache serves.
    let nowhere = Hub::new("http://127.0.0.1:1", cache.path());
    assert_eq!(texts(&config, &nowhere).unwrap(), ["3"]);
}

#[test]
fn what_the_hub_does_not_have() {
    let server = serve(&[]);
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(&server.endpoint, cache.path());
    let message = texts(&DatasetConfig::new("someone/else"), &hub).unwrap_err().to_string();
    assert!(message.starts_with(&format!("hub data set someone/else ({}): ", server.endpoint)), "{message}");
    assert!(message.contains("404"), "{message}");
    let config = DatasetConfig { split: "validation".into(), ..DatasetConfig::new(DATASET) };
    let message = texts(&config, &hub).unwrap_err().to_string();
    assert!(message.contains("no split `validation`; found: test, train"), "{message}");
    let nowhere = Hub::new("http://127.0.0.1:1", cache.path().join("empty"));
    assert!(matches!(texts(&DatasetConfig::new(DATASET), &nowhere), Err(Error::Hub { .. })));
}

#[test]
fn a_name_that_leaves_the_folder_is_refused() {
    let server = serve(&["../../train-00000-of-00001.jsonl"]);
    let cache = tempfile::tempdir().unwrap();
    let config = DatasetConfig { subset: Some("..".into()), ..DatasetConfig::new(DATASET) };
    let message = texts(&config, &Hub::new(&server.endpoint, cache.path())).unwrap_err().to_string();
    assert!(message.contains("leaves the folder"), "{message}");
}

/// Variables of the environment belong to a process, so this one starts another: itself, with only the test below.
#[test]
fn the_environment_names_server_and_cache() {
    let server = serve(&[]);
    let home = tempfile::tempdir().unwrap();
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "hub::reads_from_the_environment", "--ignored", "--nocapture"]);
        command.env("HF_HOME", home.path()).env("HF_ENDPOINT", &server.endpoint).env_remove("HF_HUB_OFFLINE");
        command
    };
    let output = child().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let snapshot = home.path().join(format!("hub/datasets--someone--pairs/snapshots/{COMMIT}/data"));
    assert!(snapshot.join("train-00001-of-00002.jsonl").exists(), "in HF_HOME, in the hub's layout");
    // Offline the cache serves, and no server is asked.
    let before = server.requests.lock().unwrap().len();
    assert!(child().env("HF_HUB_OFFLINE", "1").output().unwrap().status.success());
    assert_eq!(server.requests.lock().unwrap().len(), before);
}

#[test]
#[ignore = "started by the_environment_names_server_and_cache"]
fn reads_from_the_environment() {
    let records: Vec<_> = read_records(&DatasetConfig::new(DATASET)).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), 2);
}
