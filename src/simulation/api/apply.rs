//! Server-side apply, and who manages which field.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Refusal},
    fields::{FieldSet, Place, changed, fields_of, gone, merged},
    objects::{meta, normalize, prune_nulls, text},
    request::{Request, Subresource},
    store::{Store, seconds},
};

/// How a manager came by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What one manager has.
#[derive(Clone, Debug)]
struct Managed {
    manager: String,
    operation: Operation,
    subresource: String,
    time: String,
    version: String,
    fields: FieldSet,
}

/// Metadata that nobody manages.
const UNMANAGED: [&str; 11] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "clusterName",
];

impl Managed {
    fn read(entry: &Value) -> Self {
        Self {
            manager: text(entry, "/manager").to_owned(),
            operation: if text(entry, "/operation") == "Apply" {
                Operation::Apply
            } else {
                Operation::Update
            },
            subresource: text(entry, "/subresource").to_owned(),
            time: text(entry, "/time").to_owned(),
            version: text(entry, "/apiVersion").to_owned(),
            fields: FieldSet::from_json(&entry["fieldsV1"]),
        }
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": format!("{:?}", self.operation), "apiVersion": self.version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_json(),
        });
        if !self.time.is_empty() {
            entry["time"] = json!(self.time);
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }

    fn is_of(&self, request: &Request, operation: Operation) -> bool {
        self.manager == request.field_manager()
            && self.operation == operation
            && self.subresource == subresource(request)
    }

    fn new(request: &Request, operation: Operation, fields: FieldSet, now: Timestamp) -> Self {
        Self {
            manager: request.field_manager().to_owned(),
            operation,
            subresource: subresource(request).to_owned(),
            time: seconds(now),
            version: request.kind.api_version(),
            fields,
        }
    }
}

fn subresource(request: &Request) -> &'static str {
    match request.subresource {
        Some(Subresource::Status) => "status",
        Some(Subresource::Scale) => "scale",
        _ => "",
    }
}

fn managers(object: &Value) -> Vec<Managed> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.into_iter().flatten().map(Managed::read).collect()
}

fn set_managers(object: &mut Value, mut all: Vec<Managed>) {
    all.retain(|managed| !managed.fields.is_empty());
    // Those who apply come first, then by time, as the real server sorts them.
    all.sort_by(|one, other| {
        let rank = |managed: &Managed| {
            (
                managed.operation == Operation::Update,
                managed.time.clone(),
                managed.manager.clone(),
            )
        };
        rank(one).cmp(&rank(other))
    });
    let entries: Vec<Value> = all.iter().map(Managed::to_json).collect();
    if entries.is_empty() {
        meta(object).remove("managedFields");
    } else {
        meta(object).insert("managedFields".to_owned(), json!(entries));
    }
}

/// An object without what nobody manages.
fn manageable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Value::Object(map) = &mut object {
        map.remove("apiVersion");
        map.remove("kind");
    }
    let meta = meta(&mut object);
    UNMANAGED.iter().for_each(|field| drop(meta.remove(*field)));
    if meta.is_empty()
        && let Value::Object(map) = &mut object
    {
        map.remove("metadata");
    }
    object
}

/// Of what nobody but the request's own address may write, nothing: the status is its own part.
fn written_by(request: &Request, mut object: Value) -> Value {
    let is_status = request.subresource == Some(Subresource::Status);
    if let Value::Object(map) = &mut object {
        map.retain(|field, _| !request.kind.status || (field == "status") == is_status);
    }
    object
}

/// The object with its fields in the hands of who wrote them by a write that isn't an apply.
pub(super) fn managed_by_update(request: &Request, old: Option<&Value>, mut new: Value, now: Timestamp) -> Value {
    let place = Place::root(request.kind);
    let (before, after) = (old.map_or_else(|| json!({}), manageable), manageable(&new));
    let written = |object: &Value| written_by(request, object.clone());
    let taken = changed(&place, Some(&written(&before)), &written(&after));
    let lost = gone(&place, &before, &after);
    let mut all = old.map(managers).unwrap_or_default();
    for managed in &mut all {
        managed.fields = managed.fields.pruned(&lost);
        if !managed.is_of(request, Operation::Update) {
            managed.fields = managed.fields.without(&taken);
        }
    }
    match all.iter_mut().find(|managed| managed.is_of(request, Operation::Update)) {
        Some(known) if !taken.is_empty() => {
            known.fields = std::mem::take(&mut known.fields).union(&taken);
            known.time = seconds(now);
        }
        Some(_) => {}
        None if taken.is_empty() => {}
        None => all.push(Managed::new(request, Operation::Update, taken, now)),
    }
    set_managers(&mut new, all);
    new
}

impl Store {
    /// Server-side apply: creates what isn't there.
    pub(super) fn apply(&mut self, request: &Request, now: Timestamp) -> Result<Answer, Refusal> {
        if !request.query.contains_key("fieldManager") {
            return Err(Refusal::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        let mut body = request.body.clone();
        prune_nulls(&mut body);
        let place = Place::root(request.kind);
        let fields = fields_of(&place, &written_by(request, manageable(&body)));
        let Some(old) = self.objects.get(&Self::key(request)).map(|old| Value::clone(old)) else {
            return match request.subresource {
                None => self.apply_new(request, body, fields, now),
                Some(_) => Err(Refusal::not_found(request.kind, &request.name)),
            };
        };
        self.preconditions(request, &old, &body)?;
        body = written_by(request, body);
        let mut all = managers(&old);
        let plain = manageable(&old);
        let target = merged(&place, Some(&plain), &manageable(&body));
        let differing = changed(&place, Some(&plain), &target);
        self.settle_conflicts(request, &mut all, &fields.common(&differing))?;
        let was = all.iter().find(|managed| managed.is_of(request, Operation::Apply));
        let was = was.map(|managed| managed.fields.clone()).unwrap_or_default();
        let others = all.iter().filter(|managed| !managed.is_of(request, Operation::Apply));
        let kept = others.fold(fields.clone(), |kept, managed| kept.union(&managed.fields));
        let mut wished = merged(&place, Some(&old), &body);
        was.uncovered(&kept).remove_from(&place, &mut wished);
        let is_changed = manageable(&wished) != plain;
        wished["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        let mut new = self.admit_change(request, &old, normalize(request.kind, wished))?;
        let after = manageable(&new);
        let lost = gone(&place, &plain, &after);
        for managed in &mut all {
            managed.fields = managed.fields.pruned(&lost);
        }
        // The time is that of the last apply that changed more than who has what.
        let known = all.iter().position(|managed| managed.is_of(request, Operation::Apply));
        let known = known.unwrap_or_else(|| {
            let mut new = Managed::new(request, Operation::Apply, FieldSet::default(), now);
            new.time.clear();
            all.push(new);
            all.len() - 1
        });
        all[known].fields = fields;
        if is_changed {
            all[known].time = seconds(now);
        }
        set_managers(&mut new, all);
        self.allocate(request.kind, &mut new, Some(&old))?;
        self.put_changed(request, &old, new).map(Answer::ok)
    }

    fn apply_new(
        &mut self,
        request: &Request,
        mut body: Value,
        fields: FieldSet,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        // A version or a uid says that it must exist.
        for field in ["resourceVersion", "uid"] {
            let pointer = format!("/metadata/{field}");
            let asked = text(&body, &pointer).to_owned();
            if field == "uid" && !asked.is_empty() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {asked}, and no existing object was found"
                );
                return Err(Refusal::conflict(request.kind, &request.name, &why));
            }
            meta(&mut body).remove(field);
        }
        meta(&mut body).insert("name".to_owned(), json!(request.name));
        let mut object = self.admit_new(request, normalize(request.kind, body), now)?;
        self.allocate(request.kind, &mut object, None)?;
        set_managers(&mut object, vec![Managed::new(request, Operation::Apply, fields, now)]);
        self.put(request, object).map(Answer::created)
    }

    /// Fields that others have with other values: refused, or taken over where that is forced.
    fn settle_conflicts(&self, request: &Request, all: &mut [Managed], taken: &FieldSet) -> Result<(), Refusal> {
        let mut conflicts = Vec::new();
        for managed in all
            .iter_mut()
            .filter(|managed| !managed.is_of(request, Operation::Apply))
        {
            let common = managed.fields.common(taken);
            if common.is_empty() {
                continue;
            }
            if request.has("force") {
                managed.fields = managed.fields.without(&common);
            } else {
                let told = match managed.operation {
                    Operation::Apply => format!("\"{}\"", managed.manager),
                    Operation::Update => format!("\"{}\" using {}", managed.manager, managed.version),
                };
                conflicts.extend(common.paths().into_iter().map(|path| (told.clone(), path)));
            }
        }
        match conflicts.as_slice() {
            [] => Ok(()),
            all => Err(Refusal::apply_conflict(all)),
        }
    }
}
