//! A directory of compiled components, so that a later start of one takes milliseconds.
//!
//! A file in it is native code that runs with the rights of this process. It is loaded only if
//! no other user can write to the directory, this user owns the file, and the hash of its content
//! is that in its name. After any failure the component is compiled again.
#![expect(
    clippy::disallowed_methods,
    reason = "this file maintains the directory that the embedder has named"
)]

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use admission_proto::hex;
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Most compiled components in a directory.
const MAX_FILES: usize = 32;

/// End of the name of a compiled component.
const SUFFIX: &str = ".cwasm";

/// Start of the name of a file that is still being written.
const UNFINISHED: &str = ".unfinished-";

/// An unfinished file older than this was left by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// A directory of compiled components.
pub(super) struct Cache {
    directory: PathBuf,
    plugin: Arc<str>,
}

impl Cache {
    /// Opens the directory, and creates it if it is missing. Logs a warning and returns `None`
    /// if it cannot be used.
    pub(super) fn open(directory: PathBuf, plugin: &Arc<str>) -> Option<Self> {
        match prepare_directory(&directory) {
            Ok(()) => Some(Self {
                directory,
                plugin: Arc::clone(plugin),
            }),
            Err(error) => {
                warn(&directory, plugin, &error);
                None
            }
        }
    }

    /// Returns the component that this version of the engine compiled from these bytes earlier.
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
                    // A file that cannot be removed is refused again the next time.
                    let _refused_again = fs::remove_file(&path);
                }
            }
        }
        None
    }

    /// Stores the component that was compiled from these bytes. Removes the oldest if there are
    /// too many.
    pub(super) fn store(&self, engine: &Engine, bytes: &[u8], component: &Component) {
        let stored = component
            .serialize()
            .map_err(|error| io::Error::other(format!("{error:#}")))
            .and_then(|code| self.write(&key(engine, bytes), &code))
            .and_then(|()| self.prune(SystemTime::now()));
        if let Err(error) = stored {
            warn(&self.directory, &self.plugin, &error);
        }
    }

    /// Writes a file atomically, even if this process or the system crashes.
    fn write(&self, key: &str, code: &[u8]) -> io::Result<()> {
        // The mode of a temporary file is 0600.
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.directory)?;
        file.write_all(code)?;
        file.as_file().sync_data()?;
        let name = format!("{key}{}{SUFFIX}", hex::encode(&Sha256::digest(code)));
        file.persist(self.directory.join(name))?;
        Ok(())
    }

    /// Removes all but the newest files, and abandoned ones.
    fn prune(&self, now: SystemTime) -> io::Result<()> {
        let mut compiled = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let path = entry.path();
            // Another process may have removed the file.
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
        let surplus = compiled.len().saturating_sub(MAX_FILES);
        compiled[..surplus]
            .iter()
            .try_for_each(|(_, path)| remove(path))
    }

    fn compiled(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if name_of(&path).ends_with(SUFFIX) {
                paths.push(path);
            }
        }
        Ok(paths)
    }
}

fn prepare_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let metadata = fs::metadata(directory)?;
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

/// Returns the start of the name of a file that was compiled from `bytes`. The rest is the
/// hash of its content.
fn key(engine: &Engine, bytes: &[u8]) -> String {
    // Covers the engine's version and settings, and the processor.
    let mut compatibility = DefaultHasher::new();
    engine
        .precompile_compatibility_hash()
        .hash(&mut compatibility);
    format!(
        "{}-{:016x}-",
        hex::encode(&Sha256::digest(bytes)),
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
    let digest = hex::encode(&digest_of(&file).map_err(unreadable)?);
    if !name_of(path)
        .strip_suffix(SUFFIX)
        .is_some_and(|name| name.ends_with(&digest))
    {
        return Err("its content does not match its name".into());
    }
    #[expect(unsafe_code, reason = "loading native code has no safe form")]
    // SAFETY: the content has the hash in the file's name, so `Component::serialize` has
    // returned it. Only processes of this user can write to the directory, and they do not change
    // a file in place: they write it under another name and rename it.
    let component = unsafe { Component::deserialize_file(engine, path) }
        .map_err(|error| format!("{error:#}"))?;
    // Marks the file as new for `prune`. The component is usable even if this fails.
    let _may_be_removed_sooner = file.set_modified(SystemTime::now());
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

fn name_of(path: &Path) -> &str {
    // A name of this module is UTF-8.
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// Removes a file, if another process has not done so.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn warn(directory: &Path, plugin: &Arc<str>, error: &io::Error) {
    tracing::warn!(
        plugin = &**plugin,
        directory = %directory.display(),
        %error,
        "cannot store compiled components in the cache directory"
    );
}

#[cfg(test)]
mod tests;
