//! The repository that plugins get metadata from.

use std::fs;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use admission_host::{
    Code, ListMetadata, MemoryRepository, MetadataFuture, PrpcOptions, PrpcRepository, Repository,
    Status,
};
use admission_proto::ServiceUrl;
use anyhow::Context as _;
use tracing::warn;

use crate::args::{MetadataArgs, Timeout};
use crate::token;

/// Longest time that a metadata call may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The name of this program in requests to the service.
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// Opens the metadata file, or prepares the client of the service, for checks that may take
/// as long as `timeout`.
///
/// # Errors
///
/// If a file cannot be read, or the options do not fit the service.
pub(crate) fn open(
    args: MetadataArgs,
    service_url: &ServiceUrl,
    timeout: Timeout,
) -> anyhow::Result<Arc<dyn Repository>> {
    if let Some(file) = args.metadata {
        return Ok(Arc::new(MemoryRepository::from_json_file(file)?));
    }
    if args.offline {
        return Ok(Arc::new(Offline));
    }
    // The call must fail before its check times out, so that the policy gets the reason.
    let deadline = timeout.map_or(DEADLINE, |timeout| DEADLINE.min(timeout / 4 * 3));
    let mut options = PrpcOptions::new(service_url.as_str())
        .deadline(deadline)
        .user_agent(USER_AGENT)
        .proxies_of_environment();
    if let Some(file) = args.ca_file {
        let pem = fs::read(&file)
            .with_context(|| format!("cannot read the root certificates `{}`", file.display()))?;
        options = options.root_certificates(pem);
    }
    if let Some(command) = args.auth_token_command {
        options = options.bearer_tokens(move || token::from_command(command.clone()));
    } else if let Some(file) = args.auth_token_file {
        options = options.bearer_tokens(move || token::from_file(file.clone()));
    } else {
        return Ok(Arc::new(Anonymous {
            service: PrpcRepository::new(options)?,
            has_hinted: AtomicBool::new(false),
        }));
    }
    Ok(Arc::new(PrpcRepository::new(options)?))
}

/// A repository without metadata.
struct Offline;

impl Repository for Offline {
    fn list_metadata(&self, _: ListMetadata) -> MetadataFuture<'_> {
        let text = "there is no metadata offline: remove --offline to get it from the service, or replace it with --metadata FILE";
        Box::pin(ready(Err(Status::new(Code::UNAVAILABLE, text))))
    }
}

/// The service with anonymous access.
struct Anonymous {
    service: PrpcRepository,
    has_hinted: AtomicBool,
}

impl Repository for Anonymous {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        Box::pin(async move {
            let result = self.service.list_metadata(request).await;
            if let Err(status) = &result
                && [Code::UNAUTHENTICATED, Code::PERMISSION_DENIED].contains(&status.code)
                && !self.has_hinted.swap(true, Ordering::Relaxed)
            {
                warn!(
                    "the service denied anonymous access: pass --auth-token-command or --auth-token-file to authenticate"
                );
            }
            result
        })
    }
}
