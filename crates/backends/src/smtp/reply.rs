//! Replies of an SMTP server: lines with a code, bounded, and what a server can do (RFC 5321 section 4.2).
//!
//! Knows: the text of replies. Must not know: connections, what was asked.

/// The longest line; RFC 5321 allows 512 bytes, and servers exceed it by what they quote.
const MAX_LINE: usize = 4_096;

/// The most lines of a reply, the longest of which answers EHLO.
const MAX_LINES: usize = 100;

/// How much of a reply's text is kept, in bytes: as much as the reply of our own server may hold.
const MAX_TEXT: usize = 400;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its three digits.
    pub code: u16,
    /// The texts of its lines, without the code.
    lines: Vec<String>,
}

/// Why bytes are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// The line does not begin with a code, or with another one than the lines before.
    #[error("it does not speak SMTP")]
    NoCode,
    /// The reply goes on and on.
    #[error("its reply is too long")]
    TooLong,
}

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16, pub u16, pub u16);

/// What a server says it can do, in its reply to EHLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// It encrypts.
    pub starttls: bool,
    /// It looks at the size of a message before that is sent.
    pub size: bool,
    /// It takes addresses in UTF-8.
    pub smtputf8: bool,
}

impl Reply {
    /// The reply at the beginning of the bytes and its length, or `None` while its end has not come.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, NoReply> {
        let (mut code, mut lines, mut at) = (None, Vec::new(), 0);
        loop {
            let rest = &bytes[at..];
            let Some(end) = rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
                return if rest.len() >= MAX_LINE { Err(NoReply::TooLong) } else { Ok(None) };
            };
            let (number, is_last, text) = parse_line(&rest[..end]).ok_or(NoReply::NoCode)?;
            if *code.get_or_insert(number) != number {
                return Err(NoReply::NoCode);
            }
            lines.push(text);
            at += end + 1;
            if is_last {
                return Ok(Some((Reply { code: number, lines }, at)));
            }
            if lines.len() == MAX_LINES {
                return Err(NoReply::TooLong);
            }
        }
    }

    /// 2xx: done.
    pub fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    /// 5xx: it will not be otherwise next time.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The enhanced status code, if it has one that goes with its code.
    pub fn status(&self) -> Option<Status> {
        let status = enhanced(self.lines.first()?)?.0;
        (status.0 == self.code / 100).then_some(status)
    }

    /// Its text in one line, the enhanced status code in front.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Some(Status(class, subject, detail)) = self.status() {
            text = format!("{class}.{subject}.{detail}");
        }
        for line in &self.lines {
            let line = enhanced(line).map_or(line.as_str(), |(_, rest)| rest);
            let words = line.split(|c: char| c.is_whitespace() || c.is_control());
            for word in words.filter(|word| !word.is_empty()) {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(word);
            }
        }
        let fits = |end: &usize| text.is_char_boundary(*end);
        let end = (0..=MAX_TEXT.min(text.len())).rev().find(fits).unwrap_or_default();
        text.truncate(end);
        text
    }

    /// What the server can do, after EHLO.
    pub fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        for line in self.lines.iter().skip(1) {
            // Old servers write `SIZE=n`.
            let keyword = line.split([' ', '=']).next().unwrap_or_default();
            match keyword.to_ascii_uppercase().as_str() {
                "STARTTLS" => capabilities.starttls = true,
                "SIZE" => capabilities.size = true,
                "SMTPUTF8" => capabilities.smtputf8 = true,
                _ => {}
            }
        }
        capabilities
    }
}

/// The code of a line, whether it is the last one, and its text.
fn parse_line(line: &[u8]) -> Option<(u16, bool, String)> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (digits, rest) = line.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&digits[0]) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let (is_last, text) = match rest.split_first() {
        None => (true, rest),
        Some((b' ', text)) => (true, text),
        Some((b'-', text)) => (false, text),
        Some(_) => return None,
    };
    Some((code, is_last, String::from_utf8_lossy(text).into_owned()))
}

/// The enhanced status code at the beginning of a text, and what follows.
fn enhanced(text: &str) -> Option<(Status, &str)> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut numbers = word.split('.').map(|part| {
        let is_number = (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    });
    let status = Status(numbers.next()??, numbers.next()??, numbers.next()??);
    (numbers.next().is_none() && matches!(status.0, 2 | 4 | 5)).then_some((status, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that look like replies often enough.
    const REPLIES: &str =
        "((250|550|421|[0-9]{3})[- ]?(5\\.1\\.1|[a-z\\x00-\\x1f \\u{80}ü]{0,9})?\r?\n|[0-9\n-]){0,9}";

    proptest! {
        #[test]
        fn whatever_comes_is_a_short_line_or_nothing(bytes in REPLIES) {
            let mut rest = bytes.as_bytes();
            while let Ok(Some((reply, length))) = Reply::parse(rest) {
                prop_assert!(0 < length && length <= rest.len());
                prop_assert_eq!(Reply::parse(&rest[..length - 1]), Ok(None));
                prop_assert!(!reply.text().contains(char::is_control));
                prop_assert!((200..600).contains(&reply.code));
                rest = &rest[length..];
            }
        }
    }

    fn reply(text: &str) -> Reply {
        let (reply, length) = Reply::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(length, text.len());
        reply
    }

    #[test]
    fn a_reply_may_have_many_lines() {
        let text = "550-5.1.1 The account\r\n550-5.1.1 does   not exist.\r\n550 5.1.1 bye\tbye\r\n";
        let read = reply(text);
        assert_eq!((read.code, read.status()), (550, Some(Status(5, 1, 1))));
        assert_eq!(read.text(), "5.1.1 The account does not exist. bye bye");
        for end in 0..text.len() {
            assert_eq!(Reply::parse(&text.as_bytes()[..end]), Ok(None), "{end}");
        }
        let (_, length) = Reply::parse(b"250 a\n250 b\n").unwrap().unwrap();
        assert_eq!(length, 6);
    }

    #[test]
    fn an_enhanced_code_has_to_go_with_the_code() {
        assert_eq!(reply("550 4.2.1 busy\r\n").status(), None);
        assert_eq!(reply("550 4.2.1 busy\r\n").text(), "busy");
        for text in ["1.2.3.4 x", "5.1 x", "5.1.1111 x", "5..1 x", "3.1.1 x", "5.1.+1 x", ""] {
            assert_eq!(reply(&format!("550 {text}\r\n")).status(), None, "{text}");
        }
        assert_eq!(reply("250\r\n").text(), "");
    }

    #[test]
    fn what_a_server_can_do_is_in_the_lines_after_the_first() {
        let read = reply("250-STARTTLS\r\n250-size=10 x\r\n250-SmtpUtf8\r\n250 X\r\n").capabilities();
        assert_eq!(read, Capabilities { starttls: false, size: true, smtputf8: true });
        assert!(reply("250-mx\r\n250 STARTTLS\r\n").capabilities().starttls);
    }

    #[test]
    fn other_bytes_are_no_reply() {
        for text in ["\n", "HTTP/1.1 400\r\n", "25 x\n", "250x\n", "150 x\n", "650 x\n", "250-a\n251 b\n"] {
            assert_eq!(Reply::parse(text.as_bytes()), Err(NoReply::NoCode), "{text:?}");
        }
        assert_eq!(Reply::parse(&[b'2'; MAX_LINE]), Err(NoReply::TooLong));
        assert_eq!(Reply::parse("250-x\n".repeat(MAX_LINES).as_bytes()), Err(NoReply::TooLong));
        let long = format!("250 {}\n", "ü".repeat(1_000));
        assert_eq!(reply(&long).text().len(), MAX_TEXT);
        assert_eq!(reply("250 a\u{1b}[1mb\r\n").text(), "a [1mb");
    }
}
