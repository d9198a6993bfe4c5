//! Why a file or a reply can't be read.

use std::{fmt, io};

/// Why there is no answer. "No such key" is none of these.
#[derive(Debug)]
pub enum Error {
    /// The system could not read.
    Io(io::Error),
    /// It is not a file of that kind, or not a whole one; perhaps somebody is writing it.
    Corrupt(&'static str),
    /// It is a file of that kind, but with something that these readers have not.
    Unsupported(&'static str),
}

impl Error {
    /// Whether the file may be whole a moment later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Error::Corrupt(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => error.fmt(f),
            Error::Corrupt(what) | Error::Unsupported(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    /// A file that ends too early is a file in the making.
    fn from(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Corrupt("the file ends too early"),
            _ => Error::Io(error),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        match error {
            Error::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// The bytes that came from a service are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyError(pub(crate) &'static str);

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ReplyError {}
