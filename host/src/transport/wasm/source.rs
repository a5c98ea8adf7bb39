//! Reads a component, and refuses files of another kind.
#![expect(
    clippy::disallowed_methods,
    reason = "this file opens the component that the embedder has named"
)]

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use admission_proto::quote_bytes;
use rustix::fs::OFlags;
use wasmtime::Engine;

use crate::transport::LaunchError;

/// Largest component that is accepted, in bytes. Bounds the cost of compiling it.
const MAX_SIZE: u64 = 64 << 20;

/// The first bytes of every WebAssembly file.
const MAGIC: &[u8] = b"\0asm";

/// The next bytes of a core module: version 1, layer 0.
const CORE_MODULE: &[u8] = &[1, 0, 0, 0];

/// The next bytes of a component: version 13, layer 1.
const COMPONENT: &[u8] = &[13, 0, 1, 0];

/// Where the bytes of a component are.
#[derive(Clone)]
pub(super) enum Source {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

impl Source {
    /// Reads the component. Blocks.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is too large, or is not a component.
    pub(super) fn read(&self) -> Result<Arc<[u8]>, LaunchError> {
        let bytes = match self {
            Self::File(path) => read_file(path)?,
            Self::Memory(bytes) => {
                check_size(bytes.len() as u64)?;
                Arc::clone(bytes)
            }
        };
        match wrong_kind(&bytes) {
            None => Ok(bytes),
            Some(kind) => Err(LaunchError::Component(format!(
                "expected a component, found {kind}"
            ))),
        }
    }
}

fn read_file(path: &Path) -> Result<Arc<[u8]>, LaunchError> {
    let unreadable = |source| LaunchError::ComponentFile {
        path: path.to_owned(),
        source,
    };
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        // Without this flag, opening a named pipe waits for a writer.
        .custom_flags(nonblocking)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("not a regular file")));
    }
    check_size(metadata.len())?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    // One byte more than is accepted, in case the file grows meanwhile.
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    check_size(bytes.len() as u64)?;
    Ok(bytes.into())
}

fn check_size(size: u64) -> Result<(), LaunchError> {
    if size > MAX_SIZE {
        return Err(LaunchError::Component(format!(
            "the component has {size} bytes, more than the {} MiB that are accepted",
            MAX_SIZE >> 20
        )));
    }
    Ok(())
}

/// Returns what kind of file the bytes are, judged by the first few, unless it is a component.
fn wrong_kind(bytes: &[u8]) -> Option<String> {
    if let Some(rest) = bytes.strip_prefix(MAGIC) {
        return match rest.get(..4) {
            Some(COMPONENT) => None,
            Some(CORE_MODULE) => Some("a core module".into()),
            Some(version) => Some(format!(
                "WebAssembly of the unknown version {}",
                quote_bytes(version)
            )),
            None => Some("an incomplete WebAssembly file".into()),
        };
    }
    let kind = match bytes {
        [] => "an empty file".into(),
        _ if Engine::detect_precompiled(bytes).is_some() => "compiled native code".into(),
        [0x7f, b'E', b'L', b'F', ..] => "a native executable".into(),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => "a zip archive".into(),
        _ if is_text_format(bytes) => "WebAssembly in the text format".into(),
        _ => format!("a file that starts with {}", quote_bytes(bytes)),
    };
    Some(kind)
}

fn is_text_format(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    text.starts_with(b"(component") || text.starts_with(b"(module")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        Source::Memory(bytes.into()).read().unwrap_err().to_string()
    }

    #[test]
    fn other_files_are_refused_with_their_kind() {
        let refused =
            |kind: &str| format!("failed to launch the plugin: expected a component, found {kind}");
        assert_eq!(refusal(b"\0asm\x01\0\0\0"), refused("a core module"));
        assert_eq!(
            refusal(b"\0asm\x0d\0\x02\0"),
            refused(r#"WebAssembly of the unknown version "\r\x00\x02\x00""#)
        );
        assert_eq!(refusal(b"\0asm"), refused("an incomplete WebAssembly file"));
        assert_eq!(refusal(b""), refused("an empty file"));
        assert_eq!(refusal(b"\x7fELF\x02"), refused("a native executable"));
        assert_eq!(refusal(b"PK\x03\x04"), refused("a zip archive"));
        assert_eq!(
            refusal(b"\n(component)"),
            refused("WebAssembly in the text format")
        );
        assert_eq!(
            refusal(b"#!/bin/sh\n"),
            refused(r##"a file that starts with "#!/bin/sh\n""##)
        );
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_before_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sparse.wasm");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = Source::File(path).read().unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to launch the plugin: the component has 1099511627776 bytes, \
             more than the 64 MiB that are accepted"
        );
    }

    #[test]
    fn a_directory_and_a_named_pipe_are_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        for path in [directory.path(), &pipe] {
            let error = Source::File(path.to_owned()).read().unwrap_err();
            let LaunchError::ComponentFile { source, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(source.to_string(), "not a regular file");
        }
    }

    #[test]
    fn a_whole_file_is_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let component = [MAGIC, COMPONENT, &[7; 100_000]].concat();
        file.write_all(&component).unwrap();
        let source = Source::File(file.path().to_owned());
        assert_eq!(*source.read().unwrap(), *component);
    }
}
