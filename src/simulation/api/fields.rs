//! Sets of fields, as managed fields and server-side apply have them: which lists are merged by key, which values are atomic,
//! and who owns what. Like the structured-merge-diff of the real server, for the kinds of `kinds`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::kinds::Kind;

/// Lists that are merged by key: the field, and its key's fields. Those of custom resources are atomic.
const KEYED: [(&str, &[&str]); 13] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("imagePullSecrets", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("ownerReferences", &["uid"]),
    ("hostAliases", &["ip"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("conditions", &["type"]),
    ("containers.ports", &["containerPort", "protocol"]),
    ("spec.ports", &["port", "protocol"]),
    ("initContainers.ports", &["containerPort", "protocol"]),
];

/// Maps that are owned as a whole.
const ATOMIC_MAPS: [&str; 8] = [
    "selector",
    "labelSelector",
    "namespaceSelector",
    "nodeSelector",
    "fieldRef",
    "secretKeyRef",
    "configMapKeyRef",
    "resourceFieldRef",
];

/// Lists that are sets.
const SETS: [&str; 1] = ["finalizers"];

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    Field(String),
    /// An entry of a keyed list: its key's fields as JSON.
    Key(String),
    /// An entry of a set.
    Entry(String),
}

/// Fields that somebody owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether this very place is owned.
    own: bool,
    children: BTreeMap<Element, FieldSet>,
}

/// How a value is merged.
#[derive(Clone, Copy)]
enum Shape {
    Leaf,
    Map,
    Keyed(&'static [&'static str]),
    Set,
}

/// Where a value is: its field, and the named field around it.
#[derive(Clone)]
pub(super) struct Place {
    custom: bool,
    around: String,
    field: String,
}

impl Place {
    pub(super) fn root(kind: Kind) -> Self {
        Self {
            custom: kind.is_custom(),
            around: String::new(),
            field: String::new(),
        }
    }

    fn child(&self, field: &str) -> Self {
        Self {
            custom: self.custom,
            around: self.field.clone(),
            field: field.to_owned(),
        }
    }

    fn shape(&self, value: &Value) -> Shape {
        let in_meta = self.around == "metadata";
        match value {
            Value::Object(_) if !self.custom && ATOMIC_MAPS.contains(&self.field.as_str()) => Shape::Leaf,
            Value::Object(_) => Shape::Map,
            Value::Array(_) if SETS.contains(&self.field.as_str()) && in_meta => Shape::Set,
            Value::Array(_) if self.custom && !in_meta => Shape::Leaf,
            Value::Array(_) => {
                let path = format!("{}.{}", self.around, self.field);
                let found = KEYED.iter().find(|(name, _)| *name == self.field || *name == path);
                found.map_or(Shape::Leaf, |(_, keys)| Shape::Keyed(keys))
            }
            _ => Shape::Leaf,
        }
    }
}

fn key_of(entry: &Value, keys: &[&str]) -> Element {
    let pairs = keys.iter().filter_map(|key| {
        let value = entry.get(*key).cloned();
        // The only key field that has a default.
        let value = value.or_else(|| (*key == "protocol").then(|| json!("TCP")));
        value.map(|value| ((*key).to_owned(), value))
    });
    Element::Key(Value::Object(pairs.collect::<Map<_, _>>()).to_string())
}

/// What an apply of this value owns.
pub(super) fn fields_of(place: &Place, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match (place.shape(value), value) {
        (Shape::Map, Value::Object(map)) if !map.is_empty() || place.field.is_empty() => {
            for (field, value) in map {
                set.adopt(Element::Field(field.clone()), fields_of(&place.child(field), value));
            }
        }
        (Shape::Keyed(keys), Value::Array(list)) => {
            for entry in list {
                let mut of_entry = fields_of(place, entry);
                of_entry.own = true;
                set.children.insert(key_of(entry, keys), of_entry);
            }
        }
        (Shape::Set, Value::Array(list)) => {
            for entry in list {
                set.children.insert(
                    Element::Entry(entry.to_string()),
                    FieldSet {
                        own: true,
                        ..FieldSet::default()
                    },
                );
            }
        }
        _ => set.own = true,
    }
    set
}

/// Structs that typed objects always have, if only empty: nobody makes them.
const STRUCTS: [&str; 7] = [
    "metadata",
    "spec",
    "status",
    "template",
    "strategy",
    "updateStrategy",
    "resources",
];

/// What is new: the maps too, where there were none.
fn added(place: &Place, new: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match (place.shape(new), new) {
        (Shape::Map, Value::Object(map)) if !map.is_empty() => {
            let is_struct = STRUCTS.contains(&place.field.as_str()) && (!place.custom || place.field == "metadata");
            set.own = !is_struct && !place.field.is_empty();
            for (field, value) in map {
                set.children
                    .insert(Element::Field(field.clone()), added(&place.child(field), value));
            }
        }
        (Shape::Keyed(keys), Value::Array(list)) if !list.is_empty() => {
            set.own = true;
            for entry in list {
                let mut of_entry = added(place, entry);
                of_entry.own = true;
                set.children.insert(key_of(entry, keys), of_entry);
            }
        }
        (Shape::Set, Value::Array(list)) if !list.is_empty() => {
            set = fields_of(place, new);
            set.own = true;
        }
        _ => set.own = true,
    }
    set
}

/// What differs between two values, or is new in the second: what a write that isn't an apply takes over.
pub(super) fn changed(place: &Place, old: Option<&Value>, new: &Value) -> FieldSet {
    let Some(old) = old else { return added(place, new) };
    let mut set = FieldSet::default();
    match (place.shape(new), old, new) {
        (Shape::Map, Value::Object(old), Value::Object(new)) => {
            for (field, value) in new {
                let found = changed(&place.child(field), old.get(field), value);
                set.adopt(Element::Field(field.clone()), found);
            }
        }
        (Shape::Keyed(keys), Value::Array(old), Value::Array(new)) => {
            for entry in new {
                let key = key_of(entry, keys);
                let found = old.iter().find(|known| key_of(known, keys) == key);
                let mut of_entry = changed(place, found, entry);
                of_entry.own |= found.is_none();
                set.adopt(key, of_entry);
            }
        }
        (Shape::Set, Value::Array(old), Value::Array(new)) => {
            for entry in new.iter().filter(|entry| !old.contains(entry)) {
                set.adopt(
                    Element::Entry(entry.to_string()),
                    FieldSet {
                        own: true,
                        ..FieldSet::default()
                    },
                );
            }
        }
        (_, old, new) => set.own = old != new,
    }
    set
}

/// What one value had and the next one hasn't, each by the place where it begins.
pub(super) fn gone(place: &Place, old: &Value, new: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    let whole = || FieldSet {
        own: true,
        ..FieldSet::default()
    };
    match (place.shape(old), old, new) {
        (Shape::Map, Value::Object(old), Value::Object(new)) => {
            for (field, value) in old {
                let below = new
                    .get(field)
                    .map_or_else(whole, |now| gone(&place.child(field), value, now));
                set.adopt(Element::Field(field.clone()), below);
            }
        }
        (Shape::Keyed(keys), Value::Array(old), Value::Array(new)) => {
            for entry in old {
                let key = key_of(entry, keys);
                let now = new.iter().find(|now| key_of(now, keys) == key);
                let below = now.map_or_else(whole, |now| gone(place, entry, now));
                set.adopt(key, below);
            }
        }
        (Shape::Set, Value::Array(old), Value::Array(new)) => {
            for entry in old.iter().filter(|entry| !new.contains(entry)) {
                set.adopt(Element::Entry(entry.to_string()), whole());
            }
        }
        _ => {}
    }
    set
}

impl FieldSet {
    fn adopt(&mut self, element: Element, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.own && self.children.is_empty()
    }

    /// These and those.
    pub(super) fn union(mut self, other: &Self) -> Self {
        self.own |= other.own;
        for (element, child) in &other.children {
            let known = self.children.remove(element).unwrap_or_default();
            self.children.insert(element.clone(), known.union(child));
        }
        self
    }

    /// These without those.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut left = Self {
            own: self.own && !other.own,
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            let child = other
                .children
                .get(element)
                .map_or_else(|| child.clone(), |known| child.without(known));
            left.adopt(element.clone(), child);
        }
        left
    }

    /// These without those, where a place counts as one of those if anything below it is.
    pub(super) fn uncovered(&self, other: &Self) -> Self {
        let mut left = Self {
            own: self.own && other.is_empty(),
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            let child = other
                .children
                .get(element)
                .map_or_else(|| child.clone(), |known| child.uncovered(known));
            left.adopt(element.clone(), child);
        }
        left
    }

    /// What is in both.
    pub(super) fn common(&self, other: &Self) -> Self {
        let mut both = Self {
            own: self.own && other.own,
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            if let Some(known) = other.children.get(element) {
                both.adopt(element.clone(), child.common(known));
            }
        }
        both
    }

    /// Without what is below one of those.
    pub(super) fn pruned(&self, gone: &Self) -> Self {
        let mut left = Self {
            own: self.own,
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            match gone.children.get(element) {
                Some(gone) if gone.own => {}
                Some(gone) => left.adopt(element.clone(), child.pruned(gone)),
                None => left.adopt(element.clone(), child.clone()),
            }
        }
        left
    }

    /// Removes these from a value.
    pub(super) fn remove_from(&self, place: &Place, value: &mut Value) {
        match (place.shape(value), value) {
            (Shape::Map, Value::Object(map)) => {
                for (element, child) in &self.children {
                    let Element::Field(field) = element else { continue };
                    let Some(known) = map.get_mut(field) else { continue };
                    let had = !is_bare(known);
                    child.remove_from(&place.child(field), known);
                    if child.own || had && is_bare(known) {
                        map.remove(field);
                    }
                }
            }
            (Shape::Keyed(keys), Value::Array(list)) => list.retain_mut(|entry| {
                let Some(child) = self.children.get(&key_of(entry, keys)) else {
                    return true;
                };
                child.remove_from(place, entry);
                !child.own
            }),
            (Shape::Set, Value::Array(list)) => {
                list.retain(|entry| !self.children.contains_key(&Element::Entry(entry.to_string())));
            }
            _ => {}
        }
    }

    /// As `fieldsV1` has it.
    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.own && !self.children.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (element, child) in &self.children {
            let name = match element {
                Element::Field(field) => format!("f:{field}"),
                Element::Key(key) => format!("k:{key}"),
                Element::Entry(entry) => format!("v:{entry}"),
            };
            map.insert(name, child.to_json());
        }
        Value::Object(map)
    }

    /// Read back.
    pub(super) fn from_json(json: &Value) -> Self {
        let mut set = Self::default();
        let Value::Object(map) = json else { return set };
        set.own = map.is_empty() || map.contains_key(".");
        for (name, child) in map {
            let element = match name.split_once(':') {
                Some(("f", field)) => Element::Field(field.to_owned()),
                Some(("k", key)) => Element::Key(key.to_owned()),
                Some(("v", entry)) => Element::Entry(entry.to_owned()),
                _ => continue,
            };
            set.children.insert(element, Self::from_json(child));
        }
        set
    }

    /// The paths, as a refusal names them: `.spec.replicas`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (element, child) in &self.children {
            let step = match element {
                Element::Field(field) => format!(".{field}"),
                Element::Key(key) => {
                    let pairs: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    format!("[{}]", pairs.join(","))
                }
                Element::Entry(entry) => format!("[={entry}]"),
            };
            if child.own && child.children.is_empty() {
                all.push(step.clone());
            }
            all.extend(child.paths().into_iter().map(|rest| format!("{step}{rest}")));
        }
        all
    }
}

fn is_bare(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Puts what is applied into what there is.
pub(super) fn merged(place: &Place, live: Option<&Value>, applied: &Value) -> Value {
    let Some(live) = live else { return applied.clone() };
    match (place.shape(applied), live, applied) {
        (Shape::Map, Value::Object(live), Value::Object(applied)) => {
            let mut all = live.clone();
            for (field, value) in applied {
                let value = merged(&place.child(field), live.get(field), value);
                all.insert(field.clone(), value);
            }
            Value::Object(all)
        }
        (Shape::Keyed(keys), Value::Array(live), Value::Array(applied)) => {
            let mut all = live.clone();
            for entry in applied {
                let key = key_of(entry, keys);
                match all.iter_mut().find(|known| key_of(known, keys) == key) {
                    Some(known) => *known = merged(place, Some(&known.clone()), entry),
                    None => all.push(entry.clone()),
                }
            }
            Value::Array(all)
        }
        (Shape::Set, Value::Array(live), Value::Array(applied)) => {
            let new = applied.iter().filter(|entry| !live.contains(entry));
            Value::Array(live.iter().chain(new).cloned().collect())
        }
        (_, _, applied) => applied.clone(),
    }
}
