//! The messages have the encoding of the reference, field by field.

use std::{fmt, fs};

use admission_proto::hex;
use admission_proto::wire::stdio::{
    Hello, HostFrame, ListMetadataCall, ListMetadataReply, PluginFrame, host_frame,
    list_metadata_reply, plugin_frame,
};
use admission_proto::wire::{Any, Message, Timestamp, cipd, plugin, rpc};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use sha2::{Digest as _, Sha256};

/// Every field of every message: number, type, name.
const SCHEMA: &str = "\
admission.stdio.Hello
  1 int32 protocol_version
  2 string host_name
  3 string host_version
  4 uint32 max_frame_size
  5 string log_level
admission.stdio.HostFrame
  1 oneof .admission.stdio.Hello hello
  2 oneof .cipd.plugin.Admission admission
  3 oneof .admission.stdio.ListMetadataReply list_metadata_reply
admission.stdio.ListMetadataCall
  1 uint64 call_id
  2 string admission_id
  3 .cipd.plugin.ListMetadataRequest request
admission.stdio.ListMetadataReply
  1 uint64 call_id
  2 oneof .cipd.plugin.ListMetadataResponse page
  3 oneof .google.rpc.Status status
admission.stdio.PluginFrame
  1 oneof .cipd.plugin.ListAdmissionsRequest list_admissions
  2 oneof .cipd.plugin.ResolveAdmissionRequest resolve_admission
  3 oneof .cipd.plugin.LogRequest log
  4 oneof .admission.stdio.ListMetadataCall list_metadata
cipd.InstanceMetadata
  1 string key
  2 bytes value
  3 string content_type
  4 string fingerprint
  5 string attached_by
  6 .google.protobuf.Timestamp attached_ts
cipd.ListMetadataRequest
  1 string package
  2 .cipd.ObjectRef instance
  3 repeated string keys
  20 int32 page_size
  21 string page_token
cipd.ListMetadataResponse
  1 repeated .cipd.InstanceMetadata metadata
  20 string next_page_token
cipd.ObjectRef
  1 .cipd.HashAlgo hash_algo
  2 string hex_digest
cipd.plugin.Admission
  1 string admission_id
  2 string service_url
  3 string package
  4 .cipd.ObjectRef instance
cipd.plugin.ListAdmissionsRequest
  1 int32 protocol_version
  2 string plugin_version
cipd.plugin.ListMetadataRequest
  1 string service_url
  2 string package
  3 .cipd.ObjectRef instance
  4 repeated string keys
  20 int32 page_size
  21 string page_token
cipd.plugin.ListMetadataResponse
  1 repeated .cipd.InstanceMetadata metadata
  20 string next_page_token
cipd.plugin.LogRequest
  1 string severity
  2 string message
cipd.plugin.ResolveAdmissionRequest
  1 string admission_id
  2 .google.rpc.Status status
google.protobuf.Any
  1 string type_url
  2 bytes value
google.protobuf.Empty
google.protobuf.Timestamp
  1 int64 seconds
  2 int32 nanos
google.rpc.Status
  1 int32 code
  2 string message
  3 repeated .google.protobuf.Any details
";

/// Returns the schema as the code generators read it.
fn files() -> FileDescriptorSet {
    FileDescriptorSet::decode(&include_bytes!("schema.bin")[..]).expect("a valid schema")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the sources are what is tested")]
fn the_code_is_generated_from_this_schema() {
    let mut sums = String::new();
    for file in [
        "admission/stdio",
        "cipd/cipd",
        "cipd/plugin",
        "google/rpc/status",
    ] {
        let path = format!("schema/{file}.proto");
        let source = fs::read(&path).expect("the schema is in this package");
        let sum = hex::encode(&Sha256::digest(source));
        sums += &format!("{sum}  {path}\n");
    }
    let when_generated = include_str!("../src/generated/SHA256SUMS");
    assert_eq!(sums, when_generated, "run `cargo xtask generate`");
}

#[test]
fn fields_have_the_references_names_numbers_and_types() {
    let mut messages: Vec<String> = files()
        .file
        .iter()
        .flat_map(|file| {
            file.message_type
                .iter()
                .map(|message| describe(file.package(), message))
        })
        .collect();
    messages.sort_unstable();
    assert_eq!(messages.concat(), SCHEMA);
}

#[test]
fn services_are_those_of_the_reference() {
    let mut calls = Vec::new();
    for file in &files().file {
        for service in &file.service {
            for call in &service.method {
                let stream = if call.server_streaming() {
                    "stream "
                } else {
                    ""
                };
                calls.push(format!(
                    "/{}.{}/{} {} {stream}{}",
                    file.package(),
                    service.name(),
                    call.name(),
                    call.input_type(),
                    call.output_type()
                ));
            }
        }
    }
    assert_eq!(
        calls,
        [
            "/cipd.plugin.Host/Log .cipd.plugin.LogRequest .google.protobuf.Empty",
            "/cipd.plugin.Host/ListMetadata .cipd.plugin.ListMetadataRequest .cipd.plugin.ListMetadataResponse",
            "/cipd.plugin.Admissions/ListAdmissions .cipd.plugin.ListAdmissionsRequest stream .cipd.plugin.Admission",
            "/cipd.plugin.Admissions/ResolveAdmission .cipd.plugin.ResolveAdmissionRequest .google.protobuf.Empty",
        ]
    );
}

#[test]
fn hash_algorithms_have_the_references_numbers() {
    use cipd::HashAlgo;
    let numbers = [HashAlgo::Unspecified, HashAlgo::Sha1, HashAlgo::Sha256].map(|algo| algo as i32);
    assert_eq!(numbers, [0, 1, 2]);
    let names = [0, 1, 2].map(|n| HashAlgo::try_from(n).expect("known").as_str_name());
    assert_eq!(names, ["HASH_ALGO_UNSPECIFIED", "SHA1", "SHA256"]);
}

fn describe(package: &str, message: &DescriptorProto) -> String {
    let mut text = format!("{package}.{}\n", message.name());
    for field in &message.field {
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            scalar => scalar.as_str_name()["TYPE_".len()..].to_lowercase(),
        };
        let prefix = match (field.label(), field.oneof_index) {
            (Label::Repeated, _) => "repeated ",
            (_, Some(_)) => "oneof ",
            _ => "",
        };
        text += &format!("  {} {prefix}{kind} {}\n", field.number(), field.name());
    }
    text
}

/// Encodes a field of wire type 2 with a one-byte tag and a one-byte length.
fn bytes(number: u8, contents: &[u8]) -> Vec<u8> {
    let length = u8::try_from(contents.len()).expect("short");
    assert!(number < 16 && length < 0x80, "one byte each");
    [&[number << 3 | 2, length], contents].concat()
}

/// Encodes a field of wire type 0 with a one-byte tag and a one-byte value.
fn int(number: u8, value: u8) -> Vec<u8> {
    assert!(number < 16 && value < 0x80, "one byte each");
    vec![number << 3, value]
}

fn object() -> (cipd::ObjectRef, Vec<u8>) {
    let object = cipd::ObjectRef {
        hash_algo: 2,
        hex_digest: "ab".into(),
    };
    (object, [int(1, 2), bytes(2, b"ab")].concat())
}

fn status() -> (rpc::Status, Vec<u8>) {
    let status = rpc::Status {
        code: 9,
        message: "no".into(),
        details: vec![Any {
            type_url: "t".into(),
            value: vec![7],
        }],
    };
    let detail = [bytes(1, b"t"), bytes(2, &[7])].concat();
    (
        status,
        [int(1, 9), bytes(2, b"no"), bytes(3, &detail)].concat(),
    )
}

fn page() -> (plugin::ListMetadataResponse, Vec<u8>) {
    let page = plugin::ListMetadataResponse {
        metadata: vec![cipd::InstanceMetadata {
            key: "k".into(),
            value: vec![0, 1],
            content_type: "a/b".into(),
            fingerprint: "f".into(),
            attached_by: "user:u".into(),
            attached_ts: Some(Timestamp {
                seconds: 5,
                nanos: 6,
            }),
        }],
        next_page_token: "n".into(),
    };
    let entry = [
        bytes(1, b"k"),
        bytes(2, &[0, 1]),
        bytes(3, b"a/b"),
        bytes(4, b"f"),
        bytes(5, b"user:u"),
        bytes(6, &[int(1, 5), int(2, 6)].concat()),
    ]
    .concat();
    // Field 20 has a tag of two bytes: 20 << 3 | 2 = 162.
    (
        page,
        [&bytes(1, &entry)[..], &[0xa2, 0x01, 1, b'n']].concat(),
    )
}

/// Asserts that `message` is encoded as `expected`, and decoded from it.
fn assert_wire<M: Message + Default + PartialEq + fmt::Debug>(message: &M, expected: &[u8]) {
    assert_eq!(message.encode_to_vec(), expected);
    assert_eq!(M::decode(expected).as_ref(), Ok(message));
}

fn assert_host_frame(arm: u8, frame: host_frame::Frame, expected: &[u8]) {
    assert_wire(&HostFrame { frame: Some(frame) }, &bytes(arm, expected));
}

fn assert_plugin_frame(arm: u8, frame: plugin_frame::Frame, expected: &[u8]) {
    assert_wire(&PluginFrame { frame: Some(frame) }, &bytes(arm, expected));
}

#[test]
fn every_message_to_the_plugin_is_encoded_with_its_field_numbers() {
    use host_frame::Frame;
    use list_metadata_reply::Result as Reply;

    let hello = Hello {
        protocol_version: 1,
        host_name: "h".into(),
        host_version: "v".into(),
        max_frame_size: 100,
        log_level: "info".into(),
    };
    let expected = [
        int(1, 1),
        bytes(2, b"h"),
        bytes(3, b"v"),
        int(4, 100),
        bytes(5, b"info"),
    ];
    assert_host_frame(1, Frame::Hello(hello), &expected.concat());

    let (instance, instance_bytes) = object();
    let admission = plugin::Admission {
        admission_id: "id".into(),
        service_url: "url".into(),
        package: "p".into(),
        instance: Some(instance),
    };
    let expected = [
        bytes(1, b"id"),
        bytes(2, b"url"),
        bytes(3, b"p"),
        bytes(4, &instance_bytes),
    ];
    assert_host_frame(2, Frame::Admission(admission), &expected.concat());

    let (page, page_bytes) = page();
    let reply = ListMetadataReply {
        call_id: 3,
        result: Some(Reply::Page(page)),
    };
    let expected = [int(1, 3), bytes(2, &page_bytes)].concat();
    assert_host_frame(3, Frame::ListMetadataReply(reply), &expected);

    let (status, status_bytes) = status();
    let reply = ListMetadataReply {
        call_id: 3,
        result: Some(Reply::Status(status)),
    };
    let expected = [int(1, 3), bytes(3, &status_bytes)].concat();
    assert_host_frame(3, Frame::ListMetadataReply(reply), &expected);
}

#[test]
fn every_message_to_the_host_is_encoded_with_its_field_numbers() {
    use plugin_frame::Frame;

    let connect = plugin::ListAdmissionsRequest {
        protocol_version: 1,
        plugin_version: "v".into(),
    };
    let expected = [int(1, 1), bytes(2, b"v")].concat();
    assert_plugin_frame(1, Frame::ListAdmissions(connect), &expected);

    let (status, status_bytes) = status();
    let verdict = plugin::ResolveAdmissionRequest {
        admission_id: "id".into(),
        status: Some(status),
    };
    let expected = [bytes(1, b"id"), bytes(2, &status_bytes)].concat();
    assert_plugin_frame(2, Frame::ResolveAdmission(verdict), &expected);

    let log = plugin::LogRequest {
        severity: "info".into(),
        message: "m".into(),
    };
    let expected = [bytes(1, b"info"), bytes(2, b"m")].concat();
    assert_plugin_frame(3, Frame::Log(log), &expected);

    let (instance, instance_bytes) = object();
    let call = ListMetadataCall {
        call_id: 3,
        admission_id: "id".into(),
        request: Some(plugin::ListMetadataRequest {
            service_url: "url".into(),
            package: "p".into(),
            instance: Some(instance),
            keys: vec!["k1".into(), "k2".into()],
            page_size: 20,
            page_token: "t".into(),
        }),
    };
    // Fields 20 and 21 have tags of two bytes: 20 << 3 = 160, 21 << 3 | 2 = 170.
    let request = [
        bytes(1, b"url"),
        bytes(2, b"p"),
        bytes(3, &instance_bytes),
        bytes(4, b"k1"),
        bytes(4, b"k2"),
        vec![0xa0, 0x01, 20, 0xaa, 0x01, 1, b't'],
    ];
    let expected = [int(1, 3), bytes(2, b"id"), bytes(3, &request.concat())].concat();
    assert_plugin_frame(4, Frame::ListMetadata(call), &expected);
}

#[test]
fn an_ok_status_is_encoded_and_differs_from_a_missing_one() {
    let verdict = |status| plugin::ResolveAdmissionRequest {
        admission_id: "id".into(),
        status,
    };
    assert_wire(&verdict(None), &bytes(1, b"id"));
    let admitted = [bytes(1, b"id"), vec![0x12, 0x00]].concat();
    assert_wire(&verdict(Some(rpc::Status::default())), &admitted);
}

#[test]
fn only_requests_to_the_service_have_other_field_numbers() {
    let (instance, instance_bytes) = object();
    let request = cipd::ListMetadataRequest {
        package: "p".into(),
        instance: Some(instance),
        keys: vec!["k".into()],
        page_size: 20,
        page_token: "t".into(),
    };
    let expected = [
        bytes(1, b"p"),
        bytes(2, &instance_bytes),
        bytes(3, b"k"),
        vec![0xa0, 0x01, 20, 0xaa, 0x01, 1, b't'],
    ];
    assert_wire(&request, &expected.concat());

    let (page, page_bytes) = page();
    let answer = cipd::ListMetadataResponse {
        metadata: page.metadata,
        next_page_token: page.next_page_token,
    };
    assert_wire(&answer, &page_bytes);
}
