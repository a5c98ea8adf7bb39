//! The URL of a CIPD service.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::text::quote;

/// The service that the reference uses by default.
const DEFAULT: &str = "https://chrome-infra-packages.appspot.com";

/// The URL of a CIPD service: `http` or `https`, a host and perhaps a port.
///
/// The reference's `NewClient` normalises its URL to `scheme://host[:port]` and sends plugins
/// this form. [`as_str`](Self::as_str) returns the same form: the scheme in lowercase, host
/// and port unchanged, and without the trailing slash:
///
/// ```
/// # use admission_proto::ServiceUrl;
/// let url: ServiceUrl = "HTTPS://Example.com:443/".parse()?;
/// assert_eq!(url.as_str(), "https://Example.com:443");
/// assert!(url.is_same_service(&"https://example.com".parse()?));
/// # Ok::<(), admission_proto::ServiceUrlError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceUrl {
    url: String,
    /// Without the brackets of an IPv6 address.
    host: String,
    /// The default of the scheme if the URL has no port.
    port: u16,
}

/// A string is not the URL of a CIPD service. The text hides a possible password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expecting a root URL such as {DEFAULT}, not {}", quote(.0))]
pub struct ServiceUrlError(String);

impl ServiceUrl {
    /// Returns the URL as `scheme://host[:port]`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Returns whether the scheme is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// Returns whether the host is `localhost` or a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let is_loopback_address = |ip: IpAddr| ip.is_loopback();
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse().is_ok_and(is_loopback_address)
    }

    /// Returns whether `other` has the same scheme, host and port, so that both URLs reach
    /// the same service.
    #[must_use]
    pub fn is_same_service(&self, other: &Self) -> bool {
        self.is_https() == other.is_https()
            && self.host.eq_ignore_ascii_case(&other.host)
            && self.port == other.port
    }

    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match &*scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<Ipv6Addr>().ok()?;
                (address, port)
            }
            None => {
                let (host, port) =
                    authority.split_at(authority.find(':').unwrap_or(authority.len()));
                let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
                if host.is_empty() || !host.chars().all(is_legal) {
                    return None;
                }
                (host, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            None if port.is_empty() => default_port,
            _ => return None,
        };
        Some(Self {
            url: format!("{scheme}://{authority}"),
            host: host.to_owned(),
            port,
        })
    }
}

impl Default for ServiceUrl {
    fn default() -> Self {
        Self::parse(DEFAULT).expect("a root URL")
    }
}

impl FromStr for ServiceUrl {
    type Err = ServiceUrlError;

    fn from_str(url: &str) -> Result<Self, ServiceUrlError> {
        Self::parse(url).ok_or_else(|| match url.rsplit_once('@') {
            Some((_, host)) => ServiceUrlError(format!("***@{host}")),
            None => ServiceUrlError(url.to_owned()),
        })
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServiceUrl {
        text.parse().expect("the URL of a service")
    }

    #[test]
    fn a_service_url_is_normalised_as_the_reference_does() {
        for (given, normalised) in [
            ("https://cipd.example.com", "https://cipd.example.com"),
            ("https://cipd.example.com/", "https://cipd.example.com"),
            ("HTTP://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://[::1]:443", "https://[::1]:443"),
        ] {
            assert_eq!(url(given).as_str(), normalised);
        }
        assert_eq!(url(DEFAULT), ServiceUrl::default());
    }

    #[test]
    fn a_url_that_is_not_a_root_url_is_rejected() {
        for text in [
            "",
            "cipd.example.com",
            "https://",
            "https:///",
            "https://cipd.example.com//",
            "https://cipd.example.com/path",
            "https://cipd.example.com?query",
            "https://cipd.example.com#fragment",
            "ftp://cipd.example.com",
            "https://cipd example.com",
            "https://:443",
            "https://[",
            "https://[::1",
            "https://[cipd]",
            "https://[::1]8080",
            "https://cipd.example.com:",
            "https://cipd.example.com:+80",
            "https://cipd.example.com:99999",
        ] {
            assert!(text.parse::<ServiceUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_hides_a_password() {
        let error = "https://user:se@cret@example.com"
            .parse::<ServiceUrl>()
            .expect_err("it has a user");
        assert_eq!(
            error.to_string(),
            format!(r#"expecting a root URL such as {DEFAULT}, not "***@example.com""#)
        );
    }

    #[test]
    fn urls_with_the_same_scheme_host_and_port_are_the_same_service() {
        let service = url("https://example.com");
        for same in ["https://EXAMPLE.com", "https://example.com:443/"] {
            assert!(service.is_same_service(&url(same)), "{same}");
        }
        for other in [
            "http://example.com",
            "https://example.com:80",
            "https://example.org",
        ] {
            assert!(!service.is_same_service(&url(other)), "{other}");
        }
    }

    #[test]
    fn localhost_and_loopback_addresses_are_loopback() {
        for loopback in [
            "http://localhost:8080",
            "http://127.0.0.2",
            "http://[::1]:80",
        ] {
            assert!(url(loopback).is_loopback(), "{loopback}");
        }
        for other in [
            "http://example.com",
            "http://10.0.0.1",
            "http://localhost.example",
        ] {
            assert!(!url(other).is_loopback(), "{other}");
        }
    }
}
