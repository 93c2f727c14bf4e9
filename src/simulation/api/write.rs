//! Creations, updates and deletions.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Refusal, details},
    apply, defaults,
    kinds::Kind,
    objects::{differ, is_going, merge_patch, meta, normalize, text, texts},
    request::{Request, Subresource, Verb},
    store::{Key, Store, seconds},
};

/// What deletes are to do with dependents, as finalizers.
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Metadata that only the server sets.
const KEPT: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

impl Store {
    pub(super) fn create(&mut self, request: &Request, now: Timestamp) -> Result<Answer, Refusal> {
        let mut object = normalize(request.kind, request.body.clone());
        if text(&object, "/metadata/name").is_empty() {
            let prefix = text(&object, "/metadata/generateName").to_owned();
            if prefix.is_empty() {
                let why = "metadata.name: Required value: name or generateName is required";
                return Err(Refusal::invalid(request.kind, "", why));
            }
            let name = format!("{prefix}{}", self.new_suffix());
            meta(&mut object).insert("name".to_owned(), json!(name));
        }
        let object = self.admit_new(request, object, now)?;
        let mut object = apply::managed_by_update(request, None, object, now);
        self.allocate(request.kind, &mut object, None)?;
        self.put(request, object).map(Answer::created)
    }

    /// A new object as it is stored, but for who manages what.
    pub(super) fn admit_new(&mut self, request: &Request, object: Value, now: Timestamp) -> Result<Value, Refusal> {
        let (kind, mut object) = (request.kind, object);
        let name = text(&object, "/metadata/name").to_owned();
        if kind.namespaced {
            self.namespace_is_open(&request.namespace, kind, &name)?;
            meta(&mut object).insert("namespace".to_owned(), json!(request.namespace));
        }
        if let Some(found) = self.objects.get(&(kind, request.namespace.clone(), name.clone())) {
            return Err(Refusal::exists(kind, &name, is_going(found)));
        }
        let uid = self.new_uid();
        let meta = meta(&mut object);
        KEPT.iter().for_each(|field| drop(meta.remove(*field)));
        meta.insert("uid".to_owned(), json!(uid));
        meta.insert("creationTimestamp".to_owned(), json!(seconds(now)));
        if kind.counted {
            meta.insert("generation".to_owned(), json!(1));
        }
        if kind.status
            && let Value::Object(map) = &mut object
        {
            map.remove("status");
        }
        defaults::fill(kind, &mut object);
        defaults::is_complete(kind, &object)?;
        Ok(object)
    }

    fn namespace_is_open(&self, namespace: &str, kind: Kind, name: &str) -> Result<(), Refusal> {
        let Some(namespaces) = Kind::find("", "v1", "namespaces") else {
            return Ok(());
        };
        let found = self.objects.get(&(namespaces, String::new(), namespace.to_owned()));
        let found = found.ok_or_else(|| Refusal::not_found(namespaces, namespace))?;
        if is_going(found) {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            return Err(Refusal::forbidden(kind, name, &why));
        }
        Ok(())
    }

    /// What is added once it is settled who manages what: addresses and node ports of a Service, and what admission adds.
    pub(super) fn allocate(&mut self, kind: Kind, object: &mut Value, old: Option<&Value>) -> Result<(), Refusal> {
        if old.is_none() {
            defaults::admit(kind, object);
        }
        if kind.kind != "Service" {
            return Ok(());
        }
        let name = text(object, "/metadata/name").to_owned();
        let wished = text(object, "/spec/clusterIP").to_owned();
        let had = old
            .map(|old| text(old, "/spec/clusterIP").to_owned())
            .unwrap_or_default();
        let address = match (wished.as_str(), had.as_str()) {
            ("", "") => self.new_address(),
            ("", had) => had.to_owned(),
            (wished, had) if !had.is_empty() && wished != had => {
                let why = format!("spec.clusterIPs[0]: Invalid value: [\"{wished}\"]: may not change once set");
                return Err(Refusal::invalid(kind, &name, &why));
            }
            (wished, "") if wished != "None" && self.has_address(wished) => {
                let why = format!(
                    "spec.clusterIPs: Invalid value: [\"{wished}\"]: failed to allocate IP {wished}: provided IP is already allocated"
                );
                return Err(Refusal::invalid(kind, &name, &why));
            }
            (wished, _) => wished.to_owned(),
        };
        object["spec"]["clusterIP"] = json!(address);
        object["spec"]["clusterIPs"] = json!([address]);
        object["spec"]["ipFamilies"] = json!(["IPv4"]);
        object["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        let has_node_ports = ["NodePort", "LoadBalancer"].contains(&text(object, "/spec/type"));
        // What a type doesn't have goes with it.
        if let Some(Value::Object(spec)) = object.get_mut("spec").filter(|_| !has_node_ports) {
            spec.remove("externalTrafficPolicy");
            spec.remove("allocateLoadBalancerNodePorts");
        }
        let known = old
            .and_then(|old| old["spec"]["ports"].as_array().cloned())
            .unwrap_or_default();
        for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
            let number = port["port"].clone();
            let had = known
                .iter()
                .find(|known| known["port"] == number)
                .map(|known| known["nodePort"].clone());
            if !has_node_ports {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            } else if port["nodePort"].is_null() {
                let new = had.filter(|had| !had.is_null());
                port["nodePort"] = new.unwrap_or_else(|| json!(self.new_node_port()));
            }
        }
        Ok(())
    }

    /// PUT and merge patches, of an object or of its status.
    pub(super) fn update(&mut self, request: &Request, now: Timestamp) -> Result<Answer, Refusal> {
        let old = Value::clone(self.existing(request)?);
        let mut wished = match request.verb {
            Verb::MergePatch => {
                let mut patched = old.clone();
                merge_patch(&mut patched, &request.body);
                patched
            }
            _ => request.body.clone(),
        };
        self.preconditions(request, &old, &wished)?;
        wished = normalize(request.kind, wished);
        let new = self.admit_change(request, &old, wished)?;
        let mut new = apply::managed_by_update(request, Some(&old), new, now);
        self.allocate(request.kind, &mut new, Some(&old))?;
        self.put_changed(request, &old, new).map(Answer::ok)
    }

    /// The versions and the uid that a body names must be those of the object.
    pub(super) fn preconditions(&self, request: &Request, old: &Value, wished: &Value) -> Result<(), Refusal> {
        let name = &request.name;
        let version = text(wished, "/metadata/resourceVersion");
        if !version.is_empty() && version != text(old, "/metadata/resourceVersion") {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Refusal::conflict(request.kind, name, why));
        }
        let (uid, known) = (text(wished, "/metadata/uid"), text(old, "/metadata/uid"));
        if !uid.is_empty() && uid != known {
            let why = format!("metadata.uid: Invalid value: \"{uid}\": field is immutable");
            return Err(match request.verb {
                Verb::Apply | Verb::MergePatch => Refusal::invalid(request.kind, name, &why),
                _ => Refusal::conflict(
                    request.kind,
                    name,
                    &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {known}"),
                ),
            });
        }
        Ok(())
    }

    /// A changed object as it is stored, but for who manages what.
    pub(super) fn admit_change(&mut self, request: &Request, old: &Value, wished: Value) -> Result<Value, Refusal> {
        let (kind, mut new) = (request.kind, wished);
        if request.subresource == Some(Subresource::Status) {
            let status = new.get("status").cloned();
            let managed = new.pointer("/metadata/managedFields").cloned();
            new = old.clone();
            new["status"] = status.unwrap_or(Value::Null);
            if let Some(managed) = managed {
                meta(&mut new).insert("managedFields".to_owned(), managed);
            }
        } else if kind.status {
            new["status"] = old.get("status").cloned().unwrap_or(Value::Null);
        }
        new = normalize(kind, new);
        let known = old["metadata"].clone();
        let meta = meta(&mut new);
        for field in KEPT {
            match &known[field] {
                Value::Null => drop(meta.remove(field)),
                value => drop(meta.insert(field.to_owned(), value.clone())),
            }
        }
        for field in ["name", "namespace"] {
            if !known[field].is_null() {
                meta.insert(field.to_owned(), known[field].clone());
            }
        }
        defaults::fill(kind, &mut new);
        if kind.kind == "Pod" {
            defaults::admit(kind, &mut new);
        }
        defaults::is_complete(kind, &new)?;
        defaults::may_change(kind, old, &new)?;
        // A Deployment's annotations count, too: its controller copies them.
        let annotations = |object: &Value| object["metadata"]["annotations"].clone();
        let is_copied = kind.kind == "Deployment" && annotations(old) != annotations(&new);
        if kind.counted && (is_copied || old.get("spec") != new.get("spec")) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            new["metadata"]["generation"] = json!(generation);
        }
        Ok(new)
    }

    /// Stores a change; an object without finalizers that is going is gone then.
    pub(super) fn put_changed(&mut self, request: &Request, old: &Value, new: Value) -> Result<Value, Refusal> {
        if !differ(old, &new) {
            return Ok(old.clone());
        }
        let is_done = is_going(&new) && texts(&new, "/metadata/finalizers").is_empty() && is_free(request.kind, &new);
        if is_done && !request.is_rehearsal() {
            self.next_version();
            self.write(Self::key(request), None);
            let mut gone = new;
            gone["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            return Ok(gone);
        }
        self.put(request, new)
    }

    pub(super) fn put(&mut self, request: &Request, mut object: Value) -> Result<Value, Refusal> {
        if request.is_rehearsal() {
            return Ok(object);
        }
        let version = self.next_version();
        meta(&mut object).insert("resourceVersion".to_owned(), json!(version));
        let name = text(&object, "/metadata/name").to_owned();
        let key: Key = (request.kind, request.namespace.clone(), name);
        self.write(key, Some(object.clone()));
        Ok(object)
    }

    pub(super) fn delete(&mut self, request: &Request, now: Timestamp) -> Result<Answer, Refusal> {
        let old = Value::clone(self.existing(request)?);
        let options = &request.body;
        let name = &request.name;
        for (field, pointer, what) in [
            ("uid", "/metadata/uid", "UID"),
            ("resourceVersion", "/metadata/resourceVersion", "ResourceVersion"),
        ] {
            let (wished, known) = (&options["preconditions"][field], text(&old, pointer));
            if wished.as_str().is_some_and(|wished| wished != known) {
                let wished = wished.as_str().unwrap_or_default();
                let why =
                    format!("Precondition failed: {what} in precondition: {wished}, {what} in object meta: {known}");
                return Err(Refusal::conflict(request.kind, name, &why));
            }
        }
        let mut finalizers = texts(&old, "/metadata/finalizers");
        let policy = options["propagationPolicy"].as_str().unwrap_or("Background");
        for (finalizer, asked) in [(ORPHAN, policy == "Orphan"), (FOREGROUND, policy == "Foreground")] {
            finalizers.retain(|known| known != finalizer);
            if asked {
                finalizers.push(finalizer.to_owned());
            }
        }
        let grace = grace(request.kind, &old, options);
        if finalizers.is_empty() && grace == 0 {
            let uid = text(&old, "/metadata/uid").to_owned();
            let mut old = old;
            if !request.is_rehearsal() {
                old["metadata"]["resourceVersion"] = json!(self.next_version());
                self.write(Self::key(request), None);
            }
            if request.kind.kind == "Pod" {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                let meta = meta(&mut old);
                meta.insert("deletionTimestamp".to_owned(), json!(seconds(now)));
                meta.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
                meta.insert("generation".to_owned(), json!(generation));
            }
            if ["Pod", "Service", "PersistentVolumeClaim"].contains(&request.kind.kind) {
                return Ok(Answer::ok(old));
            }
            let mut about = details(request.kind, request.kind.plural, name);
            about["uid"] = json!(uid);
            return Ok(Answer::ok(json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about,
            })));
        }
        let mut going = old.clone();
        let is_counted = request.kind.counted;
        let meta = meta(&mut going);
        if !meta.contains_key("deletionTimestamp") {
            let ends = now
                .checked_add(k8s_openapi::jiff::SignedDuration::from_secs(grace))
                .unwrap_or(now);
            meta.insert("deletionTimestamp".to_owned(), json!(seconds(ends)));
            meta.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
            if is_counted {
                let generation = meta.get("generation").and_then(Value::as_i64).unwrap_or(0) + 1;
                meta.insert("generation".to_owned(), json!(generation));
            }
        }
        if finalizers.is_empty() {
            meta.remove("finalizers");
        } else {
            meta.insert("finalizers".to_owned(), json!(finalizers));
        }
        self.put_changed(request, &old, going).map(Answer::ok)
    }
}

/// For how many seconds a pod that runs somewhere may end.
fn grace(kind: Kind, old: &Value, options: &Value) -> i64 {
    if kind.kind != "Pod" || text(old, "/spec/nodeName").is_empty() {
        return 0;
    }
    let wished = options["gracePeriodSeconds"].as_i64();
    wished
        .or_else(|| old["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30)
}

/// Whether nothing but finalizers keeps an object that is going: a pod's kubelet says when it has ended.
fn is_free(kind: Kind, object: &Value) -> bool {
    kind.kind != "Pod" || object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}
