//! Tests of pipes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

/// Counts how often it was woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counter {
    fn wakes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn task() -> (Arc<Counter>, Waker) {
    let counter = Arc::new(Counter::default());
    let waker = Arc::clone(&counter).into();
    (counter, waker)
}

fn read(pipe: &Pipe, max: usize) -> Result<Vec<u8>, Closed> {
    let mut bytes = Vec::new();
    let len = pipe.read(max, |piece| bytes.extend_from_slice(piece))?;
    assert_eq!(len, bytes.len());
    Ok(bytes)
}

fn host_read(reader: &mut HostReader, cx: &mut Context<'_>, room: usize) -> Poll<Vec<u8>> {
    let mut space = vec![0; room];
    let mut buf = ReadBuf::new(&mut space);
    ready!(Pin::new(reader).poll_read(cx, &mut buf)).unwrap();
    Poll::Ready(buf.filled().to_vec())
}

#[test]
fn bytes_arrive_in_order_across_the_wrap() {
    let pipe = Pipe::default();
    let bytes: Vec<u8> = (0..=250).cycle().take(10 * CAPACITY).collect();
    let mut sent = 0;
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        sent += pipe.write(&bytes[sent..]).unwrap();
        received.extend(read(&pipe, 1009).unwrap());
    }
    assert!(received == bytes);
}

#[test]
fn a_pipe_takes_as_much_as_it_has_room_for() {
    let pipe = Pipe::default();
    assert_eq!(pipe.free(), Ok(CAPACITY));
    assert_eq!(pipe.write(&vec![0; CAPACITY + 1]), Ok(CAPACITY));
    assert_eq!(pipe.free(), Ok(0));
    assert_eq!(pipe.write(b"more"), Ok(0));
    assert_eq!(read(&pipe, 10).unwrap().len(), 10);
    assert_eq!(pipe.free(), Ok(10));
}

#[test]
fn reading_and_writing_zero_bytes_changes_nothing() {
    let pipe = Pipe::default();
    let (reader, waker) = task();
    assert!(
        pipe.poll_readable(&Context::from_waker(&waker))
            .is_pending()
    );
    assert_eq!(pipe.write(b""), Ok(0));
    assert_eq!(reader.wakes(), 0);
    assert_eq!(read(&pipe, 0), Ok(Vec::new()));
    assert_eq!(read(&pipe, 9), Ok(Vec::new()));
}

#[test]
fn a_waiting_reader_is_woken_once_by_the_first_byte() {
    let pipe = Pipe::default();
    let (reader, waker) = task();
    assert!(
        pipe.poll_readable(&Context::from_waker(&waker))
            .is_pending()
    );
    pipe.write(b"a").unwrap();
    pipe.write(b"b").unwrap();
    assert_eq!(reader.wakes(), 1);
    assert!(pipe.poll_readable(&Context::from_waker(&waker)).is_ready());
}

#[test]
fn a_waiting_writer_is_woken_once_by_the_first_room() {
    let pipe = Pipe::default();
    let (writer, waker) = task();
    pipe.write(&[0; CAPACITY]).unwrap();
    assert!(
        pipe.poll_writable(&Context::from_waker(&waker))
            .is_pending()
    );
    read(&pipe, 1).unwrap();
    read(&pipe, 1).unwrap();
    assert_eq!(writer.wakes(), 1);
    assert!(pipe.poll_writable(&Context::from_waker(&waker)).is_ready());
}

#[test]
fn an_end_that_does_not_wait_is_not_woken() {
    let pipe = Pipe::default();
    let (both, waker) = task();
    let cx = Context::from_waker(&waker);
    assert!(pipe.poll_writable(&cx).is_ready());
    pipe.write(b"a").unwrap();
    assert!(pipe.poll_readable(&cx).is_ready());
    read(&pipe, 1).unwrap();
    assert_eq!(both.wakes(), 0);
}

#[test]
fn the_last_waiter_is_woken() {
    let pipe = Pipe::default();
    let (first, first_waker) = task();
    let (last, last_waker) = task();
    assert!(
        pipe.poll_readable(&Context::from_waker(&first_waker))
            .is_pending()
    );
    assert!(
        pipe.poll_readable(&Context::from_waker(&last_waker))
            .is_pending()
    );
    pipe.write(b"a").unwrap();
    assert_eq!((first.wakes(), last.wakes()), (0, 1));
}

#[test]
fn the_end_comes_after_the_queued_bytes() {
    let pipe = Pipe::default();
    pipe.write(b"last words").unwrap();
    pipe.close_writer();
    assert_eq!(read(&pipe, 4).unwrap(), b"last");
    assert_eq!(read(&pipe, 99).unwrap(), b" words");
    assert_eq!(read(&pipe, 99), Err(Closed));
    assert_eq!(read(&pipe, 0), Err(Closed));
}

#[test]
fn closing_either_end_wakes_the_other() {
    let pipe = Pipe::default();
    let (reader, waker) = task();
    assert!(
        pipe.poll_readable(&Context::from_waker(&waker))
            .is_pending()
    );
    pipe.close_writer();
    assert_eq!(reader.wakes(), 1);

    let pipe = Pipe::default();
    let (writer, waker) = task();
    pipe.write(&[0; CAPACITY]).unwrap();
    assert!(
        pipe.poll_writable(&Context::from_waker(&waker))
            .is_pending()
    );
    pipe.close_reader();
    assert_eq!(writer.wakes(), 1);
    assert_eq!(pipe.write(b"a"), Err(Closed));
    assert_eq!(pipe.free(), Err(Closed));
}

#[test]
fn dropping_the_hosts_writer_is_end_of_file() {
    let pipe = Pipe::default();
    let mut writer = HostWriter(pipe.clone());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut writer).poll_write(&mut cx, b"bye").is_ready());
    drop(writer);
    assert_eq!(read(&pipe, 99).unwrap(), b"bye");
    assert_eq!(read(&pipe, 99), Err(Closed));
}

#[test]
fn the_hosts_writer_waits_for_room_and_fails_when_the_guest_has_ended() {
    let pipe = Pipe::default();
    let mut writer = HostWriter(pipe.clone());
    let (host, waker) = task();
    let mut cx = Context::from_waker(&waker);
    let mut write = |bytes: &[u8]| Pin::new(&mut writer).poll_write(&mut cx, bytes);

    let Poll::Ready(Ok(CAPACITY)) = write(&[0; 2 * CAPACITY]) else {
        panic!("it takes what it has room for");
    };
    assert!(write(b"a").is_pending());
    read(&pipe, CAPACITY).unwrap();
    assert_eq!(host.wakes(), 1);
    assert!(matches!(write(b"a"), Poll::Ready(Ok(1))));

    pipe.close_reader();
    let Poll::Ready(Err(error)) = write(b"a") else {
        panic!("the reader is closed");
    };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn the_hosts_reader_is_never_pending_once_the_guest_has_ended() {
    let pipe = Pipe::default();
    let mut reader = HostReader(pipe.clone());
    let (host, waker) = task();
    let mut cx = Context::from_waker(&waker);
    assert!(host_read(&mut reader, &mut cx, 9).is_pending());
    pipe.write(b"verdict").unwrap();
    pipe.close_writer();
    assert_eq!(host.wakes(), 1);
    assert_eq!(host_read(&mut reader, &mut cx, 0), Poll::Ready(vec![]));
    assert_eq!(
        host_read(&mut reader, &mut cx, 9),
        Poll::Ready(b"verdict".to_vec())
    );
    assert_eq!(host_read(&mut reader, &mut cx, 9), Poll::Ready(vec![]));
    assert_eq!(host_read(&mut reader, &mut cx, 9), Poll::Ready(vec![]));
}

#[test]
fn dropping_the_hosts_reader_closes_the_pipe_for_the_guest() {
    let pipe = Pipe::default();
    drop(HostReader(pipe.clone()));
    assert_eq!(pipe.free(), Err(Closed));
}
