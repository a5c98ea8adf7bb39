//! Metadata held in memory.

use std::collections::HashMap;

use admission_proto::{Code, InstanceMetadata, Pin, Status};

use super::{ListMetadata, MetadataFuture, MetadataPage, Repository};

/// Entries in a page when the plugin does not say: the reference's default.
const DEFAULT_PAGE_SIZE: usize = 20;

/// Most bytes of values in one page, so that a page always fits a frame: one value
/// may have 512 KiB, and a frame takes 4 MiB.
const MAX_PAGE_BYTES: usize = 3 << 20;

/// A repository that knows what was put into it. An instance that was not is
/// `NOT_FOUND`, as from the real service.
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

    /// Adds an instance, or entries to one that is there.
    ///
    /// Entries are listed as the service does: the most recently attached first, and
    /// by key where they were attached together.
    pub fn insert(&mut self, pin: &Pin, metadata: Vec<InstanceMetadata>) {
        let entries = self.instances.entry(pin.clone()).or_default();
        entries.extend(metadata);
        // Instances are many, and most have few entries.
        entries.shrink_to_fit();
        entries.sort_by(|a, b| {
            let newest_first = b.attached_ts.cmp(&a.attached_ts);
            newest_first.then_with(|| a.key.cmp(&b.key))
        });
    }

    /// Returns the page asked for.
    fn page(&self, request: ListMetadata) -> Result<MetadataPage, Status> {
        let pin = request.pin()?;
        let Some(entries) = self.instances.get(&pin) else {
            return Err(Status::new(Code::NOT_FOUND, "no such instance"));
        };
        let start = page_start(&request.page_token, entries.len())?;
        let size = match usize::try_from(request.page_size) {
            Ok(size) if size > 0 => size,
            _ => DEFAULT_PAGE_SIZE,
        };
        let wanted =
            |entry: &InstanceMetadata| request.keys.is_empty() || request.keys.contains(&entry.key);
        let mut page = MetadataPage::default();
        let mut bytes = 0;
        let rest = entries[start..].iter().zip(start..);
        for (entry, at) in rest.filter(|(entry, _)| wanted(entry)) {
            bytes += entry.value.len();
            if !page.metadata.is_empty() && (page.metadata.len() == size || bytes > MAX_PAGE_BYTES)
            {
                page.next_page_token = at.to_string();
                break;
            }
            page.metadata.push(entry.clone());
        }
        Ok(page)
    }
}

impl Repository for MemoryRepository {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        Box::pin(std::future::ready(self.page(request)))
    }
}

/// Reads a page token: the index of the first entry that was not looked at.
fn page_start(token: &str, entries: usize) -> Result<usize, Status> {
    if token.is_empty() {
        return Ok(0);
    }
    match token.parse() {
        Ok(start) if start <= entries => Ok(start),
        _ => Err(Status::new(
            Code::INVALID_ARGUMENT,
            "bad 'page_token': not one of this service",
        )),
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

    fn request(keys: &[&str], page_size: i32, page_token: &str) -> ListMetadata {
        ListMetadata {
            service_url: String::new(),
            package: "a/b".into(),
            instance: pin().instance().object_ref(),
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
            page_size,
            page_token: page_token.to_owned(),
        }
    }

    fn values(page: &MetadataPage) -> Vec<&str> {
        page.metadata
            .iter()
            .map(|entry| std::str::from_utf8(&entry.value).expect("digits"))
            .collect()
    }

    #[test]
    fn entries_come_newest_first_and_by_key_within_a_second() {
        let repository = repository([("b", 1), ("a", 1), ("c", 2)]);
        let page = repository.page(request(&[], 0, "")).expect("listed");
        let keys: Vec<_> = page
            .metadata
            .iter()
            .map(|entry| entry.key.as_str())
            .collect();
        assert_eq!(keys, ["c", "a", "b"]);
    }

    #[test]
    fn pages_follow_each_other_until_the_token_is_empty() {
        let repository = repository((0..15).map(|second| ("k", second)));
        let mut token = String::new();
        let mut sizes = Vec::new();
        loop {
            let page = repository.page(request(&["k"], 7, &token)).expect("listed");
            sizes.push(page.metadata.len());
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(sizes, [7, 7, 1]);
    }

    #[test]
    fn a_page_has_20_entries_unless_asked_otherwise() {
        let repository = repository((0..25).map(|second| ("k", second)));
        for page_size in [0, -1] {
            let page = repository
                .page(request(&[], page_size, ""))
                .expect("listed");
            assert_eq!(page.metadata.len(), 20);
        }
    }

    #[test]
    fn a_page_is_bounded_by_bytes_too() {
        let mut repository = MemoryRepository::new();
        let large = vec![0; admission_proto::MAX_METADATA_VALUE];
        repository.insert(&pin(), vec![InstanceMetadata::new("k", large); 8]);
        let page = repository.page(request(&[], 100, "")).expect("listed");
        assert_eq!(page.metadata.len(), 6);
        assert_eq!(page.next_page_token, "6");
    }

    #[test]
    fn only_the_keys_asked_for_are_listed() {
        let repository = repository([("a", 1), ("b", 2), ("c", 3)]);
        let page = repository
            .page(request(&["a", "c"], 0, ""))
            .expect("listed");
        assert_eq!(values(&page), ["3", "1"]);
    }

    #[test]
    fn an_instance_that_is_not_there_and_a_foreign_token_are_errors() {
        let repository = repository([("a", 1)]);
        let mut other = request(&[], 0, "");
        other.package = "a/c".into();
        let error = repository.page(other).expect_err("not there");
        assert_eq!(
            (error.code, error.message.as_str()),
            (Code::NOT_FOUND, "no such instance")
        );
        for (package, hex_digest, text) in [
            ("A", "a".repeat(40), "bad 'package': invalid package name"),
            (
                "a",
                "a".repeat(39),
                "bad 'instance': invalid SHA1 hex digest",
            ),
        ] {
            let mut bad = request(&[], 0, "");
            bad.package = package.into();
            bad.instance.hex_digest = hex_digest;
            let error = repository.page(bad).expect_err("not valid");
            assert_eq!(error.code, Code::INVALID_ARGUMENT);
            assert!(error.message.starts_with(text), "{error}");
        }
        for token in ["x", "2", "-1"] {
            let error = repository
                .page(request(&[], 0, token))
                .expect_err("foreign");
            assert_eq!(error.code, Code::INVALID_ARGUMENT);
        }
    }
}
