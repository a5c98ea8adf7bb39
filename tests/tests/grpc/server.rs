//! The one server of a host.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use admission_grpc::TICKET;
use admission_grpc::host_client::HostClient;
use admission_host::{ErrorKind, Exit, PluginState};
use admission_proto::wire::plugin::LogRequest;
use conformance::{GRACE, Host, Plugin, error_of, eventually, guarded, host, pin};
use futures_util::future::join_all;
use rustix::net::{self, Shutdown};
use rustix::process::{self, PidfdFlags, PidfdGetfdFlags};
use tokio::runtime::Handle;
use tonic::Code;

use crate::calls::tests;
use crate::{peer, told};

/// Starts a plugin and returns the port and the ticket that it got.
async fn handshake(host: &Host) -> (Plugin, u16, String) {
    let plugin = host.plugin(peer("tell"));
    let told = told(&plugin).await;
    let (port, ticket) = told.split_once(' ').expect("two words");
    (plugin, port.parse().expect("a port"), ticket.to_owned())
}

/// Logs a line with a ticket, and returns the code of the answer.
async fn log(port: u16, ticket: &str) -> Code {
    let address = format!("http://127.0.0.1:{port}");
    let channel = tonic::transport::Endpoint::from_shared(address).expect("an address");
    let mut client = HostClient::new(channel.connect_lazy());
    let mut request = tonic::Request::new(LogRequest::default());
    request
        .metadata_mut()
        .insert(TICKET, ticket.parse().expect("of ASCII"));
    match client.log(request).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

tests! {
    async fn it_is_one_for_all_plugins_and_each_has_a_ticket_of_its_own() {
        let host = host();
        let (first, port, ticket) = handshake(&host).await;
        let (second, other_port, other_ticket) = handshake(&host).await;
        assert_eq!(port, other_port);
        assert_ne!(ticket, other_ticket);
        assert_eq!(ticket.len(), 86);
        first.close(GRACE).await;
        second.close(GRACE).await;
    }

    async fn five_plugins_are_judged_by_at_once() {
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

    async fn a_ticket_dies_with_its_process() {
        let host = host();
        let (_other, ..) = handshake(&host).await;
        let (plugin, port, ticket) = handshake(&host).await;
        assert_eq!(log(port, &ticket).await, Code::Ok);
        let error = error_of(&plugin.check_admission(&pin("exit"))).await;
        assert_eq!(error.to_string(), "the admission plugin terminated: exit status 9");
        assert_eq!(log(port, &ticket).await, Code::PermissionDenied);
        host.close(GRACE).await;
    }

    async fn the_close_of_the_host_ends_it_after_the_plugins_and_leaves_no_task() {
        let host = host();
        let (plugin, port, _) = handshake(&host).await;
        let stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        host.close(GRACE).await;
        assert!(!listens(port));
        drop(stranger);
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        eventually(|| Handle::current().metrics().num_alive_tasks() == 0).await;
        let late = host.plugin(peer(""));
        assert_eq!(
            error_of(&late.check_admission(&pin("a"))).await.to_string(),
            "failed to launch the plugins grpc server: the plugins host is already closed"
        );
    }

    async fn the_close_of_a_host_that_never_listened_is_a_close() {
        host().close(GRACE).await;
    }

    async fn without_a_host_and_without_plugins_it_ends() {
        let host = host();
        let (plugin, port, _) = handshake(&host).await;
        drop(host);
        assert!(listens(port));
        drop(plugin);
        eventually(|| !listens(port)).await;
    }

    async fn when_it_fails_all_plugins_end_and_no_more_are_launched() {
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

/// Makes the socket of this process that listens at `port` listen no more.
#[expect(
    clippy::disallowed_methods,
    reason = "it is looked for among all descriptors"
)]
fn break_listener(port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let this = process::pidfd_open(process::getpid(), PidfdFlags::empty()).expect("a pidfd");
    let descriptors = fs::read_dir("/proc/self/fd").expect("procfs is mounted");
    for descriptor in descriptors {
        let name = descriptor.expect("it can be read").file_name();
        let number = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .expect("a number");
        // Some are gone since, and most are no sockets.
        let Ok(socket) = process::pidfd_getfd(&this, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let listens = net::sockopt::socket_acceptconn(&socket) == Ok(true);
        let here = net::getsockname(&socket)
            .ok()
            .and_then(|name| name.try_into().ok());
        if listens && here == Some(address) {
            net::shutdown(&socket, Shutdown::Both).expect("it listens");
            return;
        }
    }
    panic!("nobody listens at {port}");
}
