//! Large files: the batch interface of git-lfs, with the hub's transfers in one or in several parts.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::client::{Body, Client, without_query};
use super::{CHUNK, Push, PushFile};
use crate::hash::hex;
use crate::read::hub::cache::shorten;

/// The media type of git-lfs.
const LFS: &str = "application/vnd.git-lfs+json";
/// Bytes that are hashed at a time.
const BUFFER: usize = 1 << 20;
/// The most parts of a file; S3 takes no more.
const MOST_PARTS: u64 = 10_000;

/// A large file with its SHA-256.
pub(super) struct Object<'a> {
    pub(super) file: &'a PushFile,
    pub(super) oid: &'a str,
}

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Instruction>,
}

/// The hub's answer about an object.
#[derive(Deserialize)]
struct Instruction {
    oid: String,
    /// Absent if the storage has the object.
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    #[serde(default)]
    upload: Option<Action>,
    #[serde(default)]
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    /// For an upload in parts: `chunk_size`, and the address of each part under its number.
    #[serde(default)]
    header: Option<BTreeMap<String, Value>>,
}

/// Returns the SHA-256 of a file.
pub(super) fn digest(file: &PushFile) -> Result<String, String> {
    let mut source = setpoint_files::open(&file.path).map_err(|error| error.to_string())?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = source
            .read(&mut buffer)
            .map_err(|error| setpoint_files::Error::io("read", &file.path)(error).to_string())?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

/// Sends the objects that the storage does not have, and returns their bytes.
pub(super) fn send(
    client: &Client<'_>,
    push: &Push<'_>,
    objects: &[Object<'_>],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, String> {
    let mut to_send: Vec<(&Object<'_>, Actions)> = Vec::new();
    for chunk in objects.chunks(CHUNK) {
        let listed: Vec<Value> =
            chunk.iter().map(|object| json!({ "oid": object.oid, "size": object.file.bytes })).collect();
        let request = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": listed,
            "hash_algo": "sha256",
            "ref": { "name": push.revision },
        });
        let url = client.url(&format!("{}.git/info/lfs/objects/batch", push.id));
        let batch: Batch =
            client.post(&url, &request, LFS, true)?.parse("the instructions for large files", push.id)?;
        let mut instructions: BTreeMap<String, Instruction> =
            batch.objects.into_iter().map(|instruction| (instruction.oid.clone(), instruction)).collect();
        for object in chunk {
            // Two files of the same content are one object.
            if to_send.iter().any(|(known, _)| known.oid == object.oid) {
                continue;
            }
            let Some(instruction) = instructions.remove(object.oid) else {
                if chunk.iter().filter(|other| other.oid == object.oid).count() > 1 {
                    continue;
                }
                return Err(format!("the hub gives no instructions for {}", object.file.name));
            };
            if let Some(Refusal { code, message }) = instruction.error {
                return Err(format!("{}: the hub refuses it: {code} {:?}", object.file.name, shorten(&message)));
            }
            if let Some(actions) = instruction.actions.filter(|actions| actions.upload.is_some()) {
                to_send.push((object, actions));
            }
        }
    }
    let total = to_send.iter().map(|(object, _)| object.file.bytes).sum();
    let mut before = 0;
    for (object, actions) in &to_send {
        let mut told = |sent: u64| progress(before + sent, total);
        transfer(client, push, object, actions, &mut told)
            .map_err(|reason| format!("{}: {reason}", object.file.name))?;
        before += object.file.bytes;
        progress(before, total);
    }
    Ok(total)
}

/// Sends one object, and lets the hub look at it where it asks for that.
fn transfer(
    client: &Client<'_>,
    push: &Push<'_>,
    object: &Object<'_>,
    actions: &Actions,
    told: &mut dyn FnMut(u64),
) -> Result<(), String> {
    let Some(upload) = &actions.upload else { return Ok(()) };
    let header = upload.header.as_ref();
    match header.and_then(|header| header.get("chunk_size")) {
        Some(size) => {
            let urls = header.map(part_urls).unwrap_or_default();
            let (length, count) = (object.file.bytes, urls.len() as u64);
            let size = whole(size).filter(|size| *size > 0 && length.div_ceil(*size) == count && count <= MOST_PARTS);
            let size = size.ok_or("the hub's instructions for its parts do not fit its length")?;
            let mut parts = Vec::new();
            for (i, url) in urls.iter().enumerate() {
                let from = i as u64 * size;
                let body = Body::Part { file: object.file, from, length: size.min(length - from) };
                let answer = client.put(url, &body, &mut |sent| told(from + sent))?;
                answer.check(push.id).map_err(|reason| at(url, &reason))?;
                let etag = answer.headers.get("etag").and_then(|value| value.to_str().ok());
                let etag =
                    etag.filter(|etag| !etag.is_empty()).ok_or("the storage does not name the part that it got")?;
                parts.push(json!({ "partNumber": i + 1, "etag": etag }));
            }
            let completed = client.post(&upload.href, &json!({ "oid": object.oid, "parts": parts }), LFS, false)?;
            completed.check(push.id)?;
        }
        None => {
            let body = Body::Part { file: object.file, from: 0, length: object.file.bytes };
            let answer = client.put(&upload.href, &body, told)?;
            answer.check(push.id).map_err(|reason| at(&upload.href, &reason))?;
        }
    }
    if let Some(verify) = &actions.verify {
        let seen = client.post_json(&verify.href, &json!({ "oid": object.oid, "size": object.file.bytes }))?;
        seen.check(push.id)?;
    }
    Ok(())
}

/// Names the storage in the reason for which it refuses.
fn at(url: &str, reason: &str) -> String {
    format!("{} refuses it: {reason}", shorten(&without_query(url)))
}

/// Returns the addresses of the parts in their order.
fn part_urls(header: &BTreeMap<String, Value>) -> Vec<String> {
    let mut numbered: Vec<(u64, String)> = header
        .iter()
        .filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|(name, url)| Some((name.parse().ok()?, url.as_str()?.to_owned())))
        .collect();
    numbered.sort();
    numbered.into_iter().map(|(_, url)| url).collect()
}

/// Returns a whole number, also one that is written as text.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_ordered_by_their_numbers() {
        let header = json!({"chunk_size": "7", "10": "j", "2": "b", "1": "a", "x1": "no"});
        let header: BTreeMap<String, Value> = serde_json::from_value(header).unwrap();
        assert_eq!(part_urls(&header), ["a", "b", "j"]);
        assert_eq!(whole(&header["chunk_size"]), Some(7));
        assert_eq!(whole(&json!(7)), Some(7));
        assert_eq!(whole(&json!("-7")), None);
    }
}
