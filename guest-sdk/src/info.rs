//! What a handler may ask about the instance it judges.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use admission_proto::wire::plugin::{ListMetadataRequest, ListMetadataResponse};
use admission_proto::{Admission, Code, InstanceMetadata, ObjectRef, Status};

use crate::conversation::{Check, Conversation};

/// Entries a page when the handler leaves it to the SDK, as in the reference.
const DEFAULT_PAGE_SIZE: i32 = 20;

/// Fetches what the host knows about the instance under check.
///
/// It serves one check: once that is decided, its calls fail with [`Code::CANCELLED`].
#[derive(Clone)]
pub struct InstanceInfo {
    conversation: Arc<Conversation>,
    check: Arc<Check>,
}

/// One page of what is attached to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MetadataPage {
    /// The entries, the most recently attached first.
    pub metadata: Vec<InstanceMetadata>,
    /// Asks for the page that follows; empty on the last one.
    pub next_page_token: String,
}

impl InstanceInfo {
    pub(crate) fn new(conversation: Arc<Conversation>, check: Arc<Check>) -> Self {
        Self {
            conversation,
            check,
        }
    }

    /// Visits metadata attached to the instance, the most recently attached first.
    ///
    /// Visits the entries with one of `keys`, or all if there are none, until `visitor`
    /// breaks or there are no more. They are fetched in pages of `page_size`, each when
    /// the one before it has been visited; 0 or less stands for a default of 20. At most 8
    /// pages of a plugin are fetched at once; further visits wait their turn.
    ///
    /// # Errors
    ///
    /// The status of the fetch that failed, as the host gave it; entries visited before
    /// stay visited. INTERNAL if the host repeats a page token, which would not end.
    ///
    /// # Cancel safety
    ///
    /// A visit that is dropped ends; the answer to its last call is ignored.
    pub async fn visit_metadata(
        &self,
        keys: &[&str],
        page_size: i64,
        mut visitor: impl FnMut(&InstanceMetadata) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let mut request = self.request(keys, saturate(page_size), "");
        // A tree, not a hash set: a component that hashes imports the random interface.
        let mut tokens = BTreeSet::new();
        loop {
            let page = self
                .conversation
                .list_metadata(&self.check, request.clone())
                .await?;
            for entry in page.metadata {
                if visitor(&InstanceMetadata::from(entry)).is_break() {
                    return Ok(());
                }
            }
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            if !tokens.insert(page.next_page_token.clone()) {
                return Err(Status::new(
                    Code::INTERNAL,
                    format!("the host repeats the page token {:?}", page.next_page_token),
                ));
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Fetches a single page of metadata, for a handler that hands pages on.
    ///
    /// `page_size` and `page_token` go to the host as they are: the token is empty for the
    /// first page, and then what the page before it has in
    /// [`next_page_token`](MetadataPage::next_page_token). A policy wants
    /// [`visit_metadata`](Self::visit_metadata).
    ///
    /// # Errors
    ///
    /// The status that the host answers with.
    ///
    /// # Cancel safety
    ///
    /// The answer to a call that is dropped is ignored.
    pub async fn list_metadata(
        &self,
        keys: &[&str],
        page_size: i32,
        page_token: &str,
    ) -> Result<MetadataPage, Status> {
        let Admission {
            package, instance, ..
        } = &self.check.admission;
        self.list_metadata_of(package, instance, keys, page_size, page_token)
            .await
    }

    /// Fetches a single page of metadata of any instance that the admission's service has,
    /// for a handler that hands on calls it did not make itself.
    ///
    /// Else as [`list_metadata`](Self::list_metadata): the call ends with this check.
    ///
    /// # Errors
    ///
    /// The status that the host answers with.
    pub async fn list_metadata_of(
        &self,
        package: &str,
        instance: &ObjectRef,
        keys: &[&str],
        page_size: i32,
        page_token: &str,
    ) -> Result<MetadataPage, Status> {
        let mut request = self.request(keys, page_size, page_token);
        package.clone_into(&mut request.package);
        request.instance = Some(instance.clone().into());
        let page = self
            .conversation
            .list_metadata(&self.check, request)
            .await?;
        Ok(page.into())
    }

    fn request(&self, keys: &[&str], page_size: i32, page_token: &str) -> ListMetadataRequest {
        request(&self.check.admission, keys, page_size, page_token)
    }
}

/// Returns the call for a page of metadata of the instance that `admission` is about.
pub(crate) fn request(
    admission: &Admission,
    keys: &[&str],
    page_size: i32,
    page_token: &str,
) -> ListMetadataRequest {
    ListMetadataRequest {
        service_url: admission.service_url.clone(),
        package: admission.package.clone(),
        instance: Some(admission.instance.clone().into()),
        keys: keys.iter().map(|&key| key.to_owned()).collect(),
        page_size,
        page_token: page_token.to_owned(),
    }
}

impl From<ListMetadataResponse> for MetadataPage {
    fn from(page: ListMetadataResponse) -> Self {
        Self {
            metadata: page
                .metadata
                .into_iter()
                .map(InstanceMetadata::from)
                .collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl fmt::Debug for InstanceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceInfo")
            .field("admission", &self.check.admission)
            .finish_non_exhaustive()
    }
}

fn saturate(page_size: i64) -> i32 {
    match page_size {
        ..=0 => DEFAULT_PAGE_SIZE,
        1.. => i32::try_from(page_size).unwrap_or(i32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_size_saturates_and_has_a_default() {
        for (asked, sent) in [
            (i64::MIN, 20),
            (-1, 20),
            (0, 20),
            (1, 1),
            (7, 7),
            (1 << 31, i32::MAX),
            (i64::MAX, i32::MAX),
        ] {
            assert_eq!(saturate(asked), sent);
        }
    }
}
