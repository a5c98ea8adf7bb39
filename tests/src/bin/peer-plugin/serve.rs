//! A well-behaved plugin: judges each check by the name of its package.

use std::process::ExitCode;
use std::sync::Arc;

use admission_grpc::admissions_client::AdmissionsClient;
use admission_grpc::host_client::HostClient;
use admission_proto::wire::plugin::{
    Admission, ListAdmissionsRequest, LogRequest, ResolveAdmissionRequest,
};
use admission_proto::wire::rpc;
use tokio::runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::wire::{self, Handshake};

/// The handshake and the clients that the task of a check needs.
#[derive(Clone)]
struct Judge {
    handshake: Arc<Handshake>,
    host: HostClient<Channel>,
    admissions: AdmissionsClient<Channel>,
}

pub(crate) fn run() -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(serve())
}

async fn serve() -> ExitCode {
    let handshake = Arc::new(Handshake::read());
    let channel = handshake.channel();
    let judge = Judge {
        host: HostClient::new(channel.clone()),
        admissions: AdmissionsClient::new(channel),
        handshake,
    };
    let request = judge.handshake.request(ListAdmissionsRequest {
        protocol_version: 1,
        plugin_version: "peer".into(),
    });
    let mut admissions = judge.admissions.clone();
    let mut stream = match admissions.list_admissions(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return exit_code(&status),
    };
    loop {
        match stream.message().await {
            Ok(Some(admission)) => {
                let judge = judge.clone();
                tokio::task::spawn(judge.judge(admission));
            }
            Ok(None) => return ExitCode::SUCCESS,
            Err(status) => return exit_code(&status),
        }
    }
}

/// Returns the exit status that a plugin of the reference has: four codes are a clean end of
/// the stream.
fn exit_code(status: &Status) -> ExitCode {
    match status.code() {
        Code::Ok | Code::Aborted | Code::Cancelled | Code::Unavailable => ExitCode::SUCCESS,
        _ => {
            eprintln!("the stream ended with {status}");
            ExitCode::from(2)
        }
    }
}

impl Judge {
    async fn judge(mut self, admission: Admission) {
        let status = self.verdict(&admission).await;
        let request = self.handshake.request(ResolveAdmissionRequest {
            admission_id: admission.admission_id,
            status,
        });
        if let Err(status) = self.admissions.resolve_admission(request).await {
            eprintln!("could not send a verdict: {status}");
        }
    }

    async fn verdict(&mut self, admission: &Admission) -> Option<rpc::Status> {
        let (action, argument) = admission.package.split_once('/').unwrap_or_default();
        let status = |code, message: &str| {
            Some(rpc::Status {
                code,
                message: message.into(),
                ..rpc::Status::default()
            })
        };
        match action {
            "allow" => None,
            "ok" => status(0, "ignored"),
            "deny" => status(9, &format!("{} is denied", admission.package)),
            "code" => status(argument.parse().unwrap_or_default(), "as asked"),
            "detail" => Some(rpc::Status {
                code: 9,
                message: "see the detail".into(),
                details: vec![detail()],
            }),
            "metadata" => match self.keys(admission).await {
                Ok(keys) => status(9, &keys.join(" ")),
                Err(error) => status(error.code() as i32, error.message()),
            },
            "log" => {
                for severity in ["debug", "info", "warning", "error", "fatal"] {
                    let line = LogRequest {
                        severity: severity.into(),
                        message: format!("a line of {severity}"),
                    };
                    let logged = self.host.log(self.handshake.request(line)).await;
                    logged.expect("the host logs it");
                }
                None
            }
            "exit" => std::process::exit(argument.parse().unwrap_or_default()),
            "hang" => std::future::pending().await,
            _ => status(3, "the peer does not know this package"),
        }
    }

    /// Fetches all pages of metadata, and returns the keys.
    async fn keys(&mut self, admission: &Admission) -> Result<Vec<String>, Status> {
        let mut request = wire::list_request(admission);
        let mut keys = Vec::new();
        loop {
            let listed = self.handshake.request(request.clone());
            let page = self.host.list_metadata(listed).await?.into_inner();
            keys.extend(page.metadata.into_iter().map(|entry| entry.key));
            if page.next_page_token.is_empty() {
                return Ok(keys);
            }
            request.page_token = page.next_page_token;
        }
    }
}

fn detail() -> prost_types::Any {
    prost_types::Any {
        type_url: "type.example.com/detail".into(),
        value: vec![0, 159, 255],
    }
}
