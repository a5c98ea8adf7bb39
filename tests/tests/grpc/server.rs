//! The gRPC server of a host.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use admission_host::{ErrorKind, Exit, PluginState};
use conformance::{GRACE, error_of, eventually, host, pin};
use futures_util::future::join_all;
use rustix::net::{self, Shutdown};
use rustix::process::{self, PidfdFlags, PidfdGetfdFlags};
use tokio::runtime::Handle;

use super::{handshake, peer};

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

tests! {
    async fn all_plugins_share_one_port_and_each_has_its_own_ticket() {
        let host = host();
        let (first, port, ticket) = handshake(&host).await;
        let (second, other_port, other_ticket) = handshake(&host).await;
        assert_eq!(port, other_port);
        assert_ne!(ticket, other_ticket);
        assert_eq!(ticket.len(), 86);
        first.close(GRACE).await;
        second.close(GRACE).await;
    }

    async fn five_plugins_judge_checks_concurrently() {
        let host = host();
        let plugins: Vec<_> = (0..5).map(|_| host.plugin(peer(""))).collect();
        let pins: Vec<_> = (0..200).map(|n| pin(&format!("allow/{n}"))).collect();
        let promises = plugins.iter().flat_map(|plugin| {
            pins.iter().map(|pin| plugin.check_admission(pin).wait())
        });
        for outcome in join_all(promises).await {
            outcome.expect("admitted");
        }
        host.close(GRACE).await;
    }

    async fn closing_the_host_stops_the_server_and_leaves_no_task() {
        let host = host();
        let (plugin, port, _) = handshake(&host).await;
        let unauthenticated = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the host listens");
        host.close(GRACE).await;
        assert!(!listens(port));
        drop(unauthenticated);
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        eventually(|| Handle::current().metrics().num_alive_tasks() == 0).await;
        let late = host.plugin(peer(""));
        assert_eq!(
            error_of(&late.check_admission(&pin("a"))).await.to_string(),
            "failed to launch the plugins grpc server: the plugins host is already closed"
        );
    }

    async fn a_host_whose_server_never_listened_can_be_closed() {
        host().close(GRACE).await;
    }

    async fn the_server_stops_when_the_host_and_its_plugins_are_dropped() {
        let host = host();
        let (plugin, port, _) = handshake(&host).await;
        drop(host);
        assert!(listens(port));
        drop(plugin);
        eventually(|| !listens(port)).await;
    }

    async fn a_server_failure_breaks_all_plugins_and_fails_later_launches() {
        let host = host();
        let (first, port, _) = handshake(&host).await;
        let (second, ..) = handshake(&host).await;
        break_listener(port);
        for plugin in [&first, &second] {
            eventually(|| plugin.state() == PluginState::Broken).await;
            let error = error_of(&plugin.check_admission(&pin("a"))).await;
            assert_eq!(error.kind(), ErrorKind::Crash);
            assert_eq!(
                error.to_string(),
                "the plugins grpc server has failed: Invalid argument (os error 22)"
            );
            assert_ne!(plugin.close(GRACE).await, Exit::KilledByHost);
        }
        let third = host.plugin(peer(""));
        let error = error_of(&third.check_admission(&pin("a"))).await;
        assert_eq!(error.kind(), ErrorKind::Launch);
        assert_eq!(
            error.to_string(),
            "failed to launch the plugins grpc server: Invalid argument (os error 22)"
        );
        host.close(GRACE).await;
    }
}

/// Makes the listening socket of this process at `port` fail.
#[expect(
    clippy::disallowed_methods,
    reason = "looks for the socket among all descriptors"
)]
fn break_listener(port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let this = process::pidfd_open(process::getpid(), PidfdFlags::empty()).expect("a pidfd");
    let descriptors = fs::read_dir("/proc/self/fd").expect("procfs is mounted");
    for descriptor in descriptors {
        let name = descriptor.expect("a readable entry").file_name();
        let number = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .expect("a number");
        // Some descriptors have been closed since, and most are not sockets.
        let Ok(socket) = process::pidfd_getfd(&this, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let listens = net::sockopt::socket_acceptconn(&socket) == Ok(true);
        let local = net::getsockname(&socket)
            .ok()
            .and_then(|name| name.try_into().ok());
        if listens && local == Some(address) {
            net::shutdown(&socket, Shutdown::Both).expect("a listening socket");
            return;
        }
    }
    panic!("no socket listens at {port}");
}
