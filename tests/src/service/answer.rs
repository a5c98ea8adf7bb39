//! What the service answers, or does instead.

use std::io::Write as _;

use admission_host::{Code, Detail, InstanceMetadata};
use admission_proto::wire::{Any, Message as _, cipd};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It is answered.
    Whole(Response),
    /// It is answered but for the last bytes of the answer, and the connection closed.
    Cut(Response, usize),
    /// The connection is reset.
    Reset,
    /// It is never answered.
    Silence,
}

/// A response of HTTP.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    framing: Framing,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length,
    Chunks,
}

impl Response {
    /// Creates a response of something that speaks HTTP, but not pRPC.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            framing: Framing::Length,
        }
    }

    /// Creates the answer with these entries.
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

    /// Creates an error of the service.
    #[must_use]
    pub fn error(http_status: u16, code: Code, message: &str) -> Self {
        Self::new(http_status, format!("{message}\n"))
            .with("X-Prpc-Grpc-Code", code.number().to_string())
            .with("Content-Type", "text/plain; charset=utf-8")
    }

    /// Adds a header, instead of one of this name if there is one.
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
        let spelled = BASE64_STANDARD.encode(detail.encode_to_vec());
        self.headers.push(("X-Prpc-Status-Details-Bin", spelled));
        self
    }

    /// Returns how many bytes the body has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// Sends the body without saying beforehand how long it is.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunks;
        self
    }

    /// Compresses the body.
    #[must_use]
    pub fn gzip(mut self) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&self.body).expect("it goes to memory");
        self.body = encoder.finish().expect("it goes to memory");
        self.with("Content-Encoding", "gzip")
    }

    /// Returns the response as it is sent.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Whatever\r\n", self.status);
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
