//! A compiler and linker for the kernel program. The gateway's build script looks for the same three ways.
//!
//! Stable Rust has no `core` for BPF. Debian ships one ready-made beside the compiler it keeps for its browsers;
//! elsewhere rustup's nightly builds it from source. The linker reads the compiler's bitcode, so it must
//! contain the same LLVM or a later one.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::system::{self, System};
use crate::shell;

const LINKER: &str = "0.13.0";
/// LLVM versions that this bpf-linker builds with.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
const DEBIAN: &[&str] = &[
    "rustc-web",
    "cargo-web",
    "rust-web-llvm",
    "libstd-rust-web-dev-bpf",
];

pub const THREE_WAYS: &str = "one of three ways:
      1. Debian 12/13, security suite enabled: apt-get install rustc-web cargo-web rust-web-llvm libstd-rust-web-dev-bpf
         and llvm-N-dev, where N is the LLVM that /usr/bin/rustc -vV names
      2. rustup toolchain install nightly --profile minimal --component rust-src
      3. a ready object from another machine: export GATEWAY_BPF_OBJECT=/path/to/gateway-ebpf (needs no linker either)";

/// Whether a ready object makes compiler and linker unnecessary.
fn has_object() -> bool {
    std::env::var_os("GATEWAY_BPF_OBJECT").is_some_and(|path| Path::new(&path).is_file())
}

/// Whether one of the three ways is open.
pub fn has_compiler() -> bool {
    has_object() || has_debian() || has_nightly()
}

/// Whether the linker is there and starts; it would not with its LLVM library gone.
pub fn has_linker() -> bool {
    has_object()
        || shell::find("bpf-linker")
            .is_some_and(|path| shell::succeeds(shell::command(path).arg("--version")))
}

fn has_debian() -> bool {
    let core = |sysroot: &str| {
        Path::new(sysroot)
            .join("lib/rustlib/bpfel-unknown-none/lib")
            .is_dir()
    };
    Path::new("/usr/bin/cargo").is_file() && Path::new("/usr/bin/rustc").is_file() && core("/usr")
}

fn has_nightly() -> bool {
    let sysroot = shell::output(shell::command("rustc").args(["+nightly", "--print", "sysroot"]));
    sysroot.is_ok_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
    })
}

/// Installs Debian's compiler where it is offered, else rustup's nightly.
pub fn install_compiler() -> Result<()> {
    if System::detect().is_debian() {
        if system::offers("libstd-rust-web-dev-bpf")? {
            return install_debian();
        }
        shell::step(
            "apt offers no libstd-rust-web-dev-bpf (is the security suite enabled?): taking rustup's nightly",
        );
    }
    shell::step(
        "installing rustup's nightly with rust-src (the kernel program only; the rest stays on stable)",
    );
    let arguments = [
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ];
    shell::run(shell::command("rustup").args(arguments))
        .with_context(|| format!("no BPF compiler could be installed; what is needed is {THREE_WAYS}"))
}

fn install_debian() -> Result<()> {
    system::install(DEBIAN)?;
    let llvm = debian_llvm()?;
    if LINKER_LLVM.contains(&llvm) {
        return system::install(&[&format!("llvm-{llvm}-dev")]);
    }
    bail!(
        "Debian's rustc has LLVM {llvm}, which bpf-linker {LINKER} does not build with; use way 2 or 3 of {THREE_WAYS}"
    )
}

/// LLVM's major version in Debian's compiler.
fn debian_llvm() -> Result<u32> {
    let said = shell::output(shell::command("/usr/bin/rustc").arg("-vV"))?;
    llvm_major(&said).context("`/usr/bin/rustc -vV` names no LLVM version")
}

fn llvm_major(said: &str) -> Option<u32> {
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

/// Builds the linker against Debian's LLVM, or fetches the release for rustup's.
pub fn install_linker() -> Result<()> {
    if !has_debian() {
        return fetch_linker();
    }
    let llvm = debian_llvm()?;
    let feature = format!("llvm-{llvm}");
    let prefix = format!("/usr/lib/llvm-{llvm}");
    if !Path::new(&prefix).join("bin/llvm-config").exists() {
        system::install(&[&format!("llvm-{llvm}-dev")])?;
    }
    shell::step(format!(
        "building bpf-linker {LINKER} with Debian's LLVM {llvm} (about a minute)"
    ));
    let mut cargo = shell::cargo();
    cargo.env("LLVM_PREFIX", prefix);
    cargo.args([
        "install",
        "bpf-linker",
        "--locked",
        "--version",
        LINKER,
        "--no-default-features",
    ]);
    shell::run(cargo.args(["--features", &feature]))
}

/// The static binary of the project's release: it holds its own LLVM, newer than nightly's.
fn fetch_linker() -> Result<()> {
    system::install(&["zstd", "ca-certificates"])?;
    let url = release();
    let bin = shell::cargo_bin().context("neither CARGO_HOME nor HOME is set")?;
    let archive = super::needs::tools_dir()?.join("bpf-linker.tar.zst");
    shell::step(format!("fetching {url}"));
    shell::run(
        shell::command("curl")
            .args(["-fsSL", "--retry", "3", "--create-dirs", "-o"])
            .arg(&archive)
            .arg(&url),
    )?;
    shell::run(
        shell::command("tar")
            .arg("--zstd")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&bin)
            .arg("bpf-linker"),
    )
}

fn release() -> String {
    let arch = std::env::consts::ARCH;
    format!(
        "https://github.com/aya-rs/bpf-linker/releases/download/v{LINKER}/bpf-linker-{arch}-unknown-linux-musl.tar.zst"
    )
}

pub fn linker_by_hand() -> String {
    format!(
        "the release {}\n      or: LLVM_PREFIX=/usr/lib/llvm-N cargo install bpf-linker --locked --version {LINKER} \
         --no-default-features --features llvm-N",
        release()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_llvm_version() {
        assert_eq!(
            llvm_major("rustc 1.96.0\nhost: x\nLLVM version: 22.1.8\n"),
            Some(22)
        );
        assert_eq!(llvm_major("rustc 1.96.0"), None);
    }
}
