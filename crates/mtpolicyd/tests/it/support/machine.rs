//! A machine of its own for what a page has a reader type: the programs of this one, with folders, processes
//! and a network of their own, so that the commands need not be changed.
//!
//! Knows: namespaces, overlays, indented blocks of a page. Must not know: what a page is about.

use super::daemon::PROGRAM;
use super::fences::fences;
use super::{is_root_or_leaves_out, leaves_out};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// What `policyd-client` is here.
const CLIENT: &str = env!("CARGO_BIN_EXE_policyd-client");

/// Longer than any page takes, so that a command that waits forever ends the test.
const PATIENCE: &str = "300";

/// How a session begins. A command that fails ends it, and then the daemon's log is worth seeing.
const PROLOGUE: &str = "\
exec 2>&1
set -e
trap 'cat /run/mtpolicyd.log' EXIT
wait_for() {
    until (: <>/dev/tcp/${2:-127.0.0.1}/$1) 2>/dev/null; do sleep 0.05; done
}
";

/// The folder of the repository.
fn repository() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::canonicalize(path).expect("it is there")
}

/// A session of a shell, block by block.
pub struct Transcript {
    /// Each block of commands, and what it printed.
    blocks: Vec<(String, String)>,
}

impl Transcript {
    /// What the block printed in which these words are.
    ///
    /// # Panics When no block has them.
    pub fn after(&self, words: &str) -> &str {
        let block = self.blocks.iter().find(|(commands, _)| commands.contains(words));
        &block.unwrap_or_else(|| panic!("no commands with `{words}`")).1
    }

    /// What the block of this number printed.
    pub fn printed(&self, number: usize) -> &str {
        &self.blocks[number].1
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.blocks.iter().fold(String::new(), |mut text, (commands, printed)| {
            let _ = writeln!(text, "$ {commands}\n{printed}");
            text
        })
    }
}

/// A machine that commands are typed on.
pub struct Machine {
    scratch: TempDir,
    blocks: Vec<String>,
}

impl Machine {
    /// A machine without mtpolicyd, in a copy of this repository that has been built; `None` where the tests
    /// may not have namespaces, which is said.
    pub fn new(what: &str) -> Option<Machine> {
        if !is_root_or_leaves_out(what) {
            return None;
        }
        let allowed = Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "true"]).output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            leaves_out("namespaces are not allowed", what);
            return None;
        }
        let scratch = tempfile::tempdir().expect("there is room for a folder");
        let copy = scratch.path().join("copy");
        fs::create_dir_all(copy.join("target/release")).expect("the folder is ours");
        for name in ["etc", "docs", "examples"] {
            symlink(repository().join(name), copy.join(name)).expect("the folder is ours");
        }
        for program in [PROGRAM, CLIENT] {
            let name = Path::new(program).file_name().expect("it has a name");
            symlink(program, copy.join("target/release").join(name)).expect("the folder is ours");
        }
        Some(Machine { scratch, blocks: Vec::new() })
    }

    /// Has the commands typed that install the daemon, as the guide says.
    pub fn install(&mut self) {
        let page = fs::read_to_string(repository().join("docs/guide/from-source.md")).expect("it is there");
        let (_, section) = page.split_once("## On a machine without mtpolicyd").expect("it says how");
        let fence = fences(section).into_iter().find(|fence| fence.kind == "sh").expect("it has commands");
        self.blocks.push(fence.text);
    }

    /// Has something typed that no page says. Returns the number of the block.
    pub fn types(&mut self, commands: &str) -> usize {
        self.blocks.push(commands.to_owned());
        self.blocks.len() - 1
    }

    /// Has the commands of a page typed in its folder; `is_command` tells them from files and answers.
    pub fn follows(&mut self, page: &str, is_command: impl Fn(&str) -> bool) {
        let path = repository().join(page);
        let text = fs::read_to_string(&path).expect("the page is there");
        self.types(&format!("cd {}", path.parent().expect("it lies in a folder").display()));
        self.blocks.extend(blocks(&text).into_iter().filter(|block| is_command(block)));
    }

    /// Changes what is typed from here on: a reader has a terminal for each command that does not end, and a
    /// password in the head.
    ///
    /// # Panics When nobody types that.
    pub fn instead_of(&mut self, typed: &str, other: &str) {
        let block = self.blocks.iter_mut().find(|block| block.contains(typed));
        let block = block.unwrap_or_else(|| panic!("nobody types `{typed}`"));
        *block = block.replacen(typed, other, 1);
    }

    /// Types everything into one shell.
    ///
    /// # Panics When a command fails.
    pub fn run(self) -> Transcript {
        const MARK: &str = "@@ block";
        let mut script = PROLOGUE.to_owned();
        for (number, block) in self.blocks.iter().enumerate() {
            let _ = writeln!(script, "echo; echo '{MARK} {number}'\n{block}");
        }
        let _ = writeln!(script, "echo; echo '{MARK} end'");
        let path = |name: &str| self.scratch.path().join(name);
        fs::write(path("script"), &script).expect("the folder is ours");
        fs::create_dir(path("layers")).expect("the folder is ours");
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/machine");
        let output = Command::new("timeout")
            .args(["--kill-after", "5", PATIENCE, "unshare", "--mount", "--net", "--pid", "--fork"])
            .args(["--kill-child", "--mount-proc", "bash"])
            .arg(programs.join("set_up.sh"))
            .args([&path("layers"), &programs, &path("copy"), &path("script")])
            .stdin(Stdio::null())
            .output()
            .expect("there is a shell");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && printed.contains(&format!("{MARK} end")), "{printed}\n{errors}");
        let parts =
            printed.split(MARK).skip(1).map(|part| part.split_once('\n').unwrap_or_default().1.trim());
        Transcript { blocks: self.blocks.into_iter().zip(parts.map(str::to_owned)).collect() }
    }
}

/// The indented blocks of a page, without their indentation.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut is_open = false;
    let mut blank = 0;
    for line in page.lines() {
        match line.strip_prefix("    ") {
            Some(code) if is_open => {
                let block = blocks.last_mut().expect("one is open");
                block.push_str(&"\n".repeat(blank + 1));
                block.push_str(code);
                blank = 0;
            }
            Some(code) => {
                blocks.push(code.to_owned());
                (is_open, blank) = (true, 0);
            }
            // A blank line belongs to the block if it goes on behind it.
            None if line.is_empty() => blank += 1,
            None => is_open = false,
        }
    }
    blocks
}
