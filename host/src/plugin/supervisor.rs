//! The one task of a plugin, from its launch to its published exit.

use std::sync::Arc;
use std::time::Duration;

use super::close_and_kill;
use super::core::Core;
use super::launch::launch;
use super::serve::serve;
use crate::error::Failure;
use crate::transport::Exit;

/// Spawns the supervisor of a plugin.
pub(super) fn spawn(core: Arc<Core>) {
    let runtime = core.services.settings.runtime.clone();
    // The exit is published even if the runtime drops this task.
    runtime.spawn(Supervisor(core).run());
}

/// Closes the plugin and publishes its exit when it is dropped: a runtime that shuts down
/// drops it, and no waiter may hang.
struct Supervisor(Arc<Core>);

impl Supervisor {
    async fn run(self) {
        let exit = self.supervise().await;
        self.0.life.publish_exit(exit);
    }

    async fn supervise(&self) -> Exit {
        let Self(core) = self;
        let mut plugin = match launch(core).await {
            Ok(plugin) => plugin,
            Err(error) => {
                core.fail_to_start(Failure {
                    plugin: Arc::clone(&core.name),
                    kind: error.kind(),
                    text: error.to_string(),
                    exit: None,
                    connected: false,
                    stderr_tail: String::new(),
                    source: Some(error),
                });
                return Exit::NeverStarted;
            }
        };
        let exit = match serve(core, &mut plugin).await {
            Some(exit) => exit,
            None => close_and_kill::stop(&core.life, &mut plugin).await,
        };
        close_and_kill::reap(core, &mut plugin).await;
        exit
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        close_and_kill::start_close(&self.0, Duration::ZERO);
        self.0.life.publish_exit(Exit::KilledByHost);
    }
}
