//! The subresources `scale` and `eviction`.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Refusal},
    apply,
    kinds::Kind,
    objects::{is_going, merge_patch, text},
    request::{Request, Verb},
    store::{Store, seconds},
};

/// The kinds that have a scale.
const SCALED: [&str; 3] = ["StatefulSet", "Deployment", "ReplicaSet"];

impl Store {
    /// GET, PUT and merge patches of a scale.
    pub(super) fn scale(&mut self, request: &Request, now: Timestamp) -> Result<Answer, Refusal> {
        if !SCALED.contains(&request.kind.kind) {
            return Err(Refusal::not_found(request.kind, &request.name));
        }
        let old = Value::clone(self.existing(request)?);
        let mut scale = scale_of(&old);
        match request.verb {
            Verb::Get => return Ok(Answer::ok(scale)),
            Verb::MergePatch => merge_patch(&mut scale, &request.body),
            _ => scale = request.body.clone(),
        }
        self.preconditions(request, &old, &scale)?;
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let why = format!("spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0");
            return Err(Refusal::invalid(request.kind, &request.name, &why));
        }
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(replicas);
        let new = self.admit_change(request, &old, new)?;
        let mut new = apply::managed_by_update(request, Some(&old), new, now);
        as_scaled(&mut new, replicas);
        let new = self.put_changed(request, &old, new)?;
        Ok(Answer::ok(scale_of(&new)))
    }

    /// POST of an eviction: a deletion, where no budget speaks against it.
    pub(super) fn evict(&mut self, request: &Request, now: Timestamp) -> Result<Answer, Refusal> {
        let pod = Value::clone(self.existing(request)?);
        let is_idle = ["Succeeded", "Failed", "Pending"].contains(&text(&pod, "/status/phase"));
        if !is_idle && !is_going(&pod) && !request.is_rehearsal() {
            self.ask_budgets(&pod, now)?;
        }
        let deletion = Request {
            verb: Verb::Delete,
            kind: request.kind,
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            subresource: None,
            query: request.query.clone(),
            body: request.body["deleteOptions"].clone(),
        };
        self.delete(&deletion, now)?;
        Ok(Answer::created(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
        })))
    }

    /// Takes one disruption of the budget that a pod is in.
    fn ask_budgets(&mut self, pod: &Value, now: Timestamp) -> Result<(), Refusal> {
        let namespace = text(pod, "/metadata/namespace");
        let Some(kind) = Kind::named("PodDisruptionBudget") else {
            return Ok(());
        };
        let all = self
            .objects
            .iter()
            .filter(|((of, within, _), _)| *of == kind && within == namespace);
        let selects =
            |budget: &Value| super::super::kube::selects(&budget["spec"]["selector"], &pod["metadata"]["labels"]);
        let mut found = all.filter(|(_, budget)| selects(budget));
        let Some((key, budget)) = found.next() else {
            return Ok(());
        };
        if found.next().is_some() {
            let mut refusal = Refusal::trouble(500);
            refusal.message =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
                    .to_owned();
            return Err(refusal);
        }
        let (key, mut budget) = (key.clone(), Value::clone(budget));
        let status = &budget["status"];
        let of = |field: &str| status[field].as_i64().unwrap_or(0);
        let (healthy, desired, allowed) = (of("currentHealthy"), of("desiredHealthy"), of("disruptionsAllowed"));
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if !is_ready(pod) && (always || (healthy >= desired && desired > 0)) {
            return Ok(());
        }
        if of("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
            return Err(too_many(
                "The disruption budget is still being processed by the server.".to_owned(),
            ));
        }
        if allowed <= 0 {
            let name = &key.2;
            let why = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
            return Err(too_many(why));
        }
        budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
        budget["status"]["disruptedPods"][text(pod, "/metadata/name")] = json!(seconds(now));
        let version = self.next_version();
        budget["metadata"]["resourceVersion"] = json!(version);
        self.write(key, Some(budget));
        Ok(())
    }
}

/// As the real server notes who scaled: without a time, and nobody where it was to none.
fn as_scaled(object: &mut Value, replicas: i64) {
    let Some(Value::Array(managers)) = object.pointer_mut("/metadata/managedFields") else {
        return;
    };
    managers.retain(|managed| replicas != 0 || managed["subresource"] != "scale");
    for managed in managers.iter_mut().filter(|managed| managed["subresource"] == "scale") {
        managed.as_object_mut().map(|managed| managed.remove("time"));
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|known| known["type"] == "Ready" && known["status"] == "True")
}

fn too_many(why: String) -> Refusal {
    let mut refusal = Refusal::trouble(429);
    "Cannot evict pod as it would violate the pod's disruption budget.".clone_into(&mut refusal.message);
    refusal.details = Some(json!({"causes": [{"reason": "DisruptionBudget", "message": why}]}));
    refusal
}

fn scale_of(object: &Value) -> Value {
    let meta = &object["metadata"];
    let labels = object["spec"]["selector"]["matchLabels"]
        .as_object()
        .into_iter()
        .flatten();
    let pairs: Vec<String> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"],
        },
        "spec": {}, "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": pairs.join(",")},
    });
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = json!(replicas);
    }
    scale
}
