//! Runs stories one after another. A story is a sequence of checks in namespaces of its own; a check has a name that
//! reads as a sentence, and is reported with its seconds.
//!
//! Arguments that are no options choose stories by a part of their name. `CODIS_E2E_KEEP=1` keeps the namespaces. Past
//! `E2E_DEADLINE_EPOCH` (seconds since 1970), less what a story takes, it is skipped, loudly.

use std::{
    panic::AssertUnwindSafe,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, anyhow};
use futures::FutureExt;

use super::{cluster::Cluster, lab::Lab, namespace::Namespace, spec::Shape, wait::secs};

/// A check failed and was reported; what builds on it can't go on.
#[derive(Debug)]
pub struct Stopped;

/// What a story gives back.
pub type Told = Result<(), Stopped>;

/// Runs stories and counts.
pub struct Runner {
    suite: &'static str,
    lab: Lab,
    wanted: Vec<String>,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

/// A sequence of checks, with the namespaces they are in.
pub struct Story<'a> {
    /// The cluster under test.
    pub lab: Lab,
    runner: &'a mut Runner,
    name: String,
    namespaces: Vec<Namespace>,
    failures: usize,
}

impl Runner {
    /// A runner of a suite, with the command line's choice of stories.
    pub async fn new(suite: &'static str) -> Result<Self> {
        Ok(Self {
            suite,
            lab: Lab::connect().await?,
            wanted: std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect(),
            passed: 0,
            failed: Vec::new(),
            skipped: Vec::new(),
        })
    }

    /// Runs a story, if it was chosen, and cleans up after it.
    pub async fn story(&mut self, name: &str, body: impl AsyncFnOnce(&mut Story) -> Told) {
        if !self.wants(name) {
            return;
        }
        println!("\n== {name}");
        let mut story = Story {
            lab: self.lab.clone(),
            runner: self,
            name: name.to_owned(),
            namespaces: Vec::new(),
            failures: 0,
        };
        let _: Told = body(&mut story).await;
        story.clean_up().await;
    }

    /// The same for a story that takes so many minutes: it isn't begun when there is less time left.
    pub async fn story_of(&mut self, minutes: u64, name: &str, body: impl AsyncFnOnce(&mut Story) -> Told) {
        let wanted = self.wants(name);
        let left = time_left().filter(|left| *left < secs(60 * minutes));
        match left {
            Some(left) if wanted => {
                let why = format!("takes {minutes} min, {} s are left", left.as_secs());
                println!("\n== {name}\nSKIPPED {why}");
                self.skipped.push(format!("{name}: {why}"));
            }
            _ => self.story(name, body).await,
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|part| name.contains(part.as_str()))
    }

    /// Prints the sum of it all.
    pub fn finish(self) -> ExitCode {
        println!();
        for name in &self.skipped {
            println!("SKIPPED {name}");
        }
        for name in &self.failed {
            println!("FAILED  {name}");
        }
        let skipped = match self.skipped.len() {
            0 => String::new(),
            count => format!(", {count} skipped"),
        };
        println!(
            "{}: {} passed, {} failed{skipped}",
            self.suite,
            self.passed,
            self.failed.len()
        );
        if self.failed.is_empty() && self.passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl Story<'_> {
    /// Runs one check and reports it. `?` on the result ends the story when what follows builds on it.
    pub async fn check<T>(&mut self, name: &str, body: impl Future<Output = Result<T>>) -> Result<T, Stopped> {
        let began = Instant::now();
        let outcome = AssertUnwindSafe(body).catch_unwind().await.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(anyhow!("panicked: {}", text.unwrap_or_default()))
        });
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(value) => {
                println!("ok      {name} ({seconds:.1} s)");
                self.runner.passed += 1;
                Ok(value)
            }
            Err(error) => {
                println!("FAILED  {name} ({seconds:.1} s)\n        {error:#}");
                self.runner.failed.push(format!("{}: {name}", self.name));
                self.failures += 1;
                Err(Stopped)
            }
        }
    }

    /// Reports a check that isn't run.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("SKIPPED {name}: {why}");
        self.runner.skipped.push(format!("{}: {name}: {why}", self.name));
    }

    /// A fresh namespace, deleted when the story ends.
    pub async fn namespace(&mut self) -> Result<Namespace, Stopped> {
        let made = Namespace::create(&self.lab, self.runner.suite, &self.name).await;
        match made {
            Ok(namespace) => {
                self.namespaces.push(namespace.clone());
                Ok(namespace)
            }
            Err(error) => {
                let failure: Result<Namespace, _> = self.check("a namespace can be made", async { Err(error) }).await;
                failure
            }
        }
    }

    /// A cluster of this shape in a fresh namespace, once it is Ready.
    pub async fn cluster(&mut self, what: &str, shape: Shape) -> Result<Cluster, Stopped> {
        let cluster = Cluster::new(&self.namespace().await?, "c");
        let spec = shape.cluster(&cluster.name);
        self.check(&format!("{what}: Ready"), cluster.come_up(&spec)).await?;
        Ok(cluster)
    }

    /// Tells what the namespaces look like now: the story failed.
    pub async fn diagnose(&self) {
        for namespace in &self.namespaces {
            namespace.diagnose().await;
        }
    }

    async fn clean_up(mut self) {
        if self.failures > 0 {
            self.diagnose().await;
        }
        let namespaces = std::mem::take(&mut self.namespaces);
        if std::env::var("CODIS_E2E_KEEP").is_ok_and(|keep| keep == "1") {
            let names: Vec<&str> = namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
            println!("kept: {}", names.join(" "));
            return;
        }
        for namespace in &namespaces {
            if let Err(error) = namespace.delete().await {
                let _: Result<(), Stopped> = self.check("its namespace can be deleted", async { Err(error) }).await;
                namespace.diagnose().await;
            }
        }
    }
}

/// How long stories may still be begun; none: as long as it takes.
fn time_left() -> Option<Duration> {
    let deadline = std::env::var("E2E_DEADLINE_EPOCH").ok()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(secs(deadline).saturating_sub(now))
}

/// How often something is repeated: `CODIS_E2E_TIMES`, or fewer times than the issue asks for, to fit into CI.
pub fn times(default: usize) -> usize {
    let given = std::env::var("CODIS_E2E_TIMES").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}
