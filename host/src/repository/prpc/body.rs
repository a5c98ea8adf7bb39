//! The body of a response: decompressed and bounded as it arrives.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

/// Why a body cannot be taken.
#[derive(Debug)]
pub(super) enum Fault {
    /// It has more bytes than the limit, before decompression or after it.
    TooLarge,
    /// It is not what gzip makes, or ends too early.
    Corrupt(io::Error),
}

/// What has arrived of a body. Never holds more than its limit, whatever a few bytes of
/// gzip claim to be.
pub(super) struct Body {
    decoder: Decoder,
    /// Bytes that may still arrive.
    room: usize,
}

enum Decoder {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

impl Body {
    pub(super) fn new(encoding: Encoding, limit: usize) -> Self {
        let bytes = Bounded {
            bytes: Vec::new(),
            room: limit,
            overrun: false,
        };
        Self {
            decoder: match encoding {
                Encoding::Plain => Decoder::Plain(bytes),
                Encoding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(bytes))),
            },
            room: limit,
        }
    }

    /// Takes the bytes that have arrived. After an error only the beginning is of use.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        // A gzip stream can be endless and hold nothing.
        let fitting = &chunk[..chunk.len().min(self.room)];
        self.room -= fitting.len();
        let written = match &mut self.decoder {
            Decoder::Plain(bytes) => bytes.write_all(fitting),
            Decoder::Gzip(decoder) => decoder.write_all(fitting),
        };
        if fitting.len() < chunk.len() {
            return Err(Fault::TooLarge);
        }
        written.map_err(|error| self.fault(error))
    }

    /// Returns the whole body.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Fault> {
        if let Decoder::Gzip(decoder) = &mut self.decoder {
            let finished = decoder.try_finish();
            finished.map_err(|error| self.fault(error))?;
        }
        Ok(self.beginning())
    }

    /// Returns what there is, up to the limit.
    pub(super) fn beginning(mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes_mut().bytes)
    }

    fn fault(&mut self, error: io::Error) -> Fault {
        if self.bytes_mut().overrun {
            Fault::TooLarge
        } else {
            Fault::Corrupt(error)
        }
    }

    fn bytes_mut(&mut self) -> &mut Bounded {
        match &mut self.decoder {
            Decoder::Plain(bytes) => bytes,
            Decoder::Gzip(decoder) => decoder.get_mut(),
        }
    }
}

/// Bytes that refuse to become too many.
struct Bounded {
    bytes: Vec<u8>,
    room: usize,
    overrun: bool,
}

impl Write for Bounded {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        let fitting = &chunk[..chunk.len().min(self.room)];
        if fitting.is_empty() && !chunk.is_empty() {
            self.overrun = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.room -= fitting.len();
        self.bytes.extend_from_slice(fitting);
        Ok(fitting.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(contents: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(contents).expect("it goes to memory");
        encoder.finish().expect("it goes to memory")
    }

    fn read(encoding: Encoding, limit: usize, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut body = Body::new(encoding, limit);
        for chunk in bytes.chunks(7) {
            body.push(chunk)?;
        }
        body.finish()
    }

    #[test]
    fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
        let contents = [b'x'; 100];
        for (encoding, bytes) in [
            (Encoding::Plain, contents.to_vec()),
            (Encoding::Gzip, gzip(&contents)),
        ] {
            assert_eq!(read(encoding, 100, &bytes).expect("it fits"), contents);
            let fault = read(encoding, 99, &bytes).expect_err("it does not fit");
            assert!(matches!(fault, Fault::TooLarge), "{encoding:?}: {fault:?}");
        }
    }

    #[test]
    fn a_gzip_bomb_fills_no_more_than_the_limit() {
        let bomb = gzip(&vec![0; 16 << 20]);
        assert!(bomb.len() < 32 << 10);
        let mut body = Body::new(Encoding::Gzip, 64 << 10);
        let fault = body.push(&bomb).expect_err("it is larger");
        assert!(matches!(fault, Fault::TooLarge));
        let beginning = body.beginning();
        assert_eq!(beginning.len(), 64 << 10);
        assert!(beginning.capacity() <= 128 << 10);
    }

    #[test]
    fn a_stream_without_contents_is_bounded_too() {
        let nothing = gzip(b"");
        let mut body = Body::new(Encoding::Gzip, 10 * nothing.len());
        for _ in 0..10 {
            body.push(&nothing).expect("it is a member of the stream");
        }
        assert!(matches!(body.push(&nothing), Err(Fault::TooLarge)));
    }

    #[test]
    fn gzip_that_is_cut_or_changed_is_corrupt() {
        let whole = gzip(b"contents that are worth it");
        let mut changed = whole.clone();
        let last = changed.len() - 5;
        changed[last] ^= 1;
        for broken in [&whole[..whole.len() - 1], &whole[..5], &changed, b"plain"] {
            let fault = read(Encoding::Gzip, 100, broken).expect_err("it is not whole");
            assert!(matches!(fault, Fault::Corrupt(_)), "{fault:?}");
        }
    }
}
