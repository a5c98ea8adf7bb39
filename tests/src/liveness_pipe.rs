//! Detects whether any process of a process tree is alive, even one whose parent has exited.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use tempfile::TempDir;

use crate::eventually;

/// A named pipe whose write end is inherited by every process of a tree. When the last of these
/// processes is dead, the kernel reports the end of the pipe.
#[derive(Debug)]
pub struct LivenessPipe {
    path: PathBuf,
    pipe: File,
    text: String,
    _folder: TempDir,
}

impl LivenessPipe {
    /// Creates a pipe without a writer.
    ///
    /// # Panics
    ///
    /// If the pipe cannot be created.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("liveness");
        rustix::fs::mkfifoat(CWD, &path, Mode::RWXU).expect("the folder is ours");
        // Neither opening nor reading may wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(&path, flags, Mode::empty()).expect("it was just created");
        Self {
            path,
            pipe: pipe.into(),
            text: String::new(),
            _folder: folder,
        }
    }

    /// Returns the path at which processes open the pipe.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the command line of a shell that opens the pipe as descriptor 9 and runs these
    /// commands.
    #[must_use]
    pub fn script(&self, commands: &[&str]) -> [OsString; 4] {
        let script = format!("exec 9>\"$0\"; {}", commands.join("; "));
        let [sh, c] = ["sh", "-c"].map(OsString::from);
        [sh, c, script.into(), self.path.clone().into()]
    }

    /// Waits until `count` lines were written to the pipe, and returns all lines.
    pub async fn lines(&mut self, count: usize) -> Vec<String> {
        eventually(|| {
            let text = self.text();
            text.lines().count() >= count && text.ends_with('\n')
        })
        .await;
        self.text.lines().map(str::to_owned).collect()
    }

    /// Returns the text that was written to the pipe so far.
    pub fn text(&mut self) -> &str {
        self.has_writer();
        &self.text
    }

    /// Returns whether any process has the pipe open for writing.
    ///
    /// # Panics
    ///
    /// If the pipe cannot be read.
    pub fn has_writer(&mut self) -> bool {
        let mut chunk = [0; 4 << 10];
        loop {
            match self.pipe.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => self.text.push_str(&String::from_utf8_lossy(&chunk[..n])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("cannot read the pipe: {error}"),
            }
        }
    }
}

impl Default for LivenessPipe {
    fn default() -> Self {
        Self::new()
    }
}
