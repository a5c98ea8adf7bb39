//! HTTP/2 as a plugin speaks it.

use bytes::{Bytes, BytesMut};
use conformance::guarded;
use conformance::modes::native;
use conformance::peer::host::{Behaviour, PeerHost, Plugin, SERVICE_URL, admission};
use h2::server::{Connection, SendResponse};
use h2::{Ping, RecvStream};
use http::{Request, Response};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// Connects the fixture to a plain HTTP/2 server. Returns its first call.
async fn connect() -> (Plugin, Connection<TcpStream, Bytes>, Call) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("it has an address").port();
    let host = PeerHost::start();
    let mut plugin = host.spawn([native("conformance-fixture")], Behaviour::default());
    let line = plugin.handshake(port);
    plugin.write(line.as_bytes()).await;
    let (stream, _) = listener.accept().await.expect("the plugin connects");
    let mut connection = h2::server::handshake(stream)
        .await
        .expect("it speaks HTTP/2");
    let call = connection
        .accept()
        .await
        .expect("it calls")
        .expect("a valid call");
    (plugin, connection, call)
}

/// Returns the body of a gRPC call with this message.
fn body(message: &impl Message) -> Bytes {
    let mut body = BytesMut::from(&[0; 5][..]);
    message.encode(&mut body).expect("it grows");
    let length = u32::try_from(body.len() - 5).expect("it is small");
    body[1..5].copy_from_slice(&length.to_be_bytes());
    body.freeze()
}

#[tokio::test]
async fn calls_have_the_headers_that_the_reference_expects() {
    guarded(async {
        let (plugin, connection, (request, _)) = connect().await;
        let ticket = plugin.ticket().to_owned();
        let uri = request.uri();
        assert_eq!(uri.scheme_str(), Some("http"));
        assert_eq!(uri.path(), "/cipd.plugin.Admissions/ListAdmissions");
        let authority = uri.authority().expect("it has one").as_str();
        assert!(authority.starts_with("127.0.0.1:"), "{authority}");
        let header = |name| {
            request
                .headers()
                .get(name)
                .map(|value| value.to_str().expect("text"))
        };
        assert_eq!(header("content-type"), Some("application/grpc"));
        assert_eq!(header("te"), Some("trailers"));
        assert_eq!(header("x-plugin-ticket"), Some(&ticket[..]));
        assert_eq!(header("grpc-timeout"), None);
        assert!(header("user-agent").is_some_and(|agent| agent.starts_with("admission-sdk/")));
        drop(connection);
    })
    .await;
}

#[tokio::test]
async fn a_ping_is_answered_while_every_handler_blocks_its_thread() {
    guarded(async {
        let (mut plugin, mut connection, (_, mut respond)) = connect().await;
        let mut pings = connection.ping_pong().expect("taken once");
        let serving =
            Handle::current().spawn(async move { while connection.accept().await.is_some() {} });
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .expect("a response");
        let mut stream = respond
            .send_response(head, false)
            .expect("the plugin listens");
        let threads = std::thread::available_parallelism()
            .expect("it is known")
            .get();
        for n in 0..2 * threads {
            let question = admission(&n.to_string(), SERVICE_URL, "spin");
            stream
                .send_data(body(&question), false)
                .expect("the plugin listens");
        }
        for _ in 0..threads {
            plugin.expect_stderr("the fixture spins").await;
        }
        pings.ping(Ping::opaque()).await.expect("it is answered");
        plugin.end_stdin();
        assert!(plugin.exit().await.0.success());
        serving.abort();
    })
    .await;
}
