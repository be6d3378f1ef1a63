//! The list of what is needed, for what, and how each is put right.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Purpose, bpf, system};
use crate::shell;

const CARGO_DENY: &str = "0.20.2";
const KUBERNETES_VALIDATE: &str = "1.37.0";
const BPFFS: &str = "/sys/fs/bpf";

/// One thing that must be on the machine.
pub struct Need {
    pub what: &'static str,
    pub why: &'static str,
    pub purpose: Purpose,
    pub present: fn() -> bool,
    pub fix: Fix,
}

/// How a missing thing is put right.
pub enum Fix {
    /// Packages of the distribution; installed together, before anything else.
    Packages(&'static [&'static str]),
    /// Components of the project's Rust toolchain.
    Components(&'static [&'static str]),
    /// A compiler for the kernel program.
    BpfCompiler,
    /// The linker for the kernel program; after the compiler, whose LLVM it must match.
    BpfLinker,
    CargoDeny,
    /// Python tools in an environment of their own under the target directory.
    PythonTools,
    /// The file system that pins live on.
    Bpffs,
}

impl Fix {
    /// The packages to install for this.
    pub fn packages(&self) -> &'static [&'static str] {
        match self {
            Self::Packages(names) => names,
            _ => &[],
        }
    }

    /// Puts it right; packages are there already.
    pub fn apply(&self) -> Result<()> {
        match self {
            Self::Packages(_) => Ok(()),
            Self::Components(names) => {
                shell::step(format!("adding {} to the Rust toolchain", names.join(", ")));
                shell::run(shell::command("rustup").args(["component", "add"]).args(*names))
            }
            Self::BpfCompiler => bpf::install_compiler(),
            Self::BpfLinker => bpf::install_linker(),
            Self::CargoDeny => {
                shell::step(format!("installing cargo-deny {CARGO_DENY} (a few minutes)"));
                shell::run(shell::cargo().args([
                    "install",
                    "cargo-deny",
                    "--locked",
                    "--version",
                    CARGO_DENY,
                ]))
            }
            Self::PythonTools => install_python_tools(),
            Self::Bpffs => {
                shell::step(format!("mounting the BPF file system on {BPFFS}"));
                shell::run(system::as_root("mount").args(["-t", "bpf", "bpf", BPFFS]))
            }
        }
    }

    /// What to do where setup can not.
    pub fn by_hand(&self) -> String {
        match self {
            Self::Packages(names) => format!("Debian calls it: {}", names.join(" ")),
            Self::Components(names) => format!("rustup component add {}", names.join(" ")),
            Self::BpfCompiler => bpf::THREE_WAYS.to_owned(),
            Self::BpfLinker => bpf::linker_by_hand(),
            Self::CargoDeny => format!("cargo install cargo-deny --locked --version {CARGO_DENY}"),
            Self::PythonTools => {
                format!(
                    "setup does this by itself once python3 with its venv module is there ({KUBERNETES_VALIDATE})"
                )
            }
            Self::Bpffs => format!("mount -t bpf bpf {BPFFS}"),
        }
    }
}

/// Everything, in the order in which it is put right.
pub fn all() -> Vec<Need> {
    use Purpose::{Bench, Build, Lint, Privileged, Test};
    let tool = |what, why, purpose, present, packages| Need {
        what,
        why,
        purpose,
        present,
        fix: Fix::Packages(packages),
    };
    vec![
        tool(
            "C compiler",
            "aws-lc, the cryptography under TLS, is C; also the linker",
            Build,
            has_cc,
            &["gcc", "libc6-dev"],
        ),
        tool(
            "curl",
            "fetches the BPF linker; a client in the tests",
            Build,
            || has("curl"),
            &["curl"],
        ),
        Need {
            what: "BPF compiler",
            why: "compiles the kernel program",
            purpose: Build,
            present: bpf::has_compiler,
            fix: Fix::BpfCompiler,
        },
        Need {
            what: "bpf-linker",
            why: "links the kernel program",
            purpose: Build,
            present: bpf::has_linker,
            fix: Fix::BpfLinker,
        },
        tool(
            "ip",
            "makes network namespaces and veth pairs",
            Privileged,
            || has("ip"),
            &["iproute2"],
        ),
        tool(
            "nsenter",
            "enters a network namespace and keeps bpffs in sight",
            Privileged,
            || has("nsenter"),
            &["util-linux"],
        ),
        tool(
            "kill",
            "the systemd unit reloads with /bin/kill; also stops the gateway through sudo; the tests ask sysctl",
            Test,
            || has("kill") && has("sysctl"),
            &["procps"],
        ),
        tool(
            "systemd-analyze",
            "checks the systemd unit",
            Test,
            || has("systemd-analyze"),
            &["systemd"],
        ),
        tool(
            "python3 peers",
            "WebSocket, gRPC and tokens and JSON Schema as others make them, in the tests",
            Test,
            has_python_peers,
            &[
                "python3",
                "python3-websockets",
                "python3-grpcio",
                "python3-jwt",
                "python3-jwcrypto",
                "python3-authlib",
                "python3-cryptography",
                "python3-jsonschema",
                "python3-yaml",
            ],
        ),
        tool(
            "redis-server",
            "gateways share limits through it, in the tests",
            Test,
            || has("redis-server"),
            &["redis-server"],
        ),
        tool(
            "python3 venv",
            "runs the Kubernetes schema checker",
            Test,
            has_venv,
            &["python3", "python3-venv"],
        ),
        Need {
            what: "schema checker",
            why: "checks config/kubernetes against the schemas of each Kubernetes version",
            purpose: Test,
            present: has_python_tools,
            fix: Fix::PythonTools,
        },
        Need {
            what: "bpffs",
            why: "pinned maps and links live there",
            purpose: Privileged,
            present: has_bpffs,
            fix: Fix::Bpffs,
        },
        Need {
            what: "rustfmt, clippy",
            why: "form and lints",
            purpose: Lint,
            present: has_components,
            fix: Fix::Components(&["rustfmt", "clippy"]),
        },
        Need {
            what: "cargo-deny",
            why: "licences, sources, advisories",
            purpose: Lint,
            present: || has("cargo-deny"),
            fix: Fix::CargoDeny,
        },
        tool(
            "nginx",
            "a peer, and the upstream of all",
            Bench,
            || has("nginx"),
            &["nginx-light"],
        ),
        tool("haproxy", "a peer", Bench, || has("haproxy"), &["haproxy"]),
        tool("caddy", "a peer", Bench, || has("caddy"), &["caddy"]),
        tool(
            "openssl",
            "makes the certificate of the measurement",
            Bench,
            || has("openssl"),
            &["openssl"],
        ),
        tool(
            "h2load",
            "makes the load",
            Bench,
            || has("h2load"),
            &["nghttp2-client"],
        ),
        tool(
            "taskset, unshare",
            "give each program its core, and the packet rig namespaces of its own",
            Bench,
            || has("taskset") && has("unshare") && has("setpriv"),
            &["util-linux"],
        ),
        tool("nft", "a peer: nftables", Bench, || has("nft"), &["nftables"]),
        tool(
            "xdp-filter",
            "a peer of the packet filter",
            Bench,
            || has("xdp-filter"),
            &["xdp-tools"],
        ),
        tool(
            "ethtool",
            "lets a veth device receive in batches",
            Bench,
            || has("ethtool"),
            &["ethtool"],
        ),
    ]
}

fn has(program: &str) -> bool {
    shell::find(program).is_some()
}

/// A compiler alone is not enough: Debian only recommends the C library's headers.
fn has_cc() -> bool {
    has("cc")
        && shell::succeeds(shell::command("cc").args([
            "-x",
            "c",
            "-fsyntax-only",
            "-include",
            "stdio.h",
            "/dev/null",
        ]))
}

/// Debian's python3 has `venv` but not the `ensurepip` that it calls.
fn has_venv() -> bool {
    shell::succeeds(shell::command("python3").args(["-c", "import venv, ensurepip"]))
}

/// Of the distribution's own python3, wherever another one may be first.
fn has_python_peers() -> bool {
    shell::succeeds(shell::command("/usr/bin/python3").args([
        "-c",
        "import websockets, grpc, jwt, jwcrypto, authlib, cryptography, jsonschema, yaml",
    ]))
}

fn has_components() -> bool {
    shell::succeeds(shell::cargo().args(["fmt", "--version"]))
        && shell::succeeds(shell::cargo().args(["clippy", "--version"]))
}

fn has_bpffs() -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    })
}

/// Where tools live that only this repository uses.
pub fn tools_dir() -> Result<PathBuf> {
    Ok(shell::target()?.join("tools"))
}

/// Written last, with the version, so that a broken-off installation does not count.
fn stamp(tools: &Path) -> PathBuf {
    tools.join("venv/kubernetes-validate.version")
}

fn has_python_tools() -> bool {
    tools_dir().is_ok_and(|tools| {
        tools.join("venv/bin/python").exists()
            && std::fs::read_to_string(stamp(&tools)).is_ok_and(|version| version == KUBERNETES_VALIDATE)
    })
}

fn install_python_tools() -> Result<()> {
    let tools = tools_dir()?;
    let venv = tools.join("venv");
    shell::step(format!(
        "installing kubernetes-validate {KUBERNETES_VALIDATE} under {}",
        venv.display()
    ));
    shell::run(
        shell::command("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    let package = format!("kubernetes-validate=={KUBERNETES_VALIDATE}");
    shell::run(shell::command(venv.join("bin/python")).args(["-m", "pip", "install", "--quiet", &package]))?;
    std::fs::write(stamp(&tools), KUBERNETES_VALIDATE).context("noting the installed version")
}
