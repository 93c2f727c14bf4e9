//! The filesystem coordinator (§10): one file per object under `<root>/data/codis3/<product>`.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::SLOTS;
use crate::http::{Refusal, pretty};
use crate::wire::{Group, Proxy, Sentinel, SlotMapping, Topom};

/// A directory store of one product.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    product: String,
}

type Outcome<T> = std::io::Result<T>;

impl Store {
    /// The store in a directory; relative roots are relative to the working directory.
    pub fn filesystem(root: &str, product: &str) -> Self {
        Self {
            root: PathBuf::from(root),
            product: product.to_string(),
        }
    }

    /// The store a coordinator's name and address mean.
    pub fn open(name: &str, addr: &str, product: &str) -> anyhow::Result<Self> {
        match name {
            "fs" | "filesystem" => Ok(Self::filesystem(addr, product)),
            "zk" | "zookeeper" => anyhow::bail!("the stand-in has no zookeeper store yet"),
            "etcd" => anyhow::bail!("the stand-in has no etcd store yet"),
            other => anyhow::bail!("invalid coordinator name = {other}"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join("data").join("codis3").join(&self.product).join(name)
    }

    /// Holds the root's file lock for one operation; a second process fails at once, as with Codis.
    fn locked<T>(&self, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        fs::create_dir_all(&self.root)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join("data.lck"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => std::io::Error::other("resource temporarily unavailable"),
            TryLockError::Error(error) => error,
        })?;
        work()
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Outcome<()> {
        let text = pretty(value)?;
        self.locked(|| self.replace(&self.path(name), &text))
    }

    /// Writes beside and renames, so that a crash leaves the old content or the new.
    fn replace(&self, path: &Path, text: &[u8]) -> Outcome<()> {
        let temp = self.root.join("temp");
        fs::create_dir_all(&temp)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let draft = temp.join(format!("draft-{}", std::process::id()));
        File::create(&draft)?.write_all(text)?;
        fs::rename(&draft, path)
    }

    fn remove(&self, name: &str) -> Outcome<()> {
        self.locked(|| match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Outcome<Option<T>> {
        self.locked(|| match fs::read(self.path(name)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn read_all<T: DeserializeOwned>(&self, folder: &str) -> Outcome<Vec<T>> {
        self.locked(|| {
            let entries = match fs::read_dir(self.path(folder)) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Outcome<Vec<_>>>()?;
            paths.sort();
            paths
                .iter()
                .map(|path| Ok(serde_json::from_slice(&fs::read(path)?)?))
                .collect()
        })
    }

    /// Takes the product's lock unless it is taken.
    pub fn acquire(&self, topom: &Topom) -> Outcome<()> {
        let text = pretty(topom)?;
        self.locked(|| match fs::exists(self.path("topom"))? {
            true => Err(ErrorKind::AlreadyExists.into()),
            false => self.replace(&self.path("topom"), &text),
        })
    }

    /// Deletes the lock, whoever holds it.
    pub fn release(&self) -> Outcome<()> {
        self.remove("topom")
    }

    /// Who holds the lock.
    pub fn topom(&self) -> Outcome<Option<Topom>> {
        self.read("topom")
    }

    /// The products that have a folder in a root, sorted.
    pub fn products(root: &str) -> Outcome<Vec<String>> {
        let store = Self::filesystem(root, "");
        store.locked(|| {
            let entries = match fs::read_dir(store.root.join("data").join("codis3")) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut names = Vec::new();
            for entry in entries {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        })
    }

    /// All slots; a missing node is an offline slot.
    pub fn slots(&self) -> Result<Vec<SlotMapping>, Refusal> {
        let mut slots: Vec<_> = (0..SLOTS as i64)
            .map(|id| SlotMapping {
                id,
                ..Default::default()
            })
            .collect();
        for slot in told("load slots", self.read_all::<SlotMapping>("slots"))? {
            if let Some(place) = usize::try_from(slot.id).ok().and_then(|id| slots.get_mut(id)) {
                *place = slot;
            }
        }
        Ok(slots)
    }

    /// All groups.
    pub fn groups(&self) -> Result<Vec<Group>, Refusal> {
        told("load group", self.read_all("group"))
    }

    /// All proxies.
    pub fn proxies(&self) -> Result<Vec<Proxy>, Refusal> {
        told("load proxy", self.read_all("proxy"))
    }

    /// The sentinels.
    pub fn sentinel(&self) -> Result<Sentinel, Refusal> {
        Ok(told("load sentinel", self.read("sentinel"))?.unwrap_or_default())
    }

    /// Writes a slot.
    pub fn put_slot(&self, slot: &SlotMapping) -> Result<(), Refusal> {
        told(
            &format!("update slot-[{}]", slot.id),
            self.write(&format!("slots/slot-{:04}", slot.id), slot),
        )
    }

    /// Writes a group.
    pub fn put_group(&self, verb: &str, group: &Group) -> Result<(), Refusal> {
        told(
            &format!("{verb} group-[{}]", group.id),
            self.write(&format!("group/group-{:04}", group.id), group),
        )
    }

    /// Deletes a group.
    pub fn remove_group(&self, id: i64) -> Result<(), Refusal> {
        told(
            &format!("remove group-[{id}]"),
            self.remove(&format!("group/group-{id:04}")),
        )
    }

    /// Writes a proxy.
    pub fn put_proxy(&self, verb: &str, proxy: &Proxy) -> Result<(), Refusal> {
        told(
            &format!("{verb} proxy-[{}]", proxy.token),
            self.write(&format!("proxy/proxy-{}", proxy.token), proxy),
        )
    }

    /// Deletes a proxy.
    pub fn remove_proxy(&self, token: &str) -> Result<(), Refusal> {
        told(
            &format!("remove proxy-[{token}]"),
            self.remove(&format!("proxy/proxy-{token}")),
        )
    }

    /// Writes the sentinels.
    pub fn put_sentinel(&self, sentinel: &Sentinel) -> Result<(), Refusal> {
        told("update sentinel", self.write("sentinel", sentinel))
    }
}

fn told<T>(what: &str, outcome: Outcome<T>) -> Result<T, Refusal> {
    outcome.map_err(|error| {
        tracing::error!("store: {what} failed: {error}");
        Refusal(format!("store: {what} failed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> String {
        let root = std::env::temp_dir().join(format!("codis-double-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        root.display().to_string()
    }

    #[test]
    fn the_layout_and_the_text_are_those_of_codis() {
        let root = root("layout");
        let store = Store::filesystem(&root, "demo");
        store
            .put_slot(&SlotMapping {
                id: 5,
                group_id: 1,
                ..Default::default()
            })
            .unwrap();
        let text = fs::read_to_string(Path::new(&root).join("data/codis3/demo/slots/slot-0005")).unwrap();
        assert_eq!(text, "{\n    \"id\": 5,\n    \"group_id\": 1,\n    \"action\": {}\n}");
        assert_eq!(
            store.slots().unwrap().iter().filter(|slot| slot.group_id == 1).count(),
            1
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_lock_stays_until_someone_deletes_it() {
        let root = root("lock");
        let store = Store::filesystem(&root, "demo");
        store.acquire(&Topom::default()).unwrap();
        assert!(store.acquire(&Topom::default()).is_err());
        store.release().unwrap();
        store.release().unwrap();
        store.acquire(&Topom::default()).unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn two_processes_at_once_fail_instead_of_waiting() {
        let root = root("flock");
        let store = Store::filesystem(&root, "demo");
        store.put_sentinel(&Sentinel::default()).unwrap();
        let other = File::options()
            .write(true)
            .open(Path::new(&root).join("data.lck"))
            .unwrap();
        other.try_lock().unwrap();
        assert_eq!(store.sentinel().err(), Some("store: load sentinel failed".into()));
        drop(other);
        assert!(store.sentinel().is_ok());
        fs::remove_dir_all(root).unwrap();
    }
}
