//! The wire of the host: stdio frames or gRPC, decided by the first bytes on stdin.

use admission_proto::Wire;

/// Detects the wire of a host from the first two bytes that it sends.
pub(crate) fn detect_wire(bytes: &[u8]) -> Option<Wire> {
    match bytes {
        [] | [_] => None,
        // A handshake line is a line of JSON, perhaps after white space, and its second byte is
        // not a line feed. The second byte of a hello is its tag, which equals a line feed. A
        // handshake line must never be read as a frame: the error would quote the ticket.
        [b'{' | b' ' | b'\t' | b'\r' | b'\n', second, ..] if *second != b'\n' => Some(Wire::Grpc),
        _ => Some(Wire::Stdio),
    }
}
