//! `setpoint push`: what is shown of it.

use setpoint::push::{PushContents, PushSettings, check, push};
use setpoint::session::memory::size;
use setpoint::{Outcome, Session};
use setpoint_data::{Hub, counted};

use crate::progress::{say, warn};

/// Uploads a model, or shows what would be uploaded. `session` is asked for if something is sent.
pub fn run(session: impl FnOnce() -> Outcome<Session>, settings: &PushSettings, dry_run: bool) -> Outcome {
    check(settings)?;
    let contents = PushContents::of(&settings.model)?;
    contents.remarks.iter().for_each(warn);
    if dry_run {
        for file in &contents.files {
            say(format!("{:>12}  {}", file.bytes, file.name));
        }
        let (count, bytes) = (counted(contents.files.len(), "file"), contents.bytes());
        let visibility = if settings.public { "public" } else { "private" };
        say(format!(
            "{bytes:>12}  bytes in {count}, for {} ({visibility} if it is new); nothing was sent",
            settings.to
        ));
        return Ok(());
    }
    let pushed = push(&session()?, &Hub::from_env(), settings, &contents)?;
    let readers = if pushed.private { "private" } else { "public" };
    let made = if pushed.created { ", made for it" } else { "" };
    match &pushed.commit {
        Some(commit) => {
            let (changed, sent) = (counted(pushed.changed, "file"), size(pushed.sent as f64));
            say(format!("{}: {changed} in commit {commit}, {sent} sent ({readers}{made})", pushed.url));
        }
        None => say(format!("{}: it has all files already, and nothing was sent ({readers})", pushed.url)),
    }
    Ok(())
}
