//! The CIPD service that pins belong to.

use std::fmt;
use std::str::FromStr;

use admission_proto::quote;
use url::Url;

/// Where pins are unless somebody says otherwise.
const DEFAULT: &str = "https://chrome-infra-packages.appspot.com";

/// The URL of a CIPD service, spelled as plugins are told: `scheme://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceUrl(String);

/// A string that is not the URL of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expecting a root URL such as {DEFAULT}, not {}", quote(.0))]
pub(crate) struct ServiceUrlError(String);

impl ServiceUrl {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ServiceUrl {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl FromStr for ServiceUrl {
    type Err = ServiceUrlError;

    /// Reads an `http` or `https` URL that has nothing after its host, except one slash.
    fn from_str(url: &str) -> Result<Self, ServiceUrlError> {
        let refused = || ServiceUrlError(url.to_owned());
        let (scheme, host) = url.split_once("://").ok_or_else(refused)?;
        let scheme = scheme.to_ascii_lowercase();
        let host = host.strip_suffix('/').unwrap_or(host);
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._~:[]".contains(c);
        if !matches!(&*scheme, "http" | "https") || host.is_empty() || !host.chars().all(is_host) {
            return Err(refused());
        }
        let spelled = format!("{scheme}://{host}");
        match Url::parse(&spelled) {
            Ok(_) => Ok(Self(spelled)),
            Err(_) => Err(refused()),
        }
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_url_is_spelled_without_a_slash_at_its_end() {
        for (url, spelled) in [
            ("https://cipd.example.com", "https://cipd.example.com"),
            ("https://cipd.example.com/", "https://cipd.example.com"),
            ("HTTP://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://[::1]:443", "https://[::1]:443"),
        ] {
            assert_eq!(url.parse().as_ref().map(ServiceUrl::as_str), Ok(spelled));
        }
        assert_eq!(DEFAULT.parse(), Ok(ServiceUrl::default()));
    }

    #[test]
    fn anything_else_is_no_service() {
        for url in [
            "",
            "cipd.example.com",
            "https://",
            "https:///",
            "https://cipd.example.com//",
            "https://cipd.example.com/path",
            "https://cipd.example.com?query",
            "https://user:password@cipd.example.com",
            "ftp://cipd.example.com",
            "https://cipd example.com",
            "https://:443",
            "https://[",
            "https://cipd.example.com:99999",
        ] {
            assert!(url.parse::<ServiceUrl>().is_err(), "{url}");
        }
    }
}
