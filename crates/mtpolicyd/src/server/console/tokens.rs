//! The tokens that sign in to the console: a file with a line for each, which has the hash and not the token.
//!
//! Knows: the file. Must not know: HTTP, who is signed in.

use super::sessions::{Hash, Person, hash, hex, new_secret};
use crate::settings::Level;
use crate::value::Value;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What every token begins with, so that one that turns up somewhere is known for what it is.
const PREFIX: &str = "mtpc_";

/// The longest name.
const MAX_NAME: usize = 64;

/// The most tokens.
const MAX_TOKENS: usize = 256;

/// More than the file has.
const MAX_FILE: u64 = 64 << 10;

/// The first line of the file.
const HEADER: &str =
    "# Tokens of the console: name, level, SHA-256, when it was made. mtpolicyd writes this file.\n";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose it is.
    pub person: Person,
    /// When it was made, in RFC 3339.
    pub created: String,
    hash: String,
}

/// Why a token can't be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name can't be used.
    #[error("a name has 1 to {MAX_NAME} letters, digits, `.`, `_`, `-` and `@`")]
    Name,
    /// There is one of this name.
    #[error("there is a token `{0}` already; remove it first")]
    Exists(String),
    /// There is none of this name.
    #[error("there is no token `{0}`")]
    Unknown(String),
    /// There is no room for another one.
    #[error("there are {MAX_TOKENS} tokens already")]
    Full,
    /// The file.
    #[error("the tokens can't be kept in {}: {error}; see `tokens` in <Console>", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// Why it can't be read or written.
        error: io::Error,
    },
}

/// The file of the tokens.
pub struct TokenFile<'a>(pub &'a Path);

impl TokenFile<'_> {
    /// All of them; other lines are ignored.
    pub fn read(&self) -> Result<Vec<Token>, TokenError> {
        match safe_files::read(self.0, MAX_FILE) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Makes one; the answer is the token itself, which is not kept.
    pub fn add(&self, person: Person, created: String) -> Result<String, TokenError> {
        if !is_name(&person.name) {
            return Err(TokenError::Name);
        }
        let mut tokens = self.read()?;
        if tokens.iter().any(|token| token.person.name == person.name) {
            return Err(TokenError::Exists(person.name));
        }
        if tokens.len() >= MAX_TOKENS {
            return Err(TokenError::Full);
        }
        let secret = format!("{PREFIX}{}", new_secret());
        tokens.push(Token { person, created, hash: hex(&hash(&secret)) });
        self.write(&tokens)?;
        Ok(secret)
    }

    /// Removes one; the answer is its hash, by which its sessions are found.
    pub fn remove(&self, name: &str) -> Result<Hash, TokenError> {
        let mut tokens = self.read()?;
        let at = tokens.iter().position(|token| token.person.name == name);
        let removed = tokens.remove(at.ok_or_else(|| TokenError::Unknown(name.to_owned()))?);
        self.write(&tokens)?;
        Ok(removed.bytes().unwrap_or_default())
    }

    /// Whose token this is, and its hash.
    pub fn find(&self, secret: &str) -> Result<Option<(Person, Hash)>, TokenError> {
        let wanted = hash(secret.trim());
        let digits = hex(&wanted);
        let found = self.read()?.into_iter().find(|token| token.hash == digits);
        Ok(found.map(|token| (token.person, wanted)))
    }

    /// Writes a new file and puts it in the place of the old one, so that there is a whole one at any time.
    fn write(&self, tokens: &[Token]) -> Result<(), TokenError> {
        let mut text = HEADER.to_owned();
        for Token { person, created, hash } in tokens {
            text += &format!("{} {} {hash} {created}\n", person.name, person.level);
        }
        let mut name = self.0.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = self.0.with_file_name(name);
        let written = || {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, self.0)
        };
        written().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> TokenError {
        TokenError::File { path: self.0.to_owned(), error }
    }
}

impl Token {
    fn bytes(&self) -> Option<Hash> {
        let mut bytes = Hash::default();
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.hash.get(at * 2..at * 2 + 2)?, 16).ok()?;
        }
        Some(bytes)
    }
}

fn parse(line: &str) -> Option<Token> {
    let mut words = line.split(' ');
    let (name, level, hash, created) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let person = Person { name: name.to_owned(), level: Level::parse(level).ok()? };
    let token = Token { person, created: created.to_owned(), hash: hash.to_owned() };
    (is_name(name) && token.hash.len() == 64 && token.bytes().is_some()).then_some(token)
}

fn is_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn person(name: &str, level: Level) -> Person {
        Person { name: name.to_owned(), level }
    }

    #[test]
    fn a_token_is_known_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let file = TokenFile(&path);
        assert_eq!(file.read().unwrap(), []);
        let token = file.add(person("alice", Level::Read), "2026-12-01T00:00:00Z".to_owned()).unwrap();
        assert_eq!(token.len(), PREFIX.len() + 64);
        let other = file.add(person("bob@example.org", Level::Admin), "x".to_owned()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&token[PREFIX.len()..]), "only its hash is kept: {text}");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.find(&format!(" {token}\n")).unwrap().unwrap().0, person("alice", Level::Read));
        assert!(file.find(&token[..token.len() - 1]).unwrap().is_none());
        assert_eq!(file.remove("alice").unwrap(), hash(&token));
        assert!(file.find(&token).unwrap().is_none());
        assert_eq!(file.find(&other).unwrap().unwrap().0.level, Level::Admin);
    }

    #[test]
    fn what_can_not_be_a_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let file = TokenFile(&path);
        let add =
            |name: &str| file.add(person(name, Level::Read), "x".to_owned()).map_err(|it| it.to_string());
        for name in ["", "a b", "a\nb", "ä", &"x".repeat(65)] {
            assert!(add(name).unwrap_err().contains("1 to 64"), "{name}");
        }
        add("a").unwrap();
        assert!(add("a").unwrap_err().contains("already"));
        assert!(file.remove("b").unwrap_err().to_string().contains("no token `b`"));
        fs::write(
            &path,
            format!("a admin {}\nb root {} x\nc read zz x\n\u{fffd}", "0".repeat(64), "0".repeat(64)),
        )
        .unwrap();
        assert_eq!(file.read().unwrap(), []);
        let nowhere = folder.path().join("none/tokens");
        let said = TokenFile(&nowhere).add(person("a", Level::Read), String::new()).unwrap_err().to_string();
        assert!(said.contains("can't be kept in") && said.contains("No such file"), "{said}");
    }
}
