//! The codec reads and writes the frames that docs/protocol.md shows.

use std::collections::BTreeMap;
use std::fmt;

use admission_proto::frame::{self, HOST_LIMIT, PLUGIN_LIMIT};
use admission_proto::wire::stdio::{
    Hello, HostFrame, ListMetadataCall, ListMetadataReply, PluginFrame, host_frame,
    list_metadata_reply, plugin_frame,
};
use admission_proto::wire::{Message, Timestamp, cipd, plugin, rpc};
use admission_proto::{Code, fingerprint};
use bytes::BytesMut;

const PAGE: &str = include_str!("../../docs/protocol.md");
const SERVICE_URL: &str = "https://chrome-infra-packages.appspot.com";
const DIGEST: &str = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";
const KEY: &str = "allowed-sha256";

/// A message that the page shows.
enum Shown {
    ToPlugin(host_frame::Frame),
    ToHost(plugin_frame::Frame),
}

fn shown() -> Vec<(&'static str, Shown)> {
    use Shown::{ToHost, ToPlugin};
    use host_frame::Frame::{Admission, Hello, ListMetadataReply};
    use plugin_frame::Frame::{ListAdmissions, ListMetadata, Log, ResolveAdmission};
    vec![
        ("hello", ToPlugin(Hello(hello()))),
        ("list_admissions", ToHost(ListAdmissions(connect()))),
        ("log", ToHost(Log(log()))),
        (
            "admission",
            ToPlugin(Admission(admission("q1", "tools/demo"))),
        ),
        ("list_metadata", ToHost(ListMetadata(call()))),
        (
            "list_metadata_reply",
            ToPlugin(ListMetadataReply(page_reply())),
        ),
        (
            "resolve_admission, admitted",
            ToHost(ResolveAdmission(verdict("q1", Code::OK, ""))),
        ),
        (
            "admission, another",
            ToPlugin(Admission(admission("q2", "experimental/demo"))),
        ),
        (
            "resolve_admission, denied",
            ToHost(ResolveAdmission(verdict(
                "q2",
                Code::FAILED_PRECONDITION,
                "experimental packages are not admitted",
            ))),
        ),
        (
            "list_metadata_reply, a status",
            ToPlugin(ListMetadataReply(status_reply())),
        ),
    ]
}

fn hello() -> Hello {
    Hello {
        protocol_version: 1,
        host_name: "admit".into(),
        host_version: "0.1.0".into(),
        max_frame_size: 1 << 20,
        log_level: "info".into(),
    }
}

fn connect() -> plugin::ListAdmissionsRequest {
    plugin::ListAdmissionsRequest {
        protocol_version: 1,
        plugin_version: "demo 1".into(),
    }
}

fn log() -> plugin::LogRequest {
    plugin::LogRequest {
        severity: "info".into(),
        message: "ready".into(),
    }
}

fn instance() -> cipd::ObjectRef {
    cipd::ObjectRef {
        hash_algo: cipd::HashAlgo::Sha256.into(),
        hex_digest: DIGEST.into(),
    }
}

fn admission(id: &str, package: &str) -> plugin::Admission {
    plugin::Admission {
        admission_id: id.into(),
        service_url: SERVICE_URL.into(),
        package: package.into(),
        instance: Some(instance()),
    }
}

fn call() -> ListMetadataCall {
    ListMetadataCall {
        call_id: 1,
        admission_id: "q1".into(),
        request: Some(plugin::ListMetadataRequest {
            service_url: SERVICE_URL.into(),
            package: "tools/demo".into(),
            instance: Some(instance()),
            keys: vec![KEY.into()],
            page_size: 20,
            page_token: String::new(),
        }),
    }
}

fn page_reply() -> ListMetadataReply {
    let entry = cipd::InstanceMetadata {
        key: KEY.into(),
        value: DIGEST.into(),
        content_type: "text/plain".into(),
        fingerprint: fingerprint(KEY, DIGEST.as_bytes()),
        attached_by: "user:a@example.com".into(),
        attached_ts: Some(Timestamp {
            seconds: 1_767_323_045,
            nanos: 0,
        }),
    };
    ListMetadataReply {
        call_id: 1,
        result: Some(list_metadata_reply::Result::Page(
            plugin::ListMetadataResponse {
                metadata: vec![entry],
                next_page_token: String::new(),
            },
        )),
    }
}

fn status_reply() -> ListMetadataReply {
    ListMetadataReply {
        call_id: 2,
        result: Some(list_metadata_reply::Result::Status(status(
            Code::NOT_FOUND,
            "no such instance",
        ))),
    }
}

fn verdict(id: &str, code: Code, message: &str) -> plugin::ResolveAdmissionRequest {
    plugin::ResolveAdmissionRequest {
        admission_id: id.into(),
        status: Some(status(code, message)),
    }
}

fn status(code: Code, message: &str) -> rpc::Status {
    rpc::Status {
        code: code.number(),
        message: message.into(),
        details: Vec::new(),
    }
}

/// Parses every block that begins with ```` ```hex NAME ````: two hex digits per byte, and
/// comments from a `#` to the end of a line.
fn blocks() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else {
            continue;
        };
        let bytes = lines
            .by_ref()
            .take_while(|line| *line != "```")
            .flat_map(|line| {
                line.split('#')
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
            })
            .map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits"))
            .collect();
        assert!(
            blocks.insert(name, bytes).is_none(),
            "{name} is shown twice"
        );
    }
    blocks
}

fn assert_shown<M>(name: &str, bytes: &[u8], limit: usize, expected: &M)
where
    M: Message + Default + PartialEq + fmt::Debug,
{
    let mut buf = BytesMut::from(bytes);
    let taken = frame::take::<M>(&mut buf, limit).expect(name);
    assert_eq!(taken.as_ref(), Some(expected), "{name}");
    assert_eq!(frame::finish(&buf), Ok(()), "{name} is one frame");

    let mut encoded = Vec::new();
    frame::encode(expected, &mut encoded);
    assert_eq!(encoded, bytes, "{name} is encoded as it is shown");
}

#[test]
fn every_frame_of_the_page_is_decoded_and_encoded_as_shown() {
    let mut blocks = blocks();
    for (name, message) in shown() {
        let bytes = blocks.remove(name).expect(name);
        match message {
            Shown::ToPlugin(frame) => {
                let frame = HostFrame { frame: Some(frame) };
                assert_shown(name, &bytes, PLUGIN_LIMIT, &frame);
            }
            Shown::ToHost(frame) => {
                let frame = PluginFrame { frame: Some(frame) };
                assert_shown(name, &bytes, HOST_LIMIT, &frame);
            }
        }
    }
    let untested: Vec<_> = blocks.keys().collect();
    assert!(untested.is_empty(), "no message is given for {untested:?}");
}

#[test]
fn the_explanations_of_a_block_quote_its_bytes() {
    for line in PAGE.lines() {
        let Some((bytes, text)) = line.split_once("# \"") else {
            continue;
        };
        let text = text.strip_suffix('"').expect("a closing quote");
        let bytes: Vec<u8> = bytes
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits"))
            .collect();
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }
}

#[test]
fn the_limits_on_the_page_are_those_of_the_codec() {
    assert!(PAGE.contains("**1 MiB** (1,048,576 bytes"));
    assert_eq!(HOST_LIMIT, 1_048_576);
    assert!(PAGE.contains("**4 MiB** (4,194,304 bytes"));
    assert_eq!(PLUGIN_LIMIT, 4_194_304);
}

#[test]
fn a_hello_of_any_length_differs_from_a_line_of_json() {
    for length in 0..400 {
        let hello = Hello {
            host_name: "x".repeat(length),
            ..hello()
        };
        let mut bytes = Vec::new();
        let frame = host_frame::Frame::Hello(hello);
        frame::encode(&HostFrame { frame: Some(frame) }, &mut bytes);
        let is_json = bytes[0] == b'{' && bytes[1] != b'\n';
        assert!(!is_json, "a hello with a name of {length} bytes");
    }
}
