//! Properties of all frames, of all splits of them, and of all bytes.

use admission_proto::frame::{self, FrameError, HOST_LIMIT, PLUGIN_LIMIT};
use admission_proto::wire::stdio::{
    Hello, HostFrame, ListMetadataCall, ListMetadataReply, PluginFrame, host_frame,
    list_metadata_reply, plugin_frame,
};
use admission_proto::wire::{Any, Message, Timestamp, cipd, plugin, rpc};
use admission_proto::{
    Admission, HashAlgo, HashMode, InstanceId, InstanceMetadata, ObjectRef, Pin, Status, escape,
    quote_bytes, validate_content_type, validate_metadata_key, validate_package_name,
    validate_version,
};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn object() -> impl Strategy<Value = cipd::ObjectRef> {
    (any::<i32>(), ".*").prop_map(|(hash_algo, hex_digest)| cipd::ObjectRef {
        hash_algo,
        hex_digest,
    })
}

fn status() -> impl Strategy<Value = rpc::Status> {
    let detail = (".*", any::<Vec<u8>>()).prop_map(|(type_url, value)| Any { type_url, value });
    (any::<i32>(), ".*", vec(detail, 0..3)).prop_map(|(code, message, details)| rpc::Status {
        code,
        message,
        details,
    })
}

fn entry() -> impl Strategy<Value = cipd::InstanceMetadata> {
    let time = any::<(i64, i32)>().prop_map(|(seconds, nanos)| Timestamp { seconds, nanos });
    (".*", any::<Vec<u8>>(), option::of(time)).prop_map(|(key, value, attached_ts)| {
        cipd::InstanceMetadata {
            key,
            value,
            attached_ts,
            ..Default::default()
        }
    })
}

fn host_frame() -> impl Strategy<Value = HostFrame> {
    use host_frame::Frame;
    use list_metadata_reply::Result as Reply;
    let hello = (any::<i32>(), ".*", any::<u32>()).prop_map(|(version, name, max)| {
        Frame::Hello(Hello {
            protocol_version: version,
            host_name: name,
            max_frame_size: max,
            ..Default::default()
        })
    });
    let admission = (".*", ".*", option::of(object())).prop_map(|(id, package, instance)| {
        Frame::Admission(plugin::Admission {
            admission_id: id,
            package,
            instance,
            ..Default::default()
        })
    });
    let page = (vec(entry(), 0..4), ".*").prop_map(|(metadata, next_page_token)| {
        Reply::Page(plugin::ListMetadataResponse {
            metadata,
            next_page_token,
        })
    });
    let result = option::of(prop_oneof![page, status().prop_map(Reply::Status)]);
    let reply = (any::<u64>(), result).prop_map(|(call_id, result)| {
        Frame::ListMetadataReply(ListMetadataReply { call_id, result })
    });
    prop_oneof![hello, admission, reply].prop_map(|frame| HostFrame { frame: Some(frame) })
}

fn plugin_frame() -> impl Strategy<Value = PluginFrame> {
    use plugin_frame::Frame;
    let connect = (any::<i32>(), ".*").prop_map(|(protocol_version, plugin_version)| {
        Frame::ListAdmissions(plugin::ListAdmissionsRequest {
            protocol_version,
            plugin_version,
        })
    });
    let verdict = (".*", option::of(status())).prop_map(|(admission_id, status)| {
        Frame::ResolveAdmission(plugin::ResolveAdmissionRequest {
            admission_id,
            status,
        })
    });
    let log = (".*", ".*")
        .prop_map(|(severity, message)| Frame::Log(plugin::LogRequest { severity, message }));
    let call = (
        any::<u64>(),
        option::of(object()),
        vec(".*", 0..3),
        any::<i32>(),
    )
        .prop_map(|(call_id, instance, keys, page_size)| {
            Frame::ListMetadata(ListMetadataCall {
                call_id,
                request: Some(plugin::ListMetadataRequest {
                    instance,
                    keys,
                    page_size,
                    ..Default::default()
                }),
                ..Default::default()
            })
        });
    prop_oneof![connect, verdict, log, call].prop_map(|frame| PluginFrame { frame: Some(frame) })
}

/// Appends `bytes` in pieces that end at `cuts`, and takes the whole frames after each.
fn decode_in_pieces<M: Message + Default>(
    bytes: &[u8],
    cuts: &[prop::sample::Index],
) -> (Vec<M>, BytesMut) {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();

    let (mut buf, mut taken, mut start) = (BytesMut::new(), Vec::new(), 0);
    for end in ends {
        buf.extend_from_slice(&bytes[start..end]);
        start = end;
        while let Some(message) = frame::take(&mut buf, PLUGIN_LIMIT).expect("valid frames") {
            taken.push(message);
        }
    }
    (taken, buf)
}

fn encode_all(messages: &[impl Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        frame::encode(message, &mut bytes);
    }
    bytes
}

proptest! {
    #[test]
    fn any_split_of_host_frames_decodes_to_the_same_messages(
        messages in vec(host_frame(), 0..6),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (taken, rest) = decode_in_pieces::<HostFrame>(&encode_all(&messages), &cuts);
        prop_assert_eq!(taken, messages);
        prop_assert_eq!(frame::finish(&rest), Ok(()));
    }

    #[test]
    fn any_split_of_plugin_frames_decodes_to_the_same_messages(
        messages in vec(plugin_frame(), 0..6),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (taken, rest) = decode_in_pieces::<PluginFrame>(&encode_all(&messages), &cuts);
        prop_assert_eq!(taken, messages);
        prop_assert_eq!(frame::finish(&rest), Ok(()));
    }

    #[test]
    fn frames_fed_byte_by_byte_decode_to_the_same_messages(messages in vec(plugin_frame(), 0..4)) {
        let bytes = encode_all(&messages);
        let (mut buf, mut taken) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            buf.extend_from_slice(&[byte]);
            taken.extend(frame::take::<PluginFrame>(&mut buf, PLUGIN_LIMIT).expect("valid frames"));
        }
        prop_assert_eq!(taken, messages);
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_an_error(
        messages in vec(plugin_frame(), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = encode_all(&messages);
        let end = cut.index(bytes.len());
        let (taken, rest) = decode_in_pieces::<PluginFrame>(&bytes[..end], &[]);

        prop_assert_eq!(&taken[..], &messages[..taken.len()]);
        let between = end == encode_all(&taken).len();
        prop_assert_eq!(frame::finish(&rest).is_ok(), between);
    }

    #[test]
    fn no_bytes_make_the_codec_panic_and_an_error_leaves_the_buffer_unchanged(
        bytes in vec(any::<u8>(), 0..200),
        limit in 0..300_usize,
    ) {
        let mut buf = BytesMut::from(&bytes[..]);
        loop {
            let before = buf.clone();
            match frame::take::<PluginFrame>(&mut buf, limit) {
                Ok(Some(_)) => prop_assert!(buf.len() < before.len()),
                Ok(None) | Err(_) => {
                    prop_assert_eq!(buf, before);
                    break;
                }
            }
        }
    }

    #[test]
    fn nothing_is_allocated_for_a_length_over_the_limit(
        length in HOST_LIMIT + 1..1 << 28,
        body in vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = Vec::new();
        prost::encode_length_delimiter(length, &mut bytes).expect("a vector grows");
        bytes.extend(body);
        let mut buf = BytesMut::from(&bytes[..]);
        let capacity = buf.capacity();

        let refused = frame::take::<PluginFrame>(&mut buf, HOST_LIMIT);

        let is_too_long = matches!(
            refused,
            Err(FrameError::TooLong { length: its, limit: HOST_LIMIT, .. }) if its == length
        );
        prop_assert!(is_too_long);
        prop_assert_eq!(buf.capacity(), capacity);
    }

    #[test]
    fn room_for_a_frame_is_reserved_once_its_length_is_known(length in 1..=HOST_LIMIT) {
        let mut bytes = Vec::new();
        prost::encode_length_delimiter(length, &mut bytes).expect("a vector grows");
        let whole = bytes.len() + length;
        let mut buf = BytesMut::from(&bytes[..]);

        prop_assert_eq!(frame::take::<PluginFrame>(&mut buf, HOST_LIMIT), Ok(None));

        prop_assert!(buf.capacity() >= whole);
        prop_assert!(buf.capacity() <= 2 * whole + 64);
    }

    #[test]
    fn no_bytes_make_the_conversion_of_a_message_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(wire) = plugin::Admission::decode(&bytes[..]) {
            let admission = Admission::from_wire(wire);
            let _: Result<String, _> = admission.instance.to_instance_id();
        }
        if let Ok(wire) = cipd::InstanceMetadata::decode(&bytes[..]) {
            let _ = cipd::InstanceMetadata::from(InstanceMetadata::from(wire));
        }
        if let Ok(wire) = rpc::Status::decode(&bytes[..]) {
            prop_assert_eq!(rpc::Status::from(Status::from(wire.clone())), wire);
        }
        let _ = quote_bytes(&bytes);
    }

    #[test]
    fn no_time_makes_the_conversion_of_a_metadata_entry_panic(wire in entry()) {
        let entry = InstanceMetadata::from(wire);
        let again = InstanceMetadata::from(cipd::InstanceMetadata::from(entry.clone()));
        prop_assert_eq!(again, entry);
    }

    #[test]
    fn no_text_makes_a_validator_panic(text in ".{0,60}", ascii in "[ -~\r\n]{27,46}") {
        for text in [&*text, &*ascii] {
            let _: Result<Pin, _> = text.parse();
            let _: Result<Pin, _> = Pin::new("good/name", text);
            let _: Result<Pin, _> = Pin::new(text, text);
            let _: Result<ObjectRef, _> = ObjectRef::from_instance_id(text, HashMode::Any);
            let _: Result<(), _> = validate_package_name(text);
            let _: Result<(), _> = validate_version(text);
            let _: Result<(), _> = validate_metadata_key(text);
            let _: Result<(), _> = validate_content_type(text);
        }
    }

    #[test]
    fn no_object_ref_makes_its_encoding_panic(algo in any::<i32>(), hex_digest in ".{0,70}") {
        let object = ObjectRef { hash_algo: HashAlgo::from(algo), hex_digest };
        let id = object.to_instance_id();
        prop_assert!(id.is_err() || object.validate(HashMode::Any).is_ok());
    }

    #[test]
    fn an_instance_id_round_trips(digest in any::<[u8; 32]>(), sha1 in any::<bool>()) {
        let (algo, digest) = if sha1 { (HashAlgo::SHA1, &digest[..20]) } else { (HashAlgo::SHA256, &digest[..]) };
        let hex_digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let object = ObjectRef { hash_algo: algo, hex_digest };

        let id = object.to_instance_id().expect("a known hash");

        prop_assert_eq!(id.len(), if sha1 { 40 } else { 44 });
        prop_assert_eq!(ObjectRef::from_instance_id(&id, HashMode::Known), Ok(object.clone()));
        let parsed: InstanceId = id.parse().expect("canonical");
        prop_assert_eq!(parsed.object_ref(), object);
        prop_assert_eq!(parsed.to_string(), id);
    }

    #[test]
    fn an_id_parsed_in_mode_any_round_trips(id in "[A-Za-z0-9_-]{28,60}") {
        if let Ok(object) = ObjectRef::from_instance_id(&id, HashMode::Any) {
            let id = object.to_instance_id().expect("a valid object ref");
            prop_assert_eq!(ObjectRef::from_instance_id(&id, HashMode::Any), Ok(object));
        }
    }

    #[test]
    fn two_encodings_of_one_instance_are_never_both_canonical(
        one in "[a-z]{27}B|[A-Za-z0-9_-]{43}C",
        flip in 0..64_u8,
    ) {
        let mut other = one.clone().into_bytes();
        *other.last_mut().expect("not empty") = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[usize::from(flip)];
        let other = String::from_utf8(other).expect("base64");
        if let (Ok(a), Ok(b)) = (one.parse::<InstanceId>(), other.parse::<InstanceId>()) {
            prop_assert_eq!(a == b, one == other);
        }
    }

    #[test]
    fn escaped_text_is_one_line_without_control_characters(text in any::<String>()) {
        let escaped = escape(&text);
        prop_assert!(!escaped.chars().any(char::is_control));
        prop_assert_eq!(escape(&escaped), escaped);
    }

    #[test]
    fn quoted_bytes_are_short_printable_ascii(bytes in vec(any::<u8>(), 0..200)) {
        let quoted = quote_bytes(&bytes);
        prop_assert!(quoted.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        prop_assert!(quoted.len() <= 64 * 4 + 32);
    }
}

#[test]
fn deeply_nested_groups_are_undecodable_and_do_not_overflow_the_stack() {
    const START_GROUP_OF_FIELD_100: [u8; 2] = [0xa3, 0x06];
    let body = START_GROUP_OF_FIELD_100.repeat(100_000);
    let mut bytes = Vec::new();
    prost::encode_length_delimiter(body.len(), &mut bytes).expect("a vector grows");
    bytes.extend(body);

    let refused = frame::take::<PluginFrame>(&mut BytesMut::from(&bytes[..]), HOST_LIMIT);

    assert!(matches!(refused, Err(FrameError::Undecodable { .. })));
}

#[test]
fn an_unknown_kind_of_frame_decodes_to_an_empty_frame() {
    let future = [0x04, 0xa2, 0x06, 0x01, b'x'];
    let taken = frame::take(&mut BytesMut::from(&future[..]), HOST_LIMIT);
    assert_eq!(taken, Ok(Some(PluginFrame { frame: None })));
}
