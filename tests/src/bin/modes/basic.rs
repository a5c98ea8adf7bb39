//! The basic plugin of the reference's tests: it calls the host but asks for no admissions, so
//! it cannot use the run loop of the SDK.

use std::io::{self, BufRead as _};
use std::process::exit;
use std::time::Duration;

use admission_grpc::TICKET;
use admission_grpc::admissions_client::AdmissionsClient;
use admission_grpc::host_client::HostClient;
use admission_proto::wire::plugin::{LogRequest, ResolveAdmissionRequest};
use admission_proto::wire::rpc::Status;
use anyhow::{Context as _, bail};
use tokio::runtime::Builder;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Endpoint;

use crate::CRASH;

/// How long a stuck plugin keeps running after the end of stdin.
const STUCK: Duration = Duration::from_secs(30);

/// How long after its call a plugin crashes.
const UNTIL_CRASH: Duration = Duration::from_millis(100);

pub(crate) fn run(mode: &str) -> anyhow::Result<()> {
    if mode == "CRASHING_ON_START" {
        exit(CRASH);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(call_host(mode))
}

async fn call_host(mode: &str) -> anyhow::Result<()> {
    let (port, ticket) = read_handshake()?;
    let authenticate = move |mut request: Request<()>| {
        request.metadata_mut().insert(TICKET, ticket.clone());
        Ok(request)
    };
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
        .connect()
        .await?;
    let mut admissions = AdmissionsClient::with_interceptor(channel.clone(), authenticate.clone());
    let mut host = HostClient::with_interceptor(channel, authenticate);

    let verdict = ResolveAdmissionRequest {
        admission_id: mode.to_owned(),
        status: Some(Status::default()),
    };
    // Not an error if it fails: the host may stop before it replies.
    let _ = admissions.resolve_admission(verdict).await;
    match mode {
        "WAIT" => wait_for_end_of_stdin().await?,
        "STUCK_IN_TERMINATION" => {
            wait_for_end_of_stdin().await?;
            sleep(STUCK).await;
        }
        "CRASHING_AFTER_RPC" => {
            sleep(UNTIL_CRASH).await;
            exit(CRASH);
        }
        "LOG_STUFF_AND_EXIT" => {
            for (severity, message) in
                [("info", "Info"), ("warning", "Warning"), ("error", "Error")]
            {
                host.log(LogRequest {
                    severity: severity.into(),
                    message: message.into(),
                })
                .await?;
            }
        }
        numbered if numbered.starts_with("NUM_") => wait_for_end_of_stdin().await?,
        other => bail!("a basic plugin has no mode {other}"),
    }
    Ok(())
}

/// Reads the handshake line. Returns the port and the ticket.
fn read_handshake() -> anyhow::Result<(u64, AsciiMetadataValue)> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let fields: serde_json::Value = serde_json::from_str(&line)?;
    let port = fields["port"].as_u64().context("no port")?;
    let ticket = fields["ticket"].as_str().context("no ticket")?;
    Ok((port, ticket.parse()?))
}

async fn wait_for_end_of_stdin() -> anyhow::Result<()> {
    spawn_blocking(|| io::copy(&mut io::stdin().lock(), &mut io::sink())).await??;
    Ok(())
}
