//! Where the fields of a YAML document are written, and what serde doesn't see: duplicate keys, aliases, tags.
//!
//! serde_yaml tells a place only with an error. So each key and each scalar is answered with an error, which is caught
//! one level up: its text has the place. What isn't a field is refused here, before anything is parsed into a type:
//! an alias may repeat a text 100,000 times, and the library's own limit stops that only after minutes.

use std::{collections::BTreeMap, convert::Infallible, fmt};

use serde::de::{DeserializeSeed, Deserializer as _, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::Deserializer;

/// A line and a column, from 1.
pub(super) type Place = (usize, usize);

/// Mappings and lists inside each other; a CodisCluster has 6.
const MAX_DEPTH: usize = 16;
/// Keys and scalars of one document.
const MAX_NODES: usize = 5_000;
/// What a key is expected to be.
const NAME_OF_A_FIELD: &str = "the name of a field";
/// Characters of a key; the longest key of a label has 317.
const MAX_KEY: usize = 320;

/// What a document is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Empty,
    Mapping,
    Sequence,
    Scalar,
}

/// Where a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The place of its key.
    pub place: Place,
    /// Whether its value is a number or true or false.
    pub unquoted: bool,
}

/// The fields of a document by their paths, like `spec.codisProxy.tolerations[0].key`.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(BTreeMap<String, Node>);

impl Places {
    /// A field that is written.
    pub(super) fn get(&self, field: &str) -> Option<Node> {
        self.0.get(field).copied()
    }

    /// The place of a field, or of its nearest parent that is written.
    pub(super) fn nearest(&self, field: &str) -> Option<Place> {
        let mut field = field;
        loop {
            if let Some(node) = self.0.get(field) {
                return Some(node.place);
            }
            field = &field[..field.rfind(['.', '['])?];
        }
    }

    /// Where the document begins: its first field.
    pub(super) fn start(&self) -> Option<Place> {
        self.0.values().map(|node| node.place).min()
    }

    /// The fields that are numbers or true or false, with their places.
    pub(super) fn unquoted(&self) -> impl Iterator<Item = (&str, Place)> {
        let fields = self.0.iter().filter(|(_, node)| node.unquoted);
        fields.map(|(field, node)| (field.as_str(), node.place))
    }
}

/// What is written in a document.
#[derive(Debug)]
pub(super) struct Written {
    pub shape: Shape,
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub places: Places,
    /// Fields that are written again: the path, the place, the place of the first.
    pub duplicates: Vec<(String, Place, Place)>,
}

/// Why nothing more can be read from a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Abort {
    pub place: Option<Place>,
    pub field: Option<String>,
    pub message: String,
}

/// Reads what is written in a document.
pub(super) fn walk(document: Deserializer<'_>) -> Result<Written, Abort> {
    let mut walk = Walk::new();
    let result = document.deserialize_any(&mut walk);
    if let Some(abort) = walk.abort {
        return Err(abort);
    }
    if let Err(error) = result {
        // The answer to a scalar that is the whole document has nobody above who catches it.
        walk.written.shape = match walk.seen {
            Some(Seen::Null) => Shape::Empty,
            Some(_) => Shape::Scalar,
            None => return Err(of_library(&error)),
        };
    }
    Ok(walk.written)
}

fn of_library(error: &serde_yaml::Error) -> Abort {
    let message = without_place(error);
    Abort {
        place: error.location().map(|at| (at.line(), at.column())),
        field: None,
        message: if message.ends_with(NAME_OF_A_FIELD) {
            "a key must be the name of a field, not a mapping or a list".to_owned()
        } else {
            message
        },
    }
}

/// The text of an error without its place.
pub(super) fn without_place(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let Some(at) = error.location() else { return text };
    let place = format!(" at line {} column {}", at.line(), at.column());
    match text.strip_suffix(&place) {
        Some(text) => text.to_owned(),
        None => text.replacen(&place, "", 1),
    }
}

/// The place in the text of an error. The library leaves out that of a file's first character.
fn place_in(error: &str) -> Place {
    let read = || {
        let (_, place) = error.rsplit_once(" at line ")?;
        let (line, column) = place.split_once(" column ")?;
        Some((line.parse().ok()?, column.parse().ok()?))
    };
    read().unwrap_or((1, 1))
}

/// What was answered with an error.
enum Seen {
    Key(String),
    Text,
    Null,
    Unquoted,
}

struct Walk {
    written: Written,
    path: String,
    depth: usize,
    nodes: usize,
    /// The last place seen. Places only go forward, except into an alias.
    last: Place,
    seen: Option<Seen>,
    abort: Option<Abort>,
}

impl Walk {
    fn new() -> Self {
        Self {
            written: Written {
                shape: Shape::Empty,
                api_version: None,
                kind: None,
                places: Places::default(),
                duplicates: Vec::new(),
            },
            path: String::new(),
            depth: 0,
            nodes: 0,
            last: (0, 0),
            seen: None,
            abort: None,
        }
    }

    /// The error that ends the walk.
    fn refuse<E: Error>(&mut self, message: impl Into<String>) -> E {
        self.abort.get_or_insert(Abort {
            place: (self.last != (0, 0)).then_some(self.last),
            field: (!self.path.is_empty()).then(|| self.path.clone()),
            message: message.into(),
        });
        E::custom("refused")
    }

    /// The error that answers a key or a scalar.
    fn answer<E: Error>(&mut self, seen: Seen) -> E {
        self.seen = Some(seen);
        E::custom("")
    }

    /// What was answered, and its place; or the error, when it is no answer.
    fn catch<E: Error>(&mut self, error: E) -> Result<(Seen, Place), E> {
        let Some(seen) = self.seen.take() else {
            return Err(error);
        };
        self.count()?;
        let place = place_in(&error.to_string());
        if matches!(seen, Seen::Null) {
            // An empty value has the place of what follows it.
            return Ok((seen, place));
        }
        if place <= self.last {
            return Err(self.refuse("aliases (*name) are not allowed: write the value itself"));
        }
        self.last = place;
        Ok((seen, place))
    }

    fn enter<E: Error>(&mut self, shape: Shape) -> Result<(), E> {
        if self.depth == 0 {
            self.written.shape = shape;
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.refuse(format!(
                "mappings and lists are nested too deep: at most {MAX_DEPTH} levels"
            )));
        }
        self.count()
    }

    fn count<E: Error>(&mut self) -> Result<(), E> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.refuse(format!("a document may have at most {MAX_NODES} fields and values")));
        }
        Ok(())
    }

    /// A value whose walk gave `result`.
    fn value<E: Error>(&mut self, result: Result<(), E>) -> Result<(), E> {
        let Err(error) = result else { return Ok(()) };
        let (seen, _) = self.catch(error)?;
        if let Some(node) = self.written.places.0.get_mut(&self.path) {
            node.unquoted = matches!(seen, Seen::Unquoted);
        }
        Ok(())
    }

    /// Goes to a field of the mapping that has `keys` so far: false if it is written a second time.
    fn field(&mut self, key: String, place: Place, keys: &mut BTreeMap<String, Place>) -> bool {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(&key);
        if let Some(first) = keys.get(&key) {
            self.written.duplicates.push((self.path.clone(), place, *first));
            return false;
        }
        keys.insert(key, place);
        // Only a key with a dot can meet another's path; no field of a CodisCluster has one next to a mapping.
        let node = Node { place, unquoted: false };
        self.written.places.0.entry(self.path.clone()).or_insert(node);
        true
    }
}

impl<'de> DeserializeSeed<'de> for &mut Walk {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.enter(Shape::Mapping)?;
        let parent = self.path.len();
        let mut keys = BTreeMap::new();
        loop {
            let error = match map.next_key_seed(Key(&mut *self)) {
                Ok(None) => break,
                Ok(Some(never)) => match never {},
                Err(error) => error,
            };
            let (seen, place) = self.catch(error)?;
            let Seen::Key(key) = seen else { continue };
            if key.len() > MAX_KEY || key.chars().any(char::is_control) {
                return Err(self.refuse(format!(
                    "a key may have at most {MAX_KEY} characters and no control characters"
                )));
            }
            if self.field(key, place, &mut keys) {
                let result = map.next_value_seed(&mut *self);
                self.value(result)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            self.path.truncate(parent);
        }
        self.depth -= 1;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        self.enter(Shape::Sequence)?;
        let parent = self.path.len();
        for index in 0.. {
            self.path.push_str(&format!("[{index}]"));
            match sequence.next_element_seed(&mut *self) {
                Ok(None) => break,
                Ok(Some(())) => {}
                Err(error) => self.value(Err(error))?,
            }
            self.path.truncate(parent);
        }
        self.path.truncate(parent);
        self.depth -= 1;
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.refuse("tags (!name) are not allowed: remove it"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.path.as_str() {
            "apiVersion" => self.written.api_version = Some(text.to_owned()),
            "kind" => self.written.kind = Some(text.to_owned()),
            _ => {}
        }
        Err(self.answer(Seen::Text))
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.answer(Seen::Null))
    }
    fn visit_none<E: Error>(self) -> Result<(), E> {
        Err(self.answer(Seen::Null))
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Err(self.answer(Seen::Unquoted))
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Err(self.answer(Seen::Unquoted))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Err(self.answer(Seen::Unquoted))
    }
    fn visit_i128<E: Error>(self, _: i128) -> Result<(), E> {
        Err(self.answer(Seen::Unquoted))
    }
    fn visit_u128<E: Error>(self, _: u128) -> Result<(), E> {
        Err(self.answer(Seen::Unquoted))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Err(self.answer(Seen::Unquoted))
    }
}

/// A key: always answered with an error.
struct Key<'a>(&'a mut Walk);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Infallible;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Infallible, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Infallible;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME_OF_A_FIELD)
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<Infallible, E> {
        Err(self.0.answer(Seen::Key(key.to_owned())))
    }
}

#[cfg(test)]
mod tests;
