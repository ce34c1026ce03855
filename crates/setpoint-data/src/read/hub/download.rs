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

/// A file to download.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Its address.
    pub(super) url: &'a str,
    /// The commit that it belongs to.
    pub(super) commit: &'a str,
    /// Its name in the repository.
    pub(super) name: &'a str,
    /// The most bytes that it may have, where that is known.
    pub(super) most: Option<u64>,
}

/// Downloads a file, unless the cache has it. `reached` is told how many of its bytes are there.
///
/// A transfer that breaks off is gone on with by the next process, if the hub names the file's digest.
pub(super) fn file(
    client: &Client,
    repo: &Repo,
    wanted: Wanted<'_>,
    reached: &mut dyn FnMut(u64),
) -> Result<PathBuf, String> {
    let Wanted { commit, name, .. } = wanted;
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
    let mut transfer = Transfer::open(&part, wanted.most, reached).map_err(|e| failed(&part, e))?;
    let done = transfer.run(client, &wanted);
    let stays = done.as_ref().is_err_and(|failure| transfer.can_go_on(failure));
    drop(transfer);
    let done = match done {
        Ok(()) => std::fs::rename(&part, &place).map_err(|e| failed(&place, e)),
        Err(failure) => Err(format!("{name:?}: {}", failure.reason)),
    };
    if done.is_err() && !stays {
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
    /// True if the beginning of the file was written by an earlier process.
    inherited: bool,
    /// True if the server refused to send the file, which says nothing about its beginning.
    refused: bool,
    most: Option<u64>,
    /// The digest and length that the first answer promised.
    promised: Option<Promise>,
    reached: &'a mut dyn FnMut(u64),
}

/// The hub's description of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Promise {
    length: Option<u64>,
    sha256: Option<String>,
}

impl<'a> Transfer<'a> {
    /// Opens the unfinished file. What an earlier process wrote is read again, so that its digest is known.
    fn open(part: &'a Path, most: Option<u64>, reached: &'a mut dyn FnMut(u64)) -> std::io::Result<Self> {
        let (mut hash, mut written) = (Sha256::new(), 0);
        let file = if is_plain_file(part) {
            let mut file = OpenOptions::new().read(true).write(true).open(part)?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => {
                        hash.update(&buffer[..count]);
                        written += count as u64;
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            file
        } else {
            // Anything else is removed, not written through.
            let _ = std::fs::remove_file(part);
            OpenOptions::new().read(true).write(true).create_new(true).open(part)?
        };
        Ok(Self { part, file, hash, written, inherited: written > 0, refused: false, most, promised: None, reached })
    }

    /// Transfers the file, with several attempts.
    fn run(&mut self, client: &Client, wanted: &Wanted<'_>) -> Result<(), Failed> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let inherited = self.inherited;
            let taken = client.get(wanted.url, self.written).and_then(|answer| self.take(answer, wanted.commit));
            let failure = match taken.and_then(|()| self.finish()) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if inherited && !failure.passes && !self.refused {
                // The beginning may be to blame: once more, without it.
                self.restart().map_err(|e| self.disk(&e))?;
                continue;
            }
            if !failure.passes || attempt >= ATTEMPTS {
                return Err(failure);
            }
            std::thread::sleep(Duration::from_millis(300) * attempt);
        }
    }

    /// Returns whether a later process can go on with the file: the fault may pass, and the whole can be checked.
    fn can_go_on(&self, failure: &Failed) -> bool {
        let has_digest = self.promised.as_ref().is_some_and(|promised| promised.sha256.is_some());
        self.written > 0 && ((failure.passes && (has_digest || self.inherited)) || (self.refused && self.inherited))
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.written, self.hash, self.inherited, self.promised) = (0, Sha256::new(), false, None);
        Ok(())
    }

    /// Takes the body of an answer, from where the file ends so far.
    fn take(&mut self, mut answer: Answer, commit: &str) -> Result<(), Failed> {
        let status = answer.status.as_u16();
        if !matches!(status, 200 | 206) {
            // 416: the beginning is longer than the file, or as long.
            self.refused = status != 416;
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
                    "is of the commit {:?} instead of {commit}: the repository changed. Run again, or name a commit as the revision",
                    shorten(of)
                )));
            }
            None => return Err(Failed::for_good("the server does not name the file's commit (X-Repo-Commit)")),
        }
        let (from, promise) = promise(&answer)?;
        if self.inherited && promise.sha256.is_none() {
            return Err(Failed::for_good("the beginning that is there cannot be checked"));
        }
        if self.promised.as_ref().is_some_and(|p| *p != promise) {
            return Err(Failed::for_good("the file changed while it was downloaded"));
        }
        self.start_at(from)?;
        let most = match promise.length {
            Some(length) => {
                if let Some(most) = self.most.filter(|&most| length > most) {
                    return Err(Failed::for_good(format!("has {length} bytes; a file of its kind has at most {most}")));
                }
                self.check_room(length)?;
                length
            }
            None => self.most.unwrap_or(UNANNOUNCED),
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
            (self.reached)(self.written);
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
        self.restart().map_err(|e| self.disk(&e))
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
    fn finish(&self) -> Result<(), Failed> {
        let promised = self.promised.as_ref();
        if let Some(length) = promised.and_then(|p| p.length)
            && length != self.written
        {
            let reason = format!("the server announced {length} bytes and sent {}", self.written);
            return Err(Failed::for_good(reason));
        }
        if let Some(expected) = promised.and_then(|p| p.sha256.as_ref()) {
            let found = hex(&self.hash.clone().finalize());
            if *expected != found {
                let reason = format!("the SHA-256 of what was received is {found}, and the hub names {expected}");
                return Err(Failed::for_good(reason));
            }
        }
        self.file.sync_all().map_err(|e| self.disk(&e))
    }
}

/// Returns whether a path leads to a file of its own: no link, and no other name of a file elsewhere.
fn is_plain_file(path: &Path) -> bool {
    let Ok(found) = std::fs::symlink_metadata(path) else { return false };
    #[cfg(unix)]
    let is_alone = std::os::unix::fs::MetadataExt::nlink(&found) == 1;
    #[cfg(not(unix))]
    let is_alone = true;
    found.is_file() && is_alone
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
