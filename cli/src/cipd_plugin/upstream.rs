//! Metadata, fetched from the client's repository by way of the client.

use admission_host::{ListMetadata, MetadataFuture, MetadataPage, Repository};
use admission_sdk::InstanceInfo;

/// The client, as the repository for one of its checks.
pub(super) struct Upstream(InstanceInfo);

impl Upstream {
    pub(super) fn new(info: InstanceInfo) -> Self {
        Self(info)
    }
}

impl Repository for Upstream {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        Box::pin(async move {
            let keys: Vec<&str> = request.keys.iter().map(String::as_str).collect();
            let page = self
                .0
                .list_metadata_of(
                    &request.package,
                    &request.instance,
                    &keys,
                    request.page_size,
                    &request.page_token,
                )
                .await?;
            Ok(MetadataPage::new(page.metadata, page.next_page_token))
        })
    }
}
