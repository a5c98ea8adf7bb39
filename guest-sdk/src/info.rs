//! Metadata of the instance that a handler judges.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use admission_proto::wire::plugin::ListMetadataRequest;
use admission_proto::{Code, InstanceMetadata, MetadataPage, ObjectRef, Status};

use crate::check::Check;
use crate::session::Session;

/// Default page size in entries, as in the reference.
const DEFAULT_PAGE_SIZE: i32 = 20;

/// Fetches metadata of the instance under check from the host.
///
/// An `InstanceInfo` belongs to one check. After the verdict on this check, every call fails
/// with [`Code::CANCELLED`]. Cloning is cheap.
#[derive(Clone)]
pub struct InstanceInfo {
    session: Arc<Session>,
    check: Arc<Check>,
}

impl InstanceInfo {
    pub(crate) fn new(session: Arc<Session>, check: Arc<Check>) -> Self {
        Self { session, check }
    }

    /// Visits metadata of the instance, the most recently attached entry first.
    ///
    /// Visits the entries that have one of `keys`, or all entries if `keys` is empty. Stops
    /// when `visitor` returns `Break`. Fetches a page of `page_size` entries and visits them
    /// before it fetches the next page. A `page_size` of zero or less means 20. A plugin fetches
    /// at most 8 pages at a time; further visits wait.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// use admission_sdk::{Admission, InstanceInfo, Status};
    ///
    /// async fn judge(_: Admission, info: InstanceInfo) -> Result<(), Status> {
    ///     let mut approved = false;
    ///     info.visit_metadata(&["approved-by"], 0, |entry| {
    ///         approved = entry.value == b"security";
    ///         if approved {
    ///             ControlFlow::Break(())
    ///         } else {
    ///             ControlFlow::Continue(())
    ///         }
    ///     })
    ///     .await?;
    ///     approved.then_some(()).ok_or_else(|| Status::denied("it is not approved"))
    /// }
    /// # fn is_handler(_: impl admission_sdk::Handler) {}
    /// # is_handler(judge);
    /// ```
    ///
    /// # Errors
    ///
    /// The host's status if a page cannot be fetched. By then, `visitor` has seen the entries of
    /// earlier pages. INTERNAL if the host repeats a page token, because the visit would never
    /// end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the visit. The reply to the call in flight is ignored.
    pub async fn visit_metadata(
        &self,
        keys: &[&str],
        page_size: i64,
        mut visitor: impl FnMut(&InstanceMetadata) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let mut request = self.request(keys, saturate(page_size), "");
        // Not a `HashSet`, which would make a component import the random interface.
        let mut tokens = BTreeSet::new();
        loop {
            let page = self.fetch(request.clone()).await?;
            if page.metadata.iter().try_for_each(&mut visitor).is_break()
                || page.next_page_token.is_empty()
            {
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

    /// Fetches a single page of metadata, for a handler that forwards pages.
    ///
    /// Prefer [`visit_metadata`](Self::visit_metadata) in a policy. `page_size` and
    /// `page_token` are sent as they are. The token is empty for the first page, and then the
    /// [`next_page_token`](MetadataPage::next_page_token) of the previous page.
    ///
    /// # Errors
    ///
    /// The host's status.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the reply is ignored.
    pub async fn list_metadata(
        &self,
        keys: &[&str],
        page_size: i32,
        page_token: &str,
    ) -> Result<MetadataPage, Status> {
        self.fetch(self.request(keys, page_size, page_token)).await
    }

    /// Fetches a single page of metadata of any instance, for a handler that forwards calls.
    ///
    /// The instance must be in the service that the admission names. Otherwise behaves like
    /// [`list_metadata`](Self::list_metadata). The call is cancelled when this check is settled,
    /// even if the call is about another instance.
    ///
    /// # Errors
    ///
    /// The host's status.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the reply is ignored.
    pub async fn list_metadata_of(
        &self,
        package: &str,
        instance: &ObjectRef,
        keys: &[&str],
        page_size: i32,
        page_token: &str,
    ) -> Result<MetadataPage, Status> {
        let request = ListMetadataRequest {
            package: package.to_owned(),
            instance: Some(instance.clone().into()),
            ..self.request(keys, page_size, page_token)
        };
        self.fetch(request).await
    }

    async fn fetch(&self, request: ListMetadataRequest) -> Result<MetadataPage, Status> {
        let page = self.session.list_metadata(&self.check, request).await?;
        Ok(page.into())
    }

    /// Returns the request for a page of metadata of the instance under check.
    fn request(&self, keys: &[&str], page_size: i32, page_token: &str) -> ListMetadataRequest {
        let admission = &self.check.admission;
        ListMetadataRequest {
            service_url: admission.service_url.clone(),
            package: admission.package.clone(),
            instance: Some(admission.instance.clone().into()),
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
            page_size,
            page_token: page_token.to_owned(),
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
