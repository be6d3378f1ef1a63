//! What is shipped for running the gateway: Kubernetes manifests, the systemd unit, the image.
//!
//! The manifests are held against the schemas of every Kubernetes version from 1.29 that the checker carries, strictly:
//! a key that Kubernetes would silently ignore is a fault. Each check is also shown a broken copy, which it must refuse.
//! The tools come from `cargo xtask setup`; without them these tests fail rather than skip.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

/// Longest orderly stop unless the configuration says otherwise, in seconds (`limits.drain`).
const DRAIN: u64 = 30;

/// Arguments: manifest files. Prints how many documents passed against how many versions; fails with one line a fault.
/// The checker's own command line only warns of a kind that has no schema, so its functions are called instead.
const VALIDATE: &str = r#"
import sys
from kubernetes_validate import utils
versions = [v for v in utils.all_versions() if tuple(map(int, v.split(".")[:2])) >= (1, 29)]
documents = [(f, d) for f in sys.argv[1:] for d in utils.resources_from_file(f)]
faults = 0
for version in versions:
    for file, document in documents:
        try:
            utils.validate(document, version, strict=True)
        except Exception as fault:
            faults += 1
            where = ".".join(str(part) for part in getattr(fault, "path", []))
            print(f"{file}: Kubernetes {version}: {where}: {getattr(fault, 'message', fault)}")
print(len(documents), len(versions))
sys.exit(1 if faults else 0)
"#;

/// Arguments: a YAML file. Prints it as JSON, all documents in one list.
const TO_JSON: &str =
    "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifests() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join("config/kubernetes")).context("reading config/kubernetes")? {
        let path = entry?.path();
        let yaml = path.extension().is_some_and(|ext| ext == "yaml");
        // Kustomize's own file has no schema in Kubernetes.
        if yaml && !path.ends_with("kustomization.yaml") {
            files.push(path);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "no manifests in config/kubernetes");
    Ok(files)
}

/// Runs a Python script with the tools that `setup` installed.
fn python(script: &str, arguments: &[PathBuf]) -> Result<Output> {
    let tools = std::env::var_os("GATEWAY_TOOLS").map_or_else(|| root().join("target/tools"), PathBuf::from);
    let python = tools.join("venv/bin/python");
    ensure!(
        python.exists(),
        "{} is missing: run `cargo xtask setup`",
        python.display()
    );
    Command::new(python)
        .arg("-c")
        .arg(script)
        .args(arguments)
        .output()
        .context("starting Python")
}

fn gateway() -> Result<Command> {
    let path = std::env::var_os("GATEWAY_BIN").context("GATEWAY_BIN is not set: run `cargo xtask test`")?;
    Ok(Command::new(path))
}

fn json(file: &Path) -> Result<Vec<serde_json::Value>> {
    let output = python(TO_JSON, &[file.to_path_buf()])?;
    ensure!(
        output.status.success(),
        "{}: {}",
        file.display(),
        text(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("reading JSON")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The DaemonSet, and what the ConfigMap gives the gateway to read.
fn deployed() -> Result<(serde_json::Value, String)> {
    let (mut set, mut config) = (None, None);
    for file in manifests()? {
        for document in json(&file)? {
            match document["kind"].as_str() {
                Some("DaemonSet") => set = Some(document),
                Some("ConfigMap") => config = document["data"]["gateway.yaml"].as_str().map(str::to_owned),
                _ => {}
            }
        }
    }
    Ok((
        set.context("no DaemonSet")?,
        config.context("no gateway.yaml in a ConfigMap")?,
    ))
}

#[test]
fn manifests_fit_every_schema() -> Result<()> {
    let output = python(VALIDATE, &manifests()?)?;
    let said = text(&output.stdout);
    ensure!(output.status.success(), "{said}{}", text(&output.stderr));
    let counts: Vec<usize> = said
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(
        matches!(counts[..], [documents, versions] if documents >= 3 && versions >= 8),
        "checked too little: {said}"
    );
    Ok(())
}

#[test]
fn broken_manifests_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("broken.yaml");
    let good = std::fs::read_to_string(root().join("config/kubernetes/daemonset.yaml"))?;
    for (right, wrong) in [
        ("hostNetwork: true", "hostNetwrk: true"),
        ("maxUnavailable: 1", "maxUnavailable: [1]"),
        ("minReadySeconds: 10", "minReadySeconds: soon"),
        ("kind: DaemonSet", "kind: DemonSet"),
    ] {
        ensure!(good.contains(right), "the manifest has no `{right}` to break");
        std::fs::write(&file, good.replace(right, wrong))?;
        let output = python(VALIDATE, std::slice::from_ref(&file))?;
        ensure!(
            !output.status.success(),
            "`{wrong}` passed: {}",
            text(&output.stdout)
        );
    }
    std::fs::write(&file, &good)?;
    let output = python(VALIDATE, &[file])?;
    ensure!(
        output.status.success(),
        "the unbroken copy fails: {}",
        text(&output.stdout)
    );
    Ok(())
}

#[test]
fn kustomize_takes_every_manifest() -> Result<()> {
    let kustomization = json(&root().join("config/kubernetes/kustomization.yaml"))?;
    let listed = kustomization
        .first()
        .and_then(|document| document["resources"].as_array())
        .context("resources")?;
    let mut listed: Vec<_> = listed
        .iter()
        .filter_map(|name| name.as_str())
        .map(str::to_owned)
        .collect();
    listed.sort();
    let files: Vec<_> = manifests()?
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    ensure!(
        listed == files,
        "kustomization.yaml lists {listed:?}, there are {files:?}"
    );
    Ok(())
}

#[test]
fn the_config_map_is_a_valid_configuration() -> Result<()> {
    let (_, config) = deployed()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("gateway.yaml");
    for (config, expected) in [(config.clone(), 0), (format!("{config}\nunheard_of: true\n"), 2)] {
        std::fs::write(&file, config)?;
        let output = gateway()?
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .context("starting the gateway")?;
        let said = text(&output.stdout) + &text(&output.stderr);
        ensure!(
            output.status.code() == Some(expected),
            "`gateway check` ended with {}: {said}",
            output.status
        );
    }
    Ok(())
}

#[test]
fn daemon_set_and_configuration_agree() -> Result<()> {
    let (set, config) = deployed()?;
    let pod = &set["spec"]["template"]["spec"];
    let grace = pod["terminationGracePeriodSeconds"]
        .as_u64()
        .context("a grace period")?;
    ensure!(
        grace > DRAIN,
        "the kubelet kills after {grace} s what may take {DRAIN} s to drain"
    );
    let container = &pod["containers"][0];
    ensure!(pod["hostNetwork"] == true && container["securityContext"]["privileged"] == true);
    let ports = container["ports"].as_array().context("ports")?;
    let number = ports
        .iter()
        .find(|port| port["name"] == "metrics")
        .map(|port| port["containerPort"].clone());
    let metrics = format!("metrics: 127.0.0.1:{}", number.context("a port named metrics")?);
    ensure!(
        config.contains(&metrics),
        "the ConfigMap does not say `{metrics}`"
    );
    for (probe, path) in [
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
        ("startupProbe", "/healthz"),
    ] {
        let get = &container[probe]["httpGet"];
        ensure!(
            get["path"] == path && get["port"] == "metrics" && get["host"] == "127.0.0.1",
            "{probe}: {get}"
        );
    }
    let volumes = pod["volumes"].as_array().context("volumes")?;
    let mounts = container["volumeMounts"].as_array().context("mounts")?;
    for path in ["/sys/fs/bpf", "/var/lib/gateway", "/run/gateway"] {
        let mount = mounts
            .iter()
            .find(|mount| mount["mountPath"] == path)
            .context(path)?;
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == mount["name"])
            .context(path)?;
        ensure!(
            volume["hostPath"]["path"] == path,
            "{path} does not outlive the pod: {volume}"
        );
    }
    Ok(())
}

/// `systemd-analyze` wants the programs to be there, so a copy names ones that are.
fn verify(unit: &str) -> Result<(bool, String)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("gateway.service");
    std::fs::write(&file, unit.replace("/usr/local/bin/gateway", "/bin/true"))?;
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file)
        .output();
    let output = output.context("systemd-analyze is missing: run `cargo xtask setup`")?;
    // An unknown key is only warned of, and the exit code says success.
    let said: Vec<String> = text(&output.stderr)
        .lines()
        .filter(|line| line.contains("gateway.service"))
        .map(str::to_owned)
        .collect();
    Ok((output.status.success() && said.is_empty(), said.join("\n")))
}

#[test]
fn the_systemd_unit_is_valid() -> Result<()> {
    let unit = std::fs::read_to_string(root().join("config/systemd/gateway.service"))?;
    let (valid, said) = verify(&unit)?;
    ensure!(valid, "{said}");
    for (right, wrong) in [
        ("ProtectClock=", "ProtectClok="),
        ("Type=exec", "Type=exce"),
        ("ExecStart=", "ExecStrat="),
    ] {
        ensure!(unit.contains(right), "the unit has no `{right}` to break");
        let (valid, _) = verify(&unit.replace(right, wrong))?;
        ensure!(!valid, "`{wrong}` passed");
    }
    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="))
        .context("TimeoutStopSec")?;
    let stop: u64 = stop.parse().context("TimeoutStopSec in seconds")?;
    ensure!(
        stop > DRAIN,
        "systemd kills after {stop} s what may take {DRAIN} s to drain"
    );
    Ok(())
}

#[test]
fn the_systemd_socket_is_valid_and_holds_what_can_be_listened_on() -> Result<()> {
    let read = |name: &str| std::fs::read_to_string(root().join("config/systemd").join(name));
    let (service, socket) = (read("gateway.service")?, read("gateway.socket")?);
    let check = |socket: &str| -> Result<bool> {
        let dir = tempfile::tempdir()?;
        let program = service.replace("/usr/local/bin/gateway", "/bin/true");
        std::fs::write(dir.path().join("gateway.service"), program)?;
        let file = dir.path().join("gateway.socket");
        std::fs::write(&file, socket)?;
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&file)
            .output()
            .context("systemd-analyze is missing: run `cargo xtask setup`")?;
        Ok(output.status.success() && !text(&output.stderr).contains("gateway.socket"))
    };
    ensure!(check(&socket)?, "it is refused");
    for (right, wrong) in [("Backlog=", "Baklog="), ("ipv6-only", "ipv6-olny")] {
        ensure!(socket.contains(right), "the unit has no `{right}` to break");
        ensure!(!check(&socket.replace(right, wrong))?, "`{wrong}` passed");
    }
    let held: Vec<_> = socket
        .lines()
        .filter_map(|line| line.strip_prefix("ListenStream="))
        .collect();
    ensure!(!held.is_empty(), "it holds nothing");
    for address in held {
        let _: std::net::SocketAddr = address.parse().context("as under `listen`")?;
    }
    Ok(())
}

#[test]
fn the_image_starts_what_the_build_makes() -> Result<()> {
    let file = std::fs::read_to_string(root().join("config/container/Containerfile"))?;
    let instruction = |name: &str| {
        let mut lines = file.lines().filter_map(move |line| line.strip_prefix(name));
        lines
            .next_back()
            .with_context(|| format!("the Containerfile has no {name}"))
    };
    let entry: Vec<String> = serde_json::from_str(instruction("ENTRYPOINT ")?)?;
    let arguments: Vec<String> = serde_json::from_str(instruction("CMD ")?)?;
    let Some(program) = entry.first() else {
        bail!("an empty entry point");
    };
    ensure!(
        file.contains(&format!("COPY --from=build /out/gateway {program}\n")),
        "{program} is not in the image"
    );
    // The same command line as in the pods and the unit: the verb exists, and its file is the default one.
    ensure!(
        arguments == ["run", "--config", "/etc/gateway/gateway.yaml"],
        "{arguments:?}"
    );
    Ok(())
}
