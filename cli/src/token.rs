//! Tokens that tell the service who asks.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use admission_host::TokenError;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;

/// Longest token, in bytes. Bounds what a command that was not meant can fill.
const MAX_TOKEN: u64 = 64 << 10;

/// Why a command has printed no token.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("the token command ended with {}", words(*.0))]
    Failed(ExitStatus),
    #[error("the token command prints more than a token")]
    TooLong,
}

/// Runs a shell command that prints a token. What it says on stderr is shown as it is.
///
/// # Cancel safety
///
/// Dropping the future kills the command, and what it has started.
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
    let group = Group::of(&child);
    let stdout = child.stdout.take().expect("it was asked for");
    let mut token = String::new();
    stdout
        .take(MAX_TOKEN + 1)
        .read_to_string(&mut token)
        .await
        .context("cannot read what the token command prints")?;
    if token.len() as u64 > MAX_TOKEN {
        return Err(CommandError::TooLong.into());
    }
    let exit = child.wait().await?;
    group.ended();
    if !exit.success() {
        return Err(CommandError::Failed(exit).into());
    }
    Ok(token)
}

/// The process group of a command, in which is what the command starts: a script that is
/// killed alone leaves behind what it waits for. Dropping it kills the group.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            leader: id.and_then(Pid::from_raw),
        }
    }

    /// Takes note that the command ended by itself; what it has left running may go on.
    fn ended(mut self) {
        self.leader = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // Nobody has waited for the leader, so its number is still the group's. There
            // is nothing to do about a group that is gone.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn words(exit: ExitStatus) -> String {
    let code = exit.code().map(|code| format!("exit status {code}"));
    code.unwrap_or_else(|| exit.to_string())
}

/// Finds out whether a file that is to hold tokens can be opened.
///
/// # Errors
///
/// If it cannot, or if it is a folder, which can be opened and not read.
pub(crate) fn look_at(file: &Path) -> io::Result<()> {
    if File::open(file)?.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(())
}

/// Reads a token from a file, which may be written anew at any time.
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
        return Err(format!("the token file `{shown}` holds more than a token").into());
    }
    Ok(token)
}
