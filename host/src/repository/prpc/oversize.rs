//! The error for a response that is larger than the client takes.

use admission_proto::wire::Message;
use admission_proto::{Code, Detail, Status};

/// The type of the detail that marks such an error, in both directions.
const DETAIL: &str = "luci.prpc.ErrorDetails";

/// Details of an error of pRPC itself.
#[derive(Clone, PartialEq, Message)]
struct ErrorDetails {
    #[prost(message, optional, tag = "1")]
    response_too_big: Option<ResponseTooBig>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ResponseTooBig {
    #[prost(int64, tag = "1")]
    response_size: i64,
    #[prost(int64, tag = "2")]
    response_limit: i64,
}

/// Creates the error, with the size of the response where it is known.
pub(super) fn status(size: Option<u64>, limit: usize) -> Status {
    let shown = size.map(|size| format!(" {size}")).unwrap_or_default();
    let text = format!("prpc: the response size{shown} exceeds the client limit {limit}");
    let details = ErrorDetails {
        response_too_big: Some(ResponseTooBig {
            response_size: size.and_then(|size| size.try_into().ok()).unwrap_or(0),
            response_limit: limit.try_into().unwrap_or(i64::MAX),
        }),
    };
    Status::new(Code::UNAVAILABLE, text).with_detail(Detail {
        type_url: format!("type.googleapis.com/{DETAIL}"),
        value: details.encode_to_vec(),
    })
}

/// Tells whether the service says in `status` that its response is too large.
pub(super) fn is_reported_by(status: &Status) -> bool {
    status.details.iter().any(|detail| {
        let name = detail.type_url.rsplit('/').next();
        name == Some(DETAIL)
            && ErrorDetails::decode(&*detail.value)
                .is_ok_and(|details| details.response_too_big.is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oversize_response_is_told_with_its_limit_and_its_size_if_known() {
        let known = status(Some(300), 100);
        assert_eq!(
            known.message,
            "prpc: the response size 300 exceeds the client limit 100"
        );
        // Field 1 holds fields 1 and 2, as varints: 300 is 0xac 0x02.
        assert_eq!(
            known.details[0].value,
            [0x0a, 5, 0x08, 0xac, 0x02, 0x10, 100]
        );
        assert!(is_reported_by(&known));
        assert_eq!(
            status(None, 100).message,
            "prpc: the response size exceeds the client limit 100"
        );
        assert!(is_reported_by(&status(None, 100)));
    }

    #[test]
    fn other_details_say_nothing_of_the_size() {
        let mut other = status(None, 100);
        other.details[0].value.clear();
        assert!(!is_reported_by(&other));
        let mut other = status(None, 100);
        other.details[0].type_url = "type.googleapis.com/other".into();
        assert!(!is_reported_by(&other));
    }
}
