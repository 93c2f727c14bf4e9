//! Everything that exists, and the verbs on it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Refusal},
    inside::{Change, HISTORY},
    kinds::Kind,
    objects::text,
    request::{Request, Subresource, Verb},
};

/// Kind, namespace (empty for kinds without) and name.
pub(super) type Key = (Kind, String, String);

/// Everything that exists.
pub(super) struct Store {
    pub(super) objects: BTreeMap<Key, Arc<Value>>,
    /// The version of the last write.
    pub(super) version: u64,
    /// The last writes, the oldest first.
    pub(super) history: VecDeque<Change>,
    /// Rung at every write, for watches.
    pub(super) bell: tokio::sync::watch::Sender<u64>,
    /// Watches that began in another one are broken.
    pub(super) epoch: u64,
    /// Objects as lists have them.
    written: BTreeMap<Key, (Arc<Value>, String)>,
    /// Objects as they are answered alone.
    alone: BTreeMap<Key, (Arc<Value>, String)>,
    uids: u64,
    addresses: u32,
    node_ports: u16,
    names: u32,
}

impl Store {
    pub(super) fn new(now: Timestamp) -> Self {
        let mut store = Self {
            objects: BTreeMap::new(),
            version: 1,
            history: VecDeque::new(),
            bell: tokio::sync::watch::Sender::new(1),
            epoch: 0,
            written: BTreeMap::new(),
            alone: BTreeMap::new(),
            uids: 0,
            addresses: 0,
            node_ports: 0,
            names: 0,
        };
        for name in ["default", "kube-system"] {
            let namespace = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": name, "uid": store.new_uid(), "resourceVersion": store.next_version(),
                    "creationTimestamp": seconds(now), "labels": {"kubernetes.io/metadata.name": name},
                },
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            });
            if let Some(kind) = Kind::find("", "v1", "namespaces") {
                store.write((kind, String::new(), name.to_owned()), Some(namespace));
            }
        }
        store
    }

    pub(super) fn answer(&mut self, request: &Request, now: Timestamp) -> Result<Answer, Refusal> {
        match (request.verb, request.subresource) {
            (Verb::Get, None | Some(Subresource::Status)) => self.get(request),
            (Verb::List, None) => self.list(request),
            (Verb::Create, None) => self.create(request, now),
            (Verb::Update | Verb::MergePatch, None | Some(Subresource::Status)) => self.update(request, now),
            (Verb::Apply, None | Some(Subresource::Status)) => self.apply(request, now),
            (Verb::Delete, None) => self.delete(request, now),
            (Verb::Get | Verb::Update | Verb::MergePatch, Some(Subresource::Scale)) => self.scale(request, now),
            (Verb::Create, Some(Subresource::Eviction)) => self.evict(request, now),
            (verb, subresource) => Err(Refusal::unknown(format!(
                "{verb:?} of {}{}",
                request.kind.resource(),
                subresource.map_or(String::new(), |part| format!("/{part:?}"))
            ))),
        }
    }

    /// Written once, as lists are.
    fn get(&mut self, request: &Request) -> Result<Answer, Refusal> {
        let found = self.existing(request)?.clone();
        let key = Self::key(request);
        match self.alone.get(&key) {
            Some((of, known)) if Arc::ptr_eq(of, &found) => Ok(Answer::written(known.clone())),
            _ => {
                let text = found.to_string();
                self.alone.insert(key, (found, text.clone()));
                Ok(Answer::written(text))
            }
        }
    }

    pub(super) fn key(request: &Request) -> Key {
        (request.kind, request.namespace.clone(), request.name.clone())
    }

    pub(super) fn existing(&self, request: &Request) -> Result<&Arc<Value>, Refusal> {
        let found = self.objects.get(&Self::key(request));
        found.ok_or_else(|| Refusal::not_found(request.kind, &request.name))
    }

    pub(super) fn list(&mut self, request: &Request) -> Result<Answer, Refusal> {
        let wanted = Wanted::of(request)?;
        let version = self.version;
        // Written by hand: most of what a simulated pass costs is lists.
        let mut text = format!(
            "{{\"apiVersion\":{:?},\"kind\":\"{}List\",\"metadata\":{{\"resourceVersion\":\"{version}\"{}}},\"items\":[",
            request.kind.api_version(),
            request.kind.kind,
            if request.kind.is_custom() {
                ",\"continue\":\"\""
            } else {
                ""
            },
        );
        let from = (request.kind, request.namespace.clone(), String::new());
        let near = self
            .objects
            .range(from..)
            .take_while(|((kind, ..), _)| *kind == request.kind);
        let mut is_first = true;
        for (key, object) in near.filter(|(key, object)| wanted.has(key, object)) {
            if !std::mem::take(&mut is_first) {
                text.push(',');
            }
            match self.written.get(key) {
                Some((of, known)) if Arc::ptr_eq(of, object) => text.push_str(known),
                _ => {
                    let new = as_item(request.kind, object);
                    text.push_str(&new);
                    self.written.insert(key.clone(), (object.clone(), new));
                }
            }
        }
        text.push_str("]}");
        Ok(Answer::written(text))
    }

    /// Stores an object, or takes it away, under the last version; and remembers what was.
    pub(super) fn write(&mut self, key: Key, new: Option<Value>) {
        let new = new.map(Arc::new);
        let old = match &new {
            Some(new) => self.objects.insert(key.clone(), new.clone()),
            None => {
                self.written.remove(&key);
                self.alone.remove(&key);
                self.objects.remove(&key)
            }
        };
        let version = self.version;
        self.history.push_back(Change { version, key, old, new });
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        self.ring();
    }

    /// The next resource version.
    pub(super) fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// A uid that no object had: the same in every run.
    pub(super) fn new_uid(&mut self) -> String {
        self.uids += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.uids)
    }

    /// Five characters that no generated name had.
    pub(super) fn new_suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        self.names += 1;
        let mut left = self.names;
        let letters = (0..5).map(|_| {
            let letter = LETTERS[left as usize % LETTERS.len()];
            left /= LETTERS.len() as u32;
            char::from(letter)
        });
        letters.collect()
    }

    /// A ClusterIP that is free.
    pub(super) fn new_address(&mut self) -> String {
        loop {
            self.addresses += 1;
            let [_, _, third, fourth] = self.addresses.to_be_bytes();
            let address = format!("10.96.{third}.{fourth}");
            if fourth != 0 && fourth != 255 && !self.has_address(&address) {
                return address;
            }
        }
    }

    /// Whether a Service has this ClusterIP.
    pub(super) fn has_address(&self, address: &str) -> bool {
        let mut all = self.objects.iter().filter(|((kind, ..), _)| kind.kind == "Service");
        all.any(|(_, service)| text(service, "/spec/clusterIP") == address)
    }

    pub(super) fn new_node_port(&mut self) -> u16 {
        self.node_ports += 1;
        30_000 + self.node_ports
    }
}

/// An object as an item. As in real lists: the list says what its items are. Those of custom resources say it themselves.
fn as_item(kind: Kind, object: &Value) -> String {
    let mut item = object.clone();
    if let (Value::Object(item), false) = (&mut item, kind.is_custom()) {
        item.remove("apiVersion");
        item.remove("kind");
    }
    item.to_string()
}

/// As Kubernetes writes times: in whole seconds.
pub(in crate::simulation) fn seconds(time: Timestamp) -> String {
    let seconds = Timestamp::from_second(time.as_second()).unwrap_or(time);
    seconds.to_string()
}

/// What a list or a watch is about.
pub(super) struct Wanted {
    kind: Kind,
    namespace: String,
    named: Option<String>,
    selects: Vec<Selects>,
}

impl Wanted {
    pub(super) fn of(request: &Request) -> Result<Self, Refusal> {
        let named = match request.query.get("fieldSelector").map(|text| text.split_once('=')) {
            None => None,
            Some(Some(("metadata.name", name))) => Some(name.trim_start_matches('=').to_owned()),
            Some(_) => return Err(Refusal::unknown("this field selector")),
        };
        Ok(Self {
            kind: request.kind,
            namespace: request.namespace.clone(),
            named,
            selects: selector(request.query.get("labelSelector").map_or("", String::as_str))?,
        })
    }

    pub(super) fn has(&self, (kind, namespace, name): &Key, object: &Value) -> bool {
        *kind == self.kind
            && (self.namespace.is_empty() || *namespace == self.namespace)
            && self.named.as_ref().is_none_or(|named| named == name)
            && self.selects.iter().all(|selects| selects(object))
    }
}

type Selects = Box<dyn Fn(&Value) -> bool + Send + Sync>;

/// The requirements of a label selector.
fn selector(text: &str) -> Result<Vec<Selects>, Refusal> {
    let mut all: Vec<Selects> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        // A comma inside of parentheses doesn't end a requirement.
        let mut depth = 0;
        let end = rest.find(|letter| {
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            letter == ',' && depth == 0
        });
        let (one, left) = rest.split_at(end.unwrap_or(rest.len()));
        all.push(requirement(one.trim())?);
        rest = left.trim_start_matches(',').trim();
    }
    Ok(all)
}

fn requirement(text: &str) -> Result<Selects, Refusal> {
    let label = |object: &Value, key: &str| object["metadata"]["labels"][key].as_str().map(str::to_owned);
    let values = |list: &str| -> Vec<String> {
        list.trim_matches(['(', ')'])
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect()
    };
    if let Some((key, list)) = text.split_once(" notin ") {
        let (key, list) = (key.trim().to_owned(), values(list));
        return Ok(Box::new(move |object| {
            label(object, &key).is_none_or(|value| !list.contains(&value))
        }));
    }
    if let Some((key, list)) = text.split_once(" in ") {
        let (key, list) = (key.trim().to_owned(), values(list));
        return Ok(Box::new(move |object| {
            label(object, &key).is_some_and(|value| list.contains(&value))
        }));
    }
    if let Some((key, value)) = text.split_once("!=") {
        let (key, value) = (key.to_owned(), value.to_owned());
        return Ok(Box::new(move |object| label(object, &key).as_ref() != Some(&value)));
    }
    if let Some((key, value)) = text.split_once('=') {
        let (key, value) = (key.to_owned(), value.trim_start_matches('=').to_owned());
        return Ok(Box::new(move |object| label(object, &key).as_ref() == Some(&value)));
    }
    if text.contains([' ', '(', '<', '>']) {
        return Err(Refusal::bad_request(format!("unable to parse requirement: {text}")));
    }
    let (key, is_there) = (text.trim_start_matches('!').to_owned(), !text.starts_with('!'));
    Ok(Box::new(move |object| label(object, &key).is_some() == is_there))
}
