//! Metadata read from a JSON file.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use admission_proto::{
    InstanceMetadata, Pin, PinError, validate_content_type, validate_metadata_key,
    validate_metadata_value,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::MemoryRepository;

/// A metadata file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataFileError {
    /// The file cannot be read.
    #[error("cannot read the metadata file `{}`", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The contents do not have the form described at [`MemoryRepository::from_json_file`].
    #[error("{}:{line}:{column}: not a metadata file", path.display())]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// Line at which parsing stopped, from 1.
        line: usize,
        /// Column at which parsing stopped, from 1.
        column: usize,
        /// The error there.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl MemoryRepository {
    /// Reads a repository from a JSON file:
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
    /// A value that is not text has the name `value_base64` instead of `value`. An entry needs
    /// only a key and a value.
    ///
    /// # Errors
    ///
    /// [`MetadataFileError`], which names the file and the position in it.
    #[expect(clippy::disallowed_methods, reason = "the metadata is in a file")]
    pub fn from_json_file(path: impl AsRef<Path>) -> Result<Self, MetadataFileError> {
        let path = path.as_ref();
        let json = std::fs::read(path).map_err(|source| MetadataFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        parse(&json, path)
    }
}

fn parse(json: &[u8], path: &Path) -> Result<MemoryRepository, MetadataFileError> {
    let file: MetadataFile =
        serde_json::from_slice(json).map_err(|error| MetadataFileError::Invalid {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            source: strip_position(&error).into(),
        })?;
    let mut repository = MemoryRepository::new();
    for Instance { pin, metadata } in file.instances {
        repository.insert(&pin, metadata.into_iter().map(|entry| entry.0).collect());
    }
    Ok(repository)
}

/// Returns the error's text without the position, which [`MetadataFileError`] shows first.
fn strip_position(error: &serde_json::Error) -> String {
    let position = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    text.strip_suffix(&position)
        .map(str::to_owned)
        .unwrap_or(text)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataFile {
    instances: Vec<Instance>,
}

#[derive(Deserialize)]
#[serde(try_from = "RawInstance")]
struct Instance {
    pin: Pin,
    metadata: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(try_from = "RawEntry")]
struct Entry(InstanceMetadata);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInstance {
    package: String,
    instance_id: String,
    #[serde(default)]
    metadata: Vec<Entry>,
}

#[derive(Deserialize)]
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
    type Error = Box<dyn Error>;

    fn try_from(raw: RawEntry) -> Result<Self, Box<dyn Error>> {
        validate_metadata_key(&raw.key)?;
        let value = match (raw.value, raw.value_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => BASE64_STANDARD
                .decode(base64)
                .map_err(|error| format!("`value_base64` is not base64: {error}"))?,
            _ => return Err("exactly one of `value` and `value_base64` is needed".into()),
        };
        validate_metadata_value(&value)?;
        validate_content_type(&raw.content_type)?;
        let mut entry = InstanceMetadata::new(raw.key, value);
        entry.content_type = raw.content_type;
        entry.attached_by = raw.attached_by;
        entry.attached_ts = raw.attached_ts.map(|text| parse_time(&text)).transpose()?;
        Ok(Self(entry))
    }
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339(text)
        .map_err(|_| format!("`attached_ts` is not an RFC 3339 time in UTC: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::super::{ListMetadata, Repository as _};
    use super::*;

    const PACKAGE: &str =
        r#""package": "a/b", "instance_id": "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC""#;

    fn parse(json: &str) -> Result<MemoryRepository, MetadataFileError> {
        super::parse(json.as_bytes(), Path::new("m.json"))
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
            "m.json:2:14: not a metadata file: invalid type: integer `3`, expected a sequence"
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
