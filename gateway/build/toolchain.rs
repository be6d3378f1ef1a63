//! Finds a compiler for BPF and runs it. Owns the three ways to get the object, and the words that name them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Path of a ready-made object; nothing is compiled if it is set.
pub const OBJECT: &str = "GATEWAY_BPF_OBJECT";

/// Debian's compiler, beside which its package `libstd-rust-web-dev-bpf` puts a ready `core` for BPF.
const SYSTEM_CARGO: &str = "/usr/bin/cargo";
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// A compiler and linker that can produce the object.
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

enum Compiler {
    /// With a prebuilt `core`.
    System,
    /// Rustup's nightly, which compiles `core` from `rust-src`.
    Nightly,
}

/// The first way that is open on this machine.
pub fn find() -> Result<Toolchain, String> {
    let linker = find_linker();
    let compiler = if has_system_core() {
        Ok(Compiler::System)
    } else if has_nightly_source() {
        Ok(Compiler::Nightly)
    } else {
        Err("no compiler with a `core` library for it was found".to_owned())
    };
    match (compiler, linker) {
        (Ok(compiler), Some(linker)) => Ok(Toolchain { compiler, linker }),
        (Ok(_), None) => Err(advice(
            "bpf-linker is neither on PATH nor in cargo's bin directory",
        )),
        (Err(reason), _) => Err(advice(&reason)),
    }
}

fn advice(reason: &str) -> String {
    let (target, object) = (target(), OBJECT);
    format!(
        "\nThe kernel program ({target}) can not be built: {reason}.\n\
         Any one of these mends it; `cargo xtask setup` does the first where it can.\n\
         \n\
         1. Debian's compiler for BPF:\n\
         \x20    apt-get install rustc-web cargo-web rust-web-llvm libstd-rust-web-dev-bpf llvm-22-dev\n\
         \x20    LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22\n\
         2. Rustup's nightly:\n\
         \x20    rustup toolchain install nightly --component rust-src\n\
         \x20    cargo install bpf-linker\n\
         3. A ready object from a release or another machine:\n\
         \x20    {object}=/path/to/gateway-ebpf.o cargo build\n"
    )
}

/// BPF has a byte order, and it is the processor's.
fn target() -> &'static str {
    match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    }
}

fn has_system_core() -> bool {
    let Some(sysroot) = Path::new(SYSTEM_CARGO)
        .exists()
        .then(|| text(clean(SYSTEM_RUSTC).args(["--print", "sysroot"])))
        .flatten()
    else {
        return false;
    };
    let lib = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(target())
        .join("lib");
    fs::read_dir(lib).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn has_nightly_source() -> bool {
    let sysroot = text(clean("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]));
    sysroot.is_some_and(|root| {
        Path::new(root.trim())
            .join("lib/rustlib/src/rust/library/core")
            .exists()
    })
}

fn find_linker() -> Option<PathBuf> {
    let on_path = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let cargo_bins = cargo_home.into_iter().chain(home).map(|dir| dir.join("bin"));
    on_path
        .into_iter()
        .chain(cargo_bins)
        .map(|dir| dir.join("bpf-linker"))
        .find(|path| path.is_file())
}

impl Toolchain {
    /// Compiles the program below `target_dir` and returns the object.
    pub fn build(&self, root: &Path, target_dir: &Path) -> Result<PathBuf, String> {
        let mut cargo = match self.compiler {
            Compiler::System => {
                let mut cargo = clean(SYSTEM_CARGO);
                // The kernel program needs unstable features of a stable compiler: inline assembly, intrinsics.
                cargo.env("RUSTC", SYSTEM_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Compiler::Nightly => {
                let mut cargo = clean("rustup");
                cargo.args(["run", "nightly", "cargo", "-Zbuild-std=core"]);
                cargo
            }
        };
        let target = target();
        let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
        cargo
            .current_dir(root)
            .args([
                "build",
                "--release",
                "--locked",
                "--package",
                "gateway-ebpf",
                "--bin",
                "gateway-ebpf",
            ])
            .args(["--target", target])
            .arg("--target-dir")
            .arg(target_dir)
            .env(
                format!("CARGO_TARGET_{}_LINKER", target.replace('-', "_").to_uppercase()),
                &self.linker,
            )
            .env("CARGO_ENCODED_RUSTFLAGS", flags(&architecture).join("\x1f"))
            // A wrapper set in a configuration file may not know this compiler.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "");
        let output = cargo.output().map_err(|e| format!("starting {cargo:?}: {e}"))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "building the kernel program failed ({}):\n{cargo:?}\n{errors}",
                output.status
            ));
        }
        Ok(target_dir.join(target).join("release/gateway-ebpf"))
    }
}

/// Compiler flags: BTF, for names and types in the kernel's tools and in the ABI test; instruction set v3 (kernel
/// 5.12) for atomics and short jumps; unaligned loads, which every processor this runs on and its verifier allow.
fn flags(architecture: &str) -> Vec<String> {
    [
        "-Clink-arg=--btf",
        "-Cdebuginfo=2",
        "-Ctarget-cpu=v3",
        "-Ctarget-feature=+allows-misaligned-mem-access",
        &format!("--cfg=bpf_target_arch=\"{architecture}\""),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A command without what the outer cargo set for its own compiler and package.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    let kept = |name: &str| {
        [
            "CARGO_HOME",
            "CARGO_HTTP_",
            "CARGO_NET_",
            "CARGO_REGISTR",
            "CARGO_SOURCE_",
            "CARGO_TERM_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let build_script = [
            "TARGET",
            "HOST",
            "PROFILE",
            "OUT_DIR",
            "DEBUG",
            "OPT_LEVEL",
            "NUM_JOBS",
            "MAKEFLAGS",
        ];
        let outer = name == "CARGO"
            || name.starts_with("CARGO_") && !kept(name)
            || name.starts_with("RUSTC")
            || matches!(
                name,
                "RUSTDOC" | "RUSTFLAGS" | "RUSTDOCFLAGS" | "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT"
            )
            || name.starts_with("DEP_")
            || build_script.contains(&name);
        if outer {
            command.env_remove(name);
        }
    }
    command
}

fn text(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
