//! Any bytes as a reply of fail2ban: no panic, and no text of an error that fills a log.

#![no_main]

use backends::fail2ban::Reply;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(Reply::Failed(text)) = Reply::parse(bytes) {
        assert!(text.chars().count() <= 200 * 302);
    }
});
