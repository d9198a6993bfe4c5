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

#[cfg(test)]
mod tests {
    use super::*;

    /// A color of both schemes, light and dark: its luminances (WCAG 2.2, "relative luminance").
    fn luminances(name: &str) -> [f64; 2] {
        let (_, rest) = STYLE.text.split_once(&format!("--{name}: light-dark(#")).unwrap();
        let colors = rest.split_once(')').unwrap().0.split(", #");
        let luminance = |color: &str| -> f64 {
            let part = |at: usize, weight: f64| {
                let value = f64::from(u8::from_str_radix(&color[at..at + 2], 16).unwrap()) / 255.0;
                weight * if value <= 0.04 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            part(0, 0.2126) + part(2, 0.7152) + part(4, 0.0722)
        };
        let both: Vec<_> = colors.map(luminance).collect();
        both.try_into().unwrap()
    }

    #[test]
    fn every_text_has_contrast_in_both_schemes() {
        let on = |backs: &'static [&'static str], inks: &'static [&'static str], least: f64| {
            inks.iter().flat_map(move |ink| backs.iter().map(move |back| (*ink, *back, least)))
        };
        let inks = &["ink", "quiet", "accent", "pass", "defer", "reject", "other"];
        let text = on(&["paper", "sheet", "hover"], inks, 4.5);
        let marked = on(&["warn-back", "bad-back"], &["ink", "quiet", "reject"], 4.5);
        let buttons = on(&["accent"], &["accent-ink"], 4.5);
        let borders = on(&["paper", "sheet"], &["field"], 3.0);
        for (ink, back, least) in text.chain(marked).chain(buttons).chain(borders) {
            for (one, other) in luminances(ink).into_iter().zip(luminances(back)) {
                let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                assert!(contrast >= least, "{ink} on {back}: {contrast:.2}");
            }
        }
    }

    #[test]
    fn an_address_changes_with_the_contents() {
        let name = link("../", &STYLE);
        assert!(name.starts_with("../assets/console-") && name.ends_with(".css"), "{name}");
        assert!(answer("console.css", &HeaderMap::new()).is_none());
        assert_eq!(answer(&STYLE.name, &HeaderMap::new()).unwrap().status(), StatusCode::OK);
    }
}
