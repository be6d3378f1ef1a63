//! Builds the kernel program and hands its object to the crate as `GATEWAY_BPF_OBJECT_FILE`.
//!
//! The target has no place in the outer build (another compiler, another `core`), so a second cargo runs with a
//! target directory and an environment of its own. `build/toolchain.rs` finds the compiler and says what to install.

#[path = "build/toolchain.rs"]
mod toolchain;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    if let Err(reason) = build() {
        eprintln!("{reason}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let package = dir("CARGO_MANIFEST_DIR")?;
    let root = package.parent().ok_or("the package has no parent directory")?;
    let out = dir("OUT_DIR")?;
    for path in ["build.rs", "build"] {
        println!("cargo::rerun-if-changed={}", package.join(path).display());
    }
    for path in [
        "gateway-ebpf/src",
        "gateway-ebpf/Cargo.toml",
        "gateway-common/src",
        "gateway-common/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    for path in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-env-changed={}", toolchain::OBJECT);
    println!("cargo::rerun-if-env-changed=PATH");

    let object = match env::var_os(toolchain::OBJECT) {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            path
        }
        None => toolchain::find()?.build(root, &inner_target(&out))?,
    };
    let embedded = out.join("gateway-ebpf.o");
    let bytes = fs::read(&object).map_err(|e| format!("reading the BPF object {}: {e}", object.display()))?;
    // ELF class 64, machine 247 (BPF): whatever else was given by path would fail only at run time.
    if bytes.get(..5) != Some(b"\x7fELF\x02") || !matches!(bytes.get(18..20), Some([247, 0] | [0, 247])) {
        return Err(format!("{} is not a BPF object", object.display()));
    }
    fs::write(&embedded, bytes).map_err(|e| format!("writing {}: {e}", embedded.display()))?;
    println!("cargo::rustc-env=GATEWAY_BPF_OBJECT_FILE={}", embedded.display());
    Ok(())
}

fn dir(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo did not set {variable}"))
}

/// `target/bpf`, beside the profiles, so that check, debug and release share one build; else below `OUT_DIR`.
fn inner_target(out: &Path) -> PathBuf {
    let profile = out
        .ancestors()
        .find(|path| path.ends_with("build"))
        .and_then(Path::parent);
    profile.and_then(Path::parent).unwrap_or(out).join("bpf")
}
