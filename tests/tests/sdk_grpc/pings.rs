//! A plugin sends no pings, because the reference's host treats them as abuse.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use conformance::guarded;
use conformance::modes::native;
use conformance::peer::host::{Event, PeerHost};

use super::close;
use super::metadata::{entry, page};

/// What a client sends before its first frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const PING: u8 = 6;

/// The flag of the reply to a ping.
const ACK: u8 = 1;

#[tokio::test]
async fn a_plugin_answers_pings_and_sends_none() {
    guarded(async {
        // Large replies make a client with adaptive windows send pings.
        let host = PeerHost::start();
        let behaviour = page(vec![entry("k", vec![b'x'; 1 << 20])], "");
        let mut plugin = host.spawn([native("conformance-fixture")], behaviour);
        let (port, tapped) = tap(host.port());
        let line = plugin.handshake(port);
        plugin.write(line.as_bytes()).await;
        plugin.connected().await;
        for check in 0..20 {
            plugin.ask(&check.to_string(), "metadata").await;
            assert!(matches!(plugin.event().await, Event::Listed(_)));
            assert_eq!(plugin.verdict().await.1, 0);
        }
        close(plugin).await;
        let frames = frames(&tapped.join().expect("the tap does not panic"));
        let calls = frames.iter().filter(|(kind, _)| *kind == HEADERS).count();
        assert!(calls >= 41, "{calls} calls seen");
        let is_ping = |&&(kind, flags): &&(u8, u8)| kind == PING && flags & ACK == 0;
        assert_eq!(frames.iter().filter(is_ping).count(), 0);
    })
    .await;
}

/// Forwards a connection of a plugin to the host on `port`. Returns the port for the plugin,
/// and a thread that returns what the plugin has sent.
fn tap(port: u16) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let own = listener.local_addr().expect("it has an address").port();
    let tapped = thread::spawn(move || {
        let (mut plugin, _) = listener.accept().expect("the plugin connects");
        let mut host = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the host listens");
        let mut answers = host.try_clone().expect("a descriptor");
        let mut back = plugin.try_clone().expect("a descriptor");
        let answering = thread::spawn(move || {
            // Either side may disconnect first.
            let _ = io::copy(&mut answers, &mut back);
        });
        let mut sent = Vec::new();
        let mut chunk = [0; 16 << 10];
        while let Ok(n @ 1..) = plugin.read(&mut chunk) {
            sent.extend_from_slice(&chunk[..n]);
            if host.write_all(&chunk[..n]).is_err() {
                break;
            }
        }
        let _ = host.shutdown(Shutdown::Both);
        answering.join().expect("it does not panic");
        sent
    });
    (own, tapped)
}

/// Returns the type and the flags of each frame that a client has sent.
fn frames(mut sent: &[u8]) -> Vec<(u8, u8)> {
    sent = sent.strip_prefix(PREFACE).expect("it speaks HTTP/2");
    let mut frames = Vec::new();
    while let Some((&[high, middle, low, kind, flags, _, _, _, _], rest)) =
        sent.split_first_chunk::<9>()
    {
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        frames.push((kind, flags));
        sent = rest.get(length..).unwrap_or_default();
    }
    frames
}
