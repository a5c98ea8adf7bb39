//! Requests to the fake service.

use std::io;

use admission_proto::wire::{Message as _, cipd};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// A received request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method and the path, as in `POST /path`.
    pub line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// Returns the value of a header. `name` must be in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// Decodes the body.
    ///
    /// # Panics
    ///
    /// If it is not a message.
    #[must_use]
    pub fn message(&self) -> cipd::ListMetadataRequest {
        cipd::ListMetadataRequest::decode(&*self.body).expect("a message")
    }

    /// Reads a request. Returns `None` if the client has closed the connection.
    pub(super) async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let Some(line) = read_line(stream).await? else {
            return Ok(None);
        };
        let line = line
            .strip_suffix(" HTTP/1.1")
            .unwrap_or_else(|| panic!("{line}"));
        let mut request = Self {
            line: line.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        while let Some(line) = read_line(stream).await? {
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            let name = name.to_ascii_lowercase();
            request.headers.push((name, value.trim().to_owned()));
        }
        let length = request.header("content-length");
        let length = length.and_then(|length| length.parse().ok());
        request.body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut request.body).await?;
        Ok(Some(request))
    }
}

async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    line.truncate(line.trim_end().len());
    Ok(Some(line))
}
