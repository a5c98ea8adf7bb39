//! A sign of life of processes, whosever children they are.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use tempfile::TempDir;

use crate::eventually;

/// A named pipe. It is held as long as any process has it open for writing: the kernel
/// tells when the last of them is gone.
#[derive(Debug)]
pub struct Lifeline {
    path: PathBuf,
    pipe: File,
    heard: String,
    _folder: TempDir,
}

impl Lifeline {
    /// Creates a pipe that nobody holds yet.
    ///
    /// # Panics
    ///
    /// If the system gives none.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lifeline");
        rustix::fs::mkfifoat(CWD, &path, Mode::RWXU).expect("the folder is ours");
        // Opening it must not wait for somebody who writes, and nor must reading.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(&path, flags, Mode::empty()).expect("it was just made");
        Self {
            path,
            pipe: pipe.into(),
            heard: String::new(),
            _folder: folder,
        }
    }

    /// Returns the path by which processes open it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a plugin that is a shell script, which holds it as descriptor 9.
    #[must_use]
    pub fn script(&self, commands: &[&str]) -> [OsString; 4] {
        let script = format!("exec 9>\"$0\"; {}", commands.join("; "));
        let [sh, c] = ["sh", "-c"].map(OsString::from);
        [sh, c, script.into(), self.path.clone().into()]
    }

    /// Waits until `count` lines were written to it, and returns them.
    pub async fn lines(&mut self, count: usize) -> Vec<String> {
        eventually(|| {
            let heard = self.heard();
            heard.lines().count() >= count && heard.ends_with('\n')
        })
        .await;
        self.heard.lines().map(str::to_owned).collect()
    }

    /// Returns what was written to it so far.
    pub fn heard(&mut self) -> &str {
        self.is_held();
        &self.heard
    }

    /// Tells whether any process holds it.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn is_held(&mut self) -> bool {
        let mut chunk = [0; 4 << 10];
        loop {
            match self.pipe.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => self.heard.push_str(&String::from_utf8_lossy(&chunk[..n])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("cannot read the lifeline: {error}"),
            }
        }
    }
}

impl Default for Lifeline {
    fn default() -> Self {
        Self::new()
    }
}
