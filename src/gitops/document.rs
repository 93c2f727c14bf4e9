//! A file → the CodisClusters in it, strictly: what would be dropped, guessed or overwritten is refused, with its place.
//!
//! A problem never repeats a value of the spec: it may be a password. Validation happens here too, once for a file.

use std::{collections::BTreeMap, fmt, sync::Arc};

use kube::api::ObjectMeta;
use serde::{Deserialize, de::IgnoredAny};
use serde_yaml::Deserializer;

use super::{
    keeper::FOREIGN_MARKS,
    locate::{self, Place, Places, Shape, Written},
    message,
};
use crate::{
    api::{CodisCluster, CodisClusterSpec, GROUP, names},
    validate::validate,
};

const KIND: &str = "CodisCluster";

/// What is wrong with a file of a source, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's path.
    pub file: String,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The column, from 1.
    pub column: Option<usize>,
    /// The field, like `spec.codisServer.replicas`.
    pub field: Option<String>,
    /// What is wrong, and the fix.
    pub message: String,
}

impl Problem {
    /// A problem of a file as a whole.
    #[must_use]
    pub fn of_file(file: &str, message: impl AsRef<str>) -> Self {
        Self::new(file, None, None, message)
    }

    fn new(file: &str, place: Option<Place>, field: Option<&str>, text: impl AsRef<str>) -> Self {
        Self {
            file: file.to_owned(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            field: field.map(message::clean),
            message: message::clean(text.as_ref()),
        }
    }

    /// The order in which problems are told.
    pub(super) fn place(&self) -> (&str, Option<usize>, Option<usize>) {
        (&self.file, self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A CodisCluster as it is written in a file. It is valid.
#[derive(Clone)]
pub struct Document {
    /// The file's path.
    pub file: String,
    /// The line of its first field, from 1.
    pub line: usize,
    /// The namespace that is written, if any.
    pub namespace: Option<String>,
    /// Its name, labels, annotations and spec, and nothing else.
    pub cluster: CodisCluster,
    places: Places,
}

// By hand: the spec has passwords.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({}:{} {})", self.file, self.line, self.name())
    }
}

impl Document {
    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.cluster.metadata.name.as_deref().unwrap_or_default()
    }

    /// The line and column of a field like `spec.codisServer.replicas`, or of its nearest parent that is written.
    #[must_use]
    pub fn locate(&self, field: &str) -> (usize, usize) {
        self.places.nearest(field).unwrap_or((self.line, 1))
    }

    /// A problem of this document, at a field.
    #[must_use]
    pub fn problem(&self, field: Option<&str>, message: impl AsRef<str>) -> Problem {
        let place = field.map_or((self.line, 1), |field| self.locate(field));
        Problem::new(&self.file, Some(place), field, message)
    }
}

/// Parses the documents of a file.
///
/// # Errors
/// Everything that is wrong with the file, in the order of its lines.
pub fn parse(path: &str, text: &str) -> Result<Vec<Arc<Document>>, Vec<Problem>> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    if let Err(message) = message::parser_can_take(text) {
        return Err(vec![Problem::of_file(path, message)]);
    }
    // Each document is read twice: for its places, and for its values.
    let mut again = Deserializer::from_str(text);
    for document in Deserializer::from_str(text) {
        let written = match locate::walk(document) {
            Ok(written) => written,
            // The parser can't go on after an error.
            Err(abort) => {
                problems.push(Problem::new(path, abort.place, abort.field.as_deref(), abort.message));
                break;
            }
        };
        match again.next().map(|document| Reader::new(path, written).read(document)) {
            Some(Ok(document)) => documents.extend(document.map(Arc::new)),
            Some(Err(mut more)) => problems.append(&mut more),
            None => break,
        }
    }
    if problems.is_empty() {
        return Ok(documents);
    }
    problems.sort_by(|a, b| a.place().cmp(&b.place()));
    Err(problems)
}

/// What may be written. What else there is, is unknown.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: CodisClusterSpec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Reads one document.
struct Reader<'a> {
    file: &'a str,
    written: Written,
    start: Place,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, written: Written) -> Self {
        Self {
            file,
            start: written.places.start().unwrap_or((1, 1)),
            written,
            problems: Vec::new(),
        }
    }

    fn read(mut self, document: Deserializer<'_>) -> Result<Option<Document>, Vec<Problem>> {
        match self.written.shape {
            Shape::Empty => return Ok(None),
            Shape::Mapping if self.written.places.start().is_some() => {}
            Shape::Mapping | Shape::Sequence | Shape::Scalar => {
                return Err(vec![self.no_mapping(document)]);
            }
        }
        self.duplicates();
        if self.problems.is_empty() {
            self.kind();
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let Some(file) = self.values(document) else {
            return Err(self.problems);
        };
        self.unquoted(&file);
        self.reserved(&file.metadata);
        let document = self.document(file);
        self.problems.extend(invalid(&document));
        if self.problems.is_empty() {
            Ok(Some(document))
        } else {
            Err(self.problems)
        }
    }

    /// Adds a problem at a field.
    fn at(&mut self, field: &str, message: impl AsRef<str>) {
        let place = self.written.places.nearest(field).unwrap_or(self.start);
        let problem = Problem::new(self.file, Some(place), Some(field), message);
        self.problems.push(problem);
    }

    fn no_mapping(&self, document: Deserializer<'_>) -> Problem {
        // Only an error has the place of what isn't a mapping.
        let error = match self.written.shape {
            Shape::Mapping => Vec::<IgnoredAny>::deserialize(document).err(),
            _ => BTreeMap::<String, IgnoredAny>::deserialize(document).err(),
        };
        let place = error
            .and_then(|error| error.location())
            .map(|at| (at.line(), at.column()));
        let message = format!("a document must be a {KIND}: a mapping with apiVersion, kind, metadata and spec");
        Problem::new(self.file, place, None, message)
    }

    fn duplicates(&mut self) {
        for (field, place, (line, _)) in std::mem::take(&mut self.written.duplicates) {
            let message = format!("is written twice, first in line {line}: remove one");
            let problem = Problem::new(self.file, Some(place), Some(&field), message);
            self.problems.push(problem);
        }
    }

    fn kind(&mut self) {
        let wanted = format!("{GROUP}/v1alpha1");
        let (version, kind) = (self.written.api_version.clone(), self.written.kind.clone());
        match (version.as_deref(), kind.as_deref()) {
            (Some(version), Some(KIND)) if version == wanted => {}
            (None, _) => self.at("apiVersion", format!("is missing: write {wanted}")),
            (_, None) => self.at("kind", format!("is missing: write {KIND}")),
            (Some(version), Some(KIND)) => {
                let message = format!("{} is not {wanted}", message::quoted(version));
                self.at("apiVersion", message);
            }
            (_, Some(kind)) => {
                let message = format!(
                    "{} is no {KIND}: only {KIND}s may be under the source's path; move this document elsewhere",
                    message::quoted(kind)
                );
                self.at("kind", message);
            }
        }
    }

    /// The values, if their types are right and every field is known.
    fn values(&mut self, document: Deserializer<'_>) -> Option<File> {
        let mut unknown = Vec::new();
        let result = serde_ignored::deserialize(document, |path| unknown.push(message::path(&path)));
        for field in unknown {
            self.at(&field, message::unknown(&field));
        }
        match result {
            Ok(file) if self.problems.is_empty() => Some(file),
            Ok(_) => None,
            Err(error) => {
                self.type_error(&error);
                None
            }
        }
    }

    fn type_error(&mut self, error: &serde_yaml::Error) {
        let text = locate::without_place(error);
        let (field, text) = match text.split_once(": ") {
            Some((field, rest)) if self.written.places.get(field).is_some() => (Some(field), rest),
            _ => (None, text.as_str()),
        };
        let (missing, text) = message::plain(text);
        let meant = missing.as_ref().map(|missing| format!("`{missing}`?"));
        if meant.is_some_and(|meant| self.problems.iter().any(|problem| problem.message.ends_with(&meant))) {
            // A slip in its name was told already.
            return;
        }
        let field = match (field, missing) {
            (Some(parent), Some(missing)) => Some(format!("{parent}.{missing}")),
            (None, Some(missing)) => Some(missing),
            (field, None) => field.map(str::to_owned),
        };
        let place = error.location().map(|at| (at.line(), at.column()));
        // What is missing has no place: its parent's key.
        let place = match &field {
            Some(field) if self.written.places.get(field).is_none() => self.written.places.nearest(field).or(place),
            _ => place,
        };
        let problem = Problem::new(self.file, place, field.as_deref(), text);
        self.problems.push(problem);
    }

    /// serde_yaml takes a number for text; the API server doesn't, and `1.10` would come out as it isn't meant elsewhere.
    fn unquoted(&mut self, file: &File) {
        let mut texts = message::texts("spec", &file.spec);
        let metadata = &file.metadata;
        texts.extend(["apiVersion", "kind", "metadata.name", "metadata.namespace"].map(str::to_owned));
        for (of, entries) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
            let keys = entries.iter().flat_map(BTreeMap::keys);
            texts.extend(keys.map(|key| format!("metadata.{of}.{key}")));
        }
        let found = self.written.places.unquoted();
        for (field, place) in found.filter(|(field, _)| texts.contains(*field)) {
            let message = "must be text: put the value in quotes";
            let problem = Problem::new(self.file, Some(place), Some(field), message);
            self.problems.push(problem);
        }
    }

    /// Labels and annotations that the operator writes.
    fn reserved(&mut self, metadata: &Metadata) {
        let people = [names::ANNOTATION_ADOPT, names::ANNOTATION_ACCEPT_LOSS];
        for (of, entries) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
            for key in entries.iter().flat_map(BTreeMap::keys) {
                let group = key.split_once('/').map_or("", |(prefix, _)| prefix);
                let own = group == GROUP || group.strip_suffix(GROUP).is_some_and(|rest| rest.ends_with('.'));
                if own && !(of == "annotations" && people.contains(&key.as_str())) {
                    self.at(&format!("metadata.{of}.{key}"), "is the operator's own: remove it");
                }
                // Who exports an object gets them too. With one of them the cluster would count as that tool's.
                if let Some((_, tool)) = FOREIGN_MARKS.iter().find(|(mark, _)| mark == key) {
                    let message = format!("is a mark of {tool}, whose cluster it would be: remove it");
                    self.at(&format!("metadata.{of}.{key}"), message);
                }
            }
        }
    }

    fn document(&mut self, file: File) -> Document {
        let mut cluster = CodisCluster::new(&file.metadata.name, file.spec);
        cluster.metadata = ObjectMeta {
            name: Some(file.metadata.name),
            labels: file.metadata.labels,
            annotations: file.metadata.annotations,
            ..ObjectMeta::default()
        };
        Document {
            file: self.file.to_owned(),
            line: self.start.0,
            namespace: file.metadata.namespace.filter(|namespace| !namespace.is_empty()),
            cluster,
            places: std::mem::take(&mut self.written.places),
        }
    }
}

fn invalid(document: &Document) -> Vec<Problem> {
    let invalid = validate(&document.cluster).err().unwrap_or_default();
    let problems = invalid.into_iter();
    problems
        .map(|invalid| document.problem(Some(&invalid.field), invalid.problem))
        .collect()
}

#[cfg(test)]
mod tests;
