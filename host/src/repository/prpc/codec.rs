//! Encodes requests and decodes responses of pRPC.

use std::time::Duration;

use admission_proto::wire::{Any, Message as _, cipd};
use admission_proto::{Code, Detail, InstanceMetadata, Status, quote, quote_bytes};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use prost::DecodeError;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};

use super::options::MAX_DEADLINE;
use super::retry::{Failure, is_transient, is_transient_http};
use crate::repository::{ListMetadata, MetadataPage};

/// The binary encoding, of requests and of responses.
pub(super) const MEDIA_TYPE: &str = "application/prpc; encoding=binary";

/// Header with the code of the call, in decimal. Without it, the HTTP status counts.
const CODE: &str = "X-Prpc-Grpc-Code";

/// Details of an error, each a `google.protobuf.Any` in base64.
const DETAILS: &str = "X-Prpc-Status-Details-Bin";

/// Limit of entries in a response. An entry takes at least 2 bytes when it is encoded, and more
/// than a hundred when it is decoded. With entries of a realistic 64 bytes, this many fit the
/// default size limit of a response.
const MAX_ENTRIES: usize = 512 << 10;

/// Encodes a request. The service numbers its fields differently from the plugin's request.
pub(super) fn encode(request: ListMetadata) -> Bytes {
    let message = cipd::ListMetadataRequest {
        package: request.package,
        instance: Some(request.instance.into()),
        keys: request.keys,
        page_size: request.page_size,
        page_token: request.page_token,
    };
    message.encode_to_vec().into()
}

/// Encodes a timeout: at most eight digits and a unit, here milliseconds.
pub(super) fn timeout(timeout: Duration) -> String {
    const { assert!(MAX_DEADLINE.as_millis() <= 99_999_999) };
    format!("{}m", timeout.min(MAX_DEADLINE).as_millis().max(1))
}

/// A response without its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) http_status: u16,
    pub(super) headers: HeaderMap,
}

impl Head {
    /// Returns whether the body is a page instead of the text of an error.
    pub(super) fn is_page(&self) -> bool {
        self.code() == Some(Ok(Code::OK))
    }

    /// Decodes the response.
    pub(super) fn decode(&self, body: &[u8]) -> Result<MetadataPage, Failure> {
        match self.code() {
            Some(Ok(Code::OK)) => self.decode_page(body),
            Some(Ok(code)) => Err(self.decode_error(code, body)),
            Some(Err(text)) => Err(Failure::permanent(
                Code::INTERNAL,
                format!("prpc: invalid {CODE} header value {}", quote(&text)),
            )),
            None => Err(self.decode_foreign(body)),
        }
    }

    /// Returns the code, or the text of the header if it is not a code.
    fn code(&self) -> Option<Result<Code, String>> {
        let text = self.text(CODE)?;
        Some(text.parse().map(|code: i32| code.into()).map_err(|_| text))
    }

    /// Returns the value of a header. Joins the values of a repeated header.
    fn text(&self, name: &str) -> Option<String> {
        let values = self.headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    fn decode_page(&self, body: &[u8]) -> Result<MetadataPage, Failure> {
        let content_type = self.text(CONTENT_TYPE.as_str()).unwrap_or_default();
        if !is_binary(&content_type) {
            let (given, expected) = (quote(&content_type), quote(MEDIA_TYPE));
            let text =
                format!("prpc: output format ({given}) doesn't match expected format ({expected})");
            return Err(Failure::permanent(Code::INTERNAL, text));
        }
        let malformed = |error: DecodeError| {
            let text = format!("prpc: failed to unmarshal the response: {error}");
            Failure::permanent(Code::INTERNAL, text)
        };
        if count_entries(body).map_err(malformed)? > MAX_ENTRIES {
            let text = format!("the response has more than {MAX_ENTRIES} entries");
            return Err(Failure::permanent(Code::UNAVAILABLE, text));
        }
        let page = cipd::ListMetadataResponse::decode(body).map_err(malformed)?;
        let entries = page.metadata.into_iter().map(InstanceMetadata::from);
        Ok(MetadataPage::new(entries.collect(), page.next_page_token))
    }

    fn decode_error(&self, code: Code, body: &[u8]) -> Failure {
        let text = String::from_utf8_lossy(body);
        let mut status = Status::new(code, text.strip_suffix('\n').unwrap_or(&text));
        for value in self.text(DETAILS).iter().flat_map(|text| text.split(',')) {
            match decode_detail(value.trim()) {
                Ok(detail) => status.details.push(detail),
                Err(text) => return Failure::permanent(Code::INTERNAL, text),
            }
        }
        Failure {
            retry_after: is_transient(&status).then(|| self.retry_after()),
            status,
        }
    }

    /// Decodes a response that is not pRPC: from a frontend of the service, or from another
    /// server.
    fn decode_foreign(&self, body: &[u8]) -> Failure {
        let http = self.http_status;
        let text = String::from_utf8_lossy(body);
        let code = match http {
            401 => Code::UNAUTHENTICATED,
            403 => Code::PERMISSION_DENIED,
            503 => Code::UNAVAILABLE,
            _ => Code::INTERNAL,
        };
        let message = if code == Code::INTERNAL && http < 500 {
            let body = quote(&text);
            format!("prpc: no {CODE} header, HTTP status {http}, body: {body}")
        } else if text.trim().is_empty() {
            format!("HTTP status {http} with no message")
        } else if text.trim_start().starts_with('<') {
            format!("HTTP status {http} with an HTML page")
        } else {
            text.into_owned()
        };
        Failure {
            status: Status::new(code, message),
            retry_after: is_transient_http(http).then(|| self.retry_after()),
        }
    }

    /// Returns the pause that the service asks for, if it gives a number of seconds.
    fn retry_after(&self) -> Duration {
        let seconds = self.text(RETRY_AFTER.as_str()).and_then(|s| s.parse().ok());
        Duration::from_secs(seconds.unwrap_or(0))
    }
}

/// Returns whether a media type is pRPC in its binary encoding, which is the default.
fn is_binary(media_type: &str) -> bool {
    let media_type = media_type.to_ascii_lowercase().replace([' ', '"'], "");
    let (name, parameters) = media_type.split_once(';').unwrap_or((&media_type, ""));
    let mut parameters = parameters.split(';');
    name == "application/prpc"
        && parameters.all(|p| !p.starts_with("encoding=") || p == "encoding=binary")
}

/// Counts the entries of a page without decoding them.
fn count_entries(mut body: &[u8]) -> Result<usize, DecodeError> {
    /// Number of the field of an entry.
    const METADATA: u32 = 1;
    let mut count = 0;
    while !body.is_empty() {
        let (field, wire_type) = decode_key(&mut body)?;
        skip_field(wire_type, field, &mut body, DecodeContext::default())?;
        count += usize::from(field == METADATA);
    }
    Ok(count)
}

fn decode_detail(text: &str) -> Result<Detail, String> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| {
        let quoted = quote_bytes(text.as_bytes());
        format!("prpc: invalid header {DETAILS}: {quoted}")
    })?;
    let Any { type_url, value } = Any::decode(&*bytes)
        .map_err(|error| format!("prpc: failed to unmarshal status detail: {error}"))?;
    Ok(Detail { type_url, value })
}

#[cfg(test)]
mod tests;
