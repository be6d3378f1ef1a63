//! Running other programs: where the workspace lies, a clean environment, and errors that name the command.
//!
//! Knows no verb. Commands are built as values and never pass through a shell, so no argument needs quoting.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Variables that the outer `cargo run` sets for this program and that would mislead a cargo called from here: build
/// scripts watch some of them, so they would rebuild whenever the caller changes.
const OF_THE_OUTER_CARGO: &[&str] = &[
    "CARGO",
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
    "RUSTC",
    "RUSTDOC",
    "RUST_RECURSION_COUNT",
];

/// The directory of the workspace's `Cargo.toml`.
pub fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .filter(|dir| Path::new(dir).ends_with("xtask"))
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The directory that cargo builds into, whatever put it there: this program is `<target>/debug/xtask`.
pub fn target() -> Result<PathBuf> {
    let this = env::current_exe().context("finding this program's own path")?;
    match this.parent().and_then(Path::parent) {
        Some(dir) => Ok(dir.to_path_buf()),
        None => bail!("{} does not lie in a target directory", this.display()),
    }
}

/// Announces a step.
pub fn step(text: impl AsRef<str>) {
    eprintln!("==> {}", text.as_ref());
}

/// A command that runs in the workspace root without what the outer cargo set.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    for name in OF_THE_OUTER_CARGO {
        command.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_")) {
            command.env_remove(name);
        }
    }
    // The outer cargo points the loader at its own toolchain; another compiler would load the wrong libraries.
    if let Some(paths) = env::var_os("LD_LIBRARY_PATH") {
        let kept = env::split_paths(&paths).filter(|path| !path_of_cargo(path));
        match env::join_paths(kept) {
            Ok(kept) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", kept),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
    command
}

fn path_of_cargo(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "toolchains")
        || target().is_ok_and(|target| path.starts_with(target))
}

/// Cargo, as the workspace's `rust-toolchain.toml` chooses it.
pub fn cargo() -> Command {
    command("cargo")
}

/// The host's target triple.
pub fn host() -> Result<String> {
    let said = output(command("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

/// Runs a command to its end and fails unless it succeeds. What it prints goes to the terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// What a command prints, trimmed; fails unless it succeeds, with what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed: {}\n{}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a command runs and succeeds; what it prints is thrown away.
pub fn succeeds(command: &mut Command) -> bool {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A command as one would type it.
pub fn line(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Where cargo installs programs: `$CARGO_HOME/bin`, or `~/.cargo/bin`.
pub fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    Some(home.join("bin"))
}

/// The full path of a program on PATH, in cargo's directory or in the administrator's, which an ordinary user's PATH
/// often lacks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].iter().map(PathBuf::from);
    env::split_paths(&path)
        .chain(cargo_bin())
        .chain(more)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
