//! The example policy gives the same verdicts as the reference's example.

use admission_host::{ErrorKind, InstanceMetadata};
use conformance::repositories::{Failing, Recorded};
use conformance::{
    Code, GRACE, Mode, Pin, Plugin, Status, error_of, host_with, in_every_mode, pin,
};

/// Returns an entry that allows `digest`.
fn allows(digest: &str) -> InstanceMetadata {
    InstanceMetadata::new("allowed-sha256", digest)
}

async fn denial(plugin: &Plugin, pin: &Pin) -> String {
    let error = error_of(&plugin.check_admission(pin)).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    plugin.close(GRACE).await;
    error.to_string()
}

in_every_mode! {
    async fn experimental_packages_are_denied_without_a_metadata_call(mode: Mode) {
        let repository = Recorded::default();
        let plugin = host_with(repository.clone()).plugin(mode.policy());
        assert_eq!(
            denial(&plugin, &pin("experimental/a")).await,
            "experimental packages are not deployed"
        );
        assert!(repository.requests().is_empty());
    }

    async fn one_entry_with_the_hash_admits_the_pin(mode: Mode) {
        let pin = pin("tools/a");
        let digest = pin.instance().object_ref().hex_digest;
        let repository = Recorded::answering(vec![allows("another"), allows(&digest)]);
        let plugin = host_with(repository.clone()).plugin(mode.policy());
        plugin.check_admission(&pin).wait().await.expect("admitted");
        let [request] = &repository.requests()[..] else {
            panic!("one page is requested");
        };
        assert_eq!(request.package, pin.package());
        assert_eq!(request.instance, pin.instance().object_ref());
        assert_eq!(request.keys, ["allowed-sha256"]);
        assert_eq!((request.page_size, request.page_token.as_str()), (20, ""));
        plugin.close(GRACE).await;
    }

    async fn a_pin_without_an_entry_of_its_hash_is_denied(mode: Mode) {
        let plugin = host_with(Recorded::default()).plugin(mode.policy());
        assert_eq!(
            denial(&plugin, &pin("tools/a")).await,
            "it has no allowed-sha256 metadata"
        );
        let others = Recorded::answering(vec![allows("one"), allows("another")]);
        let plugin = host_with(others).plugin(mode.policy());
        assert_eq!(
            denial(&plugin, &pin("tools/a")).await,
            "no allowed-sha256 entry matches its digest (entries: 2)"
        );
    }

    async fn a_service_error_is_not_a_denial(mode: Mode) {
        let failing = Failing(Status::new(Code::UNAVAILABLE, "the service is down"));
        let plugin = host_with(failing).plugin(mode.policy());
        let error = error_of(&plugin.check_admission(&pin("tools/a"))).await;
        assert_eq!(error.kind(), ErrorKind::PolicyError);
        assert_eq!(error.code(), Some(Code::UNAVAILABLE));
        plugin.close(GRACE).await;
    }
}
