//! Devices of other machines: here of other processes, which `setpoint lend` starts.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::fixture::{Ran, command, file, model, rewarded_rows, setpoint, setpoint_owned, sft_arguments};
use super::several_devices::{close, metrics};

/// A server that ends with the test.
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    pub fn start(device: &str, token: Option<&str>) -> Self {
        let mut lend = command(&["lend", "--device", device, "--listen", "127.0.0.1:0"]);
        lend.env_remove("SETPOINT_TOKEN");
        if let Some(token) = token {
            lend.env("SETPOINT_TOKEN", token);
        }
        let mut child = lend.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("remote:").unwrap_or_else(|| panic!("{line:?}")).1.to_owned();
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sft(run: &Path, device: &str, steps: usize) -> Vec<String> {
    let mut arguments = sft_arguments(run, steps);
    arguments.extend(["--device".into(), device.into(), "--set".into(), "train.save_steps=1".into()]);
    arguments
}

#[test]
fn a_training_on_two_machines_is_that_on_one() {
    let (first, second) = (Server::start("flex", None), Server::start("ndarray,ndarray", None));
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    setpoint_owned(&sft(&here, "flex", 3)).ok();
    // Three devices on two servers.
    let device = format!("remote:{},remote:{}", first.address, second.address);
    setpoint_owned(&sft(&there, &device, 3)).ok();
    for (found, expected) in metrics(&there).iter().zip(&metrics(&here)) {
        close("remote", found, expected);
    }
    let versions = std::fs::read_to_string(there.join("versions.json")).unwrap();
    assert_eq!(versions.matches("RemoteDevice").count(), 3, "{versions}");
}

#[test]
fn scores_of_other_machines_are_those_of_this_one() {
    let server = Server::start("flex", Some("secret"));
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let logps = |device: &str, token: &str| -> Ran {
        let out = dir.path().join("logps.jsonl").display().to_string();
        let policy = model().display().to_string();
        let arguments = [
            "logps",
            "--quiet",
            "--overwrite",
            "--device",
            device,
            "--model",
            &policy,
            "--data",
            &data,
            "--output",
            &out,
        ];
        Ran::of(&command(&arguments).env("SETPOINT_TOKEN", token).output().unwrap())
    };
    let values = || -> Vec<f64> {
        let text = std::fs::read_to_string(dir.path().join("logps.jsonl")).unwrap();
        let value =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["response_logp"].as_f64().unwrap();
        text.lines().map(value).collect()
    };
    let remote = format!("remote:{}", server.address);
    logps("flex", "").ok();
    let expected = values();
    logps(&remote, "secret").ok();
    for (found, expected) in values().iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
    logps(&remote, "guess").fails(1, &[&server.address, "SETPOINT_TOKEN"]);
    logps(&format!("{remote}/1"), "secret").fails(1, &[&server.address]);
}

#[test]
fn servers_that_are_not_there_or_open_to_all_are_refused() {
    // Bound and closed again: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    setpoint_owned(&sft(&run, &format!("remote:{free}"), 1)).fails(1, &[&free, "setpoint lend"]);
    assert!(!run.exists());
    let mut open = command(&["lend", "--device", "flex", "--listen", "0.0.0.0:0"]);
    Ran::of(&open.env_remove("SETPOINT_TOKEN").output().unwrap()).fails(2, &["--listen", "SETPOINT_TOKEN"]);
    setpoint(&["lend", "--device", "remote:gpu1:3000"]).fails(2, &["--device", "only this machine's"]);
    setpoint(&["lend", "--device", "flex", "--listen", "nowhere"]).fails(1, &["cannot listen at nowhere"]);
}

/// The only one, and one of two, whose device a thread of its own works with.
#[test]
fn a_run_outlives_a_server_that_dies() {
    outlives(Server::start("flex", None), None);
    outlives(Server::start("flex", None), Some(Server::start("flex", None)));
}

fn outlives(mut server: Server, other: Option<Server>) {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let names: Vec<String> = other.iter().chain([&server]).map(|server| format!("remote:{}", server.address)).collect();
    let arguments = sft(&run, &names.join(","), 400);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    let lines = || std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    while lines() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "the run has ended");
        assert!(started.elapsed() < Duration::from_secs(120), "the run does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    server.child.kill().unwrap();
    let died = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(died.elapsed() < Duration::from_secs(60), "the run hangs");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ran::of(&child.wait_with_output().unwrap()).fails(1, &["error: a device failed: ", "--resume"]);
    // It goes on here, where it stood.
    let done = lines();
    let mut rest = sft(&run, "flex", 400);
    rest.push("--resume".into());
    let resumed = setpoint_owned(&rest).ok();
    assert!(metrics(&run).len() == 400 && done < 400, "{done}: {resumed:#?}");
}
