//! The files of the last admitted revision, parsed: of the next one only what it changed is read and parsed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Blob, Content, admit::Parsed, document::Problem};

/// Files that were parsed, and their texts: a file that only moved isn't read again.
#[derive(Debug, Default)]
pub(super) struct Library {
    parsed: HashMap<(String, String), Arc<Parsed>>,
    texts: HashMap<String, Arc<str>>,
    /// The ids of these texts.
    pub ids: Arc<BTreeSet<String>>,
}

/// The files of a revision, parsed.
#[derive(Debug)]
pub(super) struct Reading {
    pub files: Vec<Arc<Parsed>>,
    texts: HashMap<String, Arc<str>>,
}

impl Library {
    /// Parses what isn't known. A hostile file can take a second: this blocks.
    pub(super) fn read(&self, files: Vec<Blob>) -> Reading {
        let mut texts = HashMap::new();
        let mut read = |file: Blob| {
            let text = match &file.content {
                Content::Text(text) => Some(Arc::from(text.as_str())),
                Content::Known => self.texts.get(&file.id).cloned(),
                Content::Refused(_) => None,
            };
            if let Some(text) = &text {
                texts.insert(file.id.clone(), Arc::clone(text));
            }
            let key = (file.path, file.id);
            if let Some(known) = self.parsed.get(&key) {
                return Arc::clone(known);
            }
            let (path, id) = key;
            let content = text.map_or(file.content, |text| Content::Text(text.as_ref().to_owned()));
            let parsed = Parsed::of(&Blob {
                path: path.clone(),
                id: id.clone(),
                content,
            });
            Arc::new(parsed.unwrap_or_else(|| lost(path, id)))
        };
        let files = files.into_iter().map(&mut read).collect();
        Reading { files, texts }
    }

    /// What is known when only this is.
    pub(super) fn of(reading: &Reading) -> Self {
        let key = |file: &Arc<Parsed>| ((file.path.clone(), file.id.clone()), Arc::clone(file));
        Self {
            parsed: reading.files.iter().map(key).collect(),
            ids: Arc::new(reading.texts.keys().cloned().collect()),
            texts: reading.texts.clone(),
        }
    }
}

/// Only a mistake in this program leads here.
fn lost(path: String, id: String) -> Parsed {
    let problem = Problem::of_file(&path, "its content was lost by the operator: restart it");
    Parsed {
        result: Err(vec![problem]),
        path,
        id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(path: &str, id: &str, content: Content) -> Blob {
        Blob {
            path: path.into(),
            id: id.into(),
            content,
        }
    }

    #[test]
    fn only_what_changed_is_parsed_and_what_moved_is_known() {
        let text = || Content::Text("# nothing\n".into());
        let first = Library::default().read(vec![blob("a", "1", text()), blob("b", "2", text())]);
        let library = Library::of(&first);
        assert_eq!(*library.ids, ["1".to_owned(), "2".to_owned()].into());
        let second = library.read(vec![
            blob("a", "1", Content::Known),
            blob("moved", "2", Content::Known),
            blob("new", "3", Content::Refused("a link".into())),
        ]);
        assert!(Arc::ptr_eq(&first.files[0], &second.files[0]));
        assert_eq!(second.files[1].path, "moved");
        assert!(second.files[1].result.is_ok(), "{:?}", second.files[1]);
        assert!(second.files[2].result.is_err());
        let third = Library::of(&second).read(vec![blob("c", "9", Content::Known)]);
        assert!(third.files[0].result.is_err(), "never taken for an empty file");
    }
}
