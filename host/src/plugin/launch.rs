//! Launching a plugin and opening the session with it.

#[cfg(not(feature = "grpc"))]
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use admission_proto::Wire;
use tokio_util::sync::CancellationToken;

use super::close_and_kill::grace_over;
use super::core::Core;
use super::running::Running;
use super::verdict::PluginEvents;
#[cfg(feature = "grpc")]
use crate::session::grpc::GrpcSession;
use crate::session::stdio::StdioSession;
use crate::session::{Session, SessionEvents};
use crate::transport::stderr::StderrLog;
use crate::transport::{LaunchError, Launched};

/// Launches the plugin and opens the session.
///
/// # Errors
///
/// Also if the plugin was closed and its grace has passed.
pub(super) async fn launch(core: &Arc<Core>) -> Result<Running, LaunchError> {
    if core.services.closed.load(Ordering::SeqCst) {
        return Err(LaunchError::HostClosed);
    }
    let stderr = StderrLog::new(Arc::clone(&core.name));
    let plugin_events = Arc::new(PluginEvents::new(Arc::clone(core)));
    let session_events = Arc::clone(&plugin_events) as Arc<dyn SessionEvents>;
    let (session, process): (Box<dyn Session>, _) = match core.launcher.wire() {
        Wire::Stdio => {
            let launched = start(core, stderr.clone()).await?;
            let Launched { stdin, stdout, .. } = launched;
            let hello = core.services.hello();
            let session = StdioSession::new(stdin, stdout, hello, session_events);
            (Box::new(session), launched.process)
        }
        #[cfg(not(feature = "grpc"))]
        Wire::Grpc => {
            let error = "admission-host was built without its feature `grpc`";
            return Err(LaunchError::Server(Arc::new(io::Error::other(error))));
        }
        #[cfg(feature = "grpc")]
        Wire::Grpc => {
            // Before the plugin is started: the server must listen, and the ticket must be
            // valid when the plugin reads it.
            let registration = core.services.grpc.register(session_events)?;
            let launched = start(core, stderr.clone()).await?;
            let Launched { stdin, stdout, .. } = launched;
            let log = StderrLog::new(Arc::clone(&core.name));
            let session = GrpcSession::new(stdin, stdout, registration, log);
            (Box::new(session), launched.process)
        }
    };
    Ok(Running::new(session, process, stderr, plugin_events))
}

async fn start(core: &Core, stderr: StderrLog) -> Result<Launched, LaunchError> {
    let cancel = CancellationToken::new();
    let mut launching = core.launcher.launch(stderr, cancel.clone());
    tokio::select! {
        biased;
        launched = &mut launching => return launched,
        () = grace_over(&core.life) => {}
    }
    cancel.cancel();
    launching.await
}
