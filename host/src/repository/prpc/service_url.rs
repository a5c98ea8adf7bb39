//! Which service is asked.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use super::PrpcRepositoryError;

/// The method that lists metadata.
const PATH: &str = "/prpc/cipd.Repository/ListMetadata";

/// The URL of a service: scheme, host and perhaps a port, and nothing else.
#[derive(Debug, Clone)]
pub(super) struct ServiceUrl(Url);

impl ServiceUrl {
    pub(super) fn parse(url: &str) -> Result<Self, PrpcRepositoryError> {
        let mut parsed = Url::parse(url).map_err(|error| PrpcRepositoryError::Url {
            url: url.to_owned(),
            source: Box::new(error),
        })?;
        let is_bare =
            parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
        let is_anonymous = parsed.username().is_empty() && parsed.password().is_none();
        if !matches!(parsed.scheme(), "http" | "https") || !is_bare || !is_anonymous {
            // A URL without a host has no password either.
            let hidden = parsed
                .set_password(None)
                .and_then(|()| parsed.set_username(""));
            let shown = hidden.map_or_else(|()| url.to_owned(), |()| parsed.to_string());
            return Err(PrpcRepositoryError::NotAService(shown));
        }
        Ok(Self(parsed))
    }

    /// Returns where to ask for metadata.
    pub(super) fn method(&self) -> Url {
        let mut url = self.0.clone();
        url.set_path(PATH);
        url
    }

    /// Tells whether `url` is another spelling of this one.
    pub(super) fn is(&self, url: &str) -> bool {
        Url::parse(url).is_ok_and(|url| url == self.0)
    }

    /// Tells whether nobody on the way can read along.
    pub(super) fn is_private(&self) -> bool {
        self.is_https() || self.is_loopback()
    }

    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Tells whether the service runs on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServiceUrl {
        ServiceUrl::parse(text).expect("the URL of a service")
    }

    #[test]
    fn a_service_has_scheme_host_and_port() {
        for (given, shown) in [
            ("https://example.com", "https://example.com"),
            ("HTTPS://Example.com:443/", "https://example.com"),
            ("http://example.com:8080", "http://example.com:8080"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(url(given).to_string(), shown);
        }
        assert_eq!(
            url("https://example.com:1/").method().as_str(),
            "https://example.com:1/prpc/cipd.Repository/ListMetadata"
        );
    }

    #[test]
    fn what_is_no_service_is_refused_without_its_password() {
        let text = |given| ServiceUrl::parse(given).expect_err("refused").to_string();
        assert_eq!(text("example.com"), "not a URL: `example.com`");
        for (given, shown) in [
            ("ftp://example.com/", "ftp://example.com/"),
            ("file:///etc", "file:///etc"),
            ("https://example.com/cipd", "https://example.com/cipd"),
            ("https://example.com?a", "https://example.com/?a"),
            ("https://user:secret@example.com", "https://example.com/"),
        ] {
            assert_eq!(
                text(given),
                format!(
                    "`{shown}` does not name a CIPD service: only scheme, host and port do, as in https://host.example"
                )
            );
        }
    }

    #[test]
    fn only_https_and_this_machine_are_private() {
        for private in [
            "https://example.com",
            "http://localhost:8080",
            "http://127.0.0.2",
            "http://[::1]",
        ] {
            assert!(url(private).is_private(), "{private}");
        }
        for public in [
            "http://example.com",
            "http://10.0.0.1",
            "http://localhost.example",
        ] {
            assert!(!url(public).is_private(), "{public}");
        }
    }
}
