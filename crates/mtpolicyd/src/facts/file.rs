//! What is read from a file that another program replaces while the daemon runs: a map, a database of
//! countries.
//!
//! Knows: files, time, the log. Must not know: any format.

use crate::log::messages::foreign_files;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout_at};

/// How long what was read is used before the file is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a successor may take to be read before requests go on with what was read before it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A version that can't be used is read again after this multiple of the time that reading it took, though it
/// has not changed: its server may have failed. So a huge file that is not a map does not keep the daemon
/// busy.
const REST: u32 = 20;

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
/// While its successor can't be read (half written, wrong owner, a server of files that does not answer),
/// what was read before stays in use, and the log says so.
pub struct CachedFile<T> {
    path: Arc<Path>,
    read: Box<Read<T>>,
    state: Mutex<State<T>>,
}

type Read<T> = dyn Fn(&Path) -> Result<T, String> + Send + Sync;

struct State<T> {
    /// What was read, and from which version of the file.
    current: Option<(Version, Arc<T>)>,
    /// Why the version that is there can't be read.
    cause: Option<Arc<str>>,
    /// The version that could not be used, and until when it is not read again.
    refused: Option<(Version, Instant)>,
    looked: Option<Instant>,
    /// Somebody is looking at it: one task, however many requests wait.
    looking: Option<Looking>,
}

/// What a look at a file has found.
enum Look<T> {
    /// The version that was read.
    Unchanged,
    /// The version that could not be used.
    StillRefused,
    /// Another version, what it holds, and how long reading it took.
    Read(Option<Version>, Result<T, String>, Duration),
}

struct Looking {
    done: Shared<BoxFuture<'static, ()>>,
    /// From when on what was read before is used.
    patience_ends: Instant,
    /// Whether the log says that it takes long.
    told: bool,
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
        let state =
            Mutex::new(State { current: None, cause: None, refused: None, looked: None, looking: None });
        let path: PathBuf = path.into();
        Arc::new(Self { path: path.into(), read: Box::new(read), state })
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
        let (done, until) = {
            let mut state = self.lock();
            let looking = state.looking.get_or_insert_with(|| self.start_looking());
            let (done, patience_ends) = (looking.done.clone(), looking.patience_ends);
            (done, if state.current.is_some() { deadline.min(patience_ends) } else { deadline })
        };
        match timeout_at(until, done).await {
            Ok(()) => self.result(),
            Err(_) => self.read_before().ok_or_else(|| FileError::TimedOut(Arc::clone(&self.path))),
        }
    }

    /// Looks at the file in a task of its own, so that a request that gives up does not throw away what was
    /// read.
    fn start_looking(self: &Arc<Self>) -> Looking {
        let file = Arc::clone(self);
        let task =
            tokio::spawn(async move {
                let reader = Arc::clone(&file);
                // A reader that panics is a file that can't be read.
                let read = tokio::task::spawn_blocking(move || reader.look()).await;
                file.keep(read.unwrap_or_else(|_| {
                    Look::Read(None, Err("the reader failed".to_owned()), Duration::ZERO)
                }));
            });
        Looking {
            done: task.map(drop).boxed().shared(),
            patience_ends: Instant::now() + PATIENCE,
            told: false,
        }
    }

    /// What was read before, while the file takes longer than a request can wait.
    fn read_before(&self) -> Option<Arc<T>> {
        let mut state = self.lock();
        let (_, current) = state.current.as_ref()?;
        let current = Arc::clone(current);
        if let Some(looking) = &mut state.looking
            && Instant::now() >= looking.patience_ends
            && !std::mem::replace(&mut looking.told, true)
        {
            foreign_files::slow(self.path.display());
        }
        Some(current)
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

    /// Reads the version that is there, unless that is known.
    fn look(&self) -> Look<T> {
        let version = match fs::metadata(&self.path) {
            Ok(metadata) => Version::of(&metadata),
            Err(error) => return Look::Read(None, Err(plain(&error)), Duration::ZERO),
        };
        let (read_before, refused) = {
            let state = self.lock();
            (state.current.as_ref().map(|(version, _)| *version), state.refused)
        };
        let start = Instant::now();
        if read_before == Some(version) {
            return Look::Unchanged;
        }
        if refused.is_some_and(|(refused, until)| refused == version && start < until) {
            return Look::StillRefused;
        }
        let read = (self.read)(&self.path);
        Look::Read(Some(version), read, start.elapsed())
    }

    fn keep(&self, read: Look<T>) {
        let mut state = self.lock();
        state.looked = Some(Instant::now());
        state.looking = None;
        match read {
            Look::Unchanged => state.cause = None,
            Look::StillRefused => {}
            Look::Read(Some(version), Ok(value), _) => {
                if state.current.is_some() {
                    foreign_files::changed(self.path.display());
                }
                state.current = Some((version, Arc::new(value)));
                (state.cause, state.refused) = (None, None);
            }
            Look::Read(None, Ok(_), _) => {}
            Look::Read(version, Err(cause), took) => {
                state.refused = version.map(|version| (version, Instant::now() + took * REST));
                if state.cause.as_deref() != Some(&*cause) && state.current.is_some() {
                    foreign_files::unusable(self.path.display(), &cause);
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
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    #[test]
    fn a_file_that_takes_long_and_is_of_no_use_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map");
        fs::write(&path, "broken").unwrap();
        let file = CachedFile::new(&path, text);
        let Look::Read(version, outcome, _) = file.look() else { panic!("it was not read") };
        file.keep(Look::Read(version, outcome, Duration::from_secs(3600)));
        assert!(matches!(file.look(), Look::StillRefused));
        file.keep(Look::StillRefused);
        assert!(file.result().unwrap_err().to_string().contains("broken"), "and it is still said why");
        fs::write(&path, "another").unwrap();
        file.keep(file.look());
        assert_eq!(*file.result().unwrap(), "another");
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

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_hangs_costs_no_request_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map");
        fs::write(&path, "one").unwrap();
        let (release, hangs) = std::sync::mpsc::channel();
        let (hangs, reads) = (Mutex::new(hangs), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&reads);
        let file = CachedFile::new(&path, move |path| {
            if counted.fetch_add(1, Ordering::Relaxed) > 0 {
                hangs.lock().unwrap().recv().unwrap();
            }
            text(path)
        });
        assert_eq!(*file.get(soon()).await.unwrap(), "one");
        fs::write(&path, "another").unwrap();
        later().await;
        for _ in 0..20 {
            assert_eq!(*file.get(soon()).await.unwrap(), "one");
        }
        assert_eq!(reads.load(Ordering::Relaxed), 2, "one task waits for all");
        release.send(()).unwrap();
        let until = soon();
        while *file.get(soon()).await.unwrap() != "another" {
            assert!(Instant::now() < until);
        }
    }
}
