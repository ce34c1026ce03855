//! One file of the hub into the cache: whole and with the digest that the hub names, or not at all.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::http::HeaderMap;

use super::cache::{Repo, shorten};
use super::http::{Answer, Client, Failed, refusal};
use crate::hash::hex;

/// The longest file whose length the server does not tell in advance.
const UNANNOUNCED: u64 = 256 << 20;
/// Left free on the disk.
const MARGIN: u64 = 256 << 20;
/// How often a transfer that breaks off is taken up again.
const ATTEMPTS: u32 = 3;

/// Downloads a file, unless the cache has it.
pub(super) fn file(client: &Client, url: &str, repo: &Repo, commit: &str, name: &str) -> Result<PathBuf, String> {
    let place = repo.place(commit, name)?;
    if place.is_file() {
        return Ok(place);
    }
    let (part, lock) = repo.unfinished(commit, name)?;
    let failed = |path: &Path, e: std::io::Error| format!("could not write {}: {e}", path.display());
    // Another process that downloads the same file is waited for.
    let locked = File::create(&lock).map_err(|e| failed(&lock, e))?;
    locked.lock().map_err(|e| failed(&lock, e))?;
    if place.is_file() {
        return Ok(place);
    }
    // A part of an earlier process is removed, not written through: it may be anything.
    let _ = std::fs::remove_file(&part);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&part).map_err(|e| failed(&part, e))?;
    let done = transfer(client, url, commit, &part, file).map_err(|reason| format!("{name:?}: {reason}"));
    let done = done.and_then(|()| std::fs::rename(&part, &place).map_err(|e| failed(&place, e)));
    if done.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    // The locked file stays: removed, it could be locked twice.
    done.map(|()| place)
}

/// A transfer under way.
struct Transfer<'a> {
    part: &'a Path,
    file: File,
    hash: Sha256,
    written: u64,
    /// The digest and length that the first answer promised.
    promised: Option<Promise>,
}

/// What the hub says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Promise {
    length: Option<u64>,
    sha256: Option<String>,
}

fn transfer(client: &Client, url: &str, commit: &str, part: &Path, file: File) -> Result<(), String> {
    let mut transfer = Transfer { part, file, hash: Sha256::new(), written: 0, promised: None };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let failure = match client.get(url, transfer.written).and_then(|answer| transfer.take(answer, commit)) {
            Ok(()) => return transfer.finish(),
            Err(failure) => failure,
        };
        if !failure.passes || attempt == ATTEMPTS {
            return Err(failure.reason);
        }
        std::thread::sleep(Duration::from_millis(300) * attempt);
    }
}

impl Transfer<'_> {
    /// Takes the body of an answer, from where the file ends so far.
    fn take(&mut self, mut answer: Answer, commit: &str) -> Result<(), Failed> {
        let status = answer.status.as_u16();
        if !matches!(status, 200 | 206) {
            return Err(Failed {
                reason: refusal(answer.status),
                passes: matches!(status, 408 | 425 | 429 | 500..=599),
            });
        }
        if text(&answer.headers, "content-encoding").is_some_and(|e| e != "identity") {
            return Err(Failed::for_good("the server compressed a file that was to be sent as it is"));
        }
        match text(&answer.of_hub, "x-repo-commit") {
            Some(of) if of == commit => {}
            Some(of) => {
                return Err(Failed::for_good(format!(
                    "is of the commit {:?} instead of {commit}: the data set changed. Run again, or set `data.revision` to a commit",
                    shorten(of)
                )));
            }
            None => return Err(Failed::for_good("the server does not name the file's commit (X-Repo-Commit)")),
        }
        let (from, promise) = promise(&answer)?;
        if self.promised.as_ref().is_some_and(|p| *p != promise) {
            return Err(Failed::for_good("the file changed while it was downloaded"));
        }
        self.start_at(from)?;
        let most = match promise.length {
            Some(length) => {
                self.check_room(length)?;
                length
            }
            None => UNANNOUNCED,
        };
        self.promised = Some(promise);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match answer.body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => {
                    let reason = format!("the transfer broke off after {} bytes: {e}", self.written);
                    // A server that is slow on purpose is not asked again.
                    return Err(Failed { reason, passes: !e.to_string().starts_with("too slow") });
                }
            };
            if self.written + count as u64 > most {
                let stated = self.promised.as_ref().is_some_and(|p| p.length.is_some());
                let what =
                    if stated { "the server announced" } else { "is taken from a server that announces no length" };
                return Err(Failed::for_good(format!("longer than the {most} bytes that {what}")));
            }
            self.file.write_all(&buffer[..count]).map_err(|e| self.disk(&e))?;
            self.hash.update(&buffer[..count]);
            self.written += count as u64;
        }
    }

    /// Makes the file end where the answer's body begins: at its present end, or at 0 where the server begins again.
    fn start_at(&mut self, from: u64) -> Result<(), Failed> {
        if from == self.written {
            return Ok(());
        }
        if from != 0 {
            return Err(Failed::for_good(format!(
                "the server sent bytes from {from} on instead of from {}",
                self.written
            )));
        }
        self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(|e| self.disk(&e))?;
        (self.written, self.hash) = (0, Sha256::new());
        Ok(())
    }

    fn check_room(&self, length: u64) -> Result<(), Failed> {
        let missing = length.saturating_sub(self.written);
        match setpoint_files::free_space(self.part) {
            Some(free) if free < missing.saturating_add(MARGIN) => Err(Failed::for_good(format!(
                "the file has {length} bytes and the disk of the cache has {free} free; set HF_HOME to a folder on another disk"
            ))),
            _ => Ok(()),
        }
    }

    fn disk(&self, error: &std::io::Error) -> Failed {
        Failed::for_good(format!("could not write {}: {error}", self.part.display()))
    }

    /// Checks length and digest, and brings the bytes to the disk.
    fn finish(self) -> Result<(), String> {
        let promised = self.promised.as_ref();
        if let Some(length) = promised.and_then(|p| p.length)
            && length != self.written
        {
            return Err(format!("the server announced {length} bytes and sent {}", self.written));
        }
        if let Some(expected) = promised.and_then(|p| p.sha256.as_ref()) {
            let found = hex(&self.hash.clone().finalize());
            if *expected != found {
                return Err(format!("the SHA-256 of what was received is {found}, and the hub names {expected}"));
            }
        }
        self.file.sync_all().map_err(|e| self.disk(&e).reason)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Where the body begins, and the length and digest of the whole file.
fn promise(answer: &Answer) -> Result<(u64, Promise), Failed> {
    let number = |headers: &HeaderMap, name: &str| match text(headers, name) {
        Some(value) => match value.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Failed::for_good(format!("the header {name} is {:?}; expected a length", shorten(value)))),
        },
        None => Ok(None),
    };
    let (from, sent) = match text(&answer.headers, "content-range").filter(|_| answer.status == 206) {
        Some(range) => content_range(range)
            .ok_or_else(|| Failed::for_good(format!("the header content-range is {:?}", shorten(range))))?,
        None => (0, number(&answer.headers, "content-length")?),
    };
    let linked = number(&answer.of_hub, "x-linked-size")?;
    if let (Some(linked), Some(sent)) = (linked, sent)
        && linked != sent
    {
        return Err(Failed::for_good(format!(
            "the hub announces {linked} bytes and the server that sends them {sent}"
        )));
    }
    // Of a file in large storage, the hub's ETag is its SHA-256; that of another server means nothing.
    let etag = text(&answer.of_hub, "x-linked-etag").or_else(|| text(&answer.of_hub, "etag"));
    let etag = etag.map(|e| e.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase());
    let sha256 = etag.filter(|e| e.len() == 64 && e.bytes().all(|b| b.is_ascii_hexdigit()));
    Ok((from, Promise { length: linked.or(sent), sha256 }))
}

/// The first byte and the whole length of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let whole = match whole {
        "*" => None,
        whole => Some(whole.parse().ok()?),
    };
    // A server may send less than the rest.
    (first <= last && whole.is_none_or(|whole| last < whole)).then_some((first, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 0-9/10"), Some((0, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes */10", "bytes 9-5/10", "bytes 0-10/10", "0-9/10", "bytes -1-9/10", "bytes 0-9/x"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
