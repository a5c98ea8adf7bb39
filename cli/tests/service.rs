//! Metadata of a CIPD service in `admit check`.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests create files, and panic on errors"
)]

use std::fs;
use std::process::{Output, Stdio};

use conformance::modes::{component, native};
use conformance::repositories::entries;
use conformance::service::{Answer, ClosedPort, FakeService, Request, Response};
use conformance::{Code, guarded};
use tokio::process::Command;

const INSTANCE: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

/// The line that `admit` prints if the service has three entries.
const THREE_ENTRIES: &str =
    "visit-all/2:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC  denied: k00 k01 k02\n";

/// Runs the fixture, which requests all metadata of one pin, with these options.
async fn check(service_url: &str, options: &[&str]) -> Output {
    check_with(service_url, options, |command| {
        command.arg("--").arg(native("conformance-fixture"))
    })
    .await
}

async fn check_with(
    service_url: &str,
    options: &[&str],
    plugin: impl FnOnce(&mut Command) -> &mut Command,
) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_admit"));
    command
        .args(["check", "--service-url", service_url])
        .arg(format!("visit-all/2:{INSTANCE}"))
        .args(options)
        // This proxy does not exist: requests to this machine must not use it.
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .stdin(Stdio::null());
    plugin(&mut command).output().await.unwrap()
}

fn stdout(run: &Output) -> &str {
    str::from_utf8(&run.stdout).unwrap()
}

fn stderr(run: &Output) -> &str {
    str::from_utf8(&run.stderr).unwrap()
}

fn three_entries() -> Answer {
    Response::page(entries(3, 10)).gzip().into()
}

/// Answers requests with this token, and denies all others.
fn for_token(token: &str) -> impl Fn(usize, &Request) -> Answer + Send + Sync + use<> {
    let header = format!("Bearer {token}");
    move |_, request| {
        if request.header("authorization") == Some(&header) {
            return three_entries();
        }
        let text =
            r#"prefix "visit-all/2" doesn't exist or not visible to unauthenticated callers"#;
        Response::error(403, Code::PERMISSION_DENIED, text).into()
    }
}

#[tokio::test]
async fn a_policy_gets_metadata_of_the_service() {
    guarded(async {
        let service = FakeService::start(|_, _| three_entries());
        let native = check(service.url(), &[]).await;
        let component = check_with(service.url(), &["--no-cache"], |command| {
            command
                .arg("--component")
                .arg(component("conformance-fixture"))
        })
        .await;
        assert_eq!(stdout(&native), THREE_ENTRIES);
        assert_eq!(stdout(&component), THREE_ENTRIES);
        // One request gets all entries; the host splits them into pages.
        let requests = service.requests();
        assert_eq!(requests.len(), 2);
        for request in requests {
            let message = request.message();
            assert_eq!(
                (&*message.package, &*message.page_token),
                ("visit-all/2", "")
            );
            let agent = request.header("user-agent");
            assert_eq!(agent, Some(concat!("admit/", env!("CARGO_PKG_VERSION"))));
        }
    })
    .await;
}

#[tokio::test]
async fn the_policy_gets_the_error_of_the_service() {
    guarded(async {
        let service = FakeService::start(|_, _| {
            Response::error(404, Code::NOT_FOUND, "no such instance").into()
        });
        let run = check(service.url(), &["--format", "json"]).await;
        assert_eq!(run.status.code(), Some(2));
        let object: serde_json::Value = serde_json::from_str(stdout(&run)).unwrap();
        assert_eq!(object["code"], Code::NOT_FOUND.number());
        assert_eq!(object["message"], "no such instance");
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_service_is_reported_before_the_check_times_out() {
    guarded(async {
        let port = ClosedPort::reserve();
        let url = port.url();
        let run = check(&url, &["--timeout", "2s"]).await;
        assert_eq!(run.status.code(), Some(2));
        assert_eq!(
            stdout(&run),
            format!(
                "visit-all/2:{INSTANCE}  failed: the CIPD service {url} did not answer within 1.5s; \
                 the last error was UNAVAILABLE: cannot reach the CIPD service {url}: \
                 Connection refused (os error 111); check its URL and the network\n"
            )
        );
    })
    .await;
}

#[tokio::test]
async fn requests_go_through_the_proxy_which_gets_no_token() {
    guarded(async {
        let proxy = FakeService::start(|_, _| Response::new(403, "no").into());
        let options = ["--timeout", "4s", "--auth-token-command", "echo s3cr3t"];
        let run = check_with("https://cipd.example", &options, |command| {
            command
                .env("HTTPS_PROXY", proxy.url())
                .env_remove("NO_PROXY")
                .env_remove("no_proxy")
                .arg("--")
                .arg(native("conformance-fixture"))
        })
        .await;
        assert_eq!(run.status.code(), Some(2));
        let error = "cannot reach the CIPD service https://cipd.example: tunnel error: unsuccessful; \
                     check its URL, the network and the proxies of the environment";
        assert!(stdout(&run).contains(error), "{run:?}");
        let requests = proxy.requests();
        assert!(!requests.is_empty());
        for request in requests {
            assert_eq!(request.line, "CONNECT cipd.example:443");
            assert_eq!(request.header("authorization"), None);
        }
    })
    .await;
}

#[tokio::test]
async fn missing_root_certificates_cause_an_error_with_advice() {
    guarded(async {
        let run = check_with("https://cipd.example", &[], |command| {
            command
                .env("SSL_CERT_FILE", "/absent")
                .env("SSL_CERT_DIR", "/absent")
                .arg("--")
                .arg(native("conformance-fixture"))
        })
        .await;
        assert_eq!(run.status.code(), Some(2));
        let error = "cannot prepare a connection to the CIPD service https://cipd.example: \
                     unexpected error: No CA certificates were loaded from the system; \
                     are root certificates installed, or named by SSL_CERT_FILE?";
        assert!(stdout(&run).contains(error), "{run:?}");
    })
    .await;
}

#[tokio::test]
async fn the_service_gets_no_request_with_the_option_offline() {
    guarded(async {
        let service = FakeService::start(|_, _| three_entries());
        let run = check(service.url(), &["--offline"]).await;
        assert_eq!(run.status.code(), Some(2));
        assert_eq!(
            stdout(&run),
            format!(
                "visit-all/2:{INSTANCE}  failed: there is no metadata offline: \
                 remove --offline to get it from the service, or replace it with --metadata FILE\n"
            )
        );
        assert!(service.requests().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_token_comes_from_a_command_or_a_file_and_is_never_logged() {
    guarded(async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "s3cr3t\n").unwrap();
        let file = file.to_str().unwrap();
        let command = format!("cat '{file}'");
        for access in [
            ["--auth-token-file", file],
            ["--auth-token-command", &command],
        ] {
            let service = FakeService::start(for_token("s3cr3t"));
            let run = check(service.url(), &[&access[..], &["-vv"]].concat()).await;
            assert_eq!(stdout(&run), THREE_ENTRIES, "{access:?}: {run:?}");
            assert!(!stderr(&run).contains("s3cr3t"), "{run:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn denied_anonymous_access_causes_a_warning_with_the_options() {
    guarded(async {
        let service = FakeService::start(for_token("s3cr3t"));
        let run = check(service.url(), &[]).await;
        assert_eq!(run.status.code(), Some(2));
        assert!(
            stderr(&run).contains(
                "the service denied anonymous access: pass --auth-token-command or --auth-token-file to authenticate"
            ),
            "{run:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn the_policy_gets_the_error_of_the_token_command() {
    guarded(async {
        let service = FakeService::start(|_, _| three_entries());
        let url = service.url();
        for (command, error) in [
            ("exit 3", "the token command ended with exit status 3"),
            (
                "head -c 70000 /dev/zero",
                "the token command printed more than 65536 bytes",
            ),
            (
                "echo two words",
                "the token is empty or has invalid characters",
            ),
        ] {
            let run = check(url, &["--auth-token-command", command]).await;
            assert_eq!(run.status.code(), Some(2));
            assert_eq!(
                stdout(&run),
                format!(
                    "visit-all/2:{INSTANCE}  failed: cannot get a token for the CIPD service {url}: {error}\n"
                )
            );
        }
        assert!(service.requests().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_token_file_that_is_too_long_is_refused() {
    guarded(async {
        let service = FakeService::start(|_, _| three_entries());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "x".repeat(70_000)).unwrap();
        let file = file.to_str().unwrap();
        let run = check(service.url(), &["--auth-token-file", file]).await;
        let error = format!("the token file `{file}` has more than 65536 bytes\n");
        assert!(stdout(&run).ends_with(&error), "{run:?}");
        assert!(service.requests().is_empty());
    })
    .await;
}

#[tokio::test]
async fn wrong_options_are_refused_before_the_plugin_is_started() {
    guarded(async {
        let absent = "caused by: No such file or directory (os error 2)";
        let no_root_url = |url: &str| {
            format!(
                "error: invalid value '{url}' for '--service-url <URL>': expecting a root URL such \
                 as https://chrome-infra-packages.appspot.com, not {url:?}\n\nFor more \
                 information, try '--help'.\n"
            )
        };
        for (url, options, error) in [
            ("cipd.example", &[][..], no_root_url("cipd.example")),
            (
                "https://cipd.example/prpc",
                &[],
                no_root_url("https://cipd.example/prpc"),
            ),
            (
                "https://cipd.example:99999",
                &["--offline"],
                no_root_url("https://cipd.example:99999"),
            ),
            (
                "http://cipd.example",
                &["--auth-token-command", "print"],
                "error: tokens must not be sent to http://cipd.example unencrypted: use https\n"
                    .to_owned(),
            ),
            (
                "https://cipd.example",
                &["--auth-token-file", "/absent"],
                format!("error: cannot read the token file `/absent`\n  {absent}\n"),
            ),
            (
                "https://cipd.example",
                &["--auth-token-file", "/"],
                "error: cannot read the token file `/`\n  caused by: is a directory\n".to_owned(),
            ),
            (
                "https://cipd.example",
                &["--ca-file", "/absent"],
                format!("error: cannot read the root certificates `/absent`\n  {absent}\n"),
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let run = check_with(url, options, |command| {
                command.current_dir(folder.path());
                command.args(["--", "touch", "started"])
            })
            .await;
            assert_eq!(run.status.code(), Some(2));
            assert_eq!(stderr(&run), error);
            assert!(!folder.path().join("started").exists());
        }
    })
    .await;
}
