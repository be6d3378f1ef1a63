//! Finding the project's Rust sources.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folders with sources of ours.
const FOLDERS: &[&str] = &["gateway-common", "gateway-ebpf", "gateway", "tests", "xtask"];

/// A source file.
pub struct Source {
    /// From the workspace root, with `/`.
    pub path: String,
    pub text: String,
}

/// Every Rust file, sorted by path.
pub fn all(root: &Path) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let path = file
                .strip_prefix(root)
                .unwrap_or(&file)
                .to_string_lossy()
                .into_owned();
            Ok(Source { path, text })
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
