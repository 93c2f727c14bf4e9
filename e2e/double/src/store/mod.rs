//! The coordinator store (§10): one node per object under `/codis3/<product>`, on any of three coordinators.

mod etcd;
mod filesystem;
mod outside;
mod zookeeper;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::SLOTS;
use crate::flags::Flags;
use crate::host;
use crate::http::{Refusal, pretty};
use crate::wire::{Group, Proxy, Sentinel, SlotMapping, Topom};
use etcd::Etcd;
use filesystem::Filesystem;
use outside::Outside;
use zookeeper::Zookeeper;

/// The session of everything but jodis with zookeeper (§10).
const SESSION: Duration = Duration::from_secs(60);
/// Where products are.
const ROOT: &str = "/codis3";

type Outcome<T> = std::io::Result<T>;

/// Something that keeps nodes for all products.
#[derive(Debug, Clone)]
pub struct Coordinator(Arc<Medium>);

#[derive(Debug)]
enum Medium {
    Filesystem(Filesystem),
    Etcd(Etcd),
    Zookeeper(Zookeeper),
    Outside(Outside),
}

impl Coordinator {
    /// The coordinator that a name and an address mean; nothing is connected to yet.
    pub fn open(name: &str, addr: &str, auth: &str) -> anyhow::Result<Self> {
        Self::open_for(name, addr, auth, SESSION)
    }

    /// The same with a session of another length, for zookeeper.
    pub fn open_for(name: &str, addr: &str, auth: &str, session: Duration) -> anyhow::Result<Self> {
        let medium = match name {
            "fs" | "filesystem" => Medium::Filesystem(Filesystem::new(addr)),
            // The clients of the others open their own sockets.
            "etcd" | "zk" | "zookeeper" if host::current().is_some() => Medium::Outside(Outside::new(addr)),
            "etcd" => Medium::Etcd(Etcd::new(addr, auth)?),
            "zk" | "zookeeper" => Medium::Zookeeper(Zookeeper::new(addr, auth, session)?),
            other => bail!("invalid coordinator name = {other}"),
        };
        Ok(Self(Arc::new(medium)))
    }

    /// The coordinator that a command line names, with its password (§14).
    pub fn named(flags: &Flags) -> anyhow::Result<Option<Self>> {
        for name in ["zookeeper", "etcd", "filesystem"] {
            if let Some(addr) = flags.get(name) {
                let auth = flags.get(&format!("{name}-auth")).unwrap_or_default();
                return Self::open(name, addr, auth).map(Some);
            }
        }
        Ok(None)
    }

    /// The store of a product.
    pub fn product(&self, product: &str) -> Store {
        Store {
            coordinator: self.clone(),
            product: product.to_string(),
            doubtful: Arc::default(),
        }
    }

    /// Makes a node that goes when it is not renewed for a lifetime (§8.7); an error if it exists.
    pub async fn lend(&self, path: &str, text: &[u8], lifetime: Duration) -> Outcome<()> {
        match &*self.0 {
            Medium::Filesystem(_) => Err(std::io::ErrorKind::Unsupported.into()),
            Medium::Etcd(medium) => medium.lend(path, text, lifetime).await,
            Medium::Zookeeper(medium) => medium.lend(path, text).await,
            Medium::Outside(medium) => medium.lend(path, text, lifetime).await,
        }
    }

    /// Renews such a node until it is lost.
    pub async fn renew(&self, path: &str, lifetime: Duration) {
        match &*self.0 {
            Medium::Filesystem(_) => {}
            Medium::Etcd(medium) => medium.renew(path, lifetime).await,
            Medium::Zookeeper(medium) => medium.watch(path).await,
            Medium::Outside(medium) => medium.renew(path, lifetime).await,
        }
    }

    /// Deletes a node, whether or not it exists.
    pub async fn delete(&self, path: &str) -> Outcome<()> {
        match &*self.0 {
            Medium::Filesystem(medium) => medium.remove(path),
            Medium::Etcd(medium) => medium.remove(path).await,
            Medium::Zookeeper(medium) => medium.remove(path).await,
            Medium::Outside(medium) => medium.remove(path).await,
        }
    }

    /// The products, sorted, and where the dashboards are that hold their locks.
    pub async fn products(&self) -> Outcome<Vec<(String, Option<String>)>> {
        let names = match &*self.0 {
            Medium::Filesystem(medium) => medium.names(ROOT)?,
            Medium::Etcd(medium) => medium.names(ROOT).await?,
            Medium::Zookeeper(medium) => medium.names(ROOT).await?,
            Medium::Outside(medium) => medium.names(ROOT).await?,
        };
        let mut found = Vec::new();
        for name in names {
            let holder = self.product(&name).topom().await?;
            found.push((name, holder.map(|topom| topom.admin_addr)));
        }
        Ok(found)
    }

    /// Those whose dashboard holds its lock.
    pub async fn dashboards(&self) -> Outcome<Vec<(String, String)>> {
        let products = self.products().await?.into_iter();
        Ok(products.filter_map(|(name, holder)| Some((name, holder?))).collect())
    }
}

/// The nodes of one product.
#[derive(Debug, Clone)]
pub struct Store {
    coordinator: Coordinator,
    product: String,
    doubtful: Arc<AtomicBool>,
}

impl Store {
    fn medium(&self) -> &Medium {
        &self.coordinator.0
    }

    fn path(&self, name: &str) -> String {
        format!("{ROOT}/{}/{name}", self.product)
    }

    /// Whether a write has failed: it may have been done nevertheless.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }

    /// What has been read since is what is stored.
    pub fn trust(&self) {
        self.doubtful.store(false, Ordering::Relaxed);
    }

    fn noted<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        self.doubtful.fetch_or(outcome.is_err(), Ordering::Relaxed);
        outcome
    }

    async fn write(&self, name: &str, value: &impl Serialize) -> Outcome<()> {
        let (path, text) = (self.path(name), pretty(value)?);
        self.noted(match self.medium() {
            Medium::Filesystem(medium) => medium.write(&path, &text),
            Medium::Etcd(medium) => medium.write(&path, &text).await,
            Medium::Zookeeper(medium) => medium.write(&path, &text).await,
            Medium::Outside(medium) => medium.write(&path, &text).await,
        })
    }

    async fn remove(&self, name: &str) -> Outcome<()> {
        self.noted(self.coordinator.delete(&self.path(name)).await)
    }

    async fn read<T: DeserializeOwned>(&self, name: &str) -> Outcome<Option<T>> {
        let path = self.path(name);
        let text = match self.medium() {
            Medium::Filesystem(medium) => medium.read(&path),
            Medium::Etcd(medium) => medium.read(&path).await,
            Medium::Zookeeper(medium) => medium.read(&path).await,
            Medium::Outside(medium) => medium.read(&path).await,
        }?;
        Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
    }

    async fn read_all<T: DeserializeOwned>(&self, folder: &str) -> Outcome<Vec<T>> {
        let path = self.path(folder);
        let texts = match self.medium() {
            Medium::Filesystem(medium) => medium.read_all(&path),
            Medium::Etcd(medium) => medium.read_all(&path).await,
            Medium::Zookeeper(medium) => medium.read_all(&path).await,
            Medium::Outside(medium) => medium.read_all(&path).await,
        }?;
        texts.iter().map(|text| Ok(serde_json::from_slice(text)?)).collect()
    }

    /// Takes the product's lock unless it is taken.
    pub async fn acquire(&self, topom: &Topom) -> Outcome<()> {
        let (path, text) = (self.path("topom"), pretty(topom)?);
        match self.medium() {
            Medium::Filesystem(medium) => medium.create(&path, &text),
            Medium::Etcd(medium) => medium.create(&path, &text).await,
            Medium::Zookeeper(medium) => medium.create(&path, &text).await,
            Medium::Outside(medium) => medium.create(&path, &text).await,
        }
    }

    /// Deletes the lock, whoever holds it.
    pub async fn release(&self) -> Outcome<()> {
        self.remove("topom").await
    }

    /// Who holds the lock.
    pub async fn topom(&self) -> Outcome<Option<Topom>> {
        self.read("topom").await
    }

    /// All slots; a missing node is an offline slot.
    pub async fn slots(&self) -> Result<Vec<SlotMapping>, Refusal> {
        let mut slots: Vec<_> = (0..SLOTS as i64)
            .map(|id| SlotMapping {
                id,
                ..Default::default()
            })
            .collect();
        for slot in told("load slots", self.read_all::<SlotMapping>("slots").await)? {
            if let Some(place) = usize::try_from(slot.id).ok().and_then(|id| slots.get_mut(id)) {
                *place = slot;
            }
        }
        Ok(slots)
    }

    /// All groups.
    pub async fn groups(&self) -> Result<Vec<Group>, Refusal> {
        told("load group", self.read_all("group").await)
    }

    /// All proxies.
    pub async fn proxies(&self) -> Result<Vec<Proxy>, Refusal> {
        told("load proxy", self.read_all("proxy").await)
    }

    /// The sentinels.
    pub async fn sentinel(&self) -> Result<Sentinel, Refusal> {
        Ok(told("load sentinel", self.read("sentinel").await)?.unwrap_or_default())
    }

    /// Writes a slot.
    pub async fn put_slot(&self, slot: &SlotMapping) -> Result<(), Refusal> {
        told(
            &format!("update slot-[{}]", slot.id),
            self.write(&format!("slots/slot-{:04}", slot.id), slot).await,
        )
    }

    /// Writes a group.
    pub async fn put_group(&self, verb: &str, group: &Group) -> Result<(), Refusal> {
        told(
            &format!("{verb} group-[{}]", group.id),
            self.write(&format!("group/group-{:04}", group.id), group).await,
        )
    }

    /// Deletes a group.
    pub async fn remove_group(&self, id: i64) -> Result<(), Refusal> {
        told(
            &format!("remove group-[{id}]"),
            self.remove(&format!("group/group-{id:04}")).await,
        )
    }

    /// Writes a proxy.
    pub async fn put_proxy(&self, verb: &str, proxy: &Proxy) -> Result<(), Refusal> {
        told(
            &format!("{verb} proxy-[{}]", proxy.token),
            self.write(&format!("proxy/proxy-{}", proxy.token), proxy).await,
        )
    }

    /// Deletes a proxy.
    pub async fn remove_proxy(&self, token: &str) -> Result<(), Refusal> {
        told(
            &format!("remove proxy-[{token}]"),
            self.remove(&format!("proxy/proxy-{token}")).await,
        )
    }

    /// Writes the sentinels.
    pub async fn put_sentinel(&self, sentinel: &Sentinel) -> Result<(), Refusal> {
        told("update sentinel", self.write("sentinel", sentinel).await)
    }
}

fn told<T>(what: &str, outcome: Outcome<T>) -> Result<T, Refusal> {
    outcome.map_err(|error| {
        tracing::error!("store: {what} failed: {error}");
        Refusal(format!("store: {what} failed"))
    })
}

/// The two halves of `user:password`, as both etcd and zookeeper want them; none of an empty text.
fn credentials(auth: &str) -> anyhow::Result<Option<(String, String)>> {
    if auth.is_empty() {
        return Ok(None);
    }
    let (user, password) = auth.split_once(':').unwrap_or_default();
    ensure!(!user.is_empty(), "invalid auth");
    Ok(Some((user.to_string(), password.to_string())))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;

    /// A product's store in a folder, and that folder.
    fn store(name: &str) -> (Store, String) {
        let root = std::env::temp_dir().join(format!("codis-double-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let root = root.display().to_string();
        (Coordinator::open("fs", &root, "").unwrap().product("demo"), root)
    }

    #[tokio::test]
    async fn the_layout_and_the_text_are_those_of_codis() {
        let (store, root) = store("layout");
        let slot = SlotMapping {
            id: 5,
            group_id: 1,
            ..Default::default()
        };
        store.put_slot(&slot).await.unwrap();
        let text = fs::read_to_string(Path::new(&root).join("data/codis3/demo/slots/slot-0005")).unwrap();
        assert_eq!(text, "{\n    \"id\": 5,\n    \"group_id\": 1,\n    \"action\": {}\n}");
        let slots = store.slots().await.unwrap();
        assert_eq!(slots.iter().filter(|slot| slot.group_id == 1).count(), 1);
        fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn the_lock_stays_until_someone_deletes_it() {
        let (store, root) = store("lock");
        store.acquire(&Topom::default()).await.unwrap();
        assert!(store.acquire(&Topom::default()).await.is_err());
        store.release().await.unwrap();
        store.release().await.unwrap();
        store.acquire(&Topom::default()).await.unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn two_processes_at_once_fail_instead_of_waiting() {
        let (store, root) = store("flock");
        store.put_sentinel(&Sentinel::default()).await.unwrap();
        let other = File::options()
            .write(true)
            .open(Path::new(&root).join("data.lck"))
            .unwrap();
        other.try_lock().unwrap();
        assert_eq!(store.sentinel().await.err(), Some("store: load sentinel failed".into()));
        drop(other);
        assert!(store.sentinel().await.is_ok());
        fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn after_a_failed_write_nobody_knows_what_is_stored() {
        let (store, root) = store("doubt");
        fs::write(&root, "not a folder").unwrap();
        assert!(!store.is_doubtful());
        assert_eq!(
            store.put_sentinel(&Sentinel::default()).await,
            Err("store: update sentinel failed".into())
        );
        assert!(store.is_doubtful());
        fs::remove_file(root).unwrap();
    }

    #[test]
    fn credentials_are_a_user_and_a_password() {
        assert_eq!(credentials("").unwrap(), None);
        assert_eq!(credentials("a:b:c").unwrap(), Some(("a".into(), "b:c".into())));
        assert!(credentials("a").is_err() && credentials(":b").is_err());
    }
}
