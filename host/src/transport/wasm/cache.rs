//! Compiled components on disk, so that the next start of one is a matter of
//! milliseconds.
//!
//! A file in here is native code that will run with the rights of this process. It is
//! loaded only from a folder that nobody else can write to, only if it is ours, and
//! only if it still is what was written. Whatever goes wrong costs a compilation, and
//! never more.
#![expect(
    clippy::disallowed_methods,
    reason = "this file keeps the folder that the embedder named"
)]

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// How many compiled components are kept.
const KEPT: usize = 32;

/// How the names of compiled components end.
const SUFFIX: &str = ".cwasm";

/// How the names of files begin that are still being written.
const UNFINISHED: &str = ".unfinished-";

/// Older than this, an unfinished file was left behind by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// A folder of compiled components.
pub(super) struct Cache {
    folder: PathBuf,
    plugin: Arc<str>,
}

impl Cache {
    /// Opens the folder, making it when there is none. Warns, and returns nothing,
    /// when it cannot be used.
    pub(super) fn open(folder: PathBuf, plugin: &Arc<str>) -> Option<Self> {
        match prepare_folder(&folder) {
            Ok(()) => Some(Self {
                folder,
                plugin: Arc::clone(plugin),
            }),
            Err(error) => {
                warn(&folder, plugin, &error);
                None
            }
        }
    }

    /// Returns what was compiled of these bytes before, by this version of the engine.
    pub(super) fn load(&self, engine: &Engine, bytes: &[u8]) -> Option<Component> {
        let key = key(engine, bytes);
        for path in self.compiled().ok()? {
            if !name_of(&path).starts_with(&key) {
                continue;
            }
            match load_file(engine, &path) {
                Ok(component) => return Some(component),
                Err(reason) => {
                    tracing::info!(
                        plugin = &*self.plugin,
                        file = %path.display(),
                        reason,
                        "dropped a compiled component that cannot be used"
                    );
                    // What cannot be removed is not loaded the next time either.
                    let _ = fs::remove_file(&path);
                }
            }
        }
        None
    }

    /// Keeps what was compiled of these bytes, in place of what is oldest.
    pub(super) fn store(&self, engine: &Engine, bytes: &[u8], component: &Component) {
        let stored = component
            .serialize()
            .map_err(|error| io::Error::other(format!("{error:#}")))
            .and_then(|code| self.write(&key(engine, bytes), &code))
            .and_then(|()| self.prune(SystemTime::now()));
        if let Err(error) = stored {
            warn(&self.folder, &self.plugin, &error);
        }
    }

    /// Writes a file such that it is there as a whole or not at all, also after a crash.
    fn write(&self, key: &str, code: &[u8]) -> io::Result<()> {
        // Its mode is 0600.
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)?;
        file.write_all(code)?;
        file.as_file().sync_data()?;
        let name = format!("{key}{}{SUFFIX}", hex(&Sha256::digest(code)));
        file.persist(self.folder.join(name))?;
        Ok(())
    }

    /// Removes all but the newest, and what was never finished.
    fn prune(&self, now: SystemTime) -> io::Result<()> {
        let mut compiled = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            // Another process may have removed it meanwhile.
            let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            if name_of(&path).ends_with(SUFFIX) {
                compiled.push((modified, path));
            } else if name_of(&path).starts_with(UNFINISHED)
                && now
                    .duration_since(modified)
                    .is_ok_and(|age| age > ABANDONED)
            {
                remove(&path)?;
            }
        }
        compiled.sort_unstable();
        let surplus = compiled.len().saturating_sub(KEPT);
        compiled[..surplus]
            .iter()
            .try_for_each(|(_, path)| remove(path))
    }

    fn compiled(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if name_of(&path).ends_with(SUFFIX) {
                paths.push(path);
            }
        }
        Ok(paths)
    }
}

fn prepare_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let metadata = fs::metadata(folder)?;
    if !is_ours(&metadata) {
        return Err(io::Error::other("it belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("others can write to it"));
    }
    Ok(())
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Returns how the name of a file begins that was compiled of `bytes`. The rest of the
/// name is the hash of what is in it.
fn key(engine: &Engine, bytes: &[u8]) -> String {
    // Covers the version of the engine, its settings and the processor.
    let mut compatibility = DefaultHasher::new();
    engine
        .precompile_compatibility_hash()
        .hash(&mut compatibility);
    format!(
        "{}-{:016x}-",
        hex(&Sha256::digest(bytes)),
        compatibility.finish()
    )
}

fn load_file(engine: &Engine, path: &Path) -> Result<Component, String> {
    let unreadable = |error: io::Error| error.to_string();
    let metadata = fs::symlink_metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || !is_ours(&metadata) {
        return Err("not a regular file of this user".into());
    }
    let file = File::open(path).map_err(unreadable)?;
    let digest = hex(&digest_of(&file).map_err(unreadable)?);
    if !name_of(path)
        .strip_suffix(SUFFIX)
        .is_some_and(|name| name.ends_with(&digest))
    {
        return Err("it is not what was written".into());
    }
    #[expect(unsafe_code, reason = "only a promise makes bytes into code")]
    // SAFETY: the file holds what `Component::serialize` returned, as its name says it
    // should, and lies in a folder in which only this user's processes can write. None
    // of those changes a file in place: they are written under other names and renamed.
    let component = unsafe { Component::deserialize_file(engine, path) }
        .map_err(|error| format!("{error:#}"))?;
    // It is in use, so it is not what is removed next. Without that it is still good.
    let _ = file.set_modified(SystemTime::now());
    Ok(component)
}

fn digest_of(mut file: &File) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let len = file.read(&mut piece)?;
        if len == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&piece[..len]);
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes it");
        out
    })
}

fn name_of(path: &Path) -> &str {
    // What is not UTF-8 was not named by this file.
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// Removes a file, unless another process was faster.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn warn(folder: &Path, plugin: &Arc<str>, error: &io::Error) {
    tracing::warn!(
        plugin = &**plugin,
        folder = %folder.display(),
        %error,
        "cannot keep compiled components in the cache folder"
    );
}

#[cfg(test)]
mod tests;
