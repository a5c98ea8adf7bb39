//! Turns a panic in a handler into the verdict ABORTED on its check.
//!
//! A native plugin unwinds: [`catch`] turns the panic into a status, and the plugin keeps
//! running. A component cannot unwind, and traps after the panic hook. [`install_hook`]
//! therefore adds a hook that writes the verdict.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use admission_proto::{Code, Status};
use futures_util::FutureExt as _;

/// Runs a handler. Returns its outcome, or the status of its panic.
pub(crate) async fn catch(handler: impl Future<Output = Result<(), Status>>) -> Result<(), Status> {
    // The SDK's own state is consistent after every poll. The author of the handler is
    // responsible for the handler's state.
    let caught = AssertUnwindSafe(handler).catch_unwind().await;
    caught.unwrap_or_else(|payload| Err(describe_panic(payload.as_ref())))
}

/// Adds a panic hook that settles the current check and calls `write`, which writes the queued
/// frames. The previous hook runs afterwards.
#[cfg(target_arch = "wasm32")]
pub(crate) fn install_hook(
    session: std::sync::Arc<crate::session::Session>,
    write: fn(&crate::session::Session),
) {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(check) = crate::check::Check::current() {
            session.settle(&check, Err(describe_panic(panic.payload())));
            write(&session);
        }
        previous(panic);
    }));
}

/// Returns the status for a panic with this payload.
fn describe_panic(payload: &(dyn Any + Send)) -> Status {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(the panic carries no text)");
    Status::new(
        Code::ABORTED,
        format!("panic in the admission handler: {message}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_quotes_a_panic_that_is_text() {
        let message = |payload: &(dyn Any + Send)| describe_panic(payload).message;
        assert_eq!(message(&"boo"), "panic in the admission handler: boo");
        assert_eq!(
            message(&String::from("boo")),
            "panic in the admission handler: boo"
        );
        assert_eq!(
            message(&42),
            "panic in the admission handler: (the panic carries no text)"
        );
    }
}
