//! `admit` kills a token command when its token is no longer needed.
#![expect(clippy::unwrap_used, reason = "tests panic on errors")]

use std::process::{Output, Stdio};

use conformance::liveness_pipe::LivenessPipe;
use conformance::modes::native;
use conformance::repositories::entries;
use conformance::service::{FakeService, Response};
use conformance::{eventually, guarded};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

const PIN: &str = "visit-all/2:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

/// `admit check` with a policy that requests metadata, and a token command that never ends
/// and has a child.
struct Waiting {
    service: FakeService,
    admit: Child,
    liveness: LivenessPipe,
}

impl Waiting {
    /// Starts `admit check`, and waits until the token command runs.
    async fn start(timeout: &str) -> Self {
        let service = FakeService::start(|_, _| Response::page(entries(3, 10)).into());
        let mut liveness = LivenessPipe::new();
        let path = liveness.path().display();
        let admit = Command::new(env!("CARGO_BIN_EXE_admit"))
            .args(["check", "--service-url", service.url(), PIN])
            .args(["--timeout", timeout, "--auth-token-command"])
            .arg(format!("exec 9>'{path}'; echo up >&9; sleep 1000; echo t"))
            .arg("--")
            .arg(native("conformance-fixture"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        assert_eq!(liveness.lines(1).await, ["up"]);
        Self {
            service,
            admit,
            liveness,
        }
    }

    fn signal(&self, signal: Signal) {
        let admit = i32::try_from(self.admit.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(admit).unwrap(), signal).unwrap();
    }

    /// Waits until `admit` and all processes of the token command have exited.
    async fn end(mut self) -> Output {
        let run = self.admit.wait_with_output().await.unwrap();
        eventually(|| !self.liveness.has_writer()).await;
        assert!(self.service.requests().is_empty());
        run
    }
}

#[tokio::test]
async fn a_metadata_call_that_times_out_kills_the_token_command() {
    guarded(async {
        let waiting = Waiting::start("8s").await;
        let url = waiting.service.url().to_owned();
        let run = waiting.end().await;
        assert_eq!(
            String::from_utf8(run.stdout).unwrap(),
            format!("{PIN}  failed: there was no token for the CIPD service {url} within 6s\n")
        );
        assert_eq!(run.status.code(), Some(2));
    })
    .await;
}

#[tokio::test]
async fn a_signal_kills_the_token_command() {
    guarded(async {
        for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let waiting = Waiting::start("none").await;
            waiting.signal(signal);
            assert_eq!(waiting.end().await.status.code(), Some(status));
        }
    })
    .await;
}
