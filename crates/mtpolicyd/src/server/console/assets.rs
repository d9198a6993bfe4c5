//! The three files that pages need, inside the program: their addresses change with their contents.
//!
//! Knows: the files. Must not know: which page uses them.

use super::answer::text;
use super::sessions::{hash, hex};
use crate::server::control::Response;
use hyper::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use hyper::{HeaderMap, StatusCode};
use std::sync::LazyLock;

/// Digits of the hash that stand in an address.
const SHOWN: usize = 16;

/// One of the files.
pub struct Asset {
    stem: &'static str,
    ending: &'static str,
    kind: &'static str,
    text: &'static str,
    name: LazyLock<String>,
}

macro_rules! asset {
    ($NAME:ident, $stem:literal, $ending:literal, $kind:literal) => {
        #[doc = concat!("`", $stem, ".", $ending, "`.")]
        pub static $NAME: Asset = Asset {
            stem: $stem,
            ending: $ending,
            kind: $kind,
            text: include_str!(concat!("assets/", $stem, ".", $ending)),
            name: LazyLock::new(|| name_of(&$NAME)),
        };
    };
}

asset!(STYLE, "console", "css", "text/css; charset=utf-8");
asset!(SCRIPT, "console", "js", "text/javascript; charset=utf-8");
asset!(ICON, "icon", "svg", "image/svg+xml");

fn name_of(asset: &Asset) -> String {
    format!("{}-{}.{}", asset.stem, &hex(&hash(asset.text))[..SHOWN], asset.ending)
}

/// The address of a file on a page.
pub fn link(root: &str, asset: &Asset) -> String {
    format!("{root}assets/{}", *asset.name)
}

/// A file by its name; browsers keep it for as long as they like, since another one has another name.
pub fn answer(name: &str, headers: &HeaderMap) -> Option<Response> {
    let asset = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| *asset.name == name)?;
    let tag = format!("\"{}\"", *asset.name);
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if is_known {
        text(StatusCode::NOT_MODIFIED, asset.kind, String::new())
    } else {
        text(StatusCode::OK, asset.kind, asset.text.to_owned())
    };
    let cached = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(CACHE_CONTROL, cached);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    Some(response)
}
