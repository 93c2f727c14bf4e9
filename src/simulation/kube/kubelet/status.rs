//! What a kubelet tells of a pod.

use serde_json::{Value, json};

use super::{
    super::{
        Kubernetes,
        object::{list, seconds, set_condition, text},
    },
    Sandbox,
    container::{Container, Ended, State},
};

impl Kubernetes {
    /// Writes a pod's status.
    pub(super) fn tell(&mut self, sandbox: &Sandbox) {
        let (namespace, name) = &sandbox.name;
        let Some(found) = self.api.find("Pod", namespace, name) else {
            return;
        };
        if found["metadata"]["uid"] != sandbox.pod["metadata"]["uid"] {
            return;
        }
        let mut pod = Value::clone(&found);
        pod["status"] = self.pod_status(sandbox, &found);
        self.api.replace(pod);
    }

    fn pod_status(&self, sandbox: &Sandbox, found: &Value) -> Value {
        let (initial, others) = sandbox.containers.split_at(sandbox.initial);
        let mut status = json!({
            "phase": phase(initial, others), "qosClass": found["status"]["qosClass"],
            "startTime": seconds(sandbox.since), "observedGeneration": found["metadata"]["generation"],
            "conditions": self.conditions(sandbox, found),
            "containerStatuses": others.iter().map(told).collect::<Vec<_>>(),
        });
        if !initial.is_empty() {
            status["initContainerStatuses"] = json!(initial.iter().map(told).collect::<Vec<_>>());
        }
        if let Some(node) = self.nodes.get(&sandbox.node) {
            status["hostIP"] = json!(node.ip);
            status["hostIPs"] = json!([{"ip": node.ip}]);
        }
        if let Some(ip) = sandbox.ip {
            status["podIP"] = json!(ip);
            status["podIPs"] = json!([{"ip": ip}]);
        }
        status
    }

    fn conditions(&self, sandbox: &Sandbox, found: &Value) -> Vec<Value> {
        let (initial, others) = sandbox.containers.split_at(sandbox.initial);
        let unready: Vec<&str> = others
            .iter()
            .filter(|container| !is_ready(container))
            .map(Container::name)
            .collect();
        let is_over = others.iter().all(|container| matches!(container.state, State::Over(_)));
        let why = match (unready.is_empty(), is_over) {
            (true, _) => None,
            (_, true) => Some(("PodCompleted", String::new())),
            _ => Some((
                "ContainersNotReady",
                format!("containers with unready status: [{}]", unready.join(" ")),
            )),
        };
        let uninitialized = initial.iter().any(|container| !container.has_succeeded());
        let mut all = list(found, "/status/conditions").to_vec();
        for (kind, is) in [
            ("PodReadyToStartContainers", sandbox.ip.is_some()),
            ("Initialized", !uninitialized),
            ("Ready", unready.is_empty()),
            ("ContainersReady", unready.is_empty()),
        ] {
            let mut new = json!({"type": kind, "status": if is { "True" } else { "False" }});
            if let Some((reason, message)) = why.as_ref().filter(|_| kind.ends_with("Ready")) {
                (new["reason"], new["message"]) = (json!(reason), json!(message));
            }
            set_condition(&mut all, new, &self.stamp);
        }
        all
    }
}

fn is_ready(container: &Container) -> bool {
    matches!(&container.state, State::Running(run) if run.is_ready)
}

fn phase(initial: &[Container], others: &[Container]) -> &'static str {
    let failed = |container: &Container| matches!(&container.state, State::Over(ended) if ended.exit.code != 0);
    let is_over = |container: &Container| matches!(container.state, State::Over(_));
    let was_up = |container: &Container| container.is_running() || container.last.is_some() || is_over(container);
    if initial.iter().any(failed) {
        "Failed"
    } else if initial.iter().any(|container| !container.has_succeeded()) || !others.iter().any(was_up) {
        "Pending"
    } else if !others.iter().all(is_over) {
        "Running"
    } else if others.iter().any(failed) {
        "Failed"
    } else {
        "Succeeded"
    }
}

/// The status of a container.
fn told(container: &Container) -> Value {
    let image = text(&container.spec, "/image");
    let mut status = json!({
        "name": container.name(), "image": image, "imageID": image, "restartCount": container.restarts,
        "ready": is_ready(container), "started": false, "state": {}, "lastState": {},
    });
    let mut id = container.last.as_ref().map(|last| last.id.as_str());
    if let Some(last) = &container.last {
        status["lastState"]["terminated"] = terminated(last);
    }
    match &container.state {
        State::Running(run) => {
            id = Some(&run.id);
            status["started"] = json!(run.is_started);
            status["state"]["running"] = json!({"startedAt": seconds(run.since)});
        }
        State::Over(ended) => {
            id = Some(&ended.id);
            status["state"]["terminated"] = terminated(ended);
        }
        State::Waiting {
            backoff: Some(backoff), ..
        } => {
            let message = format!("back-off {backoff}s restarting failed container={}", container.name());
            status["state"]["waiting"] = json!({"reason": "CrashLoopBackOff", "message": message});
        }
        State::Waiting { .. } => match &container.last {
            Some(last) => status["state"]["terminated"] = terminated(last),
            None => status["state"]["waiting"] = json!({"reason": "ContainerCreating"}),
        },
    }
    if let Some(id) = id {
        status["containerID"] = json!(id);
    }
    status
}

fn terminated(ended: &Ended) -> Value {
    let mut told = json!({
        "exitCode": ended.exit.code, "reason": if ended.exit.code == 0 { "Completed" } else { "Error" },
        "startedAt": ended.since, "finishedAt": ended.at, "containerID": ended.id,
    });
    if !ended.exit.message.is_empty() {
        told["message"] = json!(ended.exit.message);
    }
    told
}
