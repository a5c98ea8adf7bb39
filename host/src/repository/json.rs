//! Metadata read from a JSON file.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use admission_proto::{
    InstanceMetadata, MetadataError, Pin, PinError, validate_content_type, validate_metadata_key,
    validate_metadata_value,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::{ListMetadata, Listing, MemoryRepository, Repository};

/// A repository whose contents are a JSON file, read once:
///
/// ```json
/// {"instances": [{
///   "package": "infra/tools/cipd/linux-amd64",
///   "instance_id": "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC",
///   "metadata": [{
///     "key": "allowed-sha256",
///     "value": "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447",
///     "content_type": "text/plain",
///     "attached_by": "user:signer@example.com",
///     "attached_ts": "2026-01-02T03:04:05Z"
///   }]
/// }]}
/// ```
///
/// A value that is not text stands in `value_base64` instead of `value`. Everything
/// but key and value may be left out.
#[derive(Debug, Clone)]
pub struct JsonRepository(MemoryRepository);

/// Why a JSON file is not a repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonRepositoryError {
    /// The file cannot be read.
    #[error("cannot read the metadata file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not JSON of the form described at [`JsonRepository`].
    #[error("{}:{line}:{column}: not a metadata file", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
        /// What is wrong there.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An instance in it is not one.
    #[error("{}: instance {index} is not valid", path.display())]
    Instance {
        /// The file.
        path: PathBuf,
        /// Which instance, from 1.
        index: usize,
        /// What is wrong with it.
        source: PinError,
    },
    /// An entry in it could not be attached to an instance.
    #[error("{}: metadata entry {index} of `{pin}` is not valid", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The instance.
        pin: Pin,
        /// Which of its entries, from 1.
        index: usize,
        /// What is wrong with it.
        source: EntryError,
    },
}

/// What is wrong with a metadata entry of a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Key or value break the service's rules.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// There is not exactly one of `value` and `value_base64`.
    #[error("exactly one of `value` and `value_base64` is needed")]
    Value,
    /// `value_base64` is not standard base64.
    #[error("`value_base64` is not base64")]
    Base64(#[source] Box<dyn Error + Send + Sync>),
    /// `attached_ts` is no time.
    #[error("`attached_ts` is not an RFC 3339 time: {0:?}")]
    Time(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    instances: Vec<Instance>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Instance {
    package: String,
    instance_id: String,
    #[serde(default)]
    metadata: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    content_type: String,
    #[serde(default)]
    attached_by: String,
    attached_ts: Option<String>,
}

impl JsonRepository {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`JsonRepositoryError`], which names the file and the place in it.
    #[expect(clippy::disallowed_methods, reason = "this repository is a file")]
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, JsonRepositoryError> {
        let path = path.as_ref();
        let json = std::fs::read_to_string(path).map_err(|source| JsonRepositoryError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&json, path)
    }

    fn parse(json: &str, path: &Path) -> Result<Self, JsonRepositoryError> {
        let path = || path.to_owned();
        let file: File =
            serde_json::from_str(json).map_err(|source| JsonRepositoryError::Syntax {
                path: path(),
                line: source.line(),
                column: source.column(),
                source: source.into(),
            })?;
        let mut repository = MemoryRepository::new();
        for (instance, index) in file.instances.into_iter().zip(1..) {
            let pin = Pin::new(&instance.package, &instance.instance_id).map_err(|source| {
                JsonRepositoryError::Instance {
                    path: path(),
                    index,
                    source,
                }
            })?;
            let mut entries = Vec::with_capacity(instance.metadata.len());
            for (entry, index) in instance.metadata.into_iter().zip(1..) {
                let entry = entry.read().map_err(|source| JsonRepositoryError::Entry {
                    path: path(),
                    pin: pin.clone(),
                    index,
                    source,
                })?;
                entries.push(entry);
            }
            repository.insert(&pin, entries);
        }
        Ok(Self(repository))
    }
}

impl Repository for JsonRepository {
    fn list_metadata(&self, request: ListMetadata) -> Listing<'_> {
        self.0.list_metadata(request)
    }
}

impl Entry {
    fn read(self) -> Result<InstanceMetadata, EntryError> {
        validate_metadata_key(&self.key)?;
        let value = match (self.value, self.value_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => BASE64_STANDARD
                .decode(base64)
                .map_err(|error| EntryError::Base64(error.into()))?,
            _ => return Err(EntryError::Value),
        };
        validate_metadata_value(&value)?;
        validate_content_type(&self.content_type)?;
        let mut entry = InstanceMetadata::new(self.key, value);
        entry.content_type = self.content_type;
        entry.attached_by = self.attached_by;
        entry.attached_ts = self.attached_ts.map(read_time).transpose()?;
        Ok(entry)
    }
}

fn read_time(text: String) -> Result<SystemTime, EntryError> {
    humantime::parse_rfc3339(&text).map_err(|_| EntryError::Time(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str =
        r#""package": "a/b", "instance_id": "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC""#;

    fn parse_error(json: &str) -> String {
        let error = JsonRepository::parse(json, Path::new("m.json")).expect_err("not valid");
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        format!("{error}: {cause}")
    }

    fn entry_error(entry: &str) -> String {
        parse_error(&format!(
            r#"{{"instances": [{{{PACKAGE}, "metadata": [{{{entry}}}]}}]}}"#
        ))
    }

    #[test]
    fn text_and_base64_values_are_read() {
        let json = format!(
            r#"{{"instances": [{{{PACKAGE}, "metadata": [
                {{"key": "a", "value": "text", "attached_ts": "2026-01-02T03:04:05Z"}},
                {{"key": "b", "value_base64": "/w=="}}]}}]}}"#
        );
        let repository = JsonRepository::parse(&json, Path::new("m.json")).expect("valid");
        let pin = Pin::new("a/b", "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC").expect("valid");
        let request = ListMetadata {
            package: "a/b".into(),
            instance: pin.instance().object_ref(),
            ..ListMetadata::default()
        };
        let listing = repository.list_metadata(request);
        let page = futures_util::FutureExt::now_or_never(listing)
            .expect("ready")
            .expect("listed");
        let values: Vec<_> = page.metadata.into_iter().map(|entry| entry.value).collect();
        assert_eq!(values, [b"text".to_vec(), vec![0xff]]);
    }

    #[test]
    fn every_fault_names_its_place() {
        assert_eq!(
            parse_error("{\n\"instances\": 3}"),
            "m.json:2:14: not a metadata file: invalid type: integer `3`, expected a sequence at line 2 column 14"
        );
        assert_eq!(
            parse_error(r#"{"instances": [{"package": "A", "instance_id": "x"}]}"#),
            r#"m.json: instance 1 is not valid: invalid package name "A": must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#
        );
        let at = "m.json: metadata entry 1 of `a/b:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC` is not valid";
        assert_eq!(
            entry_error(r#""key": "a""#),
            format!("{at}: exactly one of `value` and `value_base64` is needed")
        );
        assert_eq!(
            entry_error(r#""key": "A", "value": """#),
            format!(r#"{at}: invalid metadata key "A": should match "^[a-z0-9_\\-]+$""#)
        );
        assert_eq!(
            entry_error(r#""key": "a", "value": "", "attached_ts": "now""#),
            format!(r#"{at}: `attached_ts` is not an RFC 3339 time: "now""#)
        );
        assert_eq!(
            entry_error(r#""key": "a", "value_base64": "?""#),
            format!("{at}: `value_base64` is not base64")
        );
    }
}
