//! What a document says of each operation, compiled.

use std::fmt;
use std::path::Path;

use http::{Method, StatusCode};
use jsonschema::Registry;
use serde_json::Value;

use super::Fault;
use super::compile::Compiler;
use super::files::Files;
use super::paths::{Found, Index, Template};
use super::schema::BUNDLE;

/// A document, compiled.
pub struct Contract {
    /// What the document says stands in front of its paths; without a slash at the end.
    pub base: String,
    /// Beginning with `3.0` or `3.1`.
    pub version: String,
    pub operations: Vec<Operation>,
    /// Address of the first server, if it is a whole one: scheme and authority.
    pub server: Option<String>,
    /// How callers may show who they are, by name.
    pub schemes: Vec<(String, Scheme)>,
    /// Files that it was read from.
    pub files: Vec<std::path::PathBuf>,
    /// Templates to the paths of [`Contract::paths`].
    index: Index,
    /// For each path its operations.
    paths: Vec<Vec<usize>>,
    digest: [u8; 32],
}

/// One method of one path.
#[derive(Debug)]
pub struct Operation {
    pub id: Option<String>,
    /// Names of the schemes, any of which a caller must satisfy; with `&` between those that go together. Empty: nobody is asked.
    pub security: Vec<String>,
    pub method: Method,
    /// As written.
    pub path: String,
    pub template: Template,
    pub parameters: Vec<Parameter>,
    /// What a body may be; `None` if none is described.
    pub body: Option<Body>,
    pub responses: Vec<(Status, Response)>,
}

/// How a caller shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    Key {
        at: In,
        name: String,
    },
    Basic,
    Bearer,
    /// With the address of its description.
    OpenId(String),
    /// Another, by its type.
    Other(String),
}

/// What a request's body may be.
#[derive(Debug)]
pub struct Body {
    pub required: bool,
    pub content: Vec<Content>,
}

/// One media type.
#[derive(Debug)]
pub struct Content {
    /// In lower case, without parameters: `application/json`, `text/*` or `*/*`.
    pub range: String,
    /// `None` if nothing is said.
    pub schema: Option<Validator>,
    /// Of the members, for forms.
    pub kinds: Kinds,
}

/// What an answer may be.
#[derive(Debug)]
pub struct Response {
    pub content: Vec<Content>,
    pub headers: Vec<Parameter>,
}

/// Which statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Exact(u16),
    /// `4XX` is 4.
    Class(u16),
    Default,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum In {
    Path,
    Query,
    Header,
    Cookie,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Simple,
    Label,
    Matrix,
    Form,
    Space,
    Pipe,
    Deep,
    /// `content` instead of a style: the value is JSON.
    Json,
}

/// A parameter, or a header line of an answer.
#[derive(Debug)]
pub struct Parameter {
    pub name: String,
    pub at: In,
    pub required: bool,
    pub style: Style,
    pub explode: bool,
    /// What its text may stand for.
    pub kinds: Kinds,
    pub schema: Option<Validator>,
}

/// What a schema takes, as far as a text can be read for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    pub null: bool,
    pub truth: bool,
    pub number: bool,
    pub text: bool,
    pub list: Option<Box<Kinds>>,
    /// Members that are known, and what others may be.
    pub object: Option<Vec<(String, Kinds)>>,
}

/// A schema, compiled.
pub struct Validator(pub(super) jsonschema::Validator);

impl Validator {
    /// Whether a value is what the schema says.
    #[must_use]
    pub fn takes(&self, value: &Value) -> bool {
        self.0.is_valid(value)
    }

    /// What is wrong with a value: the place, as a JSON Pointer, and why. The value itself is not shown.
    pub fn faults(&self, value: &Value, mut tell: impl FnMut(&str, &str)) {
        for error in self.0.iter_errors(value).take(20) {
            tell(
                error.instance_path().as_str(),
                &error.masked_with("the value").to_string(),
            );
        }
    }
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Validator")
    }
}

impl fmt::Debug for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Contract");
        f.field("operations", &self.operations.len())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Contract {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.base == other.base
    }
}

impl Eq for Contract {}

impl Contract {
    /// Reads and compiles a document and all that it refers to.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Fault> {
        Self::compile(Files::open(path)?)
    }

    /// As [`Contract::load`] from a text; `root` is the directory that it may refer to.
    ///
    /// # Errors
    /// As [`Contract::load`].
    pub fn parse(text: &str, root: &Path) -> Result<Self, Fault> {
        Self::compile(Files::of_text(text, root)?)
    }

    fn compile(files: Files) -> Result<Self, Fault> {
        let mut compiler = Compiler::new(files)?;
        let drafts = compiler.operations()?;
        let registry = Registry::new()
            .add(BUNDLE, compiler.bundle.document())
            .and_then(jsonschema::RegistryBuilder::prepare)
            .map_err(|error| Fault::new("", error.to_string()))?;
        let mut finished = Vec::with_capacity(drafts.len());
        for draft in drafts {
            finished.push(draft.finish(&compiler.bundle, &registry)?);
        }
        let mut contract = Self {
            base: compiler.base(),
            server: compiler.server(),
            schemes: compiler.schemes(),
            version: compiler.version.clone(),
            operations: finished,
            files: compiler.files.names().map(Path::to_owned).collect(),
            index: Index::default(),
            paths: Vec::new(),
            digest: compiler.files.digest(),
        };
        let mut known: std::collections::BTreeMap<&Template, usize> = std::collections::BTreeMap::new();
        for (number, operation) in contract.operations.iter().enumerate() {
            let at = *known.entry(&operation.template).or_insert_with(|| {
                contract.paths.push(Vec::new());
                contract
                    .index
                    .insert(operation.template.clone(), contract.paths.len() - 1);
                contract.paths.len() - 1
            });
            if let Some(path) = contract.paths.get_mut(at) {
                path.push(number);
            }
        }
        Ok(contract)
    }

    /// Operations of the path that a request is for, and what the path's names take; `path` are its segments below the base, decoded.
    #[must_use]
    pub fn find(&self, path: &[String]) -> Option<(Vec<&Operation>, Found)> {
        let (at, found) = self.index.find(path)?;
        let operations = self
            .paths
            .get(at)?
            .iter()
            .filter_map(|number| self.operations.get(*number));
        Some((operations.collect(), found))
    }

    /// An operation by its id.
    #[must_use]
    pub fn operation(&self, id: &str) -> Option<(usize, &Operation)> {
        let mut all = self.operations.iter().enumerate();
        all.find(|(_, operation)| operation.id.as_deref() == Some(id))
    }
}

impl Operation {
    /// What is said of answers with a status.
    #[must_use]
    pub fn response(&self, status: StatusCode) -> Option<&Response> {
        let code = status.as_u16();
        let fits = |own: &Status| match own {
            Status::Exact(exact) => *exact == code,
            Status::Class(class) => *class == code / 100,
            Status::Default => true,
        };
        self.responses
            .iter()
            .find(|(own, _)| fits(own))
            .map(|(_, response)| response)
    }
}

/// The content that is for a media type: the narrowest range that it lies in.
#[must_use]
pub fn content_for<'c>(content: &'c [Content], essence: &str) -> Option<&'c Content> {
    let essence = essence.to_ascii_lowercase();
    let kind = essence.split('/').next().unwrap_or_default();
    let wide = format!("{kind}/*");
    [essence.as_str(), wide.as_str(), "*/*"]
        .iter()
        .find_map(|range| content.iter().find(|content| content.range == *range))
}
