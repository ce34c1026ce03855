//! Models named by their id on the hub, which a server on loopback plays.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::fixture::{Ran, command, demo, model};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LATER: &str = "89abcdef0123456789abcdef0123456789abcdef";
const ID: &str = "someone/tiny";

/// A hub with one model, whose main branch is at a commit.
struct Server {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves the files of a folder.
    fn start(folder: &Path, commit: &'static str) -> Self {
        let files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (files, log) = (Arc::new(files), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, log) = (files.clone(), log.clone());
                std::thread::spawn(move || answer(stream, &files, commit, &log));
            }
        });
        Self { endpoint, asked }
    }

    fn asked_for(&self, end: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|path| path.ends_with(end))
    }
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, commit: &str, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.take_while(|l| !l.is_empty()).for_each(drop);
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().unwrap().push(path.clone());
    let list = path.strip_prefix(&format!("/api/models/{ID}/revision/")).map(|rest| rest.split('?').next().unwrap());
    let found = match list {
        Some(revision) => ["main", commit].contains(&revision).then(|| {
            let siblings: Vec<_> =
                files.iter().map(|(name, bytes)| serde_json::json!({"rfilename": name, "size": bytes.len()})).collect();
            serde_json::json!({"siblings": siblings, "sha": commit}).to_string().into_bytes()
        }),
        None => path.strip_prefix(&format!("/{ID}/resolve/{commit}/")).and_then(|name| files.get(name)).cloned(),
    };
    let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\nX-Repo-Commit: {commit}\r\n\r\n"
    );
    let _ = stream.write_all(&body);
}

/// Runs the command in a folder, with a cache and a server.
fn run(folder: &Path, server: Option<&Server>, arguments: &[&str]) -> Ran {
    let mut command = command(arguments);
    command.current_dir(folder).env("HF_HOME", folder.join("hf")).env_remove("HF_HUB_CACHE").env_remove("HF_TOKEN");
    if let Some(server) = server {
        command.env("HF_ENDPOINT", &server.endpoint).env_remove("HF_HUB_OFFLINE");
    }
    Ran::of(&command.output().unwrap())
}

#[test]
fn an_id_is_the_model_and_its_weights_come_last() {
    let server = Server::start(model(), COMMIT);
    let dir = tempfile::tempdir().unwrap();
    let local = model().display().to_string();
    let shown = run(dir.path(), Some(&server), &["inspect", "model", ID]).ok().stdout;
    let expected = run(dir.path(), None, &["inspect", "model", &local]).ok().stdout;
    assert_eq!(shown.lines().skip(1).collect::<Vec<_>>(), expected.lines().skip(1).collect::<Vec<_>>());
    // Wrong settings and plans need no weights.
    let data = demo("pretrain/sft.jsonl").display().to_string();
    let sft = ["sft", "--model", ID, "--data", &data, "--set", "data.max_rows=8"];
    run(dir.path(), Some(&server), &[&sft[..], &["--set", "train.epochs=-1"]].concat()).fails(2, &["train.epochs"]);
    run(dir.path(), Some(&server), &[&sft[..], &["--dry-run"]].concat()).ok();
    assert!(server.asked_for("/tokenizer.json") && !server.asked_for("/model.safetensors"));

    let prompt = ["--prompt", "The cat", "--quiet", "--set", "generate.max_new_tokens=8"];
    let answer = |name: &str, server: Option<&Server>| {
        run(dir.path(), server, &[&["generate", "--model", name], &prompt[..]].concat()).ok().stdout
    };
    let of_folder = answer(&local, None);
    assert_eq!(answer(ID, Some(&server)), of_folder);
    assert!(server.asked_for("/model.safetensors"));
    let snapshot = dir.path().join(format!("hf/hub/models--someone--tiny/snapshots/{COMMIT}"));
    assert!(snapshot.join("model.safetensors").is_file(), "where other programs look for it");
    // Without a network, by branch and by commit.
    assert_eq!(answer(ID, None), of_folder);
    assert_eq!(answer(&format!("{ID}@{COMMIT}"), None), of_folder);
    run(dir.path(), None, &["merge", "--model", ID, "--output", "x"]).fails(2, &["`someone/tiny` holds no adapter"]);
}

#[test]
fn a_run_goes_on_with_the_commit_that_it_began_with() {
    let server = Server::start(model(), COMMIT);
    let dir = tempfile::tempdir().unwrap();
    let data = demo("pretrain/sft.jsonl").display().to_string();
    let more = ["--set", "data.max_rows=8", "--set", "train.batch_size=4", "--set", "train.max_steps=2", "--quiet"];
    let samples = ["--set", "samples.prompts=0"];
    let sft = ["sft", "--model", ID, "--data", &data, "--run", "first", "--set", "adapter.rank=2"];
    run(dir.path(), Some(&server), &[&sft[..], &more, &samples].concat()).ok();
    let settings = std::fs::read_to_string(dir.path().join("first/config.toml")).unwrap();
    assert!(settings.contains(&format!("path = \"{ID}@{COMMIT}\"")), "{settings}");
    let adapter: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.path().join("first/model/adapter_config.json")).unwrap())
            .unwrap();
    assert_eq!((&adapter["base_model_name_or_path"], &adapter["revision"]), (&ID.into(), &COMMIT.into()));

    // The branch moves on to other weights; a run that goes on does not notice, whether it names the model again or not.
    let other = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(model()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        std::fs::copy(&entry, other.path().join(entry.file_name().unwrap())).unwrap();
    }
    let weights = other.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&0.25_f32.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    let later = Server::start(other.path(), LATER);
    let unfinished = || std::fs::remove_dir_all(dir.path().join("first/model")).unwrap();
    for again in [&[][..], &["--model", ID]] {
        unfinished();
        let resume = ["sft", "--run", "first", "--resume", "--quiet"];
        run(dir.path(), Some(&later), &[&resume[..], again].concat()).ok();
        assert!(dir.path().join("first/model/adapter_model.safetensors").is_file());
    }
    assert!(!later.asked_for("/model.safetensors"));
    // The adapter finds its base, also when the cache is gone.
    let prompt = ["--prompt", "The cat", "--quiet", "--set", "generate.max_new_tokens=4"];
    let arguments = [&["generate", "--model", "first/model"], &prompt[..]].concat();
    let answer = run(dir.path(), None, &arguments).ok().stdout;
    std::fs::remove_dir_all(dir.path().join("hf")).unwrap();
    assert_eq!(run(dir.path(), Some(&server), &arguments).ok().stdout, answer);
    std::fs::remove_dir_all(dir.path().join("hf")).unwrap();
    run(dir.path(), None, &arguments).fails(2, &["is not a model folder on this machine, and hub model", "OFFLINE"]);
}

#[test]
fn an_id_that_cannot_be_had_is_one_sentence_with_both_readings() {
    let server = Server::start(model(), COMMIT);
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, server: Option<&Server>, said: &[&str]| {
        let ran = run(dir.path(), server, &["generate", "--model", name, "--prompt", "a"]);
        assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("error")).count(), 1, "{ran:#?}");
        ran.fails(2, said);
    };
    refused("someone/else", Some(&server), &["--model: ", "does not exist on this machine, and hub model", "404"]);
    refused(&format!("{ID}@v9"), Some(&server), &["`someone/tiny@v9`", "404"]);
    refused(ID, None, &["does not exist on this machine", "HF_HUB_OFFLINE is set and the model is not in the cache"]);
    refused(
        "no-such-folder",
        Some(&server),
        &["expected a Hugging Face model folder", "or the id of a model on the hub"],
    );
    // A local path wins, and below a folder there are only paths.
    std::fs::create_dir(dir.path().join("someone")).unwrap();
    refused(ID, Some(&server), &["was not looked for on the hub, because `someone` exists"]);
    std::fs::create_dir(dir.path().join(ID)).unwrap();
    refused(ID, Some(&server), &["`someone/tiny` holds no config.json"]);
    // Other programs' files are answered with what to do.
    std::fs::write(dir.path().join(ID).join("model-q4.gguf"), "GGUF").unwrap();
    refused(ID, Some(&server), &["only `model-q4.gguf`, a file for llama.cpp: name the model that it was made from"]);
}
