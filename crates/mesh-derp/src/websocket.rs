//! The framing of a WebSocket, as a relay needs it: a stream of bytes in binary messages.
//!
//! Where a message ends means nothing to DERP, so none is ever put together: what comes is unmasked and handed on
//! piece by piece, and a message may be of any length. Here is the server's side: it unmasks what it reads, and writes
//! without a mask.
//!
//! Source: RFC 6455, sections 5 and 7.4.

use thiserror::Error;

/// Most bytes of a message to a client. Stock clients close the connection at a message above 32 KiB; one of 16 KiB
/// fits a TLS record with its header.
///
/// Source: `github.com/coder/websocket`, `defaultReadLimit`, which tailscale's `wsconn` leaves as it is.
pub const MESSAGE_BYTES_MAX: usize = (16 << 10) - FRAME_HEADER_BYTES_MAX;

/// Longest header of a frame that [`Frame::encode`] writes.
const FRAME_HEADER_BYTES_MAX: usize = 4;

/// Longest header of a frame that a client writes.
const MASKED_HEADER_BYTES_MAX: usize = 14;

/// Most bytes that a ping, a pong or a close carries.
const CONTROL_BYTES_MAX: usize = 125;

const MASK_BYTES: usize = 4;

/// A close without fault.
pub const CLOSE_NORMAL: u16 = 1000;

mod opcode {
    pub(super) const CONTINUATION: u8 = 0x0;
    pub(super) const TEXT: u8 = 0x1;
    pub(super) const BINARY: u8 = 0x2;
    pub(super) const CLOSE: u8 = 0x8;
    pub(super) const PING: u8 = 0x9;
    pub(super) const PONG: u8 = 0xa;
}

/// Why a stream of frames cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WebSocketError {
    /// It is not as a client is to write it.
    #[error("WebSocket frame against the protocol")]
    Protocol,
    /// A message of text.
    #[error("WebSocket message that is not binary")]
    Text,
}

impl WebSocketError {
    /// What to close the connection with.
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::Text => 1003,
        }
    }
}

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// The next bytes of the stream.
    Data(&'b [u8]),
    /// A ping, to be answered with a pong of the same bytes.
    Ping(&'b [u8]),
    /// The end: what comes behind it means nothing. The code is to be repeated.
    Close(u16),
}

/// What a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'b> {
    /// The header of a message of so many bytes, at most [`MESSAGE_BYTES_MAX`]; the bytes are the caller's to append.
    Data(usize),
    /// Answers a ping; at most 125 bytes.
    Pong(&'b [u8]),
    /// The end.
    Close(u16),
}

impl Frame<'_> {
    /// Appends the frame to `out`.
    ///
    /// # Panics
    /// If the frame is longer than it may be.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Data(bytes) => put_header(opcode::BINARY, *bytes, out),
            Self::Pong(data) => {
                put_header(opcode::PONG, data.len(), out);
                out.extend_from_slice(data);
            }
            Self::Close(code) => {
                let code = code.to_be_bytes();
                put_header(opcode::CLOSE, code.len(), out);
                out.extend_from_slice(&code);
            }
        }
    }
}

/// Appends the header of a whole message.
fn put_header(opcode: u8, bytes: usize, out: &mut Vec<u8>) {
    let length = u16::try_from(bytes).expect("invariant: messages to clients are short");
    out.push(0x80 | opcode);
    match u8::try_from(bytes) {
        Ok(short) if bytes <= CONTROL_BYTES_MAX => out.push(short),
        _ => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

/// Reads what a client sends. It holds a header and a short control frame at most.
#[derive(Debug, Default)]
pub struct WebSocketReader {
    /// The beginning of the next frame's header.
    header: [u8; MASKED_HEADER_BYTES_MAX],
    header_bytes: usize,
    /// The frame whose payload is being read.
    frame: Option<OpenFrame>,
    /// Whether a message has begun that has not ended.
    in_message: bool,
    /// The payload of a control frame, as far as it has come.
    control: Vec<u8>,
}

/// A frame whose header has been read.
#[derive(Debug, Clone, Copy)]
struct OpenFrame {
    opcode: u8,
    is_last: bool,
    mask: [u8; MASK_BYTES],
    /// Bytes of payload that are still to come.
    left: u64,
}

impl WebSocketReader {
    /// A reader at the start of a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what comes next off the front of `input`; `None` if all of it is taken and nothing has come of it.
    ///
    /// Bytes of the stream are unmasked into `room`, and are as many at a time as have room there.
    ///
    /// # Errors
    /// The connection is to be closed with the error's [`WebSocketError::close_code`].
    ///
    /// # Panics
    /// If `room` is empty.
    pub fn next<'b>(
        &'b mut self,
        input: &mut &[u8],
        room: &'b mut [u8],
    ) -> Result<Option<Event<'b>>, WebSocketError> {
        assert!(!room.is_empty(), "invariant: data needs room");
        loop {
            let Some(mut frame) = self.open_frame(input)? else { return Ok(None) };
            let is_control = frame.is_control();
            let wanted = usize::try_from(frame.left).unwrap_or(usize::MAX);
            let length = wanted.min(input.len()).min(room.len());
            let (masked, rest) = input.split_at(length);
            frame.unmask(masked, &mut room[..length]);
            *input = rest;
            self.frame = (frame.left > 0).then_some(frame);
            if frame.left == 0 && !is_control {
                self.in_message = !frame.is_last;
            }
            if !is_control && length > 0 {
                return Ok(Some(Event::Data(&room[..length])));
            }
            if is_control {
                self.control.extend_from_slice(&room[..length]);
                if frame.left == 0 && frame.opcode != opcode::PONG {
                    return self.control_event(frame.opcode).map(Some);
                }
            }
            if self.frame.is_some() && input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// The frame whose payload comes next, once its header is there.
    fn open_frame(&mut self, input: &mut &[u8]) -> Result<Option<OpenFrame>, WebSocketError> {
        if let Some(frame) = self.frame {
            return Ok(Some(frame));
        }
        loop {
            let header = &self.header[..self.header_bytes];
            // The first two bytes say how long it is; what is wrong is said as soon as it is there.
            let missing = header_length(header)? - self.header_bytes;
            if missing == 0 {
                break;
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (head, rest) = input.split_at(missing.min(input.len()));
            self.header[self.header_bytes..][..head.len()].copy_from_slice(head);
            self.header_bytes += head.len();
            *input = rest;
        }
        let frame = OpenFrame::parse(&self.header[..self.header_bytes])?;
        self.header_bytes = 0;
        self.control.clear();
        let begins = match frame.opcode {
            opcode::BINARY => true,
            opcode::CONTINUATION => false,
            _ => return Ok(Some(frame)),
        };
        if begins == self.in_message {
            return Err(WebSocketError::Protocol);
        }
        Ok(Some(frame))
    }

    fn control_event(&self, opcode: u8) -> Result<Event<'_>, WebSocketError> {
        if opcode == opcode::PING {
            return Ok(Event::Ping(&self.control));
        }
        match *self.control {
            [] => Ok(Event::Close(CLOSE_NORMAL)),
            [high, low, ..] => match u16::from_be_bytes([high, low]) {
                code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Event::Close(code)),
                _ => Err(WebSocketError::Protocol),
            },
            [_] => Err(WebSocketError::Protocol),
        }
    }
}

impl OpenFrame {
    /// Reads a whole header.
    fn parse(header: &[u8]) -> Result<Self, WebSocketError> {
        let (&[first, second], rest) =
            header.split_first_chunk().ok_or(WebSocketError::Protocol)?;
        let (length, mask) = rest.split_last_chunk().ok_or(WebSocketError::Protocol)?;
        let left = match *length {
            [] => (second & 0x7f).into(),
            [high, low] => u16::from_be_bytes([high, low]).into(),
            _ => length.iter().fold(0, |left, byte| left << 8 | u64::from(*byte)),
        };
        let frame = Self { opcode: first & 0x0f, is_last: first & 0x80 != 0, mask: *mask, left };
        match frame.opcode {
            opcode::TEXT => Err(WebSocketError::Text),
            opcode::BINARY | opcode::CONTINUATION => Ok(frame),
            opcode::CLOSE | opcode::PING | opcode::PONG
                if frame.is_last && left <= CONTROL_BYTES_MAX as u64 =>
            {
                Ok(frame)
            }
            _ => Err(WebSocketError::Protocol),
        }
    }

    fn is_control(&self) -> bool {
        self.opcode >= opcode::CLOSE
    }

    /// Unmasks the next bytes, and knows what is left behind them.
    fn unmask(&mut self, masked: &[u8], plain: &mut [u8]) {
        let (words, rest) = masked.as_chunks::<MASK_BYTES>();
        let (plain_words, plain_rest) = plain.as_chunks_mut::<MASK_BYTES>();
        for (plain, word) in plain_words.iter_mut().zip(words) {
            *plain = std::array::from_fn(|place| word[place] ^ self.mask[place]);
        }
        for ((plain, byte), mask) in plain_rest.iter_mut().zip(rest).zip(self.mask) {
            *plain = byte ^ mask;
        }
        self.mask.rotate_left(rest.len());
        self.left -= masked.len() as u64;
    }
}

/// How long the header is that begins so: two bytes, until these are there.
fn header_length(header: &[u8]) -> Result<usize, WebSocketError> {
    let &[first, second, ref rest @ ..] = header else { return Ok(2) };
    let has_mask = second & 0x80 != 0;
    let has_extension = first & 0x70 != 0;
    // No frame has half of all there could be.
    let is_endless = second & 0x7f == 127 && rest.first().is_some_and(|byte| byte & 0x80 != 0);
    if !has_mask || has_extension || is_endless {
        return Err(WebSocketError::Protocol);
    }
    Ok(match second & 0x7f {
        126 => 2 + 2 + MASK_BYTES,
        127 => 2 + 8 + MASK_BYTES,
        _ => 2 + MASK_BYTES,
    })
}

#[cfg(test)]
mod tests;
