//! What a container gets when it starts.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::{
    super::{
        Kubernetes, Launch,
        object::{after_millis, list, text, texts},
    },
    Sandbox, State,
    container::Run,
    probes::Aim,
};

impl Kubernetes {
    /// Starts the containers whose time has come.
    pub(super) fn start_due(&mut self, sandbox: &mut Sandbox) {
        for index in 0..sandbox.containers.len() {
            let State::Waiting { until, .. } = sandbox.containers[index].state else {
                continue;
            };
            if until > self.now || !sandbox.may_start(index) {
                continue;
            }
            match self.is_complete(sandbox, index) {
                true => self.start(sandbox, index),
                // A Secret or a claim may come yet.
                false => {
                    let until = after_millis(self.now, 2000);
                    sandbox.mounted = self.mounts(sandbox);
                    sandbox.containers[index].state = State::Waiting { until, backoff: None };
                }
            }
        }
    }

    fn start(&mut self, sandbox: &mut Sandbox, index: usize) {
        let ip = *sandbox.ip.get_or_insert_with(|| {
            self.addresses += 1;
            let [_, high, middle, low] = (self.addresses + self.addresses / 254 * 2 + 1).to_be_bytes();
            Ipv4Addr::new(10, 244_u8.wrapping_add(high), middle, low)
        });
        let container = &sandbox.containers[index];
        let restarts = container.restarts + u32::from(container.last.is_some());
        let spec = container.spec.clone();
        let launch = Launch {
            namespace: sandbox.name.0.clone(),
            pod: sandbox.name.1.clone(),
            uid: text(&sandbox.pod, "/metadata/uid").to_owned(),
            ip,
            node: sandbox.node.clone(),
            container: container.name().to_owned(),
            command: texts(&spec, "/command"),
            args: texts(&spec, "/args"),
            env: self.environment(sandbox, &spec, ip),
            files: sandbox.files(&spec),
            volume: self.volume(sandbox, &spec),
            restarts,
        };
        let id = format!("containerd://{}-{}-{restarts}", launch.uid, launch.container);
        let process = self.runtime.start(launch);
        let probers = self.probers(&sandbox.pod, &spec);
        let has = |aim: Aim| probers.iter().any(|prober| prober.aim == aim);
        let is_started = !has(Aim::Startup);
        sandbox.containers[index].restarts = restarts;
        sandbox.containers[index].state = State::Running(Box::new(Run {
            process,
            since: self.now,
            id,
            is_started,
            is_ready: is_started && !has(Aim::Readiness),
            probers,
            killed_at: None,
        }));
        sandbox.is_news = true;
    }

    /// Whether everything is there that a container needs.
    fn is_complete(&self, sandbox: &Sandbox, index: usize) -> bool {
        let spec = &sandbox.containers[index].spec;
        let referred = list(spec, "/env")
            .iter()
            .filter_map(|variable| variable.get("valueFrom"));
        let mut referred = referred.flat_map(|from| {
            [
                ("Secret", &from["secretKeyRef"]),
                ("ConfigMap", &from["configMapKeyRef"]),
            ]
        });
        let is_there = |kind: &str, of: &Value| {
            let name = text(of, "/name");
            name.is_empty() || of["optional"] == true || self.api.find(kind, &sandbox.name.0, name).is_some()
        };
        let mut volumes = list(&sandbox.pod, "/spec/volumes").iter();
        referred.all(|(kind, of)| is_there(kind, of))
            && volumes.all(|volume| {
                source(volume).is_none_or(|(kind, name)| sandbox.mounted.contains_key(&(kind, name.to_owned())))
            })
    }

    /// The Secrets and ConfigMaps that a pod mounts, as they are now.
    pub(super) fn mounts(&self, sandbox: &Sandbox) -> BTreeMap<(&'static str, String), Arc<Value>> {
        let volumes = list(&sandbox.pod, "/spec/volumes").iter();
        let found = volumes.filter_map(source).filter_map(|(kind, name)| {
            let found = self.api.find(kind, &sandbox.name.0, name)?;
            Some(((kind, name.to_owned()), found))
        });
        found.collect()
    }

    fn environment(&self, sandbox: &Sandbox, spec: &Value, ip: Ipv4Addr) -> BTreeMap<String, String> {
        let variables = list(spec, "/env").iter();
        let of = |variable: &Value| {
            let from = variable.get("valueFrom");
            let value = match from {
                None => Some(text(variable, "/value").to_owned()),
                Some(from) => self.referred(sandbox, from, ip),
            };
            value.map(|value| (text(variable, "/name").to_owned(), value))
        };
        variables.filter_map(of).collect()
    }

    fn referred(&self, sandbox: &Sandbox, from: &Value, ip: Ipv4Addr) -> Option<String> {
        if let Some(field) = from.get("fieldRef") {
            return Some(self.field(sandbox, text(field, "/fieldPath"), ip));
        }
        let (kind, of) = match from.get("secretKeyRef") {
            Some(of) => ("Secret", of),
            None => ("ConfigMap", from.get("configMapKeyRef")?),
        };
        let object = self.api.find(kind, &sandbox.name.0, text(of, "/name"))?;
        let content = content(&object, text(of, "/key"))?;
        String::from_utf8(content).ok()
    }

    /// A field of the pod, as the downward API has it.
    fn field(&self, sandbox: &Sandbox, path: &str, ip: Ipv4Addr) -> String {
        let pod = &sandbox.pod;
        let quoted = |map: &str| {
            let key = path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']")?;
            let map = map.strip_prefix("metadata.")?;
            Some(pod["metadata"][map][key].as_str().unwrap_or_default().to_owned())
        };
        match path {
            "status.podIP" | "status.podIPs" => ip.to_string(),
            "status.hostIP" => self
                .nodes
                .get(&sandbox.node)
                .map_or(String::new(), |node| node.ip.clone()),
            path => quoted("metadata.labels")
                .or_else(|| quoted("metadata.annotations"))
                .unwrap_or_else(|| text(pod, &format!("/{}", path.replace('.', "/"))).to_owned()),
        }
    }

    /// What is mounted at `/data`.
    fn volume(&self, sandbox: &Sandbox, spec: &Value) -> Option<String> {
        let mount = list(spec, "/volumeMounts")
            .iter()
            .find(|mount| text(mount, "/mountPath") == "/data")?;
        let volume = list(&sandbox.pod, "/spec/volumes")
            .iter()
            .find(|volume| volume["name"] == mount["name"])?;
        match volume
            .pointer("/persistentVolumeClaim/claimName")
            .and_then(Value::as_str)
        {
            Some(claim) => {
                let claim = self.api.find("PersistentVolumeClaim", &sandbox.name.0, claim)?;
                Some(text(&claim, "/spec/volumeName").to_owned())
            }
            None => {
                let uid = text(&sandbox.pod, "/metadata/uid");
                Some(format!("{uid}/{}", text(volume, "/name")))
            }
        }
    }
}

impl Sandbox {
    /// The mounted files of a container, by absolute path.
    pub(super) fn files(&self, spec: &Value) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for mount in list(spec, "/volumeMounts") {
            let volumes = list(&self.pod, "/spec/volumes").iter();
            let volume = volumes.into_iter().find(|volume| volume["name"] == mount["name"]);
            let Some((volume, (kind, name))) = volume.and_then(|volume| Some((volume, source(volume)?))) else {
                continue;
            };
            let Some(object) = self.mounted.get(&(kind, name.to_owned())) else {
                continue;
            };
            let place = text(mount, "/mountPath");
            let source = volume
                .get("secret")
                .or_else(|| volume.get("configMap"))
                .unwrap_or(&Value::Null);
            for (key, path) in items(source, object) {
                if let Some(content) = content(object, &key) {
                    files.insert(format!("{place}/{path}"), content);
                }
            }
        }
        files
    }
}

/// Which keys a volume has, and where.
fn items(source: &Value, object: &Value) -> Vec<(String, String)> {
    if let Some(items) = source.get("items").and_then(Value::as_array) {
        let items = items
            .iter()
            .map(|item| (text(item, "/key").to_owned(), text(item, "/path").to_owned()));
        return items.collect();
    }
    let keys = ["data", "binaryData"].map(|field| object[field].as_object());
    let keys = keys.into_iter().flatten().flat_map(|map| map.keys());
    keys.map(|key| (key.clone(), key.clone())).collect()
}

/// The kind and name of what a volume shows.
fn source(volume: &Value) -> Option<(&'static str, &str)> {
    let secret = volume.pointer("/secret/secretName").and_then(Value::as_str);
    let map = volume.pointer("/configMap/name").and_then(Value::as_str);
    secret
        .map(|name| ("Secret", name))
        .or_else(|| map.map(|name| ("ConfigMap", name)))
}

/// The content of a key.
fn content(object: &Value, key: &str) -> Option<Vec<u8>> {
    if object["kind"] == "ConfigMap"
        && let Some(plain) = object["data"][key].as_str()
    {
        return Some(plain.as_bytes().to_vec());
    }
    let field = if object["kind"] == "ConfigMap" {
        "binaryData"
    } else {
        "data"
    };
    BASE64_STANDARD.decode(object[field][key].as_str()?).ok()
}
