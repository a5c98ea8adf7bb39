//! Messages on their way to bytes and back, as tonic does it but with small buffers.

use std::marker::PhantomData;

use admission_proto::wire::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes that each call allocates for what it sends and for what it gets, before anything
/// is there. Most calls are verdicts: tonic's 8 KiB cost more than all else about them.
const BUFFER: usize = 512;

/// Bytes of several messages that are sent together at most: tonic's.
const TOGETHER: usize = 32 << 10;

/// A codec for messages that are small for the most part, of which there are many.
#[derive(Debug)]
pub(crate) struct SmallMessages<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallMessages<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallMessages<T, U>
where
    T: Message + 'static,
    U: Message + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::new(BufferSettings::new(BUFFER, TOGETHER))
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::new(BufferSettings::new(BUFFER, TOGETHER))
    }
}
