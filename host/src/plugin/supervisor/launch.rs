//! From a launcher to a plugin that can be spoken with.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::END;
use crate::error::PluginError;
use crate::plugin::core::Core;
use crate::plugin::hearing::Hearing;
use crate::session::grpc::GrpcSession;
use crate::session::stdio::StdioSession;
use crate::session::{Hearer, Session};
use crate::transport::stderr::StderrLog;
use crate::transport::{LaunchError, Launched, Wire};

/// Starts the plugin and opens the conversation with it.
pub(super) async fn open(
    core: &Core,
    hearing: &Arc<Hearing>,
    stderr: StderrLog,
) -> Result<Box<dyn Session>, LaunchError> {
    if core.services.is_closed() {
        return Err(LaunchError::HostClosed);
    }
    match core.launcher.wire() {
        Wire::Stdio => {
            let launched = launch(core, stderr).await?;
            Ok(Box::new(StdioSession::new(launched, core.services.hello())))
        }
        Wire::Grpc => {
            let hearer = Arc::clone(hearing) as Arc<dyn Hearer>;
            // Before the plugin is started: without a server there is no point in it, and
            // its ticket is valid when it first sees it.
            let registration = core.services.grpc.register(hearer)?;
            let launched = launch(core, stderr).await?;
            let log = StderrLog::new(Arc::clone(&core.name));
            Ok(Box::new(GrpcSession::new(launched, registration, log)))
        }
    }
}

async fn launch(core: &Core, stderr: StderrLog) -> Result<Launched, LaunchError> {
    let cancel = CancellationToken::new();
    let mut launching = core.launcher.launch(stderr, cancel.clone());
    tokio::select! {
        biased;
        launched = &mut launching => return launched,
        () = time_to_kill(core) => {}
    }
    cancel.cancel();
    launching.await
}

/// Waits until somebody has closed the plugin and the grace is over.
async fn time_to_kill(core: &Core) {
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|cx| {
        core.life.register(cx.waker());
        let Some(kill_at) = core.life.kill_at() else {
            return Poll::Pending;
        };
        if timer.deadline() != kill_at.into() {
            timer.as_mut().reset(kill_at.into());
        }
        timer.as_mut().poll(cx)
    })
    .await;
}

/// Ends a life that had not begun, with an error.
pub(super) fn fail_to_start(core: &Core, error: PluginError) {
    let error = error.before_connecting();
    let plugin = &*core.name;
    if core.life.fail(&error) {
        tracing::warn!(target: END, plugin, %error, "the admission plugin failed to start");
    }
}
