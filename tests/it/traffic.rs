//! Bytes and reads between host and device in a step, counted on their way to and from a lent device.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fixture::{demo, file, model, rewarded_rows, setpoint, setpoint_owned, tiny_config};
use super::remote::Server;
use super::several_devices::metrics;

/// Bytes on their way to a server and back, and the answers among them.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    to_device: f64,
    to_host: f64,
    answers: f64,
}

impl Traffic {
    fn map(self, other: Self, of: fn(f64, f64) -> f64) -> Self {
        Self {
            to_device: of(self.to_device, other.to_device),
            to_host: of(self.to_host, other.to_host),
            answers: of(self.answers, other.answers),
        }
    }
}

/// A gate in front of a server that counts what passes.
struct Gate {
    address: String,
    counts: Arc<[AtomicU64; 3]>,
}

impl Gate {
    fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let counts: Arc<[AtomicU64; 3]> = Arc::default();
        let (server, counted) = (server.to_owned(), counts.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let counts = counted.clone();
                std::thread::spawn(move || pass_on(client, server, |bytes| add(&counts[0], bytes.len() as u64)));
                let (counts, mut answers) = (counted.clone(), Answers::default());
                let mut count = move |bytes: &[u8]| {
                    add(&counts[1], bytes.len() as u64);
                    add(&counts[2], answers.count(bytes));
                };
                std::thread::spawn(move || pass_on(from_server, to_client, &mut count));
            }
        });
        Self { address, counts }
    }

    fn counted(&self) -> Traffic {
        let [to_device, to_host, answers] = [0, 1, 2].map(|i: usize| self.counts[i].load(Ordering::SeqCst) as f64);
        Traffic { to_device, to_host, answers }
    }

    /// Returns the traffic of a step of a training, which is given its device and the number of steps.
    fn of_step(&self, mut train: impl FnMut(&str, usize)) -> Traffic {
        let [once, thrice] = [1, 3].map(|steps| {
            let before = self.counted();
            train(&format!("remote:{}", self.address), steps);
            self.counted().map(before, |after, before| after - before)
        });
        thrice.map(once, |thrice, once| (thrice - once) / 2.0)
    }
}

fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::SeqCst);
}

/// The kind of a message with data.
const BINARY: u8 = 2;

/// The messages that a server sends over a WebSocket, behind the answer to the handshake.
#[derive(Default)]
struct Answers {
    /// The beginning of the handshake's answer, or of a message.
    head: Vec<u8>,
    is_open: bool,
    /// Bytes to come of the present message.
    rest: u64,
}

impl Answers {
    /// Takes the next bytes in, and counts the messages with data that begin among them.
    fn count(&mut self, bytes: &[u8]) -> u64 {
        let mut count = 0;
        for &byte in bytes {
            if self.rest > 0 {
                self.rest -= 1;
                continue;
            }
            self.head.push(byte);
            if !self.is_open {
                self.is_open = self.head.ends_with(b"\r\n\r\n");
                if self.is_open {
                    self.head.clear();
                }
                continue;
            }
            // RFC 6455, 5.2: a server's frames have no mask.
            self.rest = match self.head[..] {
                [_, length @ ..=125] => u64::from(length),
                [_, 126, a, b] => u64::from(u16::from_be_bytes([a, b])),
                [_, 127, a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                _ => continue,
            };
            count += u64::from(self.head[0] & 15 == BINARY);
            self.head.clear();
        }
        count
    }
}

/// Passes bytes on until an end closes.
fn pass_on(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        see(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A training on four texts.
struct Training<'a> {
    /// Where its files go.
    dir: &'a Path,
    /// The settings of the model.
    model: &'a [(&'a str, String)],
    sentences: usize,
    /// Texts in a micro-batch.
    examples: usize,
}

impl Training<'_> {
    /// Trains on a device for some steps, and returns the tokens of a step.
    fn run(&self, device: &str, steps: usize, run: &Path) -> u64 {
        let text = "The sum is four. ".repeat(self.sentences);
        let row = serde_json::json!({"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": text.trim()}]});
        let data = self.dir.join(format!("{}.jsonl", self.sentences));
        std::fs::write(&data, format!("{row}\n").repeat(4)).unwrap();
        let mut arguments: Vec<String> = ["sft", "--quiet", "--run"].map(str::to_owned).into();
        arguments.extend([run.display().to_string(), "--device".into(), device.to_owned()]);
        let settings = [
            ("data.path", data.display().to_string()),
            ("train.max_steps", steps.to_string()),
            ("train.epochs", "100".into()),
            ("train.batch_size", "4".into()),
            ("train.micro_batch.examples", self.examples.to_string()),
            ("train.recompute", "block".into()),
        ];
        for (key, value) in settings.iter().chain(self.model) {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        setpoint_owned(&arguments).ok();
        let lines = metrics(run);
        assert_eq!(lines.len(), steps);
        lines[0]["num_tokens"].as_u64().unwrap()
    }

    /// Returns the tokens and the traffic of a step behind the gate.
    fn step(&self, gate: &Gate) -> (f64, Traffic) {
        let mut tokens = 0;
        let traffic = gate.of_step(|device, steps| {
            let run = tempfile::tempdir_in(self.dir).unwrap();
            tokens = self.run(device, steps, &run.path().join("run"));
        });
        (tokens as f64, traffic)
    }
}

/// Returns the settings of a tiny model with random weights that takes long texts.
fn from_scratch(dir: &Path) -> [(&'static str, String); 2] {
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(tiny_config()).unwrap()).unwrap();
    config["max_position_embeddings"] = 2048.into();
    let model = dir.join("config.json");
    std::fs::write(&model, config.to_string()).unwrap();
    [("model.from_scratch", model.display().to_string()), ("model.tokenizer", demo("tokenizer").display().to_string())]
}

/// Returns the bytes by which a step grows with a token, between steps of more and more tokens.
fn per_token(steps: &[(f64, Traffic)], bytes: fn(&Traffic) -> f64) -> Vec<f64> {
    steps.windows(2).map(|pair| (bytes(&pair[1].1) - bytes(&pair[0].1)) / (pair[1].0 - pair[0].0)).collect()
}

#[test]
fn a_step_moves_few_bytes_a_token_and_none_that_grow_faster() {
    let server = Server::start("flex", None);
    let (gate, dir) = (Gate::before(&server.address), tempfile::tempdir().unwrap());
    let model = from_scratch(dir.path());
    // Texts of some 300, 600 and 900 tokens: their lengths take as many bytes in a message.
    let steps =
        [60, 120, 180].map(|sentences| Training { dir: dir.path(), model: &model, sentences, examples: 4 }.step(&gate));
    let (to_device, to_host) = (per_token(&steps, |step| step.to_device), per_token(&steps, |step| step.to_host));
    assert!(steps[0].0 > 1000.0, "{steps:?}");
    assert!(to_device.iter().all(|bytes| (4.0..64.0).contains(bytes)), "{to_device:?} bytes a token: {steps:?}");
    assert!((to_device[1] / to_device[0] - 1.0).abs() < 0.2, "{to_device:?} bytes a token: {steps:?}");
    // Metrics are numbers of texts, not of tokens.
    assert!(to_host.iter().all(|bytes| bytes.abs() < 1.0), "{to_host:?} bytes a token: {steps:?}");
}

/// The losses of all micro-batches, what is logged of them and the norm of the gradient come in one answer.
#[test]
fn the_host_reads_once_a_step_however_many_micro_batches_it_has() {
    let server = Server::start("flex", None);
    let (gate, dir) = (Gate::before(&server.address), tempfile::tempdir().unwrap());
    let model = from_scratch(dir.path());
    for examples in [4, 1] {
        let (_, step) = Training { dir: dir.path(), model: &model, sentences: 10, examples }.step(&gate);
        assert_eq!(step.answers, 1.0, "{examples} examples in a micro-batch");
    }
}

/// Losses, rewards, log-probabilities and entropies stay on the device until the end of the step, whatever the task.
#[test]
fn methods_are_read_once_a_step() {
    let server = Server::start("flex", None);
    let gate = Gate::before(&server.address);
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(5));
    let policy = model().display().to_string();
    for (method, setting) in
        [("dro", "align.nll_weight=0.1"), ("dpo", "align.nll_weight=0.1"), ("dro_v", "train.seed=1")]
    {
        let step = gate.of_step(|device, steps| {
            let run = dir.path().join(format!("{method}-{steps}")).display().to_string();
            let (method, steps) = (format!("align.method={method}"), format!("train.max_steps={steps}"));
            let mut arguments = vec!["align", "--quiet", "--device", device, "--model", &policy, "--data", &data];
            arguments.extend(["--run", &run, "--set", &method, "--set", &steps, "--set", setting]);
            for setting in ["samples.prompts=0", "train.epochs=9", "train.batch_size=5", "train.micro_batch.examples=2"]
            {
                arguments.extend(["--set", setting]);
            }
            setpoint(&arguments).ok();
        });
        assert_eq!(step.answers, 1.0, "{method}");
    }
}

/// Keys of tokens are sent, and no masks.
#[test]
fn dropout_of_an_adapter_moves_few_bytes_a_token() {
    let server = Server::start("flex", None);
    let (gate, dir) = (Gate::before(&server.address), tempfile::tempdir().unwrap());
    let base = dir.path().join("base");
    Training { dir: dir.path(), model: &from_scratch(dir.path()), sentences: 1, examples: 4 }.run("flex", 1, &base);
    let model = [
        ("model.path", base.join("model").display().to_string()),
        ("adapter.rank", "4".into()),
        ("adapter.dropout", "0.1".into()),
    ];
    let steps =
        [20, 40].map(|sentences| Training { dir: dir.path(), model: &model, sentences, examples: 4 }.step(&gate));
    let to_device = per_token(&steps, |step| step.to_device);
    assert!(to_device.iter().all(|bytes| (4.0..64.0).contains(bytes)), "{to_device:?} bytes a token: {steps:?}");
}
