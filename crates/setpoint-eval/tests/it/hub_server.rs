//! The hub, played by a server on loopback: the tasks' data sets as `tests/golden/make_lm_eval_hub.py` writes them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
/// The hub's own conversion of data sets to Parquet, in an address.
const CONVERTED: &str = "refs%2Fconvert%2Fparquet";

/// A server that ends with the test's process.
pub struct HubServer {
    pub endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl HubServer {
    /// Serves the data set of any owner from the folder of its name. `allenai/social_i_qa` is a script, with a conversion.
    pub fn start(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, log) = (root.clone(), log.clone());
                std::thread::spawn(move || answer(stream, &root, &log));
            }
        });
        Self { endpoint, asked }
    }

    /// The addresses that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn files(root: &Path, below: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(root.join(below)).into_iter().flatten().flatten() {
        let name = format!("{below}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            files(root, &format!("{name}/"), found);
        } else {
            found.push(name);
        }
    }
}

/// The files of a data set at a revision.
fn listed(root: &Path, id: &str, revision: &str) -> Option<Vec<String>> {
    let script = id == "allenai/social_i_qa";
    let folder = root.join(id.rsplit('/').next()?);
    if !folder.is_dir() || !(revision == "main" || script && revision == CONVERTED) {
        return None;
    }
    let mut names = Vec::new();
    match script && revision == "main" {
        true => names.extend(["README.md".to_owned(), "social_i_qa.py".to_owned()]),
        false => files(&folder, "", &mut names),
    }
    names.sort();
    Some(names)
}

fn body(root: &Path, path: &str) -> Option<(Vec<u8>, bool)> {
    if let Some(rest) = path.strip_prefix("/api/datasets/") {
        let (id, revision) = rest.split_once("/revision/")?;
        let siblings: Vec<_> =
            listed(root, id, revision)?.into_iter().map(|name| serde_json::json!({"rfilename": name})).collect();
        return Some((serde_json::json!({"siblings": siblings, "sha": COMMIT}).to_string().into_bytes(), false));
    }
    let (id, rest) = path.strip_prefix("/datasets/")?.split_once("/resolve/")?;
    let (revision, name) = rest.split_once('/')?;
    let known = listed(root, id, revision)?.iter().any(|n| n == name);
    known.then(|| Some((std::fs::read(root.join(id.rsplit('/').next()?).join(name)).ok()?, true)))?
}

fn answer(mut stream: TcpStream, root: &Path, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|l| !l.is_empty()).collect();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().unwrap().push(path.clone());
    let mut respond = |status: &str, headers: &str, body: &[u8]| {
        let length = body.len();
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
        let _ = stream.write_all(body);
    };
    match body(root, &path) {
        None => respond("404 Not Found", "", b"no such thing"),
        Some((body, false)) => respond("200 OK", "Content-Type: application/json\r\n", &body),
        Some((body, true)) => {
            let range =
                headers.iter().find_map(|h| h.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
            let (from, to) = range.as_deref().and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
            let from: usize = from.parse().unwrap();
            let to = to.parse::<usize>().map_or(body.len(), |last| (last + 1).min(body.len()));
            let mut hash = DefaultHasher::new();
            path.hash(&mut hash);
            let headers = format!(
                "Content-Range: bytes {from}-{}/{}\r\nETag: \"{:x}\"\r\nX-Repo-Commit: {COMMIT}\r\n",
                to - 1,
                body.len(),
                hash.finish()
            );
            respond("206 Partial Content", &headers, &body[from..to]);
        }
    }
}
