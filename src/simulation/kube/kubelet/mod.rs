//! The kubelets: what runs on the nodes, and what is told of it.

mod container;
mod launch;
mod probes;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use self::container::{Container, State};
use super::{
    Kubernetes,
    object::{Name, after, after_millis, list, number, text},
};

/// How often mounted Secrets and ConfigMaps are looked at anew, in seconds.
const REMOUNT: i64 = 60;

/// A pod on its node.
pub(super) struct Sandbox {
    pub name: Name,
    pub node: String,
    /// None before it was made.
    pub ip: Option<Ipv4Addr>,
    /// The pod as it was last heard of.
    pub pod: Arc<Value>,
    /// Those that initialize it, in order, then the others.
    pub containers: Vec<Container>,
    /// How many of them initialize it.
    pub initial: usize,
    /// What is mounted of Secrets and ConfigMaps, as it was when it was last looked at.
    mounted: BTreeMap<(&'static str, String), Arc<Value>>,
    remounts_at: Timestamp,
    /// Until when it may end by itself, once it is told to.
    ends_by: Option<Timestamp>,
    /// Whether the pod exists no more.
    is_gone: bool,
    /// Whether it is to end: the pod is being deleted, or exists no more.
    is_leaving: bool,
    /// When it was taken on by its node.
    since: Timestamp,
    /// When the next thing is due, as it was when something was done last.
    due: Option<Timestamp>,
    /// Whether its status is to be told.
    pub is_news: bool,
}

impl Kubernetes {
    /// The nodes' kubelets hear of these pods.
    pub(super) fn hear_of_pods(&mut self, names: &BTreeSet<Name>) {
        for name in names {
            let pod = self.cache.pods.get(name);
            let uid = pod.map(|pod| pod.uid.clone());
            for (known, sandbox) in &mut self.sandboxes {
                if sandbox.name == *name && uid.as_ref() != Some(known) {
                    (sandbox.is_gone, sandbox.is_leaving) = (true, true);
                }
            }
            let Some(pod) = pod.filter(|pod| !pod.node.is_empty()) else {
                continue;
            };
            match self.sandboxes.get_mut(&pod.uid) {
                Some(sandbox) => {
                    sandbox.pod = pod.raw.clone();
                    sandbox.is_leaving |= pod.is_going;
                }
                // What is over isn't begun again.
                None if pod.is_over() || number(&pod.raw, "/metadata/deletionGracePeriodSeconds") == Some(0) => {}
                None => {
                    let (raw, node) = (pod.raw.clone(), pod.node.clone());
                    self.take_on(name, &node, &raw);
                }
            }
        }
    }

    fn take_on(&mut self, name: &Name, node: &str, raw: &Arc<Value>) {
        let uid = text(raw, "/metadata/uid").to_owned();
        let (initial, others) = (list(raw, "/spec/initContainers"), list(raw, "/spec/containers"));
        // Image, sandbox and volumes.
        let starts = after_millis(self.now, self.chance(800, 3000));
        let containers = initial.iter().chain(others).map(|spec| Container::new(spec, starts));
        let mut sandbox = Sandbox {
            name: name.clone(),
            node: node.to_owned(),
            ip: None,
            pod: raw.clone(),
            containers: containers.collect(),
            initial: initial.len(),
            mounted: BTreeMap::new(),
            remounts_at: after_millis(self.now, REMOUNT * 1000 + self.chance(0, 5000)),
            ends_by: None,
            is_gone: false,
            is_leaving: super::object::is_going(raw),
            since: self.now,
            due: None,
            is_news: true,
        };
        sandbox.mounted = self.mounts(&sandbox);
        self.sandboxes.insert(uid, sandbox);
    }

    /// Everything that is due on nodes whose kubelet works; says whether anything was told.
    pub(super) fn run_kubelets(&mut self) -> bool {
        let uids: Vec<String> = self
            .sandboxes
            .iter()
            .filter(|(_, sandbox)| self.is_due(sandbox))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &uids {
            let Some(mut sandbox) = self.sandboxes.remove(uid) else {
                continue;
            };
            let is_done = self.sync(uid, &mut sandbox);
            if !is_done {
                sandbox.due = sandbox.next_due();
                self.sandboxes.insert(uid.clone(), sandbox);
            }
        }
        !uids.is_empty()
    }

    /// Whether there is something to do for a pod now.
    fn is_due(&self, sandbox: &Sandbox) -> bool {
        let is_due = sandbox.is_news
            || (sandbox.is_leaving && sandbox.ends_by.is_none())
            || sandbox.due.is_some_and(|due| due <= self.now)
            || sandbox.containers.iter().any(Container::has_ended);
        is_due && self.nodes.get(&sandbox.node).is_some_and(super::NodeState::works)
    }

    /// When the next thing is due for a pod.
    pub(super) fn due_of(&self, sandbox: &Sandbox) -> Option<Timestamp> {
        let works = self.nodes.get(&sandbox.node).is_some_and(super::NodeState::works);
        sandbox.due.filter(|_| works)
    }

    /// Does all that is due for a pod; says whether nothing of it is left.
    fn sync(&mut self, uid: &str, sandbox: &mut Sandbox) -> bool {
        sandbox.note_ends(self.now);
        if sandbox.is_leaving {
            self.end(sandbox);
            if sandbox.containers.iter().all(|container| !container.is_running()) {
                self.bury(uid, sandbox);
                return true;
            }
        } else {
            if sandbox.remounts_at <= self.now {
                self.remount(sandbox);
            }
            self.start_due(sandbox);
            self.probe_due(sandbox);
        }
        if std::mem::take(&mut sandbox.is_news) {
            self.tell(sandbox);
        }
        false
    }

    /// Tells the containers to end, and kills them when their time is over.
    fn end(&mut self, sandbox: &mut Sandbox) {
        let grace = number(&sandbox.pod, "/metadata/deletionGracePeriodSeconds");
        let now = self.now;
        // A pod that is gone from the objects without a word was deleted by force.
        let grace = if sandbox.is_gone { Some(1) } else { grace };
        let until = after(now, grace.unwrap_or(30));
        match sandbox.ends_by {
            None => {
                sandbox.ends_by = Some(until);
                sandbox.containers.iter_mut().for_each(Container::terminate);
            }
            Some(by) if by <= now => {
                sandbox.containers.iter_mut().for_each(Container::kill);
                // Again, if that wasn't enough.
                sandbox.ends_by = Some(after(now, 1));
            }
            Some(by) => sandbox.ends_by = Some(by.min(until)),
        }
        sandbox.note_ends(now);
    }

    /// Tells how a pod ended, and that it may go.
    fn bury(&mut self, uid: &str, sandbox: &mut Sandbox) {
        if !sandbox.is_gone {
            self.tell(sandbox);
            let (namespace, name) = &sandbox.name;
            if let Some(found) = self.api.find("Pod", namespace, name)
                && text(&found, "/metadata/uid") == uid
            {
                let mut pod = Value::clone(&found);
                pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
                self.api.replace(pod);
            }
        }
        for volume in sandbox.empty_dirs(|_| true) {
            self.runtime.delete_volume(&volume);
        }
    }

    fn remount(&mut self, sandbox: &mut Sandbox) {
        sandbox.remounts_at = after_millis(self.now, REMOUNT * 1000 + self.chance(0, 5000));
        let mounted = self.mounts(sandbox);
        if mounted != sandbox.mounted {
            sandbox.mounted = mounted;
            for index in 0..sandbox.containers.len() {
                let files = sandbox.files(&sandbox.containers[index].spec);
                if let State::Running(run) = &mut sandbox.containers[index].state {
                    run.process.remounted(&files);
                }
            }
        }
    }

    /// Kills a container's processes: they are started again in place.
    pub fn kill_process(&mut self, namespace: &str, pod: &str) {
        let sandboxes = self.sandboxes.values_mut();
        for sandbox in sandboxes.filter(|sandbox| sandbox.name.0 == namespace && sandbox.name.1 == pod) {
            sandbox.containers.iter_mut().for_each(Container::kill);
        }
    }

    /// All that runs on a node is gone, and what it had in memory.
    pub(super) fn power_off(&mut self, node: &str) {
        for sandbox in self.sandboxes.values_mut().filter(|sandbox| sandbox.node == node) {
            for container in &mut sandbox.containers {
                container.lose(self.now);
            }
            // Its sandbox is made anew, with another address.
            (sandbox.ip, sandbox.is_news) = (None, true);
            for volume in sandbox.empty_dirs(|dir| dir["medium"] == "Memory") {
                self.runtime.delete_volume(&volume);
            }
        }
    }

    /// The kubelet of a node that is heard again tells of all its pods.
    pub(super) fn doubt_pods(&mut self, node: &str) {
        let here = self.sandboxes.values_mut().filter(|sandbox| sandbox.node == node);
        here.for_each(|sandbox| sandbox.is_news = true);
    }
}

impl Sandbox {
    /// When the next thing is due that doesn't come from outside.
    fn next_due(&self) -> Option<Timestamp> {
        if self.ends_by.is_some() {
            return self.ends_by;
        }
        let next = self.containers.iter().enumerate().filter_map(|(index, container)| {
            let waits = matches!(container.state, State::Waiting { .. });
            (!waits || self.may_start(index)).then(|| container.due()).flatten()
        });
        next.chain([self.remounts_at]).min()
    }

    /// Whether a container's turn has come: those that initialize have theirs one after another.
    fn may_start(&self, index: usize) -> bool {
        let before = self.containers.iter().take(index.min(self.initial));
        let mut before = before.filter(|container| !container.has_succeeded());
        before.next().is_none()
    }

    /// Takes note of processes that have ended.
    fn note_ends(&mut self, now: Timestamp) {
        let policy = text(&self.pod, "/spec/restartPolicy").to_owned();
        let is_leaving = self.is_leaving;
        for (index, container) in self.containers.iter_mut().enumerate() {
            let policy = if index < self.initial && policy == "Always" {
                "OnFailure"
            } else {
                &policy
            };
            self.is_news |= container.note_end(now, if is_leaving { "Never" } else { policy });
        }
    }

    /// The ids of its emptyDirs.
    fn empty_dirs(&self, of: impl Fn(&Value) -> bool) -> Vec<String> {
        let uid = text(&self.pod, "/metadata/uid");
        let volumes = list(&self.pod, "/spec/volumes").iter();
        let volumes = volumes.filter(|volume| volume.get("emptyDir").is_some_and(&of));
        volumes
            .map(|volume| format!("{uid}/{}", text(volume, "/name")))
            .collect()
    }
}
