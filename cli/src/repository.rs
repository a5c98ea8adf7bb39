//! Where plugins get metadata from.

use std::fs;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use admission_host::{
    Code, ListMetadata, MemoryRepository, MetadataFuture, PrpcOptions, PrpcRepository, Repository,
    Status,
};
use anyhow::Context as _;
use tracing::warn;

use crate::args::{Access, Identity, Metadata};
use crate::token;

/// Longest time that a call for metadata may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// What this program calls itself before the service.
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// Opens a file of metadata, or prepares to ask the service of `service_url`, for checks
/// that may take as long as `timeout`; 0 is for ever.
///
/// # Errors
///
/// If a file cannot be read, or the service cannot be asked in this way.
pub(crate) fn open(
    metadata: Metadata,
    service_url: &str,
    timeout: Duration,
) -> anyhow::Result<Arc<dyn Repository>> {
    Ok(match metadata {
        Metadata::File(file) => Arc::new(MemoryRepository::from_json_file(file)?),
        Metadata::Offline => Arc::new(Offline),
        Metadata::Service(access) => service(access, service_url, timeout)?,
    })
}

fn service(
    access: Access,
    service_url: &str,
    timeout: Duration,
) -> anyhow::Result<Arc<dyn Repository>> {
    let mut options = PrpcOptions::new(service_url)
        .deadline(DEADLINE)
        .user_agent(USER_AGENT)
        .proxies_of_environment();
    if !timeout.is_zero() {
        // So that the policy gets the reason before its check runs out of time.
        options = options.deadline(DEADLINE.min(timeout / 4 * 3));
    }
    if let Some(file) = access.ca_file {
        let pem = fs::read(&file)
            .with_context(|| format!("cannot read the root certificates `{}`", file.display()))?;
        options = options.root_certificates(pem);
    }
    Ok(match access.identity {
        Identity::Anonymous => Arc::new(Anonymous {
            service: PrpcRepository::new(options)?,
            has_hinted: AtomicBool::new(false),
        }),
        Identity::TokenCommand(command) => {
            let source = move || token::from_command(command.clone());
            Arc::new(PrpcRepository::new(options.bearer_tokens(source))?)
        }
        Identity::TokenFile(file) => {
            // Finds out now, before anything is started, that there is no such file.
            token::look_at(&file)
                .with_context(|| format!("cannot read the token file `{}`", file.display()))?;
            let source = move || token::from_file(file.clone());
            Arc::new(PrpcRepository::new(options.bearer_tokens(source))?)
        }
    })
}

/// Stands for the repository that is not to be asked.
struct Offline;

impl Repository for Offline {
    fn list_metadata(&self, _: ListMetadata) -> MetadataFuture<'_> {
        let text = "there is no metadata offline: pass --metadata FILE instead of --offline, or neither to ask the service";
        Box::pin(ready(Err(Status::new(Code::UNAVAILABLE, text))))
    }
}

/// A service that does not know who asks.
struct Anonymous {
    service: PrpcRepository,
    has_hinted: AtomicBool,
}

impl Repository for Anonymous {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        Box::pin(async move {
            let answer = self.service.list_metadata(request).await;
            if let Err(status) = &answer
                && [Code::UNAUTHENTICATED, Code::PERMISSION_DENIED].contains(&status.code)
                && !self.has_hinted.swap(true, Ordering::Relaxed)
            {
                warn!(
                    "the service does not show everything to everybody: --auth-token-command or --auth-token-file tells it who asks"
                );
            }
            answer
        })
    }
}
