//! Metadata held in memory.

use std::collections::HashMap;

use admission_proto::{Code, InstanceMetadata, Pin, Status};

use super::{ListMetadata, MetadataFuture, MetadataPage, Repository};

/// A repository in memory. Returns all entries of an instance in one page.
#[derive(Debug, Clone, Default)]
pub struct MemoryRepository {
    instances: HashMap<Pin, Vec<InstanceMetadata>>,
}

impl MemoryRepository {
    /// Creates a repository without instances.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an instance, or adds entries to an instance that was added before.
    ///
    /// Entries are listed in the order of the service: the most recently attached first,
    /// then by key. An instance that was not added is NOT_FOUND.
    pub fn insert(&mut self, pin: &Pin, metadata: Vec<InstanceMetadata>) {
        let entries = self.instances.entry(pin.clone()).or_default();
        entries.extend(metadata);
        // A file may hold many instances, most of them with a single entry.
        entries.shrink_to_fit();
        entries.sort_by(|a, b| {
            let newest_first = b.attached_ts.cmp(&a.attached_ts);
            newest_first.then_with(|| a.key.cmp(&b.key))
        });
    }

    fn list(&self, request: &ListMetadata) -> Result<MetadataPage, Status> {
        let pin = request.pin()?;
        let Some(entries) = self.instances.get(&pin) else {
            return Err(Status::new(Code::NOT_FOUND, "no such instance"));
        };
        if !request.page_token.is_empty() {
            let text = "bad 'page_token': not one of this service";
            return Err(Status::new(Code::INVALID_ARGUMENT, text));
        }
        let keys = &request.keys;
        let wanted = entries
            .iter()
            .filter(|entry| keys.is_empty() || keys.contains(&entry.key));
        Ok(MetadataPage::new(wanted.cloned().collect(), ""))
    }
}

impl Repository for MemoryRepository {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        Box::pin(std::future::ready(self.list(&request)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn pin() -> Pin {
        Pin::new("a/b", &"a".repeat(40)).expect("a valid pin")
    }

    fn repository(entries: impl IntoIterator<Item = (&'static str, u64)>) -> MemoryRepository {
        let mut repository = MemoryRepository::new();
        let entries = entries.into_iter().map(|(key, second)| {
            let mut entry = InstanceMetadata::new(key, second.to_string());
            entry.attached_ts = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
            entry
        });
        repository.insert(&pin(), entries.collect());
        repository
    }

    fn request() -> ListMetadata {
        ListMetadata {
            package: "a/b".into(),
            instance: pin().instance().object_ref(),
            ..ListMetadata::default()
        }
    }

    fn keys(page: &MetadataPage) -> Vec<&str> {
        let entries = page.metadata.iter();
        entries.map(|entry| entry.key.as_str()).collect()
    }

    #[test]
    fn entries_come_newest_first_and_by_key_within_a_second() {
        let repository = repository([("b", 1), ("a", 1), ("c", 2)]);
        let page = repository.list(&request()).expect("listed");
        assert_eq!(keys(&page), ["c", "a", "b"]);
        assert_eq!(page.next_page_token, "");
    }

    #[test]
    fn only_the_requested_keys_are_listed() {
        let repository = repository([("a", 1), ("b", 2), ("c", 3)]);
        let mut request = request();
        request.keys = vec!["a".into(), "c".into()];
        assert_eq!(
            keys(&repository.list(&request).expect("listed")),
            ["c", "a"]
        );
    }

    #[test]
    fn an_unknown_instance_and_a_page_token_are_errors() {
        let repository = repository([("a", 1)]);
        for (package, hex_digest, page_token, code, text) in [
            (
                "a/c",
                "a".repeat(40),
                "",
                Code::NOT_FOUND,
                "no such instance",
            ),
            (
                "A",
                "a".repeat(40),
                "",
                Code::INVALID_ARGUMENT,
                "bad 'package': invalid package name",
            ),
            (
                "a/b",
                "a".repeat(39),
                "",
                Code::INVALID_ARGUMENT,
                "bad 'instance': invalid SHA1 hex digest",
            ),
            (
                "a/b",
                "a".repeat(40),
                "1",
                Code::INVALID_ARGUMENT,
                "bad 'page_token': not one of this service",
            ),
        ] {
            let mut request = request();
            request.package = package.into();
            request.instance.hex_digest = hex_digest;
            request.page_token = page_token.into();
            let error = repository.list(&request).expect_err("refused");
            assert_eq!(error.code, code);
            assert!(error.message.starts_with(text), "{error}");
        }
    }
}
