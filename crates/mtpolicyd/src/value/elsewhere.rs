//! Keys and passwords that do not stand in the configuration itself: `${file:PATH}` and `${env:NAME}`.
//!
//! Knows: files, variables of the environment. Must not know: what a key is for.

use backends::Secret;
use std::path::{Path, PathBuf};

/// The largest file of a key.
const MAX_BYTES: u64 = 4 << 10;

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere<'a> {
    /// In a file, alone.
    File(&'a str),
    /// In a variable of the environment.
    Variable(&'a str),
}

/// A text with keys from elsewhere.
pub struct Resolved {
    /// The text with its keys.
    pub text: Secret,
    /// The text as it may be shown: `{dqs}.zen.dq.spamhaus.net`.
    pub shown: String,
    /// The keys, each with what is shown instead.
    pub keys: Vec<(Secret, String)>,
}

/// How each kind of place begins.
const OPENINGS: [&str; 2] = ["${file:", "${env:"];

/// A part of a text.
enum Part<'a> {
    Plain(&'a str),
    Key(Elsewhere<'a>),
}

/// Returns whether a text has a key from elsewhere.
pub fn has_key_elsewhere(text: &str) -> bool {
    OPENINGS.iter().any(|opening| text.contains(opening))
}

/// Returns whether a text is nothing but a key from elsewhere: only that counts in passwords, which may hold
/// any text.
pub fn is_key_elsewhere(text: &str) -> bool {
    OPENINGS.iter().any(|opening| text.starts_with(opening)) && text.find('}') == Some(text.len() - 1)
}

/// Returns the files that a text has keys from.
pub fn key_files(text: &str) -> Vec<PathBuf> {
    let parts = parts(text).unwrap_or_default().into_iter();
    let files = parts.filter_map(|part| match part {
        Part::Key(Elsewhere::File(path)) => Some(path.into()),
        _ => None,
    });
    files.collect()
}

/// Reads the keys that a text has from elsewhere.
///
/// # Errors
/// Why a key can't be read, without any part of it.
pub fn resolve(text: &str) -> Result<Resolved, String> {
    let mut resolved = Resolved { text: Secret::default(), shown: String::new(), keys: Vec::new() };
    for part in parts(text)? {
        match part {
            Part::Plain(plain) => {
                resolved.text.0.push_str(plain);
                resolved.shown.push_str(plain);
            }
            Part::Key(place) => {
                let (key, label) = (place.read()?, place.label());
                resolved.text.0.push_str(&key.0);
                resolved.shown.push_str(&label);
                resolved.keys.push((key, label));
            }
        }
    }
    Ok(resolved)
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find("${") {
        let (plain, opened) = rest.split_at(at);
        let (inside, behind) = opened[2..].split_once('}').ok_or("`${` without `}`")?;
        let place = match inside.split_once(':') {
            Some(("file", path)) if Path::new(path).is_absolute() => Elsewhere::File(path),
            Some(("file", _)) => return Err("the path in `${file:PATH}` has to be absolute".to_owned()),
            Some(("env", name)) if is_name(name) => Elsewhere::Variable(name),
            _ => return Err("a key from elsewhere is `${file:PATH}` or `${env:NAME}`".to_owned()),
        };
        parts.extend([Part::Plain(plain), Part::Key(place)]);
        rest = behind;
    }
    parts.push(Part::Plain(rest));
    Ok(parts)
}

/// Whether it is the name of a variable.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Elsewhere<'_> {
    /// What is shown instead of the key: the name of its file or variable in braces.
    fn label(self) -> String {
        let name = match self {
            Elsewhere::File(path) => Path::new(path).file_name().unwrap_or_default().to_string_lossy(),
            Elsewhere::Variable(name) => name.into(),
        };
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        format!("{{{}}}", name.replace(|c: char| !is_plain(c), "_"))
    }

    fn read(self) -> Result<Secret, String> {
        let (what, text) = match self {
            Elsewhere::File(path) => {
                let bytes = safe_files::read(path.as_ref(), MAX_BYTES);
                let bytes = bytes.map_err(|error| format!("can't read the key in {path}: {error}"))?;
                (format!("the key in {path}"), String::from_utf8(bytes).ok())
            }
            Elsewhere::Variable(name) => {
                let missing = || format!("the variable {name} of the environment is not set");
                let text = std::env::var_os(name).ok_or_else(missing)?;
                (format!("the variable {name}"), text.into_string().ok())
            }
        };
        let text = text.ok_or_else(|| format!("{what} is not text"))?;
        let key = text.trim();
        if key.is_empty() {
            return Err(format!("{what} is empty"));
        }
        if key.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(format!("{what} has a blank, a line break or a control character inside"));
        }
        Ok(Secret(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        resolve(text).err().unwrap_or_else(|| panic!("{text} was read"))
    }

    #[test]
    fn a_key_is_read_from_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dqs key");
        std::fs::write(&path, "k3y\n").unwrap();
        let text = format!("${{file:{}}}.zen.example", path.display());
        let found = resolve(&text).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((&*found.text.0, &*found.shown), ("k3y.zen.example", "{dqs_key}.zen.example"));
        assert!(found.keys.iter().map(|(key, label)| (&*key.0, &**label)).eq([("k3y", "{dqs_key}")]));
        assert_eq!(key_files(&text), [path]);
        let found = resolve("x.${env:CARGO_PKG_NAME}").unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((&*found.text.0, &*found.shown), ("x.mtpolicyd", "x.{CARGO_PKG_NAME}"));
        assert!(resolve("plain").is_ok_and(|found| found.text.0 == "plain" && found.keys.is_empty()));
    }

    #[test]
    fn what_is_no_key_is_a_mistake_that_shows_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let text = format!("${{file:{}}}", path.display());
        assert!(why(&text).contains("No such file"), "{}", why(&text));
        for (bytes, expected) in [
            (&b" \n"[..], "is empty"),
            (b"hunter2\nhunter2", "inside"),
            (b"hunter2\0", "inside"),
            (b"hunter2\xff", "is not text"),
            (&[b'h'; 5_000], "larger than 4 KiB"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let why = why(&text);
            assert!(why.contains(expected) && !why.contains("hunter2") && !why.contains("hhh"), "{why}");
        }
        assert!(why("${env:NO_SUCH_VARIABLE_OF_OURS}").contains("is not set"));
        for text in ["${file:/x", "${file:x}", "${env:}", "${env:A-B}", "${x}", "${}"] {
            assert!(!why(text).is_empty());
        }
    }

    #[test]
    fn in_a_password_only_the_whole_counts() {
        for (text, is_key) in [
            ("${file:/x}", true),
            ("${env:X}", true),
            ("a${env:X}", false),
            ("${env:X}b", false),
            ("${env:X}}", false),
            ("${env:X", false),
            ("$x{}", false),
        ] {
            assert_eq!(is_key_elsewhere(text), is_key, "{text}");
        }
    }
}
