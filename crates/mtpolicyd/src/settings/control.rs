//! The `<Control>` block: where the daemon is asked how it is and told what to do, and who may.
//!
//! Knows: the names and defaults of its options. Must not know: sockets, what is asked.

use crate::options::{Options, Section, options};
use crate::value::{Switch, words};
use config_general::Block;
use std::path::{Path, PathBuf};

/// The folder of the control socket where systemd has made none.
pub const DEFAULT_FOLDER: &str = "/run/mtpolicyd";
/// The name of the control socket in its folder.
pub const SOCKET_NAME: &str = "control.sock";

/// The variable of systemd's `RuntimeDirectory=`.
const RUNTIME_FOLDER: &str = "RUNTIME_DIRECTORY";

/// The bytes that the name of a UNIX socket may have (`sun_path` of unix(7), with a zero byte at its end).
const MAX_PATH: usize = 107;

options! {
    /// Options of the `<Control>` block: the socket that `mtpolicyd status`, `decisions` and the other
    /// commands use. Without the block there is one where its folder is, and no socket elsewhere.
    pub struct ControlOptions {
        /// Whether there is a control socket. With `off` the commands that ask the daemon do not work.
        enabled: Switch = Switch::On,
        /// The path of the socket. Without it, `control.sock` in the folder that systemd has made for the
        /// service (`RuntimeDirectory=`), or else in `/run/mtpolicyd` if that is there and can be written.
        /// A socket that is named here and can't be made keeps the daemon from starting; one that is not
        /// named is left out, and the log says so.
        socket: Option<String>,
        /// The group whose members may connect. Without it, the group that the daemon runs as.
        group: Option<String>,
        /// What members of the group may do: `read` what was decided, `change` (also the state that plugins
        /// keep, and how much is logged), or `admin` (also reload the configuration). Root and the user
        /// that the daemon runs as may do everything, and nobody else anything.
        group_level: Level = Level::Change,
    }
}

words! {
    /// What somebody may do.
    pub enum Level {
        /// See what was decided, and how the daemon is.
        Read = "read",
        /// Change the state that plugins keep.
        Change = "change",
        /// Everything.
        Admin = "admin",
    }
}

impl Level {
    /// Whether it includes another one.
    pub fn includes(self, other: Level) -> bool {
        self as u8 >= other as u8
    }
}

impl Default for ControlOptions {
    fn default() -> ControlOptions {
        ControlOptions { enabled: Switch::On, socket: None, group: None, group_level: Level::Change }
    }
}

impl ControlOptions {
    /// Where the socket is to be: the path that is configured, or else the default. `None` if it is switched
    /// off.
    pub fn path(&self) -> Option<PathBuf> {
        let wanted = (self.enabled == Switch::On).then_some(self.socket.as_deref());
        wanted.map(|socket| socket.map_or_else(default_socket, PathBuf::from))
    }
}

/// The socket of a daemon whose configuration names none.
pub fn default_socket() -> PathBuf {
    let folders = std::env::var(RUNTIME_FOLDER).unwrap_or_default();
    let folder = folders.split(':').next().filter(|folder| folder.starts_with('/'));
    Path::new(folder.unwrap_or(DEFAULT_FOLDER)).join(SOCKET_NAME)
}

/// What the block says, or `None` after the mistakes were reported.
pub(super) fn read(mut section: Section<'_>) -> Option<ControlOptions> {
    let options = ControlOptions::read(&mut section);
    let path = options.as_ref().and_then(|options| options.socket.as_deref()).unwrap_or_default();
    if path.len() > MAX_PATH {
        let message = format!("socket: the path of a UNIX socket has at most {MAX_PATH} bytes");
        section.report().error(section.span_of("socket"), message, None);
    }
    section.finish();
    options
}

/// The socket that a configuration file names, for those who want to reach the daemon: the file may be full
/// of mistakes, and it need not be readable. `None` if it names none.
pub fn socket_of_file(path: &Path) -> Option<PathBuf> {
    let socket = match config_general::load(path, &config_general::Limits::default()) {
        Ok(document) => socket_of(&document.root),
        Err(_) => {
            let text = safe_files::read(path, MAX_FILE).ok()?;
            socket_of_lines(&String::from_utf8_lossy(&text))
        }
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    socket.map(|socket| folder.join(socket))
}

/// More than a configuration has.
const MAX_FILE: u64 = 16 << 20;

fn socket_of(root: &Block) -> Option<String> {
    let block = root.blocks().find(|block| block.kind == "Control")?;
    block.entries().find(|entry| entry.key == "socket")?.value.clone()
}

/// The same of a file that can't be read as a whole: after a slip of the pen `mtpolicyd reload` shall still
/// find the daemon that knows what is wrong.
fn socket_of_lines(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("<Control"));
    let mut inside = lines.skip(1).take_while(|line| !line.starts_with("</"));
    let rest = inside.find_map(|line| line.strip_prefix("socket"));
    let value = rest.map(|rest| {
        let rest = rest.trim_start();
        rest.strip_prefix('=').unwrap_or(rest).trim().trim_matches('"').to_owned()
    });
    value.filter(|value| value.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn the_socket_is_found_in_a_file_with_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conf");
        for (text, socket) in [
            ("<Control>\n socket = \"/run/a.sock\"\n</Control>\nnonsense = 1\n", Some("/run/a.sock")),
            ("<Control>\n  socket=/run/a.sock\n</Control>\n<VirtualHost 1>\n", Some("/run/a.sock")),
            ("<Control>\n  group = mail\n</Control>\n<VirtualHost 1>\n", None),
            ("<Plugin p>\n socket = /run/b.sock\n</Plugin>\n", None),
            ("port = 1\n", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(socket_of_file(&path), socket.map(PathBuf::from), "{text}");
        }
        std::fs::write(&path, "<Control>\n socket = c.sock\n</Control>\n").unwrap();
        assert_eq!(socket_of_file(&path), Some(folder.path().join("c.sock")));
        assert_eq!(socket_of_file(&folder.path().join("none")), None);
    }

    #[test]
    fn a_level_includes_those_below_it() {
        let levels = ["read", "change", "admin"].map(|word| Level::parse(word).unwrap());
        for (high, level) in levels.iter().enumerate() {
            for (low, other) in levels.iter().enumerate() {
                assert_eq!(level.includes(*other), high >= low);
            }
        }
    }
}
