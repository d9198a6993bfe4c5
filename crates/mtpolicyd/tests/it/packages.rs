//! Packages: what `./package` makes, installed in a file system of its own.
//!
//! Knows: dpkg, apt, rpm, buildah; the variables that name packages. Must not know: the daemon's code.
//!
//! `MTPOLICYD_DEB` names the package for Debian and `MTPOLICYD_RPM` the RPM; `.ci/run release` builds them
//! and sets both. The machine is a bare Debian in the folder `MTPOLICYD_DEBOOTSTRAP`, or else this one; what
//! is written goes to a layer. With that folder the service is tried under a systemd that runs there.

use crate::support::daemon::{PROGRAM, errors_of, output_of, run};
use crate::support::{is_root_or_leaves_out, leaves_out};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Longer than a package manager takes on a busy machine; a question that nobody answers takes forever.
const PATIENCE: &str = "600";

fn repository() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).expect("it is there")
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|output| output.status.success())
}

/// Runs a part of `tests/it/support/package.sh` and returns what it printed.
#[track_caller]
fn plays(part: &str, package: &Path, old: Option<&Path>) -> String {
    let mut arguments = vec![part.as_ref()];
    arguments.extend(old.map(Path::as_os_str));
    runs_apart("package.sh", package, &arguments)
}

/// Runs a script of `tests/it/support` for a package, in namespaces of its own, and returns what it printed.
#[track_caller]
fn runs_apart(script: &str, package: &Path, arguments: &[&OsStr]) -> String {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support").join(script);
    let output = Command::new("timeout")
        .args(["--kill-after", "5", PATIENCE, "unshare", "--mount", "--net", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "bash"])
        .args([&script, folder.path(), package])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("there is a shell");
    let printed = output_of(&output);
    assert!(output.status.success(), "{printed}\n{}", errors_of(&output));
    printed
}

/// The package for Debian, if there is one and it can be installed here.
fn package(what: &str) -> Option<PathBuf> {
    named("MTPOLICYD_DEB", "./package deb", &["dpkg-deb", "apt-get", "unshare"], what)
}

/// The package that a variable names, if it can be installed here with these programs.
fn named(variable: &str, made_by: &str, programs: &[&str], what: &str) -> Option<PathBuf> {
    if !is_root_or_leaves_out(what) {
        return None;
    }
    let Some(package) = std::env::var_os(variable).map(PathBuf::from) else {
        leaves_out(&format!("{variable} names no package ({made_by} builds one)"), what);
        return None;
    };
    for program in programs {
        if !is_there(program) {
            leaves_out(&format!("there is no {program}"), what);
            return None;
        }
    }
    let allowed = Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        leaves_out("namespaces are not allowed", what);
        return None;
    }
    Some(package)
}

#[test]
fn debians_package_is_replaced_and_nothing_is_lost() {
    const WHAT: &str = "the package for Debian in place of mtpolicyd 2";
    let Some(package) = package(WHAT) else { return };
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let mut download = Command::new("apt-get");
    download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", "mtpolicyd=2.05-1.1"]);
    let output = download.current_dir(folder.path()).output().expect("it can be run");
    let old = folder.path().join("mtpolicyd_2.05-1.1_all.deb");
    if !output.status.success() || !old.exists() {
        leaves_out(&format!("Debian's package can't be had: {}", errors_of(&output)), WHAT);
        return;
    }
    let said = plays("upgrade", &package, Some(&old));
    assert!(said.contains("ALL DONE"), "{said}");
}

#[test]
fn a_bare_machine_gets_everything_and_gives_it_back() {
    let Some(package) = package("the package for Debian, installed, removed and purged") else { return };
    let said = plays("fresh", &package, None);
    assert!(said.contains("ALL DONE"), "{said}");
}

#[test]
fn the_service_does_what_the_pages_say_under_a_systemd_that_runs() {
    const WHAT: &str = "the service under systemd";
    let Some(package) = package(WHAT) else { return };
    let machine = std::env::var_os("MTPOLICYD_DEBOOTSTRAP").map(PathBuf::from);
    if !machine.is_some_and(|folder| folder.join("lib/systemd/systemd").exists()) {
        leaves_out("MTPOLICYD_DEBOOTSTRAP names no Debian with systemd", WHAT);
        return;
    }
    if !is_there("systemd-nspawn") {
        leaves_out("there is no systemd-nspawn", WHAT);
        return;
    }
    let said = runs_apart("service.sh", &package, &[]);
    if let Some((_, why)) = said.split_once("LEFT OUT: ") {
        leaves_out(why.trim(), WHAT);
        return;
    }
    assert!(said.contains("ALL DONE"), "{said}");
}

/// What rpm says of a package that lies in a file.
#[track_caller]
fn says_rpm(package: &Path, question: &str) -> String {
    let output = run(Command::new("rpm").args(["-qp", question]).arg(package), b"");
    assert!(output.status.success(), "{}", errors_of(&output));
    output_of(&output)
}

#[test]
fn an_rpm_is_installed_upgraded_and_removed() {
    let Some(package) = named("MTPOLICYD_RPM", "./package rpm", &["rpm", "unshare"], "the RPM") else {
        return;
    };
    let files = says_rpm(&package, "--list");
    for file in [
        "/etc/logrotate.d/mtpolicyd",
        "/usr/bin/policyd-client",
        "/usr/lib/systemd/system/mtpolicyd.service",
        "/usr/lib/systemd/system/mtpolicyd.socket",
        "/usr/lib/sysusers.d/mtpolicyd.conf",
        "/usr/share/bash-completion/completions/mtpolicyd",
        "/usr/share/doc/mtpolicyd/README.md",
        "/usr/share/doc/mtpolicyd/examples/ldap/README.md",
        "/usr/share/doc/mtpolicyd/guide/first-day.md",
        "/usr/share/doc/mtpolicyd/plugins/RBL.md",
        "/usr/share/licenses/mtpolicyd/LICENSE-MIT",
        "/usr/share/man/man5/mtpolicyd-RBL.5.gz",
        "/usr/share/man/man8/mtpolicyd.8.gz",
        "/usr/share/zsh/site-functions/_mtpolicyd",
    ] {
        assert!(files.lines().any(|line| line == file), "{file} is not in {files}");
    }
    assert_eq!(files.lines().find(|line| line.contains("/debian") || line.contains(".Debian")), None);
    let settings = "/etc/logrotate.d/mtpolicyd\n/etc/mtpolicyd/mtpolicyd.conf\n";
    assert_eq!(says_rpm(&package, "--configfiles"), settings);
    let requires = says_rpm(&package, "--requires");
    for needed in ["libc.so.6(GLIBC_", "systemd\n", "/bin/sh\n"] {
        assert!(requires.contains(needed), "{requires}");
    }
    let scripts = says_rpm(&package, "--scripts");
    for script in ["preinstall", "postinstall", "preuninstall", "postuninstall", "posttrans"] {
        assert!(scripts.contains(script), "{scripts}");
    }
    let said = plays("rpm", &package, None);
    assert_eq!(said.matches("ALL DONE").count(), 4, "{said}");
}

#[test]
fn crates_that_others_may_use_are_complete() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for name in ["config-general", "dns-stub", "perl-regex", "postfix-maps", "postfix-policy", "spf"] {
        let mut list = Command::new(&cargo);
        list.args(["package", "--offline", "--allow-dirty", "--list", "--package", name]);
        let output = run(list.current_dir(repository()), b"");
        assert!(output.status.success(), "{name}: {}", errors_of(&output));
        let files = output_of(&output);
        for file in ["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "src/lib.rs"] {
            assert!(files.lines().any(|line| line == file), "{name}: {file} is not in {files}");
        }
        // The cases of its tests are many and of no use without the repository.
        assert_eq!(files.lines().find(|line| line.starts_with("tests/")), None, "{name}");
        let manifest = fs::read_to_string(repository().join("crates").join(name).join("Cargo.toml")).unwrap();
        for key in ["description = ", "keywords = [", "categories = [", "readme = "] {
            assert!(manifest.contains(key), "{name} has no `{key}`");
        }
    }
}

#[test]
fn lintian_finds_no_error() {
    let Some(package) = package("the package for Debian, looked at by lintian") else { return };
    if !is_there("lintian") {
        leaves_out("there is no lintian", "the package for Debian, looked at by lintian");
        return;
    }
    let arguments = ["--allow-root", "--fail-on", "error", "--tag-display-limit", "0"];
    let output = Command::new("lintian").args(arguments).arg(&package).output().expect("it can be run");
    assert!(output.status.success(), "{}{}", output_of(&output), errors_of(&output));
}

/// The script that makes packages, with these arguments.
fn package_script(arguments: &[&str]) -> Output {
    run(Command::new(repository().join("package")).args(arguments), b"")
}

#[test]
fn what_is_missing_is_said() {
    let usage = package_script(&[]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(errors_of(&usage).contains("./package deb"), "{}", errors_of(&usage));
    let unknown = errors_of(&package_script(&["static", "x86_64-unknown-nothing"]));
    assert!(unknown.contains("rustc knows no target x86_64-unknown-nothing"), "{unknown}");
    let not_static = errors_of(&package_script(&["static", "x86_64-unknown-linux-gnu"]));
    assert!(not_static.contains("musl"), "{not_static}");
    let target = errors_of(&package_script(&["static", "riscv64gc-unknown-linux-musl"]));
    assert!(target.contains("rustup target add") || target.contains("missing"), "{target}");
}

#[test]
fn the_image_has_the_program_and_nobody_runs_it_as_root() {
    const WHAT: &str = "the image for containers";
    if !is_root_or_leaves_out(WHAT) {
        return;
    }
    if !is_there("buildah") {
        leaves_out("there is no buildah", WHAT);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let storage = |name: &str| folder.path().join(name);
    let programs = Path::new(PROGRAM).parent().expect("it lies in a folder");
    let staged = package_script(&["stage-image", &programs.display().to_string()]);
    assert!(staged.status.success(), "{}", errors_of(&staged));
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs"]);
        command.arg("--root").arg(storage("root")).arg("--runroot").arg(storage("run"));
        command.args(arguments).current_dir(repository());
        run(&mut command, b"")
    };
    let image = ["build", "--isolation", "chroot", "-q", "-t", "mtpolicyd:test", "-f", "Containerfile"];
    let built = buildah(&[&image[..], &["target/package/image"]].concat());
    assert!(built.status.success(), "{}", errors_of(&built));
    let described = buildah(&["inspect", "--type", "image", "mtpolicyd:test"]);
    let described: serde_json::Value = serde_json::from_slice(&described.stdout).expect("it is JSON");
    let config = &described["OCIv1"]["config"];
    assert_eq!(config["User"], "65534:65534");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/mtpolicyd"]));
    assert_eq!(config["Cmd"], serde_json::json!(["-f"]));
    let from = buildah(&["from", "--name", "it", "mtpolicyd:test"]);
    assert!(from.status.success(), "{}", errors_of(&from));
    let mounted = buildah(&["mount", "it"]);
    let inside = PathBuf::from(output_of(&mounted).trim());
    let check = run(Command::new(PROGRAM).arg("check").arg(inside.join("etc/mtpolicyd/mtpolicyd.conf")), b"");
    assert!(check.status.success(), "{}", errors_of(&check));
    assert!(inside.join("mtpolicyd").exists() && !inside.join("bin").exists());
    // Where the control socket is made.
    let folder_of_socket = inside.join("run/mtpolicyd").metadata().expect("it is there");
    assert_eq!(folder_of_socket.uid(), 65534);
    let is_static = !output_of(&run(Command::new("ldd").arg(PROGRAM), b"")).contains("=>");
    if is_static {
        let version = buildah(&["run", "--isolation", "chroot", "it", "--", "/mtpolicyd", "--version"]);
        assert!(output_of(&version).starts_with("mtpolicyd "), "{}", errors_of(&version));
    } else {
        leaves_out("the tests' programs are not static", "running the image");
    }
    buildah(&["rm", "--all"]);
    buildah(&["rmi", "--all", "--force"]);
}

#[test]
fn scripts_of_other_systems_check_before_they_stop() {
    for (script, checks) in [("init.d", "restart) check && stop"), ("openrc", "checkconfig || return 1")] {
        let path = repository().join("packaging").join(script);
        let syntax = run(Command::new("sh").arg("-n").arg(&path), b"");
        assert!(syntax.status.success(), "{}", errors_of(&syntax));
        assert!(fs::read_to_string(&path).unwrap().contains(checks), "{script}");
    }
}
