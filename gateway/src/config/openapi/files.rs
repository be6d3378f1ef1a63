//! The files of an OpenAPI document. Owns what a `$ref` may reach: files below the directory of the document, and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Fault;
use crate::config::check::files::read_text;
use crate::config::raw;

/// Bounds on a document: bytes of a file and of all, files, and references that are followed.
const MOST_FILE: usize = 8 << 20;
const MOST_BYTES: usize = 16 << 20;
const MOST_FILES: usize = 64;
const MOST_REFERENCES: usize = 100_000;
/// Longest chain of references to references.
const MOST_CHAIN: usize = 32;

/// A place in one of the files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: usize,
    /// A JSON Pointer.
    pub(super) pointer: String,
}

impl Place {
    pub(super) fn step(&self, step: &str) -> Self {
        let step = step.replace('~', "~0").replace('/', "~1");
        Self {
            file: self.file,
            pointer: format!("{}/{step}", self.pointer),
        }
    }
}

/// What has been read.
#[derive(Debug)]
pub(super) struct Files {
    /// Canonical; every file lies below it.
    root: PathBuf,
    known: BTreeMap<PathBuf, usize>,
    read: Vec<(PathBuf, Value)>,
    bytes: usize,
    references: usize,
    digest: Sha256,
}

impl Files {
    /// Reads the document itself.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let path = path
            .canonicalize()
            .map_err(|error| Fault::new("", format!("can not be read: {error}")))?;
        let root = path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut files = Self {
            root,
            known: BTreeMap::new(),
            read: Vec::new(),
            bytes: 0,
            references: 0,
            digest: Sha256::new(),
        };
        files.load(path, "")?;
        Ok(files)
    }

    /// The same from a text, in a directory that it may refer to.
    pub(super) fn of_text(text: &str, root: &Path) -> Result<Self, Fault> {
        let mut files = Self {
            root: root.to_owned(),
            known: BTreeMap::new(),
            read: Vec::new(),
            bytes: 0,
            references: 0,
            digest: Sha256::new(),
        };
        files.take(PathBuf::from("-"), text, "")?;
        Ok(files)
    }

    /// Of all that was read.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Names of all that was read.
    pub(super) fn names(&self) -> impl Iterator<Item = &Path> {
        self.read.iter().map(|(path, _)| path.as_path())
    }

    pub(super) fn root(&self) -> Place {
        Place {
            file: 0,
            pointer: String::new(),
        }
    }

    /// What stands at a place; references are not followed.
    pub(super) fn at(&self, place: &Place) -> Option<&Value> {
        self.read.get(place.file)?.1.pointer(&place.pointer)
    }

    /// A place for people.
    pub(super) fn show(&self, place: &Place) -> String {
        let name = self
            .read
            .get(place.file)
            .and_then(|(path, _)| path.strip_prefix(&self.root).ok());
        match name {
            Some(name) if place.file > 0 => format!("{}#{}", name.display(), place.pointer),
            _ => format!("#{}", place.pointer),
        }
    }

    /// Where the references that begin at a place end: at something that is there and is none.
    pub(super) fn follow(&mut self, place: &Place) -> Result<Place, Fault> {
        let mut place = place.clone();
        for _ in 0..MOST_CHAIN {
            let value = self
                .at(&place)
                .ok_or_else(|| Fault::new(&self.show(&place), "there is nothing at this place"))?;
            let Some(Value::String(reference)) = value.get("$ref") else {
                return Ok(place);
            };
            let reference = reference.clone();
            place = self.resolve(&place, &reference)?;
        }
        Err(Fault::new(
            &self.show(&place),
            "its $ref leads on and on, and nowhere",
        ))
    }

    /// Where a reference leads; its file is read if it was not.
    pub(super) fn resolve(&mut self, from: &Place, reference: &str) -> Result<Place, Fault> {
        let shown = self.show(from);
        let refuse = |why: &str| Fault::new(&shown, format!("$ref {reference:?} {why}"));
        self.references += 1;
        if self.references > MOST_REFERENCES {
            return Err(refuse("is one too many"));
        }
        let (file, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let file = if file.is_empty() {
            from.file
        } else {
            if file.contains(':') || file.starts_with('/') || file.contains('\\') || file.contains('\0') {
                return Err(refuse(
                    "is no file beside the document: addresses are not fetched",
                ));
            }
            let beside = self.read.get(from.file).and_then(|(path, _)| path.parent());
            let beside = beside.filter(|beside| beside.is_absolute()).unwrap_or(&self.root);
            // Symbolic links are resolved before it is looked where the file lies.
            let path = beside
                .join(file)
                .canonicalize()
                .map_err(|error| refuse(&format!("can not be read: {error}")))?;
            if !path.starts_with(&self.root) {
                return Err(refuse("leaves the directory of the document"));
            }
            match self.known.get(&path) {
                Some(known) => *known,
                None => self.load(path, &shown)?,
            }
        };
        let pointer = decoded(fragment).ok_or_else(|| refuse("is not well formed"))?;
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(refuse("names an anchor; only JSON Pointers are followed"));
        }
        Ok(Place { file, pointer })
    }

    fn load(&mut self, path: PathBuf, shown: &str) -> Result<usize, Fault> {
        if self.read.len() >= MOST_FILES {
            return Err(Fault::new(shown, format!("more than {MOST_FILES} files")));
        }
        let text = read_text(&path, MOST_FILE).map_err(|wrong| Fault::new(shown, wrong.to_string()))?;
        self.take(path, &text, shown)
    }

    fn take(&mut self, path: PathBuf, text: &str, shown: &str) -> Result<usize, Fault> {
        self.bytes += text.len();
        if self.bytes > MOST_BYTES {
            return Err(Fault::new(
                shown,
                format!("all files together are larger than {} MiB", MOST_BYTES >> 20),
            ));
        }
        self.digest.update(text.len().to_le_bytes());
        self.digest.update(text.as_bytes());
        let json = text
            .trim_start()
            .starts_with('{')
            .then(|| serde_json::from_str(text).ok());
        let value = match json.flatten() {
            Some(value) => value,
            None => raw::document(text).map_err(|fault| {
                let place = format!("line {}", fault.pos.line);
                Fault::new(&place, format!("{} ({})", fault.wrong, path.display()))
            })?,
        };
        let number = self.read.len();
        self.known.insert(path.clone(), number);
        self.read.push((path, value));
        Ok(number)
    }
}

/// A fragment, its triplets undone.
fn decoded(fragment: &str) -> Option<String> {
    let mut out = Vec::with_capacity(fragment.len());
    let mut bytes = fragment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (high, low) = (
            char::from(bytes.next()?).to_digit(16)?,
            char::from(bytes.next()?).to_digit(16)?,
        );
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}
