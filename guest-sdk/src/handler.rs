//! The interface of a policy, and how a check runs it.

use std::sync::Arc;

use admission_proto::{Admission, Status};

use crate::check::Check;
use crate::session::Session;
use crate::{InstanceInfo, panic};

/// Judges package instances: the rules of a policy.
///
/// Every `async fn(Admission, InstanceInfo) -> Result<(), Status>` is a handler, and so is a
/// closure `|admission: Admission, info: InstanceInfo| async move { .. }`. A type with state
/// implements the trait:
///
/// ```
/// use admission_sdk::{Admission, Handler, InstanceInfo, Status};
///
/// struct OnlyBelow {
///     prefix: String,
/// }
///
/// impl Handler for OnlyBelow {
///     async fn handle(&self, admission: Admission, _: InstanceInfo) -> Result<(), Status> {
///         if admission.package.starts_with(&self.prefix) {
///             return Ok(());
///         }
///         Err(Status::denied(format!("only {}* may be deployed", self.prefix)))
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Judges one package instance. Only `Ok(())` admits it.
    ///
    /// When the host closes the plugin, the future is dropped, even if it is not ready.
    ///
    /// # Errors
    ///
    /// [`Status::denied`] denies; any other status means that the check failed. A status with
    /// code OK does not admit: it is sent as INTERNAL.
    fn handle(
        &self,
        admission: Admission,
        info: InstanceInfo,
    ) -> impl Future<Output = Result<(), Status>> + Send;
}

impl<F, Answer> Handler for F
where
    F: Fn(Admission, InstanceInfo) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<(), Status>> + Send + 'static,
{
    fn handle(
        &self,
        admission: Admission,
        info: InstanceInfo,
    ) -> impl Future<Output = Result<(), Status>> + Send {
        self(admission, info)
    }
}

/// Runs the handler on one check, and sends the verdict.
pub(crate) async fn judge(session: Arc<Session>, handler: Arc<impl Handler>, check: Arc<Check>) {
    let admission = check.admission.clone();
    let info = InstanceInfo::new(Arc::clone(&session), Arc::clone(&check));
    // A handler may panic before it returns its future, so `catch` includes the call.
    let judging = panic::catch(async move { handler.handle(admission, info).await });
    let outcome = check.scope(judging).await;
    session.settle(&check, outcome);
}
