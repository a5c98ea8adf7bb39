//! What the service answers.

use std::time::Duration;

use admission_proto::wire::{Any, Message as _, cipd};
use admission_proto::{Code, Detail, InstanceMetadata, Status, quote};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::DecodeError;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use super::retry::{Failure, Retry, is_transient_http};
use super::{MEDIA_TYPE, html};
use crate::repository::MetadataPage;

/// Names the code of the call, in decimal; it alone tells how the call ended.
pub(super) const CODE: &str = "X-Prpc-Grpc-Code";

/// Names details of an error: each a `google.protobuf.Any`, in base64.
pub(super) const DETAILS: &str = "X-Prpc-Status-Details-Bin";

/// Most bytes of a message that are kept.
const MAX_MESSAGE: usize = 4096;

/// Most entries of an answer. One takes two bytes at least, and more than a hundred once
/// it is read; with who has attached it, when, and its fingerprint it takes 64, of which
/// this many fit the largest answer that is taken unless somebody says otherwise.
const MAX_ENTRIES: usize = 512 << 10;

/// The part of a response that comes before its body.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The status of HTTP.
    pub(super) http_status: u16,
    pub(super) code: Option<String>,
    pub(super) content_type: String,
    pub(super) details: Vec<String>,
    /// How long the service wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl Head {
    /// Tells whether the body is to be the answer, rather than the text of an error.
    pub(super) fn promises_answer(&self) -> bool {
        matches!(self.parse_code(), Some(Ok(Code::OK)))
    }

    /// Reads the response as a whole.
    pub(super) fn decode(&self, body: &[u8]) -> Result<MetadataPage, Failure> {
        match self.parse_code() {
            None => Err(self.without_code(body)),
            Some(Err(given)) => Err(Failure::lasting(
                Code::INTERNAL,
                format!("prpc: invalid {CODE} header value {}", quote(given)),
            )),
            Some(Ok(Code::OK)) => self.answer(body),
            Some(Ok(code)) => Err(self.error(code, body)),
        }
    }

    fn parse_code(&self) -> Option<Result<Code, &str>> {
        let given = self.code.as_deref()?;
        Some(
            given
                .parse()
                .map(|code: i32| code.into())
                .map_err(|_| given),
        )
    }

    fn answer(&self, body: &[u8]) -> Result<MetadataPage, Failure> {
        if !is_binary(&self.content_type) {
            let text = format!(
                "prpc: output format ({}) doesn't match expected format ({})",
                quote(&self.content_type),
                quote(MEDIA_TYPE)
            );
            return Err(Failure::lasting(Code::INTERNAL, text));
        }
        let unreadable = |error: DecodeError| {
            let text = format!("prpc: failed to unmarshal the response: {error}");
            Failure::lasting(Code::INTERNAL, text)
        };
        if count_entries(body).map_err(unreadable)? > MAX_ENTRIES {
            let text = format!("the response has more than {MAX_ENTRIES} entries");
            return Err(Failure::lasting(Code::UNAVAILABLE, text));
        }
        let answer = cipd::ListMetadataResponse::decode(body).map_err(unreadable)?;
        let entries = answer.metadata.into_iter().map(InstanceMetadata::from);
        Ok(MetadataPage::new(entries.collect(), answer.next_page_token))
    }

    /// Reads an error of the service.
    fn error(&self, code: Code, body: &[u8]) -> Failure {
        let text = String::from_utf8_lossy(body);
        let mut status = Status::new(code, cut(text.strip_suffix('\n').unwrap_or(&text)));
        match self.parse_details() {
            Ok(details) => status.details = details,
            Err(failure) => return failure,
        }
        Failure::of_service(status, self.retry_after)
    }

    fn parse_details(&self) -> Result<Vec<Detail>, Failure> {
        let headers = self.details.iter().flat_map(|values| values.split(','));
        headers.map(|value| parse_detail(value.trim())).collect()
    }

    /// Makes sense of a response that is not one of pRPC: of a frontend before the
    /// service, or of no such service at all.
    fn without_code(&self, body: &[u8]) -> Failure {
        let http = self.http_status;
        let text = String::from_utf8_lossy(body);
        let code = match http {
            401 => Some(Code::UNAUTHENTICATED),
            403 => Some(Code::PERMISSION_DENIED),
            503 => Some(Code::UNAVAILABLE),
            500.. => Some(Code::INTERNAL),
            _ => None,
        };
        let status = match code {
            Some(code) if text.trim().is_empty() => {
                Status::new(code, format!("HTTP status {http} with no message"))
            }
            Some(code) => Status::new(code, cut(&html::text_of(&text))),
            None => Status::new(
                Code::INTERNAL,
                format!(
                    "prpc: no {CODE} header, HTTP status {http}, body: {}",
                    quote(&cut(&text))
                ),
            ),
        };
        Failure {
            status,
            retry: if is_transient_http(http) {
                Retry::at_least(self.retry_after)
            } else {
                Retry::Never
            },
        }
    }
}

/// Counts the entries of an answer, and makes none.
fn count_entries(mut body: &[u8]) -> Result<usize, DecodeError> {
    /// The number of the field that has an entry.
    const METADATA: u32 = 1;
    let mut count = 0;
    while !body.is_empty() {
        let (field, wire_type) = decode_key(&mut body)?;
        skip_field(wire_type, field, &mut body, DecodeContext::default())?;
        count += usize::from(field == METADATA);
    }
    Ok(count)
}

/// Reads how long to wait, where it is given as a number of seconds.
pub(super) fn parse_retry_after(value: &str) -> Option<Duration> {
    value.parse().ok().map(Duration::from_secs)
}

fn parse_detail(value: &str) -> Result<Detail, Failure> {
    let bytes = BASE64_STANDARD.decode(value).map_err(|_| {
        let text = format!("prpc: invalid header {DETAILS}: {}", quote(&cut(value)));
        Failure::lasting(Code::INTERNAL, text)
    })?;
    let any = Any::decode(&*bytes).map_err(|error| {
        let text = format!("prpc: failed to unmarshal status detail: {error}");
        Failure::lasting(Code::INTERNAL, text)
    })?;
    Ok(Detail {
        type_url: any.type_url,
        value: any.value,
    })
}

/// Tells whether a media type is the binary encoding, which is the default one.
fn is_binary(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let is_prpc = parts
        .next()
        .is_some_and(|name| name.eq_ignore_ascii_case("application/prpc"));
    let encoding = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("encoding"))
        .map(|(_, value)| value.trim().trim_matches('"'));
    is_prpc && encoding.is_none_or(|encoding| encoding == "binary")
}

fn cut(text: &str) -> String {
    let kept = &text[..text.floor_char_boundary(MAX_MESSAGE)];
    if kept.len() < text.len() {
        format!("{kept}...")
    } else {
        kept.to_owned()
    }
}

#[cfg(test)]
mod tests;
