//! Tickets, and connections with and without one.

use admission_grpc::TICKET;
use admission_grpc::host_client::HostClient;
use admission_proto::wire::plugin::LogRequest;
use conformance::{GRACE, error_of, host, pin};
use tonic::Code;

use super::{handshake, peer, report};

/// Logs a line with a ticket on a new connection, and returns the code of the reply.
async fn log(port: u16, ticket: &str) -> Code {
    let address = format!("http://127.0.0.1:{port}");
    let channel = tonic::transport::Endpoint::from_shared(address).expect("an address");
    let mut client = HostClient::new(channel.connect_lazy());
    let mut request = tonic::Request::new(LogRequest::default());
    request
        .metadata_mut()
        .insert(TICKET, ticket.parse().expect("ASCII"));
    match client.log(request).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

tests! {
    async fn every_call_needs_a_valid_ticket_and_the_first_of_several_counts() {
        let plugin = host().plugin(peer("tickets"));
        let invalid = "PermissionDenied invalid ticket in the request";
        assert_eq!(
            report(&plugin).await,
            format!(
                "Unauthenticated no ticket in the request; {invalid}; {invalid}; {invalid}; OK; OK"
            )
        );
        plugin.close(GRACE).await;
    }

    async fn an_unknown_method_is_unimplemented_even_without_a_ticket() {
        let plugin = host().plugin(peer("unknown-methods"));
        assert_eq!(
            report(&plugin).await,
            "Unimplemented unknown method Shutdown for service cipd.plugin.Host; \
             Unimplemented unknown method  for service cipd.plugin.Admissions; \
             Unimplemented unknown service grpc.health.v1.Health"
        );
        plugin.close(GRACE).await;
    }

    async fn a_ticket_is_revoked_when_its_process_exits() {
        let host = host();
        let (_other, ..) = handshake(&host).await;
        let (plugin, port, ticket) = handshake(&host).await;
        assert_eq!(log(port, &ticket).await, Code::Ok);
        let error = error_of(&plugin.check_admission(&pin("exit"))).await;
        assert_eq!(error.to_string(), "the admission plugin terminated: exit status 9");
        assert_eq!(log(port, &ticket).await, Code::PermissionDenied);
        host.close(GRACE).await;
    }

    async fn unauthenticated_connections_are_closed_and_do_not_affect_the_plugin() {
        let plugin = host().plugin(peer("unauthenticated"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        plugin.close(GRACE).await;
    }

    async fn a_busy_unauthenticated_connection_is_closed_to_make_room() {
        let plugin = host().plugin(peer("busy-connection"));
        assert_eq!(report(&plugin).await, "closed");
        plugin.close(GRACE).await;
    }

    async fn a_plugin_may_have_64_connections() {
        let plugin = host().plugin(peer("many-connections"));
        assert_eq!(
            report(&plugin).await,
            "ResourceExhausted too many connections with this ticket; OK"
        );
        plugin.close(GRACE).await;
    }
}
