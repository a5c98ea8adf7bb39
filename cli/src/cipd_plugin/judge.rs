//! Who judges: a plugin of our own, asked anew for each check of the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use admission_host::{CheckError, Host, HostOptions, Pin, Plugin};
use admission_sdk::{Admission, InstanceInfo, Status};
use tokio::runtime::Handle;
use tracing::error;

use super::upstream::Upstream;
use super::{log, verdict};
use crate::args::Service;
use crate::error::describe_plugin_failure;
use crate::plugin;

/// The plugin, and the host that runs it.
pub(super) struct Judge {
    host: Host,
    plugin: Plugin,
    /// Whether it was said what is wrong with the plugin, which is so for all checks.
    failure_told: AtomicBool,
}

impl Judge {
    /// Prepares to judge, and starts nothing.
    pub(super) fn new(service: Service, runtime: Handle) -> Self {
        let options = HostOptions::new(runtime).plugin_log_level(log::LEVEL);
        let chosen = plugin::choose_given(service.plugin);
        let (host, plugin) = chosen.prepare(options, service.patience);
        Self {
            host,
            plugin,
            failure_told: AtomicBool::new(false),
        }
    }

    /// Has the plugin judge what the client asks.
    pub(super) async fn judge(
        &self,
        admission: Admission,
        info: InstanceInfo,
    ) -> Result<(), Status> {
        let pin = pin(&admission)?;
        let upstream = Arc::new(Upstream::new(info));
        let check = self
            .plugin
            .check_uncached(&pin, admission.service_url, upstream);
        check.wait().await.map_err(|error| {
            self.tell_failure(&error);
            verdict::status(&error)
        })
    }

    /// Ends the plugin, and kills it when `grace` has passed.
    pub(super) async fn close(&self, grace: Duration) {
        self.plugin.close(grace).await;
        self.host.close(grace).await;
    }

    /// Logs all that is known about a failure of the plugin, once: a status has no room for
    /// its causes and for the last words of the plugin.
    fn tell_failure(&self, error: &CheckError) {
        if matches!(error, CheckError::Plugin(_))
            && !self.failure_told.swap(true, Ordering::Relaxed)
        {
            for line in describe_plugin_failure(error, None).lines() {
                error!("{line}");
            }
        }
    }
}

/// Returns what the client asks about.
fn pin(admission: &Admission) -> Result<Pin, Status> {
    let instance = admission.instance.to_instance_id();
    let instance = instance.map_err(|error| verdict::senseless(&error))?;
    Pin::new(&admission.package, &instance).map_err(|error| verdict::senseless(&error))
}
