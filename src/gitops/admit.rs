//! A whole commit, all or nothing: the files of a revision → the clusters of a namespace. Pure.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Blob, Content,
    document::{Document, Problem, parse},
};

/// A file that was parsed. The same path and id always give the same result.
#[derive(Debug)]
pub struct Parsed {
    /// Its path below the source's path.
    pub path: String,
    /// What names its content.
    pub id: String,
    /// Its documents, or what is wrong with it.
    pub result: Result<Vec<Arc<Document>>, Vec<Problem>>,
}

impl Parsed {
    /// Parses a file; none if its content is known already.
    #[must_use]
    pub fn of(file: &Blob) -> Option<Self> {
        let result = match &file.content {
            Content::Known => return None,
            Content::Text(text) => parse(&file.path, text),
            Content::Refused(reason) => Err(vec![Problem::of_file(&file.path, reason)]),
        };
        Some(Self {
            path: file.path.clone(),
            id: file.id.clone(),
            result,
        })
    }
}

/// The clusters of a revision by name, for the namespace of the source.
///
/// # Errors
/// Every problem of every file, in the order of files and lines. Then nothing of the revision may be applied.
pub fn admit<'a>(
    namespace: &str,
    files: impl IntoIterator<Item = &'a Parsed>,
) -> Result<BTreeMap<String, Arc<Document>>, Vec<Problem>> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        match &file.result {
            Ok(found) => documents.extend(found),
            Err(found) => problems.extend(found.iter().cloned()),
        }
    }
    // Whatever the order of the files, the same document is the second of its name.
    documents.sort_by_key(|document| (&document.file, document.line));
    let mut clusters = BTreeMap::new();
    for document in documents {
        problems.extend(foreign(namespace, document));
        let first = clusters
            .entry(document.name().to_owned())
            .or_insert_with(|| Arc::clone(document));
        if !Arc::ptr_eq(first, document) {
            problems.push(twice(first, document));
        }
    }
    if problems.is_empty() {
        return Ok(clusters);
    }
    problems.sort_by(|a, b| a.place().cmp(&b.place()));
    Err(problems)
}

fn foreign(namespace: &str, document: &Document) -> Option<Problem> {
    let other = document.namespace.as_deref().filter(|other| *other != namespace)?;
    let message = format!(
        "is {other}, but the source is in {namespace} and applies nothing elsewhere: remove the field, or put a source into {other}"
    );
    Some(document.problem(Some("metadata.namespace"), message))
}

fn twice(first: &Document, second: &Document) -> Problem {
    let (name, (line, column)) = (first.name(), first.locate("metadata.name"));
    let (again, at) = second.locate("metadata.name");
    let message = format!(
        "{name} is written twice, at {}:{line}:{column} and at {}:{again}:{at}: remove or rename one",
        first.file, second.file
    );
    second.problem(Some("metadata.name"), message)
}

#[cfg(test)]
mod tests;
