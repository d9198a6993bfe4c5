//! What holds for every input: nothing panics, cutting input differently changes nothing, what is printed
//! parses back, and a reply is one printable line.

use bytes::BytesMut;
use postfix_policy::{Decoder, ProtocolError, Reply, Request, check_action};
use proptest::collection::vec;
use proptest::prelude::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn pairs(request: &Request) -> Pairs {
    request.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// The requests of an input that comes in these pieces, and whether it ended in an error.
fn decode<'i>(pieces: impl IntoIterator<Item = &'i [u8]>) -> (Vec<Pairs>, Option<ProtocolError>) {
    let (mut decoder, mut buffer, mut requests) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(request)) => requests.push(pairs(&request)),
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

/// Bytes without line breaks and NUL.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>().prop_filter("no NUL, no line feed", |byte| !b"\0\n".contains(byte)), 0..20)
}

fn attributes() -> impl Strategy<Value = Pairs> {
    let name = bytes().prop_map(|name| name.into_iter().filter(|byte| *byte != b'=').collect());
    vec((name, bytes()), 0..50)
}

/// Input that looks much like the protocol, so that all the decoder's branches are met.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        8 => Just(&b"a=1\n"[..]),
        2 => Just(&b"\n"[..]),
        2 => Just(&b"\r\n"[..]),
        2 => Just(&b"="[..]),
        2 => Just(&b"\r"[..]),
        2 => Just(&b"name=value\r\n"[..]),
        1 => Just(&b"x"[..]),
        1 => Just(&b"\xff"[..]),
        1 => Just(&b"\0"[..]),
    ];
    prop_oneof![vec(token, 0..40).prop_map(|tokens| tokens.concat()), vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn what_is_printed_parses_back(attributes in attributes()) {
        let request = Request::from_pairs(attributes.iter().map(|(name, value)| (name, value))).unwrap();
        prop_assert_eq!(&pairs(&request), &attributes);
        let (requests, error) = decode([request.frame()]);
        prop_assert_eq!(requests, [attributes]);
        prop_assert_eq!(error, None);
    }

    #[test]
    fn input_may_be_cut_anywhere(input in input(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(input.len() + 1);
        let (requests, error) = decode([&input[..]]);
        for (others, other) in [decode([&input[..cut], &input[cut..]]), decode(input.chunks(1))] {
            prop_assert_eq!(&others, &requests);
            prop_assert_eq!(other.is_some(), error.is_some());
        }
    }

    #[test]
    fn of_a_repeated_name_the_last_one_counts(values in vec(bytes(), 1..10)) {
        let request = Request::from_pairs(values.iter().map(|value| ("n", value))).unwrap();
        prop_assert_eq!(request.get("n"), values.last().map(Vec::as_slice));
    }

    #[test]
    fn a_reply_is_one_printable_line(action in vec(any::<u8>(), 0..80)) {
        let mut output = Vec::new();
        Reply::new(&action).write_to(&mut output);
        let output = String::from_utf8(output).expect("valid UTF-8");
        let line = output.strip_prefix("action=").and_then(|rest| rest.strip_suffix("\n\n")).expect("framed");
        let is_unprintable = |c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c);
        prop_assert!(!line.contains(is_unprintable), "{line:?}");
        prop_assert!(!line.chars().all(|c| c == ' ' || c == ','), "{line:?} permits");
        prop_assert!(!line.chars().all(|c| c.is_ascii_digit()), "{line:?} permits");
        let again = Reply::new(line);
        prop_assert_eq!(again.as_str(), line, "a clean action stays as it is");
    }

    #[test]
    fn printable_actions_pass_unchanged(action in "[ -~]*[a-zA-Zéß漢]+[ -~]*") {
        let reply = Reply::new(&action);
        prop_assert_eq!(reply.as_str(), &action);
        check_action(&action);
    }
}
