//! What is read from a file that another program replaces while the daemon runs: a map, a database of
//! countries.
//!
//! Knows: files, time, the log. Must not know: any format.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

/// How long what was read is used before the file is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a file could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It can't be opened, or holds something else than it should.
    #[error("{}: {cause}", path.display())]
    Unusable {
        /// Which file.
        path: Arc<Path>,
        /// What is wrong.
        cause: Arc<str>,
    },
    /// It was not read before the request's deadline.
    #[error("{}: not read in time", .0.display())]
    TimedOut(Arc<Path>),
}

/// A file as it was read last. It is opened at the first use, since it may be built after the start, looked
/// at once a second, and read again when it was replaced or changed; nothing of that blocks the runtime.
/// While its successor can't be read (half written, wrong owner), what was read before stays in use, and the
/// log says so.
pub struct CachedFile<T> {
    path: Arc<Path>,
    read: Box<Read<T>>,
    state: Mutex<State<T>>,
    /// Held by whoever looks at the file.
    looking: tokio::sync::Mutex<()>,
}

type Read<T> = dyn Fn(&Path) -> Result<T, String> + Send + Sync;

struct State<T> {
    /// What was read, and from which version of the file.
    current: Option<(Version, Arc<T>)>,
    /// Why the version that is there can't be read.
    cause: Option<Arc<str>>,
    looked: Option<Instant>,
}

/// What changes when a file is replaced or rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Version {
    device: u64,
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl<T: Send + Sync + 'static> CachedFile<T> {
    /// A file and how it is read; `read` may block and says what is wrong. Nothing is opened yet.
    pub fn new(
        path: impl Into<PathBuf>,
        read: impl Fn(&Path) -> Result<T, String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let state = Mutex::new(State { current: None, cause: None, looked: None });
        let path: PathBuf = path.into();
        Arc::new(Self {
            path: path.into(),
            read: Box::new(read),
            state,
            looking: tokio::sync::Mutex::default(),
        })
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds, not older than a second unless it can't be read now.
    pub async fn get(self: &Arc<Self>, deadline: Instant) -> Result<Arc<T>, FileError> {
        if let Some(result) = self.known() {
            return result;
        }
        let file = Arc::clone(self);
        // A task of its own, so that a request that gives up does not throw away what was read.
        let looked = tokio::spawn(async move {
            let guard = file.looking.lock().await;
            if file.known().is_none() {
                let reader = Arc::clone(&file);
                // A reader that panics is a file that can't be read.
                let read = tokio::task::spawn_blocking(move || reader.look()).await;
                let read = read.unwrap_or_else(|_| Some((None, Err("the reader failed".to_owned()))));
                file.keep(read);
            }
            drop(guard);
            file.result()
        });
        match timeout_at(deadline, looked).await {
            Ok(Ok(result)) => result,
            // The daemon stops, or the request has waited long enough.
            Ok(Err(_)) | Err(_) => Err(FileError::TimedOut(Arc::clone(&self.path))),
        }
    }

    /// What was found not long ago.
    fn known(&self) -> Option<Result<Arc<T>, FileError>> {
        let fresh = self.lock().looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
        fresh.then(|| self.result())
    }

    fn result(&self) -> Result<Arc<T>, FileError> {
        let state = self.lock();
        match (&state.current, &state.cause) {
            (Some((_, value)), _) => Ok(Arc::clone(value)),
            (None, cause) => {
                let cause = cause.clone().unwrap_or_else(|| "not read yet".into());
                Err(FileError::Unusable { path: Arc::clone(&self.path), cause })
            }
        }
    }

    /// The version that is there and what it holds; `None` if it is the one that was read.
    fn look(&self) -> Option<(Option<Version>, Result<T, String>)> {
        let version = match fs::metadata(&self.path) {
            Ok(metadata) => Version::of(&metadata),
            Err(error) => return Some((None, Err(plain(&error)))),
        };
        let read_before = self.lock().current.as_ref().map(|(version, _)| *version);
        (read_before != Some(version)).then(|| (Some(version), (self.read)(&self.path)))
    }

    fn keep(&self, read: Option<(Option<Version>, Result<T, String>)>) {
        let mut state = self.lock();
        state.looked = Some(Instant::now());
        match read {
            None => state.cause = None,
            Some((Some(version), Ok(value))) => {
                if state.current.is_some() {
                    tracing::info!("{} has changed and was read again", self.path.display());
                }
                state.current = Some((version, Arc::new(value)));
                state.cause = None;
            }
            Some((_, Ok(_))) => {}
            Some((_, Err(cause))) => {
                if state.cause.as_deref() != Some(&*cause) && state.current.is_some() {
                    let path = self.path.display();
                    tracing::error!("{path}: {cause}; what was read before is used on");
                }
                state.cause = Some(cause.into());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// The cause of an error of the system, as people know it.
pub(super) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn text(path: &Path) -> Result<String, String> {
        let text = fs::read_to_string(path).map_err(|error| plain(&error))?;
        if text.contains("broken") { Err("it is broken".to_owned()) } else { Ok(text) }
    }

    async fn later() {
        tokio::time::sleep(LOOK_EVERY).await;
    }

    #[tokio::test]
    async fn a_replaced_file_is_read_again_and_a_broken_one_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map");
        let file = CachedFile::new(&path, text);
        let missing = file.get(soon()).await.unwrap_err();
        assert_eq!(missing.to_string(), format!("{}: no such file", path.display()));
        fs::write(&path, "one").unwrap();
        assert_eq!(file.get(soon()).await, Err(missing), "it is not looked at for every request");
        later().await;
        let one = file.get(soon()).await.unwrap();
        assert_eq!(*one, "one");
        later().await;
        assert!(Arc::ptr_eq(&one, &file.get(soon()).await.unwrap()), "it has not changed");
        fs::write(&path, "broken").unwrap();
        later().await;
        assert_eq!(*file.get(soon()).await.unwrap(), "one");
        fs::write(folder.path().join("new"), "two").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        later().await;
        assert_eq!(*file.get(soon()).await.unwrap(), "two");
        fs::remove_file(&path).unwrap();
        later().await;
        assert_eq!(*file.get(soon()).await.unwrap(), "two");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_file_does_not_hold_the_request() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("map"), "slow").unwrap();
        let file = CachedFile::new(folder.path().join("map"), |path| {
            std::thread::sleep(Duration::from_millis(200));
            text(path)
        });
        let early = Instant::now() + Duration::from_millis(20);
        assert!(matches!(file.get(early).await, Err(FileError::TimedOut(_))));
        assert_eq!(*file.get(soon()).await.unwrap(), "slow", "it was read for whoever comes next");
    }
}
