//! Forwards the checks of the client to the policy, and the policy's requests for metadata
//! to the client.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use admission_host::{
    CheckError, ErrorKind, Host, HostOptions, ListMetadata, MetadataFuture, MetadataPage, Pin,
    Plugin, Repository,
};
use admission_sdk::{Admission, Code, InstanceInfo, Status};
use tokio::runtime::Handle;
use tracing::error;

use super::log;
use crate::error::render_plugin_failure;
use crate::plugin::ConfiguredPlugin;

/// The policy's plugin, and the host that runs it.
pub(super) struct Forwarder {
    host: Host,
    plugin: Plugin,
    /// Whether the failure of the plugin was logged. It is the same for all checks.
    has_logged_failure: AtomicBool,
}

impl Forwarder {
    /// Prepares the policy. Starts nothing.
    pub(super) fn new(policy: ConfiguredPlugin, runtime: Handle) -> Self {
        let options = HostOptions::new(runtime).plugin_log_level(log::LEVEL);
        let (host, plugin) = policy.create(options);
        Self {
            host,
            plugin,
            has_logged_failure: AtomicBool::new(false),
        }
    }

    /// Forwards one check of the client.
    pub(super) async fn check(
        &self,
        admission: Admission,
        info: InstanceInfo,
    ) -> Result<(), Status> {
        let pin = parse_pin(&admission)?;
        let repository = Arc::new(ClientRepository(info));
        // The client has its own cache of verdicts.
        let promise = self
            .plugin
            .check_uncached(&pin, admission.service_url, repository);
        promise.wait().await.map_err(|error| {
            self.log_failure(&error);
            to_status(&error)
        })
    }

    /// Closes the policy's plugin, and kills it after `grace`.
    pub(super) async fn close(&self, grace: Duration) {
        self.plugin.close(grace).await;
        self.host.close(grace).await;
    }

    /// Logs the first failure of the plugin with its causes and the plugin's stderr. A status has
    /// no room for these.
    fn log_failure(&self, error: &CheckError) {
        if matches!(error, CheckError::Plugin(_))
            && !self.has_logged_failure.swap(true, Ordering::Relaxed)
        {
            for line in render_plugin_failure(error, None).lines() {
                error!("{line}");
            }
        }
    }
}

fn parse_pin(admission: &Admission) -> Result<Pin, Status> {
    let malformed = |error: &dyn Display| failure(ErrorKind::Protocol, error);
    let instance = admission.instance.to_instance_id();
    let instance = instance.map_err(|error| malformed(&error))?;
    Pin::new(&admission.package, &instance).map_err(|error| malformed(&error))
}

/// Returns the status that the client gets for an error.
///
/// A status of the policy is unchanged. Every other error is a failure of the check. Its code
/// is neither OK nor `FAILED_PRECONDITION`, because these admit and deny.
fn to_status(error: &CheckError) -> Status {
    match error {
        CheckError::Denied { status, .. } | CheckError::PolicyError { status, .. } => {
            Status::clone(status)
        }
        error => failure(error.kind(), error),
    }
}

fn failure(kind: ErrorKind, text: &dyn Display) -> Status {
    let code = match kind {
        ErrorKind::Timeout => Code::DEADLINE_EXCEEDED,
        ErrorKind::Overload | ErrorKind::Resource => Code::RESOURCE_EXHAUSTED,
        ErrorKind::Aborted => Code::CANCELLED,
        _ => Code::INTERNAL,
    };
    Status::new(code, format!("{kind}: {text}"))
}

/// The client as the repository for one of its checks.
struct ClientRepository(InstanceInfo);

impl Repository for ClientRepository {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use admission_sdk::Detail;

    use super::*;

    #[test]
    fn a_status_of_the_policy_is_unchanged() {
        let detail = Detail {
            type_url: "type.example.com/detail".into(),
            value: vec![0, 159, 255],
        };
        let denial = Status::denied("no\n\u{1b}[2J").with_detail(detail);
        let odd = Status::new(Code::from(12345), "");
        for status in [denial, odd] {
            let error = CheckError::from_status("policy", status.clone());
            assert_eq!(to_status(&error), status);
        }
    }

    #[test]
    fn the_status_of_a_failure_has_its_kind_and_its_text() {
        let failures = [
            (
                CheckError::timed_out("policy", Duration::from_millis(1500)),
                Code::DEADLINE_EXCEEDED,
                "timeout: the admission plugin did not answer within 1.5s",
            ),
            (
                CheckError::overloaded("policy", 7),
                Code::RESOURCE_EXHAUSTED,
                "overload: too many admission checks are pending: 7",
            ),
            (
                CheckError::aborted("policy"),
                Code::CANCELLED,
                "aborted: the admission plugin is terminating",
            ),
        ];
        for (failure, code, text) in failures {
            assert_eq!(to_status(&failure), Status::new(code, text));
        }
    }

    #[test]
    fn a_failure_has_a_code_that_neither_admits_nor_denies() {
        for (kind, code) in [
            (ErrorKind::Launch, Code::INTERNAL),
            (ErrorKind::ConnectTimeout, Code::INTERNAL),
            (ErrorKind::Version, Code::INTERNAL),
            (ErrorKind::Protocol, Code::INTERNAL),
            (ErrorKind::Stall, Code::INTERNAL),
            (ErrorKind::Crash, Code::INTERNAL),
            (ErrorKind::Timeout, Code::DEADLINE_EXCEEDED),
            (ErrorKind::Resource, Code::RESOURCE_EXHAUSTED),
            (ErrorKind::Trap, Code::INTERNAL),
            (ErrorKind::Import, Code::INTERNAL),
            (ErrorKind::Overload, Code::RESOURCE_EXHAUSTED),
            (ErrorKind::Aborted, Code::CANCELLED),
        ] {
            assert_eq!(failure(kind, &"text").code, code, "{kind}");
        }
    }
}
