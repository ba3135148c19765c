// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames between the guest's init and the host, over one virtio-serial port.
//!
//! One ordered stream carries a job's output and its end, so that the end can never overtake
//! output. After the end the guest waits for [`Kind::Done`] before it powers off, so that
//! nothing written is lost with the machine.
//!
//! | offset | field |
//! |---|---|
//! | 0 | kind, one byte of [`Kind`] |
//! | 1 | zero, three bytes |
//! | 4 | length of the payload, 32 bits little-endian, at most [`MAX_PAYLOAD`] |
//! | 8 | payload |

use std::io::{self, Read, Write};

/// Largest payload: bounds what either side buffers for one frame.
pub const MAX_PAYLOAD: usize = 64 << 10;
const HEADER_BYTES: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Guest to host, empty: the job is about to start.
    Start = 1,
    /// Guest to host: standard output.
    Stdout = 2,
    /// Guest to host: standard error.
    Stderr = 3,
    /// Guest to host: [`crate::job::Exit`] in JSON; the last frame of the guest.
    Exit = 4,
    /// Host to guest: standard input.
    Stdin = 5,
    /// Host to guest, empty: standard input has ended.
    StdinEnd = 6,
    /// Host to guest, empty: everything has arrived.
    Done = 7,
    /// Host to guest: the new [`crate::job::TerminalSize`] of the job's terminal, in JSON.
    Resize = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Kind::Start,
            Kind::Stdout,
            Kind::Stderr,
            Kind::Exit,
            Kind::Stdin,
            Kind::StdinEnd,
            Kind::Done,
            Kind::Resize,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Writes one frame; `payload` longer than [`MAX_PAYLOAD`] is written as several.
///
/// # Errors
///
/// Those of the stream.
pub fn write_frame(stream: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    if payload.is_empty() {
        return write_one(stream, kind, payload);
    }
    payload
        .chunks(MAX_PAYLOAD)
        .try_for_each(|chunk| write_one(stream, kind, chunk))
}

fn write_one(stream: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend([kind as u8, 0, 0, 0]);
    frame.extend(length.to_le_bytes());
    frame.extend(payload);
    stream.write_all(&frame)
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
///
/// Those of the stream; `InvalidData` for an unknown kind or a payload over [`MAX_PAYLOAD`];
/// `UnexpectedEof` when the stream ends inside a frame.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER_BYTES];
    let first = loop {
        match stream.read(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    let (_, rest) = header.split_at_mut(first);
    stream.read_exact(rest)?;

    let (kind, length) = parse_header(header)?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(Some(Frame { kind, payload }))
}

/// Kind and length of a frame, checked.
fn parse_header(header: [u8; HEADER_BYTES]) -> io::Result<(Kind, usize)> {
    let [kind, _, _, _, length @ ..] = header;
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
    let kind =
        Kind::from_byte(kind).ok_or_else(|| invalid(format!("unknown frame kind {kind}")))?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD {
        return Err(invalid(format!(
            "frame of {length} bytes, at most {MAX_PAYLOAD} allowed"
        )));
    }
    Ok((kind, length))
}

/// Takes a stream apart that comes piece by piece.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has come and is in no frame yet, from `start` on: the rest of a frame and a piece at most.
    bytes: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds what has come, after which [`Decoder::next_frame`] is asked until it has no more.
    pub fn add(&mut self, piece: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.start));
        self.bytes.extend_from_slice(piece);
    }

    /// The next complete frame.
    ///
    /// # Errors
    ///
    /// `InvalidData`, as [`read_frame`] has it.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let Some((header, rest)) = self.rest().split_first_chunk() else {
            return Ok(None);
        };
        let (kind, length) = parse_header(*header)?;
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.start += HEADER_BYTES + length;
        Ok(Some(Frame { kind, payload }))
    }

    /// Says that no more will come.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` inside a frame.
    pub fn end(&self) -> io::Result<()> {
        if self.rest().is_empty() {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames_of(mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = read_frame(&mut bytes).expect("well-formed stream") {
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn long_payload_is_split_and_comes_back_whole() {
        let payload: Vec<u8> = (0..MAX_PAYLOAD + 5).map(|i| i.to_le_bytes()[0]).collect();
        let mut stream = Vec::new();
        write_frame(&mut stream, Kind::Stdout, &payload).expect("a vector takes all");
        let frames = frames_of(&stream);
        assert_eq!(frames.len(), 2);
        let joined: Vec<u8> = frames.into_iter().flat_map(|frame| frame.payload).collect();
        assert_eq!(joined, payload);
    }

    #[test]
    fn empty_payload_is_a_frame_of_its_own() {
        let mut stream = Vec::new();
        write_frame(&mut stream, Kind::Done, b"").expect("a vector takes all");
        assert_eq!(
            frames_of(&stream),
            [Frame {
                kind: Kind::Done,
                payload: vec![]
            }]
        );
    }

    #[test]
    fn frames_come_whole_out_of_pieces_of_any_size() {
        let payload = vec![7; 1000];
        let mut stream = Vec::new();
        for kind in [Kind::Stdout, Kind::Stderr] {
            write_frame(&mut stream, kind, &payload).expect("a vector takes all");
        }
        // Single bytes, parts of a header, of a payload, and all at once.
        for size in [1, 5, 700, stream.len()] {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for piece in stream.chunks(size) {
                decoder.add(piece);
                while let Some(frame) = decoder.next_frame().expect("well-formed stream") {
                    frames.push(frame);
                }
            }
            assert!(decoder.end().is_ok());
            assert_eq!(frames, frames_of(&stream), "in pieces of {size}");
        }
        let mut decoder = Decoder::default();
        decoder.add(&stream[..stream.len() - 1]);
        assert!(decoder.next_frame().expect("well-formed").is_some());
        assert_eq!(decoder.next_frame().expect("well-formed"), None);
        assert!(decoder.end().is_err());
    }

    #[test]
    fn oversized_length_is_refused_before_it_is_read() {
        let error = read_frame(&mut &[2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..])
            .expect_err("4 GiB is over the limit");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn truncated_frame_is_an_error_not_an_end() {
        let error = read_frame(&mut &[2, 0, 0][..]).expect_err("the header has eight bytes");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
