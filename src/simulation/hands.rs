//! What people do to a cluster by hand, past its wish: with `kubectl`, with `redis-cli`. The operator puts it right, or does
//! what it is asked for.

use std::{net::Ipv4Addr, time::Duration};

use codis_double::{host, redis::Connection};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{EvictParams, ListParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    faults::{Part, Undo},
    world::{CLUSTER, NAMESPACE, World},
};

/// A person's drain asks for the evictions that were refused again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// As long as a person's commands wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// A person's machine.
const DESK: Ipv4Addr = Ipv4Addr::new(10, 246, 2, 1);

/// Something that is done by hand. The number chooses among what there is at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hand {
    /// A server's Service is deleted.
    DeleteService(usize),
    /// A server's Service is deleted, and another one is made that takes its address.
    TakeAddress(usize),
    /// A StatefulSet is deleted, its pods stay.
    DeleteSet(usize),
    /// The Secret with the configuration is deleted.
    DeleteConfig,
    /// The dump of the topology is deleted.
    DeleteDump,
    /// A group's StatefulSet is scaled to one server.
    ScaleGroup(usize),
    /// The proxies' Deployment is scaled.
    ScaleProxies(u32),
    /// The template of a group's StatefulSet is edited.
    EditGroup(usize),
    /// A server is told to be a master.
    StrayMaster(usize),
    /// A node is drained, and uncordoned later.
    Drain(usize, Duration),
}

impl Hand {
    /// Its kind, for tables.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::DeleteService(_) => "Service deleted",
            Self::TakeAddress(_) => "address taken",
            Self::DeleteSet(_) => "set deleted",
            Self::DeleteConfig => "config deleted",
            Self::DeleteDump => "dump deleted",
            Self::ScaleGroup(_) => "group scaled",
            Self::ScaleProxies(_) => "proxies scaled",
            Self::EditGroup(_) => "group edited",
            Self::StrayMaster(_) => "stray master",
            Self::Drain(..) => "node drained",
        }
    }

    /// When it is over, counted from its beginning.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Drain(_, time) => *time,
            _ => Duration::ZERO,
        }
    }

    /// Whether writes that were acknowledged around it may be lost: a server is taken away past the operator.
    #[must_use]
    pub fn may_lose(&self) -> bool {
        matches!(self, Self::ScaleGroup(_))
    }
}

impl World {
    /// Does something by hand.
    pub fn lay(&mut self, hand: Hand) -> Option<Undo> {
        self.trace.tell(format!("by hand: {hand:?}"));
        match hand {
            Hand::DeleteService(nth) => {
                let name = self.nth_pod(Part::Server, nth)?;
                self.api.delete("Service", NAMESPACE, &name, json!({}));
            }
            Hand::TakeAddress(nth) => self.take_address(nth)?,
            Hand::DeleteSet(nth) => {
                let name = self.nth_group(nth)?;
                let orphan = json!({"propagationPolicy": "Orphan"});
                self.api.delete("StatefulSet", NAMESPACE, &name, orphan);
            }
            Hand::DeleteConfig => self
                .api
                .delete("Secret", NAMESPACE, &format!("{CLUSTER}-config"), json!({})),
            Hand::DeleteDump => {
                let name = format!("{CLUSTER}-topology");
                self.api.delete("ConfigMap", NAMESPACE, &name, json!({}));
            }
            Hand::ScaleGroup(nth) => {
                let name = self.nth_group(nth)?;
                self.api.set_scale("StatefulSet", NAMESPACE, &name, 1);
            }
            Hand::ScaleProxies(to) => {
                let name = format!("{CLUSTER}-proxy");
                self.api.set_scale("Deployment", NAMESPACE, &name, i64::from(to));
            }
            Hand::EditGroup(nth) => self.edit(nth)?,
            Hand::StrayMaster(nth) => self.stray_master(nth)?,
            Hand::Drain(nth, time) => return self.drain(nth, time),
        }
        None
    }

    fn take_address(&self, nth: usize) -> Option<()> {
        let name = self.nth_pod(Part::Server, nth)?;
        let service = self.api.find("Service", NAMESPACE, &name)?;
        let address = service["spec"]["clusterIP"].clone();
        self.api.delete("Service", NAMESPACE, &name, json!({}));
        let squatter = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": NAMESPACE, "name": format!("squatter-of-{name}")},
            "spec": {"clusterIP": address, "ports": [{"port": 80}]},
        });
        self.api.make("Service", squatter)?;
        Some(())
    }

    fn nth_pod(&self, part: Part, nth: usize) -> Option<String> {
        let all = self.pods_like(part.word());
        Some(all.get(nth % all.len().max(1))?.0.clone())
    }

    fn nth_group(&self, nth: usize) -> Option<String> {
        let pod = self.nth_pod(Part::Server, nth)?;
        Some(pod.rsplit_once('-')?.0.to_owned())
    }

    fn edit(&self, nth: usize) -> Option<()> {
        let set = self.api.find("StatefulSet", NAMESPACE, &self.nth_group(nth)?)?;
        let mut set = Value::clone(&set);
        *set.pointer_mut("/spec/template/spec/containers/0/image")? = json!("another");
        self.api.replace(set);
        Some(())
    }

    fn stray_master(&self, nth: usize) -> Option<()> {
        let all = self.pods_like(Part::Server.word());
        let ip = all.get(nth % all.len().max(1))?.1.ip;
        host::within(self.way().machine(DESK), async move {
            let opened = Connection::open(&format!("{ip}:6379"), "product", PATIENCE).await;
            if let Ok(mut open) = opened {
                drop(open.command(&["SLAVEOF", "NO", "ONE"]).await);
            }
        });
        Some(())
    }

    fn drain(&mut self, nth: usize, time: Duration) -> Option<Undo> {
        let (node, client, end) = (format!("node-{}", nth % 4), self.api.client(), Instant::now() + time);
        self.kubernetes(|kubernetes| kubernetes.cordon(&node, true));
        let on_it = node.clone();
        tokio::spawn(async move {
            let pods = Api::<Pod>::namespaced(client, NAMESPACE);
            while Instant::now() < end {
                for pod in pods
                    .list(&ListParams::default())
                    .await
                    .map(|list| list.items)
                    .unwrap_or_default()
                {
                    let is_there = pod.spec.and_then(|spec| spec.node_name).as_deref() == Some(&on_it);
                    if let (true, None, Some(name)) = (is_there, pod.metadata.deletion_timestamp, pod.metadata.name) {
                        // Refused as long as the budget says so.
                        drop(pods.evict(&name, &EvictParams::default()).await);
                    }
                }
                sleep(AGAIN).await;
            }
        });
        Undo::by(move |world| {
            world.trace.tell(format!("{node} is uncordoned"));
            world.kubernetes(|kubernetes| kubernetes.cordon(&node, false));
        })
    }
}
