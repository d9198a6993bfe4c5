//! No bytes of a mail server make the reader of replies panic, the text of a reply is one short line, and one
//! that is not whole is none yet.

#![no_main]

use backends::smtp::{Mailbox, Reply};
use libfuzzer_sys::fuzz_target;

/// What is kept of the text of a reply.
const MAX_TEXT: usize = 400;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some((reply, length))) = Reply::parse(rest) {
        assert!(0 < length && length <= rest.len());
        // All but its last byte is a reply that goes on.
        assert_eq!(Reply::parse(&rest[..length - 1]), Ok(None));
        assert_eq!(Reply::parse(&rest[..length]), Ok(Some((reply.clone(), length))));
        let text = reply.text();
        assert!(text.len() <= MAX_TEXT && !text.contains(char::is_control));
        assert!((200..600).contains(&reply.code));
        if let Some(status) = reply.status() {
            assert_eq!(status.0, reply.code / 100);
        }
        let _ = reply.capabilities();
        rest = &rest[length..];
    }
    if let Some(mailbox) = Mailbox::parse(data) {
        let path = mailbox.path();
        assert!(!path.contains(char::is_control) && path.starts_with('<') && path.ends_with('>'));
    }
});
