//! Python's pickle, as far as fail2ban needs it: a list of strings is written, and of a reply it is told
//! whether it means success.
//!
//! A pickle is a program for a machine with a stack. Of a reply only the beginning counts, `(0, value)` or
//! `(1, exception)`; of the exception the texts are collected, and nothing is made of them.
//!
//! Knows: the instructions. Must not know: sockets.

/// A list of strings as protocol 2 has it, which all versions of fail2ban read. A string has 255 bytes of
/// ASCII at most.
pub fn command(words: &[&str]) -> Vec<u8> {
    // The protocol; an empty list, which is number 0 of what may be mentioned again; what goes into it.
    let mut pickle = b"\x80\x02]q\x00(".to_vec();
    for (number, word) in (1..=u8::MAX).zip(words) {
        debug_assert!(word.is_ascii() && word.len() <= 255, "{word}");
        pickle.extend([b'U', u8::try_from(word.len()).unwrap_or(u8::MAX)]);
        pickle.extend(word.bytes().take(255));
        pickle.extend([b'q', number]);
    }
    pickle.extend(b"e.");
    pickle
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The command was done.
    Done,
    /// It was not, and why.
    Failed(String),
}

/// The most instructions of a reply that are looked at: an exception takes twenty.
const MAX_INSTRUCTIONS: usize = 200;

/// The longest text of an error that goes into a log.
const MAX_TEXT_CHARS: usize = 300;

/// What an instruction puts on the stack, as far as it matters.
enum Instruction<'a> {
    Number(u8),
    Text(&'a [u8]),
    /// What stands for a class by its module and name, which are the last two texts.
    ClassOfTexts,
    Other,
    End,
}

impl Reply {
    /// What a pickle means; `None` if it is none, or no reply.
    pub fn parse(pickle: &[u8]) -> Option<Reply> {
        let mut rest = pickle;
        let mut texts: Vec<String> = Vec::new();
        let mut code = None;
        for _ in 0..MAX_INSTRUCTIONS {
            match next(&mut rest) {
                // What is behind a success may be anything.
                Some(Instruction::Number(0)) if code.is_none() && texts.is_empty() => {
                    return Some(Reply::Done);
                }
                Some(Instruction::Number(number)) => code = code.or(Some(number)),
                Some(Instruction::Text(text)) => texts.push(readable(text)),
                Some(Instruction::ClassOfTexts) => {
                    // The name stays, the module before it goes.
                    let name = texts.pop();
                    texts.pop();
                    texts.extend(name);
                }
                Some(Instruction::Other) => {}
                Some(Instruction::End) | None => break,
            }
        }
        // A server that could not even begin says why, without a code.
        match (code, texts.is_empty()) {
            (None, true) => None,
            (Some(code), true) => Some(Reply::Failed(format!("code {code}"))),
            (_, false) => Some(Reply::Failed(texts.join(": "))),
        }
    }
}

/// Text of others for a log.
fn readable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(MAX_TEXT_CHARS).collect()
}

/// Takes an instruction off; `None` at one that a reply does not have, or at the end of the bytes.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Instruction<'a>> {
    let [code] = take_array(rest)?;
    Some(match code {
        b'K' => Instruction::Number(take_array::<1>(rest)?[0]),
        b'U' | 0x8c => {
            let [length] = take_array(rest)?;
            Instruction::Text(take(rest, length.into())?)
        }
        b'X' | b'T' => {
            let length = u32::from_le_bytes(take_array(rest)?);
            Instruction::Text(take(rest, usize::try_from(length).ok()?)?)
        }
        0x93 => Instruction::ClassOfTexts,
        // A class by its module and name.
        b'c' => {
            take_line(rest)?;
            Instruction::Text(take_line(rest)?)
        }
        b'.' => Instruction::End,
        // How long what follows is, and the number of the protocol.
        0x95 => skip(rest, 8)?,
        0x80 | b'q' | b'h' => skip(rest, 1)?,
        b'r' | b'j' | b'J' => skip(rest, 4)?,
        b'M' => skip(rest, 2)?,
        // Marks, tuples, lists, dictionaries, calls, nothing, remembering.
        b'(' | b')' | b'R' | b'N' | b't' | b'l' | b']' | b'}' | b'a' | b'e' | b's' | b'u' | b'b' => {
            Instruction::Other
        }
        0x81 | 0x85..=0x89 | 0x94 => Instruction::Other,
        _ => return None,
    })
}

fn skip<'a>(rest: &mut &'a [u8], count: usize) -> Option<Instruction<'a>> {
    take(rest, count).map(|_| Instruction::Other)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = take(rest, end)?;
    take(rest, 1)?;
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_command_is_a_list_of_strings() {
        let written = command(&["set", "postfix", "banip", "192.0.2.10"]);
        let expected: &[u8] =
            b"\x80\x02]q\x00(U\x03setq\x01U\x07postfixq\x02U\x05banipq\x03U\n192.0.2.10q\x04e.";
        assert_eq!(written, expected);
    }

    /// As Python writes them in the protocols 1, 2 and 5.
    #[test]
    fn replies_of_all_versions_are_understood() {
        let failed = |text: &str| Some(Reply::Failed(text.to_owned()));
        let cases: &[(&[u8], Option<Reply>)] = &[
            (b"(K\x00K\x01tq\x00.", Some(Reply::Done)),
            (b"\x80\x02K\x00X\t\x00\x00\x00192.0.2.1q\x00\x86q\x01.", Some(Reply::Done)),
            (b"\x80\x05\x95\x06\0\0\0\0\0\0\0K\x00N\x86\x94.", Some(Reply::Done)),
            (
                b"\x80\x02K\x01cexceptions\nKeyError\nq\x00X\x01\0\0\0xq\x01\x85q\x02Rq\x03\x86q\x04.",
                failed("KeyError: x"),
            ),
            (
                b"\x80\x05\x95'\0\0\0\0\0\0\0K\x01\x8c\x08builtins\x94\x8c\tException\x94\x93\x94\x8c\x02no\
                  \x94\x85\x94R\x94\x86\x94.",
                failed("Exception: no"),
            ),
            (b"\x80\x05\x95\x0e\0\0\0\0\0\0\0\x8c\nERROR: bad\x94.", failed("ERROR: bad")),
            (b"\x80\x05K\x02K\x00\x86.", failed("code 2")),
            (b"\x80\x05K\x01\x8c\x02noB", failed("no")),
            (b"\x80\x05K\x01\x8c\xffno", failed("code 1")),
            (b"", None),
            (b"HTTP/1.1 400 Bad Request", None),
        ];
        for (pickle, meaning) in cases {
            assert_eq!(&Reply::parse(pickle), meaning, "{}", pickle.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Reply::parse(&bytes);
            bytes.splice(0..0, *b"\x80\x05K\x01");
            prop_assert!(matches!(Reply::parse(&bytes), Some(Reply::Failed(_))));
        }
    }
}
