//! Metadata calls of a plugin, in every mode.

use std::time::Duration;

use conformance::repositories::{Gated, Scripted, entries};
use conformance::{
    Code, ErrorKind, GRACE, MetadataPage, Mode, Plugin, PluginOptions, PluginState, Promise,
    error_of, eventually, host_with, in_every_mode, in_every_stdio_mode, pin,
};

/// Size of the largest valid value.
const LARGE: usize = 512 << 10;

/// Returns the message of a fixture that has visited `count` entries.
fn keys(count: usize) -> String {
    let keys: Vec<_> = entries(count, 0)
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    keys.join(" ")
}

async fn texts_of(promises: &[Promise]) -> Vec<String> {
    let mut texts = Vec::new();
    for promise in promises {
        texts.push(error_of(promise).await.to_string());
    }
    texts
}

fn check_many<const N: usize>(plugin: &Plugin, package: &str) -> [Promise; N] {
    std::array::from_fn(|n| plugin.check_admission(&pin(&format!("{package}/{n}"))))
}

in_every_mode! {
    async fn a_package_with_16_mib_of_metadata_is_judged(mode: Mode) {
        let repository = Scripted::at_once(32, LARGE);
        let plugin = host_with(repository.clone()).plugin(mode.fixture(""));
        let visited = error_of(&plugin.check_admission(&pin("visit-all/20"))).await;
        assert_eq!(visited.to_string(), keys(32));
        assert_eq!(repository.calls(), 1);
        plugin.close(GRACE).await;
    }

    async fn a_listing_too_large_to_keep_is_fetched_again(mode: Mode) {
        let repository = Scripted::at_once(96, LARGE);
        let plugin = host_with(repository.clone()).plugin(mode.fixture(""));
        let visited = error_of(&plugin.check_admission(&pin("visit-all/20"))).await;
        assert_eq!(visited.to_string(), keys(96));
        // Of the 48 MiB, the host delivers 3 MiB at once and keeps 32 MiB.
        assert_eq!(repository.calls(), 2);
        plugin.close(GRACE).await;
    }

    async fn a_listing_that_changes_between_fetches_is_an_error(mode: Mode) {
        let repository = Scripted::new(|call, _| Ok(MetadataPage::new(entries(96 - call, LARGE), "")));
        let plugin = host_with(repository).plugin(mode.fixture(""));
        let error = error_of(&plugin.check_admission(&pin("visit-all/20"))).await;
        assert_eq!(error.code(), Some(Code::ABORTED));
        assert_eq!(error.kind(), ErrorKind::PolicyError);
        assert_eq!(
            error.to_string(),
            r#"the metadata of "visit-all/20" has changed while it was being listed"#
        );
        plugin.close(GRACE).await;
    }

    async fn more_listings_than_the_host_keeps_are_fetched_again(mode: Mode) {
        let repository = Scripted::at_once(32, LARGE);
        let plugin = host_with(repository.clone()).plugin(mode.fixture("in-turns"));
        let visited = texts_of(&check_many::<4>(&plugin, "a")).await;
        assert_eq!(visited, [keys(32), keys(32), keys(32), keys(32)]);
        // The rest of each listing has 13 MiB, and the host keeps two of the four.
        assert!(repository.calls() > 4, "{} calls", repository.calls());
        plugin.close(GRACE).await;
    }

    async fn pages_have_the_requested_size(mode: Mode) {
        let repository = Scripted::at_once(15, 1);
        let plugin = host_with(repository.clone()).plugin(mode.fixture("page-sizes"));
        for (package, sizes) in [("a/7", "7 7 1"), ("a/15", "15"), ("a/0", "15")] {
            let seen = error_of(&plugin.check_admission(&pin(package))).await;
            assert_eq!(seen.to_string(), sizes);
        }
        assert_eq!(repository.calls(), 3);
        plugin.close(GRACE).await;
    }

    async fn a_cut_page_is_delivered_whole_before_the_next_page(mode: Mode) {
        let repository = Scripted::new(|_, request| {
            let mut all = entries(40, LARGE);
            match &*request.page_token {
                "" => {
                    all.truncate(20);
                    Ok(MetadataPage::new(all, "second"))
                }
                "second" => Ok(MetadataPage::new(all.split_off(20), "third")),
                "third" => Ok(MetadataPage::default()),
                other => panic!("not a token of the repository: {other}"),
            }
        });
        let plugin = host_with(repository.clone()).plugin(mode.fixture(""));
        let visited = error_of(&plugin.check_admission(&pin("visit-all/20"))).await;
        assert_eq!(visited.to_string(), keys(40));
        assert_eq!(repository.calls(), 3);
        plugin.close(GRACE).await;
    }

    async fn a_repeated_page_token_is_an_error(mode: Mode) {
        let repository = Scripted::new(|_, _| Ok(MetadataPage::new(entries(1, 1), "again")));
        let plugin = host_with(repository.clone()).plugin(mode.fixture(""));
        let error = error_of(&plugin.check_admission(&pin("visit-all/20"))).await;
        assert_eq!(error.code(), Some(Code::INTERNAL));
        assert_eq!(error.to_string(), r#"the repository repeats the page token "again""#);
        assert_eq!(repository.calls(), 2);
        plugin.close(GRACE).await;
    }

    async fn an_entry_too_large_for_a_frame_is_an_error(mode: Mode) {
        let repository = Scripted::at_once(1, 4 << 20);
        let plugin = host_with(repository).plugin(mode.fixture(""));
        let error = error_of(&plugin.check_admission(&pin("visit-all/20"))).await;
        assert_eq!(error.code(), Some(Code::RESOURCE_EXHAUSTED));
        assert_eq!(plugin.state(), PluginState::Running);
        plugin.close(GRACE).await;
    }

    async fn large_replies_wait_until_the_plugin_reads(mode: Mode) {
        let repository = Scripted::at_once(6, LARGE);
        let plugin = host_with(repository.clone()).plugin(mode.fixture("eight-calls"));
        // The replies have 24 MiB, and 16 MiB of unwritten replies would break the plugin.
        let seen = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(seen.to_string(), "6 6 6 6 6 6 6 6");
        assert_eq!(repository.calls(), 8);
        plugin.close(GRACE).await;
    }
}

in_every_stdio_mode! {
    async fn the_rest_of_a_cut_page_is_dropped_with_its_check(mode: Mode) {
        let repository = Scripted::at_once(10, 1);
        let plugin = host_with(repository.clone()).plugin(mode.fixture("continue-listing"));
        let first = error_of(&plugin.check_admission(&pin("a"))).await;
        let second = error_of(&plugin.check_admission(&pin("b"))).await;
        assert_eq!([first.to_string(), second.to_string()], [keys(7), keys(10)]);
        assert_eq!(repository.calls(), 2);
        plugin.close(GRACE).await;
    }

    async fn concurrent_identical_calls_share_one_fetch(mode: Mode) {
        let scripted = Scripted::at_once(3, 1);
        let repository = Gated::new(scripted.clone());
        let plugin = host_with(repository.clone()).plugin(mode.fixture("shared"));
        let promises = check_many::<20>(&plugin, "ask");
        // The plugin sends in order: its calls arrive before the first verdict, and are handled
        // before the second.
        for package in ["allow/first", "allow/second"] {
            plugin.check_admission(&pin(package)).wait().await.expect("admitted");
        }
        assert_eq!(repository.under_way(), 1);
        repository.open();
        assert!(texts_of(&promises).await.iter().all(|visited| *visited == keys(3)));
        assert_eq!(scripted.calls(), 1);
        plugin.close(GRACE).await;
    }

    async fn a_shared_fetch_is_cancelled_with_the_last_of_its_checks(mode: Mode) {
        let repository = Gated::new(Scripted::at_once(1, 1));
        let plugin = host_with(repository.clone()).plugin(mode.fixture("shared"));
        let [first, second] = check_many::<2>(&plugin, "ask");
        plugin.check_admission(&pin("allow/asked")).wait().await.expect("admitted");
        eventually(|| repository.under_way() > 0).await;

        let reply = error_of(&plugin.check_admission(&pin("decide/first"))).await;
        assert_eq!(error_of(&first).await.to_string(), "denied first");
        assert_eq!(reply.code(), Some(Code::CANCELLED));
        assert_eq!(reply.to_string(), "the admission check has ended");
        assert_eq!(repository.under_way(), 1);
        assert!(!second.is_settled());

        let reply = error_of(&plugin.check_admission(&pin("decide/second"))).await;
        assert_eq!(error_of(&second).await.to_string(), "denied first");
        assert_eq!(reply.code(), Some(Code::CANCELLED));
        eventually(|| repository.under_way() == 0).await;
        plugin.close(GRACE).await;
    }

    async fn a_shared_fetch_is_cancelled_when_all_its_checks_time_out(mode: Mode) {
        let repository = Gated::new(Scripted::at_once(1, 1));
        // Long enough to observe the call before it ends.
        let options = PluginOptions::default().check_timeout(Duration::from_secs(2));
        let plugin = host_with(repository.clone()).plugin_with_options(mode.fixture("shared"),
            options,
        );
        let promises = check_many::<3>(&plugin, "ask");
        eventually(|| repository.under_way() == 1).await;
        for promise in promises {
            assert_eq!(error_of(&promise).await.kind(), ErrorKind::Timeout);
        }
        eventually(|| repository.under_way() == 0).await;
        assert_eq!(plugin.state(), PluginState::Running);
        plugin.close(GRACE).await;
    }
}
