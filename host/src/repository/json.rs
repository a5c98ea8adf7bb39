//! Metadata read from a JSON file.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use admission_proto::{
    InstanceMetadata, MetadataError, Pin, PinError, validate_content_type, validate_metadata_key,
    validate_metadata_value,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use super::{ListMetadata, MemoryRepository, MetadataFuture, Repository};

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
    /// The file is not of the form described at [`JsonRepository`].
    #[error("{}:{line}:{column}: not a metadata file", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line on which the fault was noticed, from 1.
        line: usize,
        /// Column there, from 1.
        column: usize,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
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
        let json = std::fs::read(path).map_err(|source| JsonRepositoryError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&json, path)
    }

    /// Reads instance by instance, so that a large file is not in memory twice over.
    fn parse(json: &[u8], path: &Path) -> Result<Self, JsonRepositoryError> {
        let document: Document =
            serde_json::from_slice(json).map_err(|error| JsonRepositoryError::Invalid {
                path: path.to_owned(),
                line: error.line(),
                column: error.column(),
                source: without_place(&error).into(),
            })?;
        Ok(Self(document.instances.0))
    }
}

impl Repository for JsonRepository {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        self.0.list_metadata(request)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    instances: Instances,
}

struct Instances(MemoryRepository);

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(InstancesVisitor)
    }
}

struct InstancesVisitor;

impl<'de> Visitor<'de> for InstancesVisitor {
    type Value = Instances;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of instances")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Instances, A::Error> {
        let mut repository = MemoryRepository::new();
        while let Some(Instance { pin, metadata }) = list.next_element()? {
            repository.insert(&pin, metadata.into_iter().map(|entry| entry.0).collect());
        }
        Ok(Instances(repository))
    }
}

#[derive(serde::Deserialize)]
#[serde(try_from = "RawInstance")]
struct Instance {
    pin: Pin,
    metadata: Vec<Entry>,
}

#[derive(serde::Deserialize)]
#[serde(try_from = "RawEntry")]
struct Entry(InstanceMetadata);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInstance {
    package: String,
    instance_id: String,
    #[serde(default)]
    metadata: Vec<Entry>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    content_type: String,
    #[serde(default)]
    attached_by: String,
    attached_ts: Option<String>,
}

/// What is wrong with a metadata entry.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("exactly one of `value` and `value_base64` is needed")]
    Value,
    #[error("`value_base64` is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("`attached_ts` is not an RFC 3339 time in UTC: {0:?}")]
    Time(String),
}

impl TryFrom<RawInstance> for Instance {
    type Error = PinError;

    fn try_from(raw: RawInstance) -> Result<Self, PinError> {
        Ok(Self {
            pin: Pin::new(&raw.package, &raw.instance_id)?,
            metadata: raw.metadata,
        })
    }
}

impl TryFrom<RawEntry> for Entry {
    type Error = EntryError;

    fn try_from(raw: RawEntry) -> Result<Self, EntryError> {
        validate_metadata_key(&raw.key)?;
        let value = match (raw.value, raw.value_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => BASE64_STANDARD.decode(base64)?,
            _ => return Err(EntryError::Value),
        };
        validate_metadata_value(&value)?;
        validate_content_type(&raw.content_type)?;
        let mut entry = InstanceMetadata::new(raw.key, value);
        entry.content_type = raw.content_type;
        entry.attached_by = raw.attached_by;
        entry.attached_ts = raw.attached_ts.map(read_time).transpose()?;
        Ok(Self(entry))
    }
}

fn read_time(text: String) -> Result<SystemTime, EntryError> {
    humantime::parse_rfc3339(&text).map_err(|_| EntryError::Time(text))
}

/// Returns the error's text without the place, which ours gives in front.
fn without_place(error: &serde_json::Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str =
        r#""package": "a/b", "instance_id": "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC""#;

    fn parse(json: &str) -> Result<JsonRepository, JsonRepositoryError> {
        JsonRepository::parse(json.as_bytes(), Path::new("m.json"))
    }

    fn error(json: &str) -> String {
        let error = parse(json).expect_err("not valid");
        let cause = error.source().expect("the cause");
        format!("{error}: {cause}")
    }

    fn with_entry(entry: &str) -> String {
        format!("{{\"instances\": [{{{PACKAGE}, \"metadata\": [\n{{{entry}}} ]}}]}}")
    }

    #[test]
    fn text_and_base64_values_are_read() {
        let repository = parse(&with_entry(
            r#""key": "a", "value": "text", "attached_ts": "2026-01-02T03:04:05Z"},
            {"key": "b", "value_base64": "/w==""#,
        ));
        let pin = Pin::new("a/b", "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC").expect("valid");
        let request = ListMetadata {
            package: "a/b".into(),
            instance: pin.instance().object_ref(),
            ..ListMetadata::default()
        };
        let repository = repository.expect("valid");
        let listing = repository.list_metadata(request);
        let page = futures_util::FutureExt::now_or_never(listing)
            .expect("ready")
            .expect("listed");
        let values: Vec<_> = page.metadata.into_iter().map(|entry| entry.value).collect();
        assert_eq!(values, [b"text".to_vec(), vec![0xff]]);
    }

    #[test]
    fn every_fault_names_its_line() {
        assert_eq!(
            error("{\n\"instances\": 3}"),
            "m.json:2:14: not a metadata file: invalid type: integer `3`, expected a list of instances"
        );
        assert_eq!(
            error("{"),
            "m.json:1:1: not a metadata file: EOF while parsing an object"
        );
        assert_eq!(
            error(r#"{"instances": [{"package": "A", "instance_id": "x"}]}"#),
            r#"m.json:1:52: not a metadata file: invalid package name "A": must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#
        );
        for (entry, fault) in [
            (
                r#""key": "a""#,
                "exactly one of `value` and `value_base64` is needed",
            ),
            (
                r#""key": "A", "value": """#,
                r#"invalid metadata key "A": should match "^[a-z0-9_\\-]+$""#,
            ),
            (
                r#""key": "a", "value": "", "attached_ts": "now""#,
                r#"`attached_ts` is not an RFC 3339 time in UTC: "now""#,
            ),
            (
                r#""key": "a", "value_base64": "?""#,
                "`value_base64` is not base64: Invalid symbol 63, offset 0.",
            ),
            (
                r#""kay": "a""#,
                "unknown field `kay`, expected one of `key`, `value`, `value_base64`, `content_type`, `attached_by`, `attached_ts`",
            ),
        ] {
            let text = error(&with_entry(entry));
            assert!(text.starts_with("m.json:2:"), "{text}");
            assert!(
                text.ends_with(&format!(": not a metadata file: {fault}")),
                "{text}"
            );
        }
    }
}
