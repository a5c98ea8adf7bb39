use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::task::noop_waker;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::plugin::PluginOptions;
use crate::plugin::check_cache::Stamp;
use crate::plugin::core::{Services, Settings};
use crate::plugin::life::Order;
use crate::repository::MetadataFuture;
use crate::session::Event;
use crate::transport::stderr::StderrLog;
use crate::transport::{LaunchError, Launched, Launcher};
use admission_proto::wire::plugin::Admission;
use admission_proto::{InstanceMetadata, LogLevel, Pin};

const SERVICE: &str = "https://example.com";

/// Answers a fetch when the test says so.
#[derive(Default)]
struct Scripted {
    fetches: Mutex<HashMap<String, oneshot::Sender<MetadataPage>>>,
}

impl Repository for Scripted {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        let (sender, page) = oneshot::channel();
        let mut fetches = self.fetches.lock().expect("not poisoned");
        let other = fetches.insert(request.package, sender);
        assert!(other.is_none_or(|other| other.is_closed()), "asked twice");
        Box::pin(async { Ok(page.await.expect("answered by the test")) })
    }
}

/// Records replies as the key of the first entry, or the code of an error.
#[derive(Default)]
struct Replies(Vec<(u64, String)>);

impl Session for Replies {
    fn poll_write(&mut self, _: &mut Context<'_>) -> bool {
        false
    }

    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut Vec<Event>) -> bool {
        false
    }

    fn poll_drained(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn capacity(&self, max_in_flight: usize) -> usize {
        max_in_flight
    }

    fn send_admission(&mut self, _: Admission) {}

    fn reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>) {
        let text = match page {
            Ok(page) => page.metadata[0].key.clone(),
            Err(status) => status.code.to_string(),
        };
        self.0.push((call_id, text));
    }

    fn unwritten_replies(&self) -> usize {
        0
    }

    fn finish(&mut self) {}

    fn process_exited(&mut self) {}
}

struct NoLauncher;

impl Launcher for NoLauncher {
    fn launch(
        &self,
        _: StderrLog,
        _: CancellationToken,
    ) -> BoxFuture<'static, Result<Launched, LaunchError>> {
        unreachable!("nothing is launched")
    }
}

struct Fixture {
    repository: Arc<Scripted>,
    core: Core,
    calls: MetadataCalls,
    replies: Replies,
}

impl Fixture {
    fn new() -> Self {
        let repository = Arc::new(Scripted::default());
        let settings = Settings {
            runtime: Handle::current(),
            service_url: SERVICE.into(),
            repository: Some(Arc::clone(&repository) as Arc<dyn Repository>),
            plugin_log_level: LogLevel::Info,
            name: String::new(),
            version: String::new(),
        };
        let services = Arc::new(Services::new(settings));
        let options = PluginOptions::default().max_in_flight(100);
        Self {
            repository,
            core: Core::new("policy".into(), Box::new(NoLauncher), options, services),
            calls: MetadataCalls::new(),
            replies: Replies::default(),
        }
    }

    fn call(&mut self, call_id: u64, package: &str) {
        self.call_for(None, call_id, package);
    }

    fn call_for(&mut self, check: Option<CheckId>, call_id: u64, package: &str) {
        let call = MetadataCall {
            call_id,
            admission_id: check.map(CheckId::to_wire),
            service_url: SERVICE.into(),
            request: Ok(ListMetadata {
                package: package.into(),
                ..ListMetadata::default()
            }),
        };
        let accepted = self.calls.accept(call, &self.core, &mut self.replies);
        accepted.expect("its ID is free");
        self.poll();
    }

    /// Returns a check in flight.
    fn check(&self) -> CheckId {
        let pin = Pin::new("a", &"a".repeat(40)).expect("a valid pin");
        let stamp = || Stamp {
            nonce: 7,
            asked: Instant::now(),
        };
        self.core.life.check(&pin, None, stamp);
        let Order::Send(id, _) = self.core.life.next_order(1) else {
            panic!("there is a check to send");
        };
        id
    }

    /// Answers the fetch of a package with one entry, whose key is the package.
    fn arrive(&mut self, package: &str) {
        let fetch = self
            .repository
            .fetches
            .lock()
            .expect("not poisoned")
            .remove(package);
        let page = MetadataPage::new(vec![InstanceMetadata::new(package, "value")], "");
        fetch
            .expect("it was asked")
            .send(page)
            .expect("it is waited for");
        self.poll();
    }

    fn poll(&mut self) {
        let waker = noop_waker();
        self.calls
            .poll(&mut Context::from_waker(&waker), &mut self.replies);
    }

    /// Returns how many fetches the repository works on.
    fn fetches(&self) -> usize {
        let fetches = self.repository.fetches.lock().expect("not poisoned");
        fetches.values().filter(|fetch| !fetch.is_closed()).count()
    }

    fn replies(&mut self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.replies.0)
    }
}

#[tokio::test]
async fn equal_calls_share_a_fetch() {
    let mut fixture = Fixture::new();
    fixture.call(1, "a");
    fixture.call(2, "b");
    fixture.call(3, "a");
    assert_eq!(fixture.fetches(), 2);
    fixture.arrive("a");
    assert_eq!(fixture.replies(), [(1, "a".into()), (3, "a".into())]);
    fixture.call(4, "a");
    assert_eq!(fixture.fetches(), 2, "an old answer is not used again");
}

#[tokio::test]
async fn a_call_id_that_is_used_again_gets_its_own_answer() {
    let mut fixture = Fixture::new();
    fixture.call(1, "a");
    fixture.call(2, "a");
    fixture.calls.end(1);
    fixture.call(1, "b");
    fixture.arrive("a");
    assert_eq!(fixture.replies(), [(2, "a".into())]);
    fixture.arrive("b");
    assert_eq!(fixture.replies(), [(1, "b".into())]);
}

#[tokio::test]
async fn a_fetch_is_dropped_with_its_last_call() {
    let mut fixture = Fixture::new();
    fixture.call(1, "a");
    fixture.call(2, "a");
    fixture.calls.end(1);
    fixture.poll();
    assert_eq!(fixture.fetches(), 1);
    fixture.calls.end(2);
    fixture.poll();
    assert_eq!(fixture.fetches(), 0);
    fixture.call(3, "a");
    fixture.arrive("a");
    assert_eq!(fixture.replies(), [(3, "a".into())]);
}

#[tokio::test]
async fn further_calls_wait_for_one_of_the_fetches() {
    let mut fixture = Fixture::new();
    for call in 0..=MAX_FETCHES as u64 {
        fixture.call(call, &call.to_string());
    }
    assert_eq!(fixture.fetches(), MAX_FETCHES);
    fixture.arrive("3");
    assert_eq!(fixture.replies(), [(3, "3".into())]);
    assert_eq!(fixture.fetches(), MAX_FETCHES);
    assert!(fixture.calls.queue.is_empty());
    assert_eq!(fixture.calls.queued, 0);
}

#[tokio::test]
async fn a_call_in_the_queue_is_cancelled_with_its_check() {
    let mut fixture = Fixture::new();
    for call in 0..MAX_FETCHES as u64 {
        fixture.call(call, &call.to_string());
    }
    let check = fixture.check();
    fixture.call_for(Some(check), 100, "a");
    assert!(fixture.replies().is_empty());
    drop(fixture.core.life.take_expired(Instant::now()));
    let Fixture {
        core,
        calls,
        replies,
        ..
    } = &mut fixture;
    assert!(calls.end_with_checks(core, replies));
    assert!(!calls.end_with_checks(core, replies));
    let cancelled = Code::CANCELLED.to_string();
    assert_eq!(fixture.replies(), [(100, cancelled)]);
}
