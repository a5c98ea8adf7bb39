//! Closing a plugin, from the request to the reaped process, with the kill after the grace.
//!
//! These steps follow each other: the state becomes closed, so that no new check can enter;
//! pending checks are aborted, so that waiters wake now; a partly written frame is completed
//! and stdin is closed; when the grace has passed, the plugin is killed; its processes are
//! reaped; the exit is published. A plugin that failed takes the same steps, but its checks
//! fail with its error.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::core::Core;
use super::life::{Life, PluginState};
use super::running::Running;
use crate::transport::Exit;

/// Longest grace of a close: 5 s, as in the reference. A longer one is shortened to this,
/// with a warning in the log.
pub const MAX_GRACE: Duration = Duration::from_secs(5);

/// Starts to close the plugin, on the task of the caller. The plugin is killed after `grace`.
pub(crate) fn start_close(core: &Core, grace: Duration) {
    if grace > MAX_GRACE {
        let plugin = &*core.name;
        tracing::warn!(plugin, ?grace, max = ?MAX_GRACE, "shortened the grace of a close");
    }
    let kill_at = Instant::now() + grace.min(MAX_GRACE);
    let (state, pending) = core.life.close(kill_at);
    // Aborts the checks.
    drop(pending);
    if state == PluginState::Idle {
        // There is no supervisor that could publish the exit.
        core.life.publish_exit(Exit::NeverStarted);
    }
    core.life.wake_supervisor();
}

/// Stops a plugin that is closed or broken, on the task of the supervisor.
pub(super) async fn stop(life: &Life, plugin: &mut Running) -> Exit {
    plugin.session.finish();
    tokio::select! {
        biased;
        exit = poll_fn(|cx| plugin.poll_exit(cx)) => return exit,
        () = grace_over(life) => {}
    }
    plugin.process.kill();
    poll_fn(|cx| plugin.poll_exit(cx)).await
}

/// Waits until all processes of an exited plugin are reaped.
pub(super) async fn reap(core: &Core, plugin: &mut Running) {
    let all_gone = poll_fn(|cx| plugin.process.poll_reaped(cx)).await;
    if !all_gone {
        let plugin = &*core.name;
        tracing::warn!(
            plugin,
            "the admission plugin may have left processes behind"
        );
    }
}

/// Waits until the plugin is closed or broken, and its grace has passed. A later close may
/// shorten the grace.
pub(super) async fn grace_over(life: &Life) {
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|cx| {
        life.register(cx.waker());
        let Some(kill_at) = life.kill_at() else {
            return Poll::Pending;
        };
        if timer.deadline() != kill_at.into() {
            timer.as_mut().reset(kill_at.into());
        }
        timer.as_mut().poll(cx)
    })
    .await;
}
