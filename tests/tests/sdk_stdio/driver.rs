//! A host that speaks frames over a plugin's stdin and stdout.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use admission_proto::frame::{self, HOST_LIMIT};
use admission_proto::wire::plugin::{Admission, ListMetadataResponse};
use admission_proto::wire::stdio::{
    Hello, HostFrame, ListMetadataReply, PluginFrame, host_frame, list_metadata_reply, plugin_frame,
};
use admission_proto::wire::{cipd, rpc};
use bytes::BytesMut;

/// A plugin process.
pub(crate) struct Plugin {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    /// A socket. Unlike a pipe, it can be shut down for every process that has it open, such as
    /// a child process that another test has just forked.
    pub(crate) stdout: UnixStream,
    stderr: ChildStderr,
    buf: BytesMut,
}

/// Runs a test that waits for events. Fails if it takes more than a minute.
pub(crate) fn within_a_minute(body: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::sync_channel(1);
    let body = thread::spawn(move || {
        body();
        done.send(()).expect("the test waits");
    });
    match ended.recv_timeout(Duration::from_secs(60)) {
        Ok(()) => {}
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test takes more than a minute"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = body.join().expect_err("it has not sent");
            std::panic::resume_unwind(panic);
        }
    }
}

impl Plugin {
    /// Starts the plugin.
    pub(crate) fn start(mode: &str) -> Self {
        let (stdout, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut child = Command::new(env!("CARGO_BIN_EXE_sdk-plugin"))
            .arg(mode)
            .stdin(Stdio::piped())
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the plugin starts");
        Self {
            stdin: child.stdin.take(),
            stdout,
            stderr: child.stderr.take().expect("stderr is piped"),
            child,
            buf: BytesMut::new(),
        }
    }

    /// Starts the plugin and exchanges the hello.
    pub(crate) fn connect(mode: &str, log_level: &str) -> Self {
        let mut plugin = Self::start(mode);
        plugin.send(host_frame::Frame::Hello(Hello {
            protocol_version: 1,
            host_name: "test".into(),
            host_version: "1".into(),
            max_frame_size: HOST_LIMIT.try_into().expect("it is small"),
            log_level: log_level.into(),
        }));
        let plugin_frame::Frame::ListAdmissions(answer) = plugin.receive() else {
            panic!("the first frame answers the hello");
        };
        assert_eq!(answer.protocol_version, 1);
        assert_eq!(answer.plugin_version, "test 1.0");
        plugin
    }

    pub(crate) fn send(&mut self, frame: host_frame::Frame) {
        let mut bytes = Vec::new();
        frame::encode(&HostFrame { frame: Some(frame) }, &mut bytes);
        self.send_bytes(&bytes);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).expect("the plugin reads");
    }

    pub(crate) fn ask(&mut self, id: &str, package: &str) {
        self.send(admission(id, package));
    }

    pub(crate) fn reply(&mut self, call_id: u64, result: list_metadata_reply::Result) {
        self.send(host_frame::Frame::ListMetadataReply(ListMetadataReply {
            call_id,
            result: Some(result),
        }));
    }

    /// Waits for the next frame.
    pub(crate) fn receive(&mut self) -> plugin_frame::Frame {
        self.try_receive().expect("the plugin sends another frame")
    }

    /// Waits for the next frame or the end of stdout.
    pub(crate) fn try_receive(&mut self) -> Option<plugin_frame::Frame> {
        loop {
            let taken = frame::take::<PluginFrame>(&mut self.buf, HOST_LIMIT);
            if let Some(frame) = taken.expect("the plugin sends frames") {
                return Some(frame.frame.expect("the frame is a known one"));
            }
            let mut bytes = [0; 65536];
            match self.stdout.read(&mut bytes).expect("stdout can be read") {
                0 => {
                    frame::finish(&self.buf).expect("no frame is torn");
                    return None;
                }
                count => self.buf.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// Waits for the next verdict. Returns its ID, code and message.
    pub(crate) fn verdict(&mut self) -> (String, i32, String) {
        match self.receive() {
            plugin_frame::Frame::ResolveAdmission(verdict) => {
                let status = verdict.status.expect("a verdict has a status");
                (verdict.admission_id, status.code, status.message)
            }
            other => panic!("{other:?} is not a verdict"),
        }
    }

    /// Ends stdin and waits for the exit. Returns the exit status and the text on stderr.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        self.stdin = None;
        self.exit()
    }

    /// Waits for the exit. Returns the exit status and the text on stderr.
    pub(crate) fn exit(mut self) -> (ExitStatus, String) {
        let mut stderr = String::new();
        self.stderr
            .read_to_string(&mut stderr)
            .expect("stderr is text");
        (self.child.wait().expect("it can be waited for"), stderr)
    }
}

pub(crate) fn admission(id: &str, package: &str) -> host_frame::Frame {
    host_frame::Frame::Admission(Admission {
        admission_id: id.into(),
        service_url: "https://service".into(),
        package: package.into(),
        instance: Some(cipd::ObjectRef {
            hash_algo: 2,
            hex_digest: "ab".repeat(32),
        }),
    })
}

pub(crate) fn page(values: &[&str], next: &str) -> list_metadata_reply::Result {
    let entry = |value: &&str| cipd::InstanceMetadata {
        key: "a".into(),
        value: value.as_bytes().to_vec(),
        ..cipd::InstanceMetadata::default()
    };
    list_metadata_reply::Result::Page(ListMetadataResponse {
        metadata: values.iter().map(entry).collect(),
        next_page_token: next.into(),
    })
}

pub(crate) fn failure(code: i32, message: &str) -> list_metadata_reply::Result {
    list_metadata_reply::Result::Status(rpc::Status {
        code,
        message: message.into(),
        details: Vec::new(),
    })
}
