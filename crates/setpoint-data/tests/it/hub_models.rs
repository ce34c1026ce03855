//! Models of the hub, which a server on loopback plays: what is fetched and when, checked, taken up again and kept within the cache.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use setpoint_data::{Hub, HubModel};
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LATER: &str = "89abcdef0123456789abcdef0123456789abcdef";
const WEIGHTS: &str = "model.safetensors";

/// The first line and the headers of a request.
type Request = (String, Vec<String>);

/// The files of the server, and its behaviour.
#[derive(Clone)]
struct Repository {
    files: BTreeMap<&'static str, Vec<u8>>,
    commit: &'static str,
    /// The next answers with weights end after so many bytes.
    cut: Arc<Mutex<Vec<usize>>>,
    /// True if it sends other bytes than its digests say.
    lies: bool,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Repository {
    fn new(files: &[(&'static str, &[u8])]) -> Self {
        Self {
            files: files.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect(),
            commit: COMMIT,
            cut: Arc::default(),
            lies: false,
            asked: Arc::default(),
        }
    }

    /// A model of one file of weights, among files that no model needs.
    fn model(weights: &[u8]) -> Self {
        Self::new(&[
            ("config.json", b"{}"),
            ("tokenizer.json", b"{\"t\": 1}"),
            ("chat_template.jinja", b"{{ x }}"),
            ("additional_chat_templates/rag.jinja", b"{{ y }}"),
            (WEIGHTS, weights),
            ("README.md", b"# A model"),
            ("pytorch_model.bin", b"a pickle"),
            ("consolidated.safetensors", b"the same again"),
            ("original/params.json", b"{}"),
            ("model-q4.gguf", b"GGUF"),
        ])
    }

    fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let this = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let this = this.clone();
                std::thread::spawn(move || this.answer(stream));
            }
        });
        endpoint
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let headers: Vec<String> = lines.take_while(|l| !l.is_empty()).map(|l| l.to_ascii_lowercase()).collect();
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        self.asked.lock().unwrap().push((path.clone(), headers.clone()));
        let mut send = |status: &str, headers: &str, body: &[u8], length: usize| {
            let _ =
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
            let _ = stream.write_all(body);
        };
        let listed = path.strip_prefix("/api/models/someone/model/revision/");
        if let Some(revision) = listed.map(|rest| rest.split('?').next().unwrap_or_default()) {
            if !["main", "v1", self.commit].contains(&revision) {
                return send("404 Not Found", "", b"", 0);
            }
            let siblings: Vec<_> = self
                .files
                .iter()
                .map(|(name, bytes)| serde_json::json!({"rfilename": name, "size": bytes.len()}))
                .collect();
            let body = serde_json::json!({"siblings": siblings, "sha": self.commit}).to_string();
            return send("200 OK", "", body.as_bytes(), body.len());
        }
        let name = path.strip_prefix(&format!("/someone/model/resolve/{}/", self.commit));
        let Some((name, bytes)) = name.and_then(|name| self.files.get_key_value(name)) else {
            return send("404 Not Found", "", b"", 0);
        };
        let from = headers.iter().find_map(|h| h.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
        let from: usize = from.unwrap_or(0);
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut about = format!("X-Repo-Commit: {}\r\n", self.commit);
        let mut body = bytes[from.min(bytes.len())..].to_vec();
        let length = body.len();
        if *name == WEIGHTS {
            about += &format!("X-Linked-Etag: \"{digest}\"\r\nX-Linked-Size: {}\r\n", bytes.len());
            if let Some(most) = self.cut.lock().unwrap().pop() {
                body.truncate(most);
            }
            if self.lies {
                body.iter_mut().for_each(|byte| *byte ^= 1);
            }
        }
        match from {
            0 => send("200 OK", &about, &body, length),
            _ => {
                about += &format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
                send("206 Partial Content", &about, &body, length);
            }
        }
    }

    /// How often a file, or the list, was asked for.
    fn asked(&self, end: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|(path, _)| path.ends_with(end)).count()
    }
}

fn hub(endpoint: &str, cache: &Path) -> Hub {
    Hub::new(endpoint, cache).with_timeout(Duration::from_secs(1))
}

fn model(name: &str) -> HubModel {
    HubModel::parse(name).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    fn visit(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            match entry.path().is_dir() {
                true => visit(&entry.path(), &format!("{name}/"), found),
                false => found.push(name),
            }
        }
    }
    let mut found = Vec::new();
    visit(folder, "", &mut found);
    found.sort();
    found
}

#[test]
fn the_weights_follow_and_nothing_that_is_not_needed_does() {
    let weights = vec![7; 100_000];
    let repository = Repository::model(&weights);
    let (endpoint, cache) = (repository.serve(), tempfile::tempdir().unwrap());
    let hub = hub(&endpoint, cache.path()).with_token("hf_secret");
    let folder = hub.fetch_model(&model("someone/model")).unwrap();
    assert_eq!(folder, cache.path().join(format!("models--someone--model/snapshots/{COMMIT}")));
    let small = ["additional_chat_templates/rag.jinja", "chat_template.jinja", "config.json", "tokenizer.json"];
    assert_eq!(files(&folder), small);
    assert_eq!(hub.model_at(&folder), Some(model(&format!("someone/model@{COMMIT}"))));

    let mut seen = Vec::new();
    hub.fetch_weights(&folder, false, &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(seen.last(), Some(&(100_000, Some(100_000))));
    assert!(seen.is_sorted() && seen.len() > 1, "{seen:?}");
    assert_eq!(std::fs::read(folder.join(WEIGHTS)).unwrap(), weights);
    let mut with_weights = [&small[..], &[WEIGHTS]].concat();
    with_weights.sort_unstable();
    assert_eq!(files(&folder), with_weights);
    assert!(
        repository.asked.lock().unwrap().iter().all(|(_, headers)| headers.iter().any(|h| h.contains("hf_secret")))
    );

    // A commit that is there is not asked for again, and without a server the cache serves.
    let before = repository.asked.lock().unwrap().len();
    let pinned = model(&format!("someone/model@{COMMIT}"));
    assert_eq!(hub.fetch_model(&pinned).unwrap(), folder);
    hub.fetch_weights(&folder, false, &mut |_, _| panic!("nothing is missing")).unwrap();
    assert_eq!(repository.asked.lock().unwrap().len(), before);
    let nowhere = Hub::new("http://127.0.0.1:1", cache.path());
    assert_eq!(nowhere.fetch_model(&model("someone/model")).unwrap(), folder);
    nowhere.fetch_weights(&folder, false, &mut |_, _| ()).unwrap();
}

#[test]
fn a_commit_stays_when_its_branch_moves() {
    let first = Repository::model(b"first");
    let cache = tempfile::tempdir().unwrap();
    let old = hub(&first.serve(), cache.path()).fetch_model(&model("someone/model")).unwrap();
    let second = Repository { commit: LATER, ..Repository::model(b"second") };
    let hub = hub(&second.serve(), cache.path());
    let new = hub.fetch_model(&model("someone/model@v1")).unwrap();
    assert_ne!(old, new);
    assert_eq!(hub.fetch_model(&model(&format!("someone/model@{COMMIT}"))).unwrap(), old);
    // The weights are those of the folder's commit, which this server does not have.
    let message = hub.fetch_weights(&old, false, &mut |_, _| ()).unwrap_err().to_string();
    assert!(message.contains("404"), "{message}");
    hub.fetch_weights(&new, false, &mut |_, _| ()).unwrap();
    assert_eq!(std::fs::read(new.join(WEIGHTS)).unwrap(), b"second");
}

#[test]
fn shards_are_those_of_the_index() {
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let repository = Repository::new(&[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index.as_bytes()),
        ("model-00001-of-00002.safetensors", b"one"),
        ("model-00002-of-00002.safetensors", b"two"),
        ("model-00003-of-00002.safetensors", b"left over"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&repository.serve(), cache.path());
    let folder = hub.fetch_model(&model("someone/model")).unwrap();
    let mut last = (0, None);
    hub.fetch_weights(&folder, false, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!(last, (6, Some(6)));
    assert_eq!(repository.asked("00003-of-00002.safetensors"), 0);
    assert!(folder.join("model-00002-of-00002.safetensors").is_file());
}

#[test]
fn a_transfer_that_another_process_began_is_gone_on_with() {
    let weights: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let repository = Repository::model(&weights);
    let (endpoint, cache) = (repository.serve(), tempfile::tempdir().unwrap());
    let hub = hub(&endpoint, cache.path());
    let folder = hub.fetch_model(&model("someone/model")).unwrap();
    // Three attempts that break off: this process gives up.
    *repository.cut.lock().unwrap() = vec![10_000, 20_000, 30_000];
    let message = hub.fetch_weights(&folder, false, &mut |_, _| ()).unwrap_err().to_string();
    assert!(message.contains("broke off"), "{message}");
    assert!(!folder.join(WEIGHTS).exists(), "a file is there whole or not at all");
    let before = repository.asked(WEIGHTS);
    hub.fetch_weights(&folder, false, &mut |_, _| ()).unwrap();
    assert_eq!(std::fs::read(folder.join(WEIGHTS)).unwrap(), weights);
    let asked = repository.asked.lock().unwrap();
    let (_, headers) = asked.iter().filter(|(path, _)| path.ends_with(WEIGHTS)).nth(before).unwrap();
    assert!(headers.contains(&"range: bytes=60000-".to_owned()), "{headers:?}");
}

/// Returns the unfinished file of a cache with a model's folder.
fn part(cache: &Path) -> Option<PathBuf> {
    let own = cache.join("models--someone--model/.setpoint");
    let mut entries = std::fs::read_dir(own).unwrap().flatten().map(|entry| entry.path());
    entries.find(|path| path.extension().is_some_and(|ending| ending == "part"))
}

#[test]
fn a_beginning_that_is_another_files_is_thrown_away() {
    let weights = vec![3; 50_000];
    let repository = Repository::model(&weights);
    let (endpoint, cache) = (repository.serve(), tempfile::tempdir().unwrap());
    let hub = hub(&endpoint, cache.path());
    let folder = hub.fetch_model(&model("someone/model")).unwrap();
    *repository.cut.lock().unwrap() = vec![1000; 3];
    assert!(hub.fetch_weights(&folder, false, &mut |_, _| ()).is_err());
    let place = part(cache.path()).unwrap();
    // Damaged, too long, and a link that leads out of the cache.
    for damage in ["wrong bytes".repeat(10), "x".repeat(60_000)] {
        std::fs::write(&place, damage).unwrap();
        hub.fetch_weights(&folder, false, &mut |_, _| ()).unwrap();
        assert_eq!(std::fs::read(folder.join(WEIGHTS)).unwrap(), weights);
        std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
    }
    #[cfg(unix)]
    {
        let outside = tempfile::tempdir().unwrap();
        let canary = outside.path().join("canary");
        std::fs::write(&canary, "untouched").unwrap();
        std::os::unix::fs::symlink(&canary, &place).unwrap();
        hub.fetch_weights(&folder, false, &mut |_, _| ()).unwrap();
        std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
        std::fs::hard_link(&canary, &place).unwrap();
        hub.fetch_weights(&folder, false, &mut |_, _| ()).unwrap();
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "untouched");
        assert_eq!(std::fs::read(folder.join(WEIGHTS)).unwrap(), weights);
    }
    assert_eq!(part(cache.path()), None);
}

#[test]
fn several_who_want_a_model_download_it_once() {
    let repository = Repository::model(&vec![1; 300_000]);
    let (endpoint, cache) = (repository.serve(), tempfile::tempdir().unwrap());
    let folder = hub(&endpoint, cache.path()).fetch_model(&model("someone/model")).unwrap();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                hub(&endpoint, cache.path()).fetch_weights(&folder, false, &mut |_, _| ()).unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!((done.into_inner(), repository.asked(WEIGHTS)), (4, 1));
}

#[test]
fn what_cannot_be_had_is_one_sentence() {
    let refused = |repository: &Repository, name: &str| {
        let cache = tempfile::tempdir().unwrap();
        let hub = hub(&repository.serve(), cache.path());
        let fetched = hub.fetch_model(&model(name));
        let done = fetched.and_then(|folder| hub.fetch_weights(&folder, false, &mut |_, _| ()));
        let message = done.unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("hub model {name}")) && !message.contains(char::is_control),
            "{message:?}"
        );
        let cache = cache.path().join(format!("models--{}", name.split('@').next().unwrap().replace('/', "--")));
        let all = if cache.is_dir() { files(&cache) } else { Vec::new() };
        assert!(!all.iter().any(|file| file.ends_with(".part")), "{all:?}");
        message
    };
    let good = Repository::model(b"weights");
    let said = [
        (refused(&good, "someone/other"), "404"),
        (refused(&good, "someone/other"), "HF_TOKEN for a private or gated model"),
        (refused(&good, "someone/model@v2"), "404"),
        (refused(&Repository { lies: true, ..good.clone() }, "someone/model"), "the hub names"),
        (refused(&Repository { commit: "../../../x", ..good }, "someone/model"), "expected 40 hexadecimal digits"),
        (refused(&Repository::new(&[("model.gguf", b"x")]), "someone/model"), "it holds GGUF files"),
        (refused(&Repository::new(&[("README.md", b"x")]), "someone/model"), "it is no model of transformers"),
        (refused(&Repository::new(&[("config.json", b"{}")]), "someone/model"), "neither model.safetensors"),
        (
            refused(&Repository::new(&[("config.json", b"{}"), ("pytorch_model.bin", b"x")]), "someone/model"),
            "its section in the settings needs `allow_pickle = true`",
        ),
        (
            refused(
                &Repository::new(&[
                    ("config.json", b"{}"),
                    ("model.safetensors.index.json", br#"{"weight_map": {"a": "../../x.safetensors"}}"#),
                ]),
                "someone/model",
            ),
            "leaves the folder",
        ),
    ];
    for (message, expected) in said {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    // What is asked for is fetched.
    let pickled = Repository::new(&[("config.json", b"{}"), ("pytorch_model.bin", b"x")]);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&pickled.serve(), cache.path());
    let folder = hub.fetch_model(&model("someone/model")).unwrap();
    hub.fetch_weights(&folder, true, &mut |_, _| ()).unwrap();
    assert!(folder.join("pytorch_model.bin").is_file());
}

#[test]
fn other_folders_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new("http://127.0.0.1:1", folder.path().join("hub"));
    hub.fetch_weights(folder.path(), false, &mut |_, _| panic!("no folder of the cache")).unwrap();
    assert_eq!(files(folder.path()), Vec::<String>::new());
}
