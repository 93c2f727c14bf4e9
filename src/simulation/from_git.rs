//! A world whose cluster comes from a Git repository: what people push, what becomes of the repository, and what must hold.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use super::{
    api::merge_patch,
    faults::Undo,
    git::{BRANCH, Files, Repository},
    scenario::Wish,
    world::{CLUSTER, NAMESPACE, World},
};
use crate::api::{CodisCluster, CodisGitSource, names};

/// The source's name.
const SOURCE: &str = "fleet";
/// The folder of the repository that has the specs.
const FOLDER: &str = "clusters";
/// So many proxies are only in commits with a mistake.
const NEVER: u32 = 7;
/// A cluster that no operator of the world serves.
const OTHER: &str = "other";

/// The documents of a repository by the names of their clusters.
type Specs = BTreeMap<String, Value>;

/// What people do to a repository, or to a cluster that comes from it; and what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A commit that changes the wish.
    Push(Wish),
    /// A commit with one of several mistakes: nothing of it may be applied.
    PushBroken(u8),
    /// A commit that takes the last good one back.
    Revert,
    /// An edit of the cluster by hand.
    Edit(Wish),
    /// The mark that says which source the cluster is of is removed by hand.
    Unmark,
    /// Nobody answers for a while.
    Down(Duration),
    /// Every answer takes long for a while; too long, perhaps.
    Slow(Duration, Duration),
    /// A commit without any spec; later another one that has them again.
    Emptied(Duration),
    /// A commit without the folder; later another one that has it again.
    NoFolder(Duration),
    /// The branch is deleted, and pushed again later.
    NoBranch(Duration),
    /// All branches are deleted, and pushed again later.
    Wiped(Duration),
    /// The branch goes back to its first commit, and is put right later.
    Rewound(Duration),
}

impl Deed {
    /// One by chance; `number` tells those of a scenario apart.
    pub fn by_chance(chance: &mut fastrand::Rng, groups: u32, number: u32) -> Self {
        let time = Duration::from_millis(chance.u64(1_000..40_000));
        match chance.u8(..16) {
            0..=2 => Self::Push(wish(chance, groups, number)),
            3 | 4 => Self::PushBroken(chance.u8(..4)),
            5 => Self::Revert,
            6 | 7 => Self::Edit(wish(chance, groups, 100 + number)),
            8 => Self::Unmark,
            9 => Self::Down(time),
            10 => Self::Slow(Duration::from_millis(chance.u64(500..15_000)), time),
            11 => Self::Emptied(time),
            12 => Self::NoFolder(time),
            13 => Self::NoBranch(time),
            14 => Self::Wiped(time),
            _ => Self::Rewound(time),
        }
    }

    /// Its kind, for tables.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Push(_) => "pushed",
            Self::PushBroken(_) => "mistake pushed",
            Self::Revert => "reverted",
            Self::Edit(_) => "edited by hand",
            Self::Unmark => "mark removed",
            Self::Down(_) => "Git unreachable",
            Self::Slow(..) => "Git slow",
            Self::Emptied(_) => "specs removed",
            Self::NoFolder(_) => "folder removed",
            Self::NoBranch(_) => "branch deleted",
            Self::Wiped(_) => "repository emptied",
            Self::Rewound(_) => "branch rewound",
        }
    }

    /// When it is over, counted from its beginning.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Push(_) | Self::PushBroken(_) | Self::Revert | Self::Edit(_) | Self::Unmark => Duration::ZERO,
            Self::Down(time)
            | Self::Slow(_, time)
            | Self::Emptied(time)
            | Self::NoFolder(time)
            | Self::NoBranch(time)
            | Self::Wiped(time)
            | Self::Rewound(time) => *time,
        }
    }
}

fn wish(chance: &mut fastrand::Rng, groups: u32, number: u32) -> Wish {
    match chance.u8(..6) {
        0 => Wish::Groups(groups + 1),
        1 => Wish::Roll(number),
        2 | 3 => Wish::Tune(number),
        _ => Wish::Proxies(chance.u32(1..=3)),
    }
}

/// The files that say so.
fn files(specs: &Specs) -> Result<Files> {
    let file = |(name, spec): (&String, &Value)| Ok((format!("{FOLDER}/{name}.yaml"), serde_yaml::to_string(spec)?));
    specs.iter().map(file).collect()
}

/// What files say.
fn specs(files: &Files) -> Result<Specs> {
    let spec = |text: &String| {
        let spec: Value = serde_yaml::from_str(text)?;
        let name = spec["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Ok((name, spec))
    };
    files.values().map(spec).collect()
}

/// One of several mistakes, beside a change that would be good.
fn mistake(mut wished: Specs, kind: u8) -> Result<Files> {
    let mut second = Value::Null;
    if let Some(spec) = wished.get_mut(CLUSTER) {
        merge_patch(spec, &json!({"spec": {"codisProxy": {"replicas": NEVER}}}));
        second = spec.clone();
        if kind == 0 {
            spec["spec"]["codisServer"]["groupReplica"] = json!(2);
        }
    }
    let mut files = files(&wished)?;
    let more = match kind {
        0 => return Ok(files),
        1 => "spec: [".to_owned(),
        // Its name is written twice.
        2 => serde_yaml::to_string(&second)?,
        _ => {
            second["metadata"] = json!({"name": OTHER, "namespace": "kube-system"});
            serde_yaml::to_string(&second)?
        }
    };
    files.insert(format!("{FOLDER}/more.yaml"), more);
    Ok(files)
}

/// What is pushed, and what becomes of it.
impl World {
    /// A repository with the wish for the cluster, and a source that names it.
    pub(super) async fn begin_with_git(&mut self) -> Result<()> {
        let repository = Repository::default();
        let spec = self.spec();
        let mut before = spec.clone();
        merge_patch(&mut before, &json!({"spec": {"codisProxy": {"replicas": 1}}}));
        // Something that the branch can go back to.
        for spec in [before, spec] {
            repository.push(files(&[(CLUSTER.to_owned(), spec)].into())?, true);
        }
        self.operator.git = Some(repository);
        let source: CodisGitSource = serde_json::from_value(json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisGitSource",
            "metadata": {"name": SOURCE, "namespace": NAMESPACE},
            "spec": {"url": "https://git/fleet.git", "ref": {"branch": BRANCH}, "path": FOLDER, "interval": "5s"},
        }))?;
        let sources = Api::namespaced(self.api.client(), NAMESPACE);
        sources.create(&PostParams::default(), &source).await?;
        Ok(())
    }

    /// What people wish: the specs of the newest good commit.
    fn wished(&self) -> Result<Specs> {
        let Some(repository) = &self.operator.git else {
            return Ok(Specs::new());
        };
        let newest = repository.good_ones().into_iter().next();
        let newest = newest.and_then(|commit| repository.good(&commit));
        specs(&newest.unwrap_or_default())
    }

    /// Pushes a good commit that edits what is wished.
    fn push(&self, edit: impl FnOnce(&mut Specs)) -> Result<()> {
        let mut wished = self.wished()?;
        edit(&mut wished);
        self.commit(files(&wished)?, true);
        Ok(())
    }

    fn commit(&self, files: Files, is_good: bool) {
        if let Some(repository) = &self.operator.git {
            let commit = repository.push(files, is_good);
            self.trace.tell(format!("git: {commit} is pushed"));
        }
    }

    /// Pushes a commit that changes the cluster in several ways and adds another one.
    ///
    /// # Errors
    /// Never, with specs that are YAML.
    pub(super) fn push_much(&self) -> Result<()> {
        self.push(|specs| {
            let patches = [Wish::Proxies(3), Wish::Tune(1)].map(|wish| wish.patch(&self.plan));
            let Some(spec) = specs.get_mut(CLUSTER) else { return };
            patches.iter().for_each(|patch| merge_patch(spec, patch));
            let mut other = spec.clone();
            other["metadata"]["name"] = json!(OTHER);
            specs.insert(OTHER.to_owned(), other);
        })
    }

    /// Pushes a commit without the other cluster.
    ///
    /// # Errors
    /// Never, with specs that are YAML.
    pub(super) fn push_removal(&self) -> Result<()> {
        self.push(|specs| drop(specs.remove(OTHER)))
    }

    /// Does a deed; what has to be undone when it is over.
    ///
    /// # Errors
    /// The API server's refusal of an edit.
    pub(super) async fn git(&mut self, deed: Deed) -> Result<Option<Undo>> {
        let Some(repository) = self.operator.git.clone() else {
            return Ok(None);
        };
        self.trace.tell(format!("git: {deed:?}"));
        Ok(match deed {
            Deed::Push(wish) => {
                let patch = wish.patch(&self.plan);
                self.push(|specs| specs.values_mut().for_each(|spec| merge_patch(spec, &patch)))?;
                None
            }
            Deed::PushBroken(kind) => {
                self.commit(mistake(self.wished()?, kind)?, false);
                None
            }
            Deed::Revert => {
                let before = repository.good_ones().into_iter().nth(1);
                if let Some(files) = before.and_then(|commit| repository.good(&commit)) {
                    self.commit(files, true);
                }
                None
            }
            Deed::Edit(wish) => {
                self.wish(wish.patch(&self.plan)).await?;
                None
            }
            Deed::Unmark => {
                let none = json!({"metadata": {"labels": {names::LABEL_SOURCE: null}}});
                self.wish(none).await?;
                None
            }
            Deed::Down(_) => {
                repository.set_down(true);
                Undo::by(move |_| repository.set_down(false))
            }
            Deed::Slow(delay, _) => {
                repository.set_delay(delay);
                Undo::by(move |_| repository.set_delay(Duration::ZERO))
            }
            Deed::Emptied(_) => {
                self.commit([(format!("{FOLDER}/README.md"), String::new())].into(), false);
                Undo::by(Self::mend)
            }
            Deed::NoFolder(_) => {
                self.commit([("README.md".to_owned(), String::new())].into(), false);
                Undo::by(Self::mend)
            }
            Deed::NoBranch(_) => {
                repository.set_tip(None);
                Undo::by(move |_| repository.put_right())
            }
            Deed::Wiped(_) => {
                repository.wipe();
                Undo::by(move |_| repository.put_right())
            }
            Deed::Rewound(_) => {
                repository.set_tip(repository.good_ones().into_iter().last());
                Undo::by(move |_| repository.put_right())
            }
        })
    }

    /// What is wished is pushed anew, if the newest commit isn't good.
    fn mend(&mut self) {
        let newest = self.operator.git.as_ref().and_then(|git| git.good(&git.newest()?));
        if newest.is_none() && self.push(|_| ()).is_err() {
            self.trace.tell("git: the wish can't be written");
        }
    }
}

/// What must hold.
impl World {
    fn source(&self) -> Option<std::sync::Arc<Value>> {
        self.api.find("CodisGitSource", NAMESPACE, SOURCE)
    }

    /// What the source says, for the trace.
    pub(super) fn told_by_the_source(&self) -> Option<String> {
        let source = self.source()?;
        let ready = ready(&source)?;
        Some(format!("{} {}: {}", ready["status"], ready["reason"], ready["message"]))
    }

    /// Whether the clusters are as the repository has them and the source says so; where there is no repository they are.
    ///
    /// # Errors
    /// What isn't so.
    pub(super) fn as_in_git(&self) -> Result<(), String> {
        let Some(repository) = &self.operator.git else {
            return Ok(());
        };
        let source = self.source().ok_or("there is no source")?;
        let told = self.told_by_the_source().unwrap_or_default();
        let applied = applied(&source).unwrap_or_default();
        let in_force = repository.good(&applied);
        let in_force = in_force.ok_or_else(|| format!("nothing good is in force: {told}"))?;
        let is_ready = ready(&source).is_some_and(|ready| ready["status"] == "True");
        let newest = repository.newest().unwrap_or_default();
        let is_good = repository.good(&newest).is_some();
        if is_ready != is_good || is_good && newest != applied {
            return Err(format!("{applied} is in force, and {newest} was pushed: {told}"));
        }
        let specs = specs(&in_force).map_err(|error| error.to_string())?;
        for (name, wished) in &specs {
            let live = self.api.find("CodisCluster", NAMESPACE, name);
            let live = live.ok_or_else(|| format!("there is no {name}"))?;
            is_as_wished(&live, wished).map_err(|what| format!("{name}: {what}"))?;
        }
        let none = Vec::new();
        let held = source["status"]["held"].as_array().unwrap_or(&none);
        let all = self.api.of_kind("CodisCluster");
        let left = all
            .iter()
            .filter_map(|live| live["metadata"]["name"].as_str())
            .filter(|name| !specs.contains_key(*name));
        let is_held = |name: &str| {
            held.iter()
                .any(|held| held.as_str().is_some_and(|held| held.starts_with(name)))
        };
        match left.clone().find(|name| !is_held(name)) {
            Some(name) => Err(format!("{name} left the repository, and isn't told to be held")),
            None if held.len() > left.count() => Err(format!("more is held than left the repository: {held:?}")),
            None => Ok(()),
        }
    }

    /// What of it all is the same however often the operator began anew.
    pub(super) fn state_of_git(&self) -> BTreeMap<String, String> {
        let mut state = BTreeMap::new();
        let Some(source) = self.source() else { return state };
        let status = &source["status"];
        for field in [
            "lastAppliedRevision",
            "lastAttemptedRevision",
            "applyingRevision",
            "origin",
        ] {
            state.insert(field.to_owned(), status[field].to_string());
        }
        for field in ["clusters", "held", "problems"] {
            state.insert(field.to_owned(), status[field].to_string());
        }
        state.insert("source".to_owned(), self.told_by_the_source().unwrap_or_default());
        for cluster in self.api.of_kind("CodisCluster") {
            let mut from = cluster["status"]["gitops"].clone();
            from["appliedAt"] = Value::Null;
            let is = format!("{} {from} {}", cluster["spec"], cluster["metadata"]["labels"]);
            state.insert(format!("spec of {}", cluster["metadata"]["name"]), is);
        }
        state
    }
}

/// The commit that is said to be in force.
fn applied(source: &Value) -> Option<String> {
    let revision = source["status"]["lastAppliedRevision"].as_str()?;
    revision.strip_prefix(&format!("{BRANCH}@sha1:")).map(str::to_owned)
}

fn is_as_wished(live: &Value, wished: &Value) -> Result<(), String> {
    let parsed = |value: &Value| serde_json::from_value::<CodisCluster>(value.clone());
    let (wished, is) = (parsed(wished), parsed(live));
    let (wished, is) = wished.and_then(|wished| Ok((wished, is?))).map_err(|e| e.to_string())?;
    let told = is.status.as_ref().and_then(|status| status.gitops.as_ref());
    let label = &live["metadata"]["labels"][names::LABEL_SOURCE];
    if is.spec != wished.spec {
        Err("isn't as the repository has it".to_owned())
    } else if label != SOURCE {
        Err("bears no mark of its source".to_owned())
    } else if told.is_none_or(|told| told.source != SOURCE) {
        Err("doesn't say where it comes from".to_owned())
    } else {
        Ok(())
    }
}

fn ready(source: &Value) -> Option<&Value> {
    let conditions = source["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")
}

/// Looks again and again whether a source does what it must never do.
#[derive(Default)]
pub struct Eye {
    uid: Option<Value>,
    /// The age of the commit in force: how many good ones there are up to it.
    age: usize,
}

impl Eye {
    /// What must not be.
    pub fn look(&mut self, world: &World) -> Option<String> {
        let repository = world.operator.git.as_ref()?;
        let cluster = world.cluster();
        if let Some(uid) = &self.uid {
            let is_it = |cluster: &Value| {
                cluster["metadata"]["uid"] == *uid && cluster["metadata"].get("deletionTimestamp").is_none()
            };
            if !cluster.as_deref().is_some_and(is_it) {
                return Some("the cluster is deleted, and nobody wanted that".to_owned());
            }
        }
        let cluster = cluster?;
        self.uid = Some(cluster["metadata"]["uid"].clone());
        if cluster["spec"]["codisProxy"]["replicas"] == NEVER {
            return Some("a part of a commit with a mistake is applied".to_owned());
        }
        let commit = applied(&*world.source()?)?;
        let ages = repository.good_ones().into_iter().rev().position(|good| good == commit);
        let Some(age) = ages else {
            return Some(format!("{commit} is in force, which isn't good"));
        };
        let is_older = age < self.age;
        self.age = self.age.max(age);
        is_older.then(|| format!("{commit} is in force again, which is older than what was"))
    }
}

#[cfg(test)]
mod tests;
