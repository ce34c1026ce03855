//! Bytes between host and device in a step, counted on their way to and from a lent device.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fixture::{demo, setpoint_owned, tiny_config};
use super::remote::Server;
use super::several_devices::metrics;

/// Bytes on their way to a server and back.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    to_device: u64,
    to_host: u64,
}

/// A gate in front of a server that counts what passes.
struct Gate {
    address: String,
    counts: Arc<[AtomicU64; 2]>,
}

impl Gate {
    fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let counts: Arc<[AtomicU64; 2]> = Arc::default();
        let (server, counted) = (server.to_owned(), counts.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let counts = counted.clone();
                std::thread::spawn(move || pass_on(client, server, &counts[0]));
                let counts = counted.clone();
                std::thread::spawn(move || pass_on(from_server, to_client, &counts[1]));
            }
        });
        Self { address, counts }
    }

    fn counted(&self) -> Traffic {
        let [to_device, to_host] = [0, 1].map(|i: usize| self.counts[i].load(Ordering::SeqCst));
        Traffic { to_device, to_host }
    }
}

/// Passes bytes on until an end closes.
fn pass_on(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        count.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Trains on four texts of `sentences` each and returns the bytes of all steps with the tokens of one.
fn train(gate: &Gate, dir: &Path, sentences: usize, steps: usize) -> (Traffic, u64) {
    let text = "The sum is four. ".repeat(sentences);
    let row = serde_json::json!({"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": text.trim()}]});
    let data = dir.join(format!("{sentences}.jsonl"));
    std::fs::write(&data, format!("{row}\n").repeat(4)).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(tiny_config()).unwrap()).unwrap();
    config["max_position_embeddings"] = 2048.into();
    let model = dir.join("config.json");
    std::fs::write(&model, config.to_string()).unwrap();
    let run = dir.join(format!("{sentences}-{steps}"));
    let mut arguments: Vec<String> = ["sft", "--quiet", "--run"].map(str::to_owned).into();
    arguments.extend([run.display().to_string(), "--device".into(), format!("remote:{}", gate.address)]);
    for (key, value) in [
        ("model.from_scratch", model.display().to_string()),
        ("model.tokenizer", demo("tokenizer").display().to_string()),
        ("data.path", data.display().to_string()),
        ("train.max_steps", steps.to_string()),
        ("train.epochs", "100".into()),
        ("train.batch_size", "4".into()),
        ("train.micro_batch.examples", "4".into()),
        ("train.recompute", "block".into()),
    ] {
        arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
    }
    let before = gate.counted();
    setpoint_owned(&arguments).ok();
    let after = gate.counted();
    let lines = metrics(&run);
    assert_eq!(lines.len(), steps);
    let tokens = lines[0]["num_tokens"].as_u64().unwrap();
    let to_device = after.to_device - before.to_device;
    (Traffic { to_device, to_host: after.to_host - before.to_host }, tokens)
}

#[test]
fn a_step_moves_few_bytes_a_token_and_none_that_grow_faster() {
    let server = Server::start("flex", None);
    let (gate, dir) = (Gate::before(&server.address), tempfile::tempdir().unwrap());
    // Texts of some 300, 600 and 900 tokens: their lengths take as many bytes in a message.
    let steps: Vec<(f64, f64, f64)> = [60, 120, 180]
        .into_iter()
        .map(|sentences| {
            let ((once, tokens), (thrice, _)) =
                (train(&gate, dir.path(), sentences, 1), train(&gate, dir.path(), sentences, 3));
            let of_step = |once: u64, thrice: u64| (thrice - once) as f64 / 2.0;
            (tokens as f64, of_step(once.to_device, thrice.to_device), of_step(once.to_host, thrice.to_host))
        })
        .collect();
    let a_token = |of: fn(&(f64, f64, f64)) -> f64| -> [f64; 2] {
        [0, 1].map(|i| (of(&steps[i + 1]) - of(&steps[i])) / (steps[i + 1].0 - steps[i].0))
    };
    let [to_device, to_host] = [a_token(|step| step.1), a_token(|step| step.2)];
    assert!(steps[0].0 > 1000.0, "{steps:?}");
    assert!(to_device.iter().all(|bytes| (4.0..64.0).contains(bytes)), "{to_device:?} bytes a token: {steps:?}");
    assert!((to_device[1] / to_device[0] - 1.0).abs() < 0.2, "{to_device:?} bytes a token: {steps:?}");
    // Metrics are numbers of texts, not of tokens.
    assert!(to_host.iter().all(|bytes| bytes.abs() < 1.0), "{to_host:?} bytes a token: {steps:?}");
}
