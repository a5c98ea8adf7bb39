//! Answers of the fake service.

use std::io::Write as _;

use admission_host::{Code, Detail, InstanceMetadata};
use admission_proto::wire::{Any, Message as _, cipd};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

/// How the service treats a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Sends the whole response.
    Whole(Response),
    /// Sends the response without its last bytes, and closes the connection.
    Cut(Response, usize),
    /// Resets the connection.
    Reset,
    /// Sends nothing.
    Silence,
}

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    framing: Framing,
}

/// How the client learns where the body ends.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length,
    Chunks,
}

impl Response {
    /// Creates a response without the headers of pRPC.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            framing: Framing::Length,
        }
    }

    /// Creates a page of metadata.
    #[must_use]
    pub fn page(metadata: Vec<InstanceMetadata>) -> Self {
        let message = cipd::ListMetadataResponse {
            metadata: metadata.into_iter().map(Into::into).collect(),
            next_page_token: String::new(),
        };
        Self::new(200, message.encode_to_vec())
            .with("X-Prpc-Grpc-Code", "0")
            .with("Content-Type", "application/prpc; encoding=binary")
    }

    /// Creates a pRPC error.
    #[must_use]
    pub fn error(http_status: u16, code: Code, message: &str) -> Self {
        Self::new(http_status, format!("{message}\n"))
            .with("X-Prpc-Grpc-Code", code.number().to_string())
            .with("Content-Type", "text/plain; charset=utf-8")
    }

    /// Sets a header. Replaces a header of the same name in the same case.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a detail of the error.
    #[must_use]
    pub fn with_detail(mut self, Detail { type_url, value }: Detail) -> Self {
        let detail = Any { type_url, value };
        let encoded = BASE64_STANDARD.encode(detail.encode_to_vec());
        self.headers.push(("X-Prpc-Status-Details-Bin", encoded));
        self
    }

    /// Returns the length of the body in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// Sends the body in chunks, without a `Content-Length`.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunks;
        self
    }

    /// Compresses the body.
    #[must_use]
    pub fn gzip(mut self) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&self.body).expect("writing to memory");
        self.body = encoder.finish().expect("writing to memory");
        self.with("Content-Encoding", "gzip")
    }

    /// Returns the bytes of the response.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Reason\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let length = self.body.len();
        let end = match self.framing {
            Framing::Length => {
                head += &format!("Content-Length: {length}\r\n\r\n");
                ""
            }
            Framing::Chunks => {
                head += &format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n");
                "\r\n0\r\n\r\n"
            }
        };
        [head.as_bytes(), &self.body, end.as_bytes()].concat()
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Whole(response)
    }
}
