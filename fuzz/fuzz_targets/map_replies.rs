//! No reply of a table service makes a reader panic, and what is not whole stays so until more comes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postfix_maps::{proxymap, socketmap};

fuzz_target!(|data: &[u8]| {
    let whole = socketmap::reply(data);
    if matches!(whole, Ok(Some(_))) {
        // Of a whole reply no beginning is another one.
        (0..data.len()).for_each(|end| assert_eq!(socketmap::reply(&data[..end]), Ok(None)));
    }
    let whole = proxymap::reply(data);
    if let Ok(None) = whole {
        (0..data.len()).for_each(|end| assert_eq!(proxymap::reply(&data[..end]), Ok(None)));
    }
    if let Some(question) = proxymap::request("hash:map", data) {
        assert!(question.ends_with(b"\0\0"));
    }
    assert!(socketmap::request("map", data).ends_with(b","));
});
