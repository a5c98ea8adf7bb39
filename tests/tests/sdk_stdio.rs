//! Native plugins built with the SDK, under a host that speaks frames.

mod driver;

use std::collections::BTreeSet;
use std::net::Shutdown;
use std::thread;

use admission_proto::frame;
use admission_proto::wire::stdio::{HostFrame, ListMetadataCall, plugin_frame::Frame};

use driver::{Plugin, admission, failure, page, within_a_minute};

const CANCELLED: i32 = 1;
const PERMISSION_DENIED: i32 = 7;
const FAILED_PRECONDITION: i32 = 9;
const ABORTED: i32 = 10;
const INTERNAL: i32 = 13;

fn verdict(id: &str, code: i32, message: &str) -> (String, i32, String) {
    (id.into(), code, message.into())
}

fn metadata_call(plugin: &mut Plugin) -> ListMetadataCall {
    match plugin.receive() {
        Frame::ListMetadata(call) => call,
        other => panic!("{other:?} is not a metadata call"),
    }
}

#[test]
fn checks_are_admitted_and_denied() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "fine");
        assert_eq!(plugin.verdict(), verdict("1", 0, ""));
        plugin.ask("2", "deny");
        assert_eq!(
            plugin.verdict(),
            verdict("2", FAILED_PRECONDITION, "because")
        );
        let (exit, stderr) = plugin.finish();
        assert!(exit.success() && stderr.is_empty(), "{exit}, {stderr:?}");
    });
}

#[test]
fn handlers_may_use_timers() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "timer");
        assert_eq!(plugin.verdict(), verdict("1", 0, ""));
    });
}

#[test]
fn ten_thousand_checks_in_one_write_get_one_verdict_each() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        let mut bytes = Vec::new();
        for n in 0..10_000 {
            let frame = Some(admission(&n.to_string(), "fine"));
            frame::encode(&HostFrame { frame }, &mut bytes);
        }
        let mut stdin = plugin.stdin.take().expect("stdin is open");
        let writer = thread::spawn(move || {
            std::io::Write::write_all(&mut stdin, &bytes).expect("the plugin reads");
            stdin
        });
        let ids: BTreeSet<String> = (0..10_000).map(|_| plugin.verdict().0).collect();
        assert_eq!(ids.len(), 10_000);
        plugin.stdin = Some(writer.join().expect("the writer is done"));
        assert!(plugin.finish().0.success());
    });
}

#[test]
fn a_panic_aborts_its_check_and_the_plugin_keeps_running() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "panic");
        let text = "panic in the admission handler: boo 1";
        assert_eq!(plugin.verdict(), verdict("1", ABORTED, text));
        plugin.ask("2", "panic-without-text");
        let text = "panic in the admission handler: (the panic carries no text)";
        assert_eq!(plugin.verdict(), verdict("2", ABORTED, text));
        plugin.ask("3", "fine");
        assert_eq!(plugin.verdict(), verdict("3", 0, ""));
        let (exit, stderr) = plugin.finish();
        assert!(
            exit.success() && stderr.contains("boo 1"),
            "{exit}, {stderr:?}"
        );
    });
}

#[test]
fn prints_and_child_processes_cannot_write_between_frames() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "print");
        assert_eq!(plugin.verdict(), verdict("1", 0, ""));
        let (exit, stderr) = plugin.finish();
        assert!(exit.success());
        assert_eq!(stderr, "printed\nprinted by a child\n");
    });
}

#[test]
fn the_end_of_stdin_ends_a_plugin_whose_handler_waits_or_blocks() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "wait");
        plugin.ask("2", "block");
        assert!(matches!(plugin.receive(), Frame::Log(line) if line.message == "blocking"));
        assert!(plugin.finish().0.success());
    });
}

#[test]
fn the_end_of_stdin_before_any_frame_is_a_clean_end() {
    within_a_minute(|| assert!(Plugin::start("").finish().0.success()));
}

#[test]
fn the_end_of_stdin_after_the_last_line_is_a_clean_end() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "log");
        assert!(matches!(plugin.receive(), Frame::Log(line) if line.message == "loud"));
        plugin.stdin = None;
        // The verdict arrives if the handler was faster.
        if let Some(frame) = plugin.try_receive() {
            assert!(
                matches!(frame, Frame::ResolveAdmission(verdict) if verdict.admission_id == "1")
            );
            assert_eq!(plugin.try_receive(), None);
        }
        let (exit, stderr) = plugin.exit();
        assert!(exit.success() && stderr.is_empty(), "{exit}, {stderr:?}");
    });
}

#[test]
fn a_second_run_is_an_error() {
    within_a_minute(|| {
        let (exit, stderr) = Plugin::connect("twice", "info").finish();
        assert_eq!(exit.code(), Some(1));
        assert_eq!(stderr, "Error: a plugin can run only once in a process\n");
    });
}

#[test]
fn a_run_inside_a_runtime_is_an_error_that_names_run_plugin_async() {
    within_a_minute(|| {
        let (exit, stderr) = Plugin::start("inside-runtime").exit();
        assert_eq!(exit.code(), Some(1));
        assert!(
            stderr.contains("await `run_plugin_async` there"),
            "{stderr:?}"
        );
    });
}

#[test]
fn a_program_with_its_own_runtime_can_await_the_plugin() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("async", "info");
        plugin.ask("1", "timer");
        assert_eq!(plugin.verdict(), verdict("1", 0, ""));
        plugin.ask("2", "block");
        assert!(matches!(plugin.receive(), Frame::Log(_)));
        assert!(plugin.finish().0.success());
    });
}

#[test]
fn garbage_on_stdin_is_quoted_and_ends_the_plugin_at_once() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.send_bytes(b"\x02\xff\xff garbage");
        let (exit, stderr) = plugin.exit();
        assert_eq!(exit.code(), Some(1));
        assert!(stderr.contains(r#""\x02\xff\xff garbage""#), "{stderr:?}");
    });
}

#[test]
fn an_end_of_stdin_inside_a_frame_is_an_error() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.send_bytes(&[5, 1]);
        let (exit, stderr) = plugin.finish();
        assert_eq!(exit.code(), Some(1));
        assert!(stderr.contains("ended inside a frame"), "{stderr:?}");
    });
}

#[test]
fn a_verdict_that_cannot_be_written_ends_the_plugin() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin
            .stdout
            .shutdown(Shutdown::Both)
            .expect("it is connected");
        plugin.ask("1", "fine");
        let (exit, stderr) = plugin.exit();
        assert_eq!(exit.code(), Some(1));
        assert!(
            stderr.contains("(pending checks: 1): Broken pipe"),
            "{stderr:?}"
        );
    });
}

#[test]
fn the_host_chooses_the_log_level() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "debug");
        plugin.ask("1", "log");
        let mut line = || match plugin.receive() {
            Frame::Log(line) => (line.severity, line.message),
            other => panic!("{other:?} is not a log line"),
        };
        let quiet = r#"quiet :: {"entries":3}"#;
        assert_eq!(line(), ("debug".into(), quiet.into()));
        assert_eq!(line(), ("info".into(), "loud".into()));
    });
}

#[test]
fn a_forwarded_line_is_unchanged_and_sent_at_the_hosts_level() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "warning");
        plugin.ask("1", "forward");
        let Frame::Log(line) = plugin.receive() else {
            panic!("not a log line");
        };
        assert_eq!(line.severity, "warning");
        assert_eq!(line.message, "as\nit is :: {}");
        assert_eq!(plugin.verdict(), verdict("1", 0, ""));
    });
}

#[test]
fn a_flood_of_lines_arrives_whole_and_in_order() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "flood");
        for n in 0..100_000 {
            let Frame::Log(line) = plugin.receive() else {
                panic!("line {n} is missing");
            };
            assert!(line.message.starts_with(&format!("{n} x")));
        }
        assert_eq!(plugin.verdict(), verdict("1", 0, ""));
    });
}

#[test]
fn metadata_is_visited_page_by_page() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "metadata");
        let first = metadata_call(&mut plugin);
        let request = first.request.expect("a call has a request");
        assert_eq!(first.admission_id, "1");
        assert_eq!(request.service_url, "https://service");
        assert_eq!(request.package, "metadata");
        assert_eq!(request.instance.expect("it is there").hash_algo, 2);
        assert_eq!(request.keys, ["a", "b"]);
        assert_eq!((request.page_size, request.page_token.as_str()), (2, ""));
        plugin.reply(first.call_id, page(&["x", "y"], "more"));
        let second = metadata_call(&mut plugin);
        assert_ne!(second.call_id, first.call_id);
        assert_eq!(second.request.expect("it has one").page_token, "more");
        plugin.reply(second.call_id, page(&["z"], ""));
        assert_eq!(plugin.verdict(), verdict("1", FAILED_PRECONDITION, "x,y,z"));
    });
}

#[test]
fn a_visitor_that_breaks_fetches_no_further_page() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "first-metadata");
        let call = metadata_call(&mut plugin);
        assert_eq!(call.request.expect("it has one").page_size, 20);
        plugin.reply(call.call_id, page(&["x", "y"], "more"));
        assert_eq!(plugin.verdict(), verdict("1", 0, ""));
    });
}

#[test]
fn a_single_page_is_requested_and_returned_unchanged() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "page");
        let call = metadata_call(&mut plugin);
        let request = call.request.expect("a call has a request");
        assert_eq!((request.page_size, request.keys), (-1, vec!["a".into()]));
        assert_eq!(request.page_token, "from here");
        plugin.reply(call.call_id, page(&["x", "y"], "from here"));
        let answer = verdict("1", FAILED_PRECONDITION, "x,y; from here");
        assert_eq!(plugin.verdict(), answer);
    });
}

#[test]
fn a_failed_fetch_is_returned_unchanged() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "metadata");
        let call = metadata_call(&mut plugin);
        plugin.reply(call.call_id, failure(PERMISSION_DENIED, "not yours"));
        assert_eq!(
            plugin.verdict(),
            verdict("1", PERMISSION_DENIED, "not yours")
        );
    });
}

#[test]
fn a_repeated_page_token_is_an_error() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "metadata");
        for _ in 0..2 {
            let call = metadata_call(&mut plugin);
            plugin.reply(call.call_id, page(&[], "again"));
        }
        let text = r#"the host repeats the page token "again""#;
        assert_eq!(plugin.verdict(), verdict("1", INTERNAL, text));
    });
}

#[test]
fn at_most_eight_metadata_calls_are_in_flight_and_do_not_delay_other_checks() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        for n in 0..20 {
            plugin.ask(&n.to_string(), "metadata");
        }
        let mut calls: Vec<u64> = (0..8).map(|_| metadata_call(&mut plugin).call_id).collect();
        plugin.ask("other", "fine");
        // A ninth call in flight would arrive first.
        assert_eq!(plugin.verdict(), verdict("other", 0, ""));
        let mut settled = 0;
        while let Some(call_id) = calls.pop() {
            plugin.reply(call_id, page(&["x"], ""));
            let wanted = if settled + calls.len() + 1 < 20 { 2 } else { 1 };
            for _ in 0..wanted {
                match plugin.receive() {
                    Frame::ListMetadata(call) => calls.push(call.call_id),
                    Frame::ResolveAdmission(_) => settled += 1,
                    other => panic!("{other:?} was not expected"),
                }
            }
            assert!(calls.len() <= 8);
        }
        assert_eq!(settled, 20);
    });
}

#[test]
fn the_end_of_stdin_cancels_a_metadata_call() {
    within_a_minute(|| {
        let mut plugin = Plugin::connect("", "info");
        plugin.ask("1", "metadata");
        metadata_call(&mut plugin);
        plugin.stdin = None;
        // The handler may see the failure before its future is dropped.
        while let Some(frame) = plugin.try_receive() {
            match frame {
                Frame::ResolveAdmission(verdict) => {
                    assert_eq!(verdict.status.expect("it has one").code, CANCELLED);
                }
                other => panic!("{other:?} was not expected"),
            }
        }
        assert!(plugin.exit().0.success());
    });
}
