//! Bearer tokens for the service, from a command or a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::Stdio;

use admission_host::TokenError;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::task::spawn_blocking;

/// Longest token, in bytes. Bounds the memory for the output of a wrong command.
const MAX_TOKEN: u64 = 64 << 10;

/// Runs a shell command that prints a token. Its stderr is that of this process.
///
/// # Cancel safety
///
/// Dropping the future kills the command with its process group.
pub(crate) async fn from_command(command: String) -> Result<String, TokenError> {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot run `sh` for the token command")?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = KillGroup(id.and_then(Pid::from_raw));
    let stdout = child.stdout.take().expect("it is piped");
    let mut token = String::new();
    stdout
        .take(MAX_TOKEN + 1)
        .read_to_string(&mut token)
        .await
        .context("cannot read the output of the token command")?;
    if token.len() as u64 > MAX_TOKEN {
        return Err(format!("the token command printed more than {MAX_TOKEN} bytes").into());
    }
    let exit = child.wait().await?;
    // The leader was reaped, so another group may get its ID. Processes that the command
    // left running are not killed.
    group.0 = None;
    match exit.code() {
        Some(0) => Ok(token),
        Some(code) => Err(format!("the token command ended with exit status {code}").into()),
        None => Err(format!("the token command ended with {exit}").into()),
    }
}

/// Kills a process group when it is dropped. Killing the leader alone would leave the children
/// of a script running.
struct KillGroup(Option<Pid>);

impl Drop for KillGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // The leader was not reaped, so the ID still belongs to this group. An error means
            // that the group has no processes.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Reads a token from a file, which may be replaced at any time.
pub(crate) async fn from_file(file: PathBuf) -> Result<String, TokenError> {
    let shown = file.display().to_string();
    let read = move || {
        let mut token = String::new();
        File::open(file)?
            .take(MAX_TOKEN + 1)
            .read_to_string(&mut token)?;
        Ok::<_, io::Error>(token)
    };
    let token = spawn_blocking(read).await?;
    let token = token.with_context(|| format!("cannot read the token file `{shown}`"))?;
    if token.len() as u64 > MAX_TOKEN {
        return Err(format!("the token file `{shown}` has more than {MAX_TOKEN} bytes").into());
    }
    Ok(token)
}
