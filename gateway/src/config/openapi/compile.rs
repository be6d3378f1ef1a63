//! From a document to its operations. Schemas are gathered first, and compiled when all are known.

use http::{HeaderName, Method};
use jsonschema::{PatternOptions, Registry};
use serde_json::{Map, Value};

use super::Fault;
use super::document::{
    Body, Content, In, Kinds, Operation, Parameter, Response, Scheme, Status, Style, Validator,
};
use super::files::{Files, Place};
use super::paths::Template;
use super::schema::{Bundle, Way};

/// Most operations of a document, and parameters of one.
const MOST_OPERATIONS: usize = 5_000;
const MOST_PARAMETERS: usize = 200;
/// Most memory of a compiled pattern, in bytes.
const MOST_REGEX: usize = 1 << 20;
const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

/// What stands for a validator until the bundle is whole.
pub(super) struct Draft {
    id: Option<String>,
    security: Vec<String>,
    method: Method,
    path: String,
    template: Template,
    parameters: Vec<ParameterDraft>,
    body: Option<(bool, Vec<ContentDraft>)>,
    responses: Vec<ResponseDraft>,
}

/// A status with what is said of content and of header lines.
type ResponseDraft = (Status, Vec<ContentDraft>, Vec<ParameterDraft>);

struct ParameterDraft {
    name: String,
    at: In,
    required: bool,
    style: Style,
    explode: bool,
    schema: Option<usize>,
    shown: String,
}

struct ContentDraft {
    range: String,
    schema: Option<usize>,
    shown: String,
}

impl Draft {
    pub(super) fn finish(self, bundle: &Bundle, registry: &Registry<'_>) -> Result<Operation, Fault> {
        let contents = |drafts: Vec<ContentDraft>| {
            drafts
                .into_iter()
                .map(|draft| {
                    Ok(Content {
                        schema: validator(draft.schema, registry, &draft.shown)?,
                        kinds: kinds(bundle, draft.schema),
                        range: draft.range,
                    })
                })
                .collect::<Result<Vec<_>, Fault>>()
        };
        let parameters = |drafts: Vec<ParameterDraft>| {
            drafts
                .into_iter()
                .map(|draft| {
                    Ok(Parameter {
                        schema: validator(draft.schema, registry, &draft.shown)?,
                        kinds: kinds(bundle, draft.schema),
                        name: draft.name,
                        at: draft.at,
                        required: draft.required,
                        style: draft.style,
                        explode: draft.explode,
                    })
                })
                .collect::<Result<Vec<_>, Fault>>()
        };
        let mut responses = Vec::new();
        for (status, content, headers) in self.responses {
            let response = Response {
                content: contents(content)?,
                headers: parameters(headers)?,
            };
            responses.push((status, response));
        }
        responses.sort_by_key(|(status, _)| *status);
        Ok(Operation {
            id: self.id,
            security: self.security,
            method: self.method,
            path: self.path,
            template: self.template,
            parameters: parameters(self.parameters)?,
            body: match self.body {
                None => None,
                Some((required, content)) => Some(Body {
                    required,
                    content: contents(content)?,
                }),
            },
            responses,
        })
    }
}

fn validator(
    number: Option<usize>,
    registry: &Registry<'_>,
    shown: &str,
) -> Result<Option<Validator>, Fault> {
    let Some(number) = number else {
        return Ok(None);
    };
    let built = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .offline()
        .with_registry(registry)
        // In linear time, whatever a client sends.
        .with_pattern_options(
            PatternOptions::regex()
                .size_limit(MOST_REGEX)
                .dfa_size_limit(MOST_REGEX),
        )
        .should_validate_formats(false)
        .build(&Bundle::reference(number));
    built
        .map(|validator| Some(Validator(validator)))
        .map_err(|error| {
            let said: String = error.to_string().chars().take(200).collect();
            let hint = if said.contains("regex") || said.contains("pattern") {
                " (patterns are matched in linear time: no look-around and no back-references)"
            } else {
                ""
            };
            Fault::new(shown, format!("the schema does not compile: {said}{hint}"))
        })
}

fn kinds(bundle: &Bundle, number: Option<usize>) -> Kinds {
    let mut kinds = Kinds::default();
    if let Some(number) = number {
        gather(bundle, bundle.entry(number), &mut kinds, 0);
    }
    kinds
}

/// Deepest look into a schema for what its texts may stand for.
const MOST_LOOK: usize = 8;

fn gather(bundle: &Bundle, schema: &Value, kinds: &mut Kinds, depth: usize) {
    if depth > MOST_LOOK {
        return;
    }
    if let Some(target) = bundle.referred(schema) {
        gather(bundle, target, kinds, depth + 1);
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    for name in types {
        match name {
            "null" => kinds.null = true,
            "boolean" => kinds.truth = true,
            "integer" | "number" => kinds.number = true,
            "string" => kinds.text = true,
            "array" => {
                let items = kinds.list.get_or_insert_default();
                if let Some(schema) = schema.get("items") {
                    gather(bundle, schema, items, depth + 1);
                }
            }
            "object" => {
                kinds.object.get_or_insert_default();
            }
            _ => {}
        }
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let object = kinds.object.get_or_insert_default();
        for (name, schema) in properties {
            let mut member = Kinds::default();
            gather(bundle, schema, &mut member, depth + 1);
            object.push((name.clone(), member));
        }
    }
    for value in schema.get("enum").and_then(Value::as_array).into_iter().flatten() {
        match value {
            Value::Null => kinds.null = true,
            Value::Bool(_) => kinds.truth = true,
            Value::Number(_) => kinds.number = true,
            Value::String(_) => kinds.text = true,
            Value::Array(_) | Value::Object(_) => {}
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for schema in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
            gather(bundle, schema, kinds, depth + 1);
        }
    }
}

pub(super) struct Compiler {
    pub(super) files: Files,
    pub(super) bundle: Bundle,
    pub(super) version: String,
}

impl Compiler {
    pub(super) fn new(files: Files) -> Result<Self, Fault> {
        let root = files.root();
        let version = files.at(&root).and_then(|document| document.get("openapi"));
        let version = match version {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => {
                return Err(Fault::new(
                    "#",
                    "is no OpenAPI document: there is no \"openapi\" at its top",
                ));
            }
        };
        if !version.starts_with("3.0") && !version.starts_with("3.1") {
            return Err(Fault::new(
                "#/openapi",
                format!("version {version:?} is not 3.0 or 3.1"),
            ));
        }
        Ok(Self {
            bundle: Bundle::new(version.starts_with("3.0")),
            files,
            version,
        })
    }

    fn fault(&self, place: &Place, message: impl Into<String>) -> Fault {
        Fault::new(&self.files.show(place), message)
    }

    /// The path of the first server's address, its variables as they are by default.
    pub(super) fn base(&self) -> String {
        let server = self
            .files
            .at(&self.files.root())
            .and_then(|document| document.pointer("/servers/0"));
        let Some(server) = server else {
            return String::new();
        };
        let mut url = server
            .get("url")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        for (name, variable) in server
            .get("variables")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let value = variable
                .get("default")
                .and_then(Value::as_str)
                .unwrap_or_default();
            url = url.replace(&format!("{{{name}}}"), value);
        }
        let path = match url.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
            None => url.as_str(),
        };
        path.trim_end_matches('/').to_owned()
    }

    /// Scheme and authority of the first server's address.
    pub(super) fn server(&self) -> Option<String> {
        let document = self.files.at(&self.files.root())?;
        let url = document.pointer("/servers/0/url")?.as_str()?;
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split('/').next()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        let good =
            matches!(scheme, "http" | "https") && !authority.is_empty() && authority.bytes().all(plain);
        good.then(|| format!("{scheme}://{authority}"))
    }

    pub(super) fn schemes(&mut self) -> Vec<(String, Scheme)> {
        let at = self.files.root().step("components").step("securitySchemes");
        let names: Vec<String> = match self.files.at(&at) {
            Some(Value::Object(schemes)) => schemes.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let mut read = Vec::new();
        for name in names {
            let Ok(place) = self.files.follow(&at.step(&name)) else {
                continue;
            };
            let text = |key: &str| {
                let value = self.files.at(&place.step(key)).and_then(Value::as_str);
                value.unwrap_or_default().to_owned()
            };
            let scheme = match (
                text("type").as_str(),
                text("scheme").to_ascii_lowercase().as_str(),
            ) {
                ("apiKey", _) => Scheme::Key {
                    at: match text("in").as_str() {
                        "query" => In::Query,
                        "cookie" => In::Cookie,
                        _ => In::Header,
                    },
                    name: text("name"),
                },
                ("http", "basic") => Scheme::Basic,
                ("http", "bearer") => Scheme::Bearer,
                ("openIdConnect", _) => Scheme::OpenId(text("openIdConnectUrl")),
                (other, _) => Scheme::Other(other.to_owned()),
            };
            read.push((name, scheme));
        }
        read
    }

    /// What an operation asks for: its own, or what the whole document does.
    fn security(&self, place: &Place) -> Vec<String> {
        let own = self.files.at(&place.step("security"));
        let all = own.or_else(|| self.files.at(&self.files.root().step("security")));
        let ways = all.and_then(Value::as_array).into_iter().flatten();
        let ways: Vec<String> = ways
            .filter_map(Value::as_object)
            .map(|way| way.keys().cloned().collect::<Vec<_>>().join("&"))
            .collect();
        // An empty one among them lets everybody in.
        if ways.iter().any(String::is_empty) {
            return Vec::new();
        }
        ways
    }

    pub(super) fn operations(&mut self) -> Result<Vec<Draft>, Fault> {
        let root = self.files.root();
        let at = root.step("paths");
        let paths = match self.files.at(&at) {
            Some(Value::Object(paths)) => paths.keys().cloned().collect::<Vec<_>>(),
            // 3.1 documents may hold components alone; there is nothing to serve then.
            _ => return Err(self.fault(&root, "has no paths")),
        };
        let mut drafts = Vec::new();
        for path in paths.iter().filter(|path| !path.starts_with("x-")) {
            let place = at.step(path);
            let template =
                Template::read(path).ok_or_else(|| self.fault(&place, "is not a path template"))?;
            let item = self.files.follow(&place)?;
            let shared = self.parameters(&item)?;
            for method in METHODS {
                let place = item.step(method);
                if self.files.at(&place).is_none() {
                    continue;
                }
                if drafts.len() == MOST_OPERATIONS {
                    return Err(self.fault(&place, format!("more than {MOST_OPERATIONS} operations")));
                }
                drafts.push(self.operation(&place, method, path, &template, &shared)?);
            }
        }
        Ok(drafts)
    }

    fn operation(
        &mut self,
        place: &Place,
        method: &str,
        path: &str,
        template: &Template,
        shared: &[Place],
    ) -> Result<Draft, Fault> {
        let id = self
            .files
            .at(&place.step("operationId"))
            .and_then(Value::as_str)
            .map(str::to_owned);
        let own = self.parameters(place)?;
        let mut parameters: Vec<ParameterDraft> = Vec::new();
        // Those of the operation come last, in the place of the path's of the same name.
        for at in shared.iter().chain(&own) {
            if let Some(parameter) = self.parameter(at)? {
                parameters.retain(|other| (other.at, &other.name) != (parameter.at, &parameter.name));
                parameters.push(parameter);
            }
        }
        for name in template.names() {
            if !parameters
                .iter()
                .any(|parameter| parameter.at == In::Path && parameter.name == name)
            {
                return Err(self.fault(
                    place,
                    format!("the path's {{{name}}} is not among the parameters"),
                ));
            }
        }
        let body = place.step("requestBody");
        let body = if self.files.at(&body).is_some() {
            let body = self.files.follow(&body)?;
            let required = self.files.at(&body.step("required")) == Some(&Value::Bool(true));
            Some((required, self.content(&body, Way::Request)?))
        } else {
            None
        };
        let responses = self.responses(place)?;
        Ok(Draft {
            id,
            security: self.security(place),
            method: method
                .to_uppercase()
                .parse()
                .map_err(|_| self.fault(place, "is no method"))?,
            path: path.to_owned(),
            template: template.clone(),
            parameters,
            body,
            responses,
        })
    }

    /// Where the parameters of a path or an operation stand.
    fn parameters(&mut self, place: &Place) -> Result<Vec<Place>, Fault> {
        let at = place.step("parameters");
        let count = match self.files.at(&at) {
            None => 0,
            Some(Value::Array(items)) if items.len() <= MOST_PARAMETERS => items.len(),
            Some(_) => return Err(self.fault(&at, "is not a list, or too long a one")),
        };
        (0..count)
            .map(|n| self.files.follow(&at.step(&n.to_string())))
            .collect()
    }

    fn parameter(&mut self, place: &Place) -> Result<Option<ParameterDraft>, Fault> {
        let text = |files: &Files, key: &str| {
            files
                .at(&place.step(key))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let name = text(&self.files, "name").ok_or_else(|| self.fault(place, "has no name"))?;
        let at = match text(&self.files, "in").as_deref() {
            Some("path") => In::Path,
            Some("query") => In::Query,
            Some("header") => In::Header,
            Some("cookie") => In::Cookie,
            _ => return Err(self.fault(place, "is in no part of a request: path, query, header or cookie")),
        };
        // These are described elsewhere, and not here (OpenAPI 3.0.3, "Parameter Object").
        let elsewhere = ["accept", "content-type", "authorization"];
        if at == In::Header && elsewhere.contains(&name.to_ascii_lowercase().as_str()) {
            return Ok(None);
        }
        if at == In::Header && HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(self.fault(place, "its name is not that of a header"));
        }
        self.valued(place, name, at, text(&self.files, "style").as_deref())
            .map(Some)
    }

    /// What parameters and headers of answers have in common.
    fn valued(
        &mut self,
        place: &Place,
        name: String,
        at: In,
        style: Option<&str>,
    ) -> Result<ParameterDraft, Fault> {
        let required = self.files.at(&place.step("required")) == Some(&Value::Bool(true));
        let (style, schema) = if let Some(Value::Object(content)) = self.files.at(&place.step("content")) {
            let range = content.keys().next().cloned().unwrap_or_default();
            let at = place.step("content").step(&range).step("schema");
            let known = range.starts_with("application/json") && self.files.at(&at).is_some();
            (Style::Json, known.then_some(at))
        } else {
            let style = match (style, at) {
                (None | Some("simple"), In::Path | In::Header) => Style::Simple,
                (Some("label"), In::Path) => Style::Label,
                (Some("matrix"), In::Path) => Style::Matrix,
                (None | Some("form"), In::Query | In::Cookie) => Style::Form,
                (Some("spaceDelimited"), In::Query) => Style::Space,
                (Some("pipeDelimited"), In::Query) => Style::Pipe,
                (Some("deepObject"), In::Query) => Style::Deep,
                (Some(other), _) => {
                    return Err(self.fault(place, format!("style {other:?} does not go here")));
                }
            };
            let at = place.step("schema");
            (style, self.files.at(&at).is_some().then_some(at))
        };
        let explode = match self.files.at(&place.step("explode")) {
            Some(Value::Bool(explode)) => *explode,
            _ => style == Style::Form,
        };
        let schema = match schema {
            Some(at) => Some(self.bundle.add(&mut self.files, &at, Way::Request)?),
            None => None,
        };
        Ok(ParameterDraft {
            name,
            at,
            required: required || at == In::Path,
            style,
            explode,
            schema,
            shown: self.files.show(place),
        })
    }

    fn content(&mut self, place: &Place, way: Way) -> Result<Vec<ContentDraft>, Fault> {
        let at = place.step("content");
        let ranges: Vec<String> = match self.files.at(&at) {
            Some(Value::Object(content)) => content.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let mut read = Vec::new();
        for range in ranges {
            let media = at.step(&range);
            let place = media.step("schema");
            let schema = match self.files.at(&place) {
                Some(_) => Some(self.bundle.add(&mut self.files, &place, way)?),
                None => None,
            };
            let essence = range.split(';').next().unwrap_or_default().trim();
            read.push(ContentDraft {
                range: essence.to_ascii_lowercase(),
                schema,
                shown: self.files.show(&place),
            });
        }
        Ok(read)
    }

    fn responses(&mut self, place: &Place) -> Result<Vec<ResponseDraft>, Fault> {
        let at = place.step("responses");
        let codes: Vec<String> = match self.files.at(&at) {
            Some(Value::Object(responses)) => responses.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let mut read = Vec::new();
        for code in codes.iter().filter(|code| !code.starts_with("x-")) {
            let place = at.step(code);
            let status = status(code).ok_or_else(|| self.fault(&place, "is no status"))?;
            let response = self.files.follow(&place)?;
            let content = self.content(&response, Way::Response)?;
            let headers = response.step("headers");
            let names: Vec<String> = match self.files.at(&headers) {
                Some(Value::Object(map)) => Map::keys(map).cloned().collect(),
                _ => Vec::new(),
            };
            let mut lines = Vec::new();
            for name in names {
                let place = self.files.follow(&headers.step(&name))?;
                if !name.eq_ignore_ascii_case("content-type")
                    && HeaderName::from_bytes(name.as_bytes()).is_ok()
                {
                    lines.push(self.valued(&place, name, In::Header, None)?);
                }
            }
            read.push((status, content, lines));
        }
        Ok(read)
    }
}

fn status(code: &str) -> Option<Status> {
    if code == "default" {
        return Some(Status::Default);
    }
    if let Some(class) = code.strip_suffix("XX").or_else(|| code.strip_suffix("xx")) {
        return class
            .parse()
            .ok()
            .filter(|n| (1..=5).contains(n))
            .map(Status::Class);
    }
    code.parse()
        .ok()
        .filter(|n| (100..=599).contains(n))
        .map(Status::Exact)
}
