//! No input makes the decoder panic, and however it is cut, it holds the same requests.
//!
//! The first byte says how long the pieces are, the rest is what the peer sends. Whatever comes out of it as
//! an attribute makes a reply of one line.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use postfix_policy::{Decoder, Reply, Request, check_action};

fuzz_target!(|data: &[u8]| {
    let Some((&piece, input)) = data.split_first() else { return };
    let (whole, whole_failed) = decode(input, input.len().max(1));
    let (pieces, pieces_failed) = decode(input, usize::from(piece).max(1));
    assert_eq!(whole_failed, pieces_failed);
    assert_eq!(whole.len(), pieces.len());
    for (one, other) in whole.iter().zip(&pieces) {
        assert!(one.iter().eq(other.iter()));
        let again = Request::from_pairs(one.iter()).expect("what was read can be written");
        assert!(one.iter().eq(again.iter()));
        one.iter().for_each(|(_, value)| check_reply(value));
    }
});

/// The requests of an input that comes in pieces of this length, and whether it ended in an error.
fn decode(input: &[u8], piece: usize) -> (Vec<Request>, bool) {
    let (mut decoder, mut buffer, mut requests) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in input.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(_) => return (requests, true),
            }
        }
    }
    (requests, false)
}

fn check_reply(action: &[u8]) {
    let reply = Reply::new(action);
    assert!(!reply.as_str().contains(char::is_control));
    assert_eq!(Reply::new(reply.as_str()).as_str(), reply.as_str());
    check_action(&String::from_utf8_lossy(action));
}
