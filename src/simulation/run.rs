//! One seed: a scenario is played, and what must hold is checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use anyhow::Result;
use tokio::time::Instant;

use super::{
    clients::Acknowledged,
    faults::Undo,
    hands::Hand,
    invariants::Watch,
    scenario::{Act, Event, Scenario},
    threads::in_virtual_time,
    world::World,
};
use crate::seeded::Bug;

/// A new cluster is Ready within this.
const MADE_WITHIN: Duration = Duration::from_secs(300);
/// When all faults are over, the wish is fulfilled within this.
const HEALED_WITHIN: Duration = Duration::from_secs(600);
/// Writes before anything happens.
const BEFORE: Duration = Duration::from_secs(3);
/// Being Ready means this much time without any effect.
const QUIET: Duration = Duration::from_secs(15);
/// A person looks as often.
const LOOK: Duration = Duration::from_secs(1);
/// Acknowledged writes may be lost that a fault's victim had alone: those of this time before it.
const LAG: Duration = Duration::from_secs(2);
/// Servers that a fault took away are back after this.
const HEALS: Duration = Duration::from_secs(60);
/// A master that nobody reaches takes writes until it misses its replicas.
const UNTIL_FENCED: Duration = Duration::from_secs(15);

/// What came of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was played, in words.
    pub scenario: String,
    /// What must not be.
    pub violations: Vec<String>,
    /// A digest of the trace.
    pub digest: String,
    /// The trace.
    pub trace: Vec<String>,
    /// Virtual time.
    pub seconds: f64,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Those that are gone, within declared windows.
    pub lost: usize,
    /// Which kind of fault hit which phase.
    pub covered: BTreeMap<(&'static str, &'static str), usize>,
    /// Effects that the operator sent.
    pub effects: usize,
}

/// Plays a scenario in a world of its own.
///
/// # Errors
/// When the world itself can't be made.
pub fn run(scenario: &Scenario, bug: Option<Bug>) -> Result<Outcome> {
    #[cfg(test)]
    crate::seeded::plant(bug);
    in_virtual_time(async {
        let world = World::new(scenario.plan(bug)).await?;
        let play = Play {
            world,
            scenario,
            watch: Watch::default(),
            windows: Vec::new(),
            covered: BTreeMap::new(),
            phase: "steady",
            over: Instant::now(),
            lost: 0,
        };
        Ok(play.all().await)
    })
}

struct Play<'a> {
    world: World,
    scenario: &'a Scenario,
    watch: Watch,
    /// When acknowledged writes may be lost.
    windows: Vec<(Instant, Instant)>,
    covered: BTreeMap<(&'static str, &'static str), usize>,
    phase: &'static str,
    /// When everything that goes wrong is over.
    over: Instant,
    lost: usize,
}

/// Something that is due.
enum Due {
    Event(Event),
    Undo(Undo),
}

impl Play<'_> {
    async fn all(mut self) -> Outcome {
        let done = self.acts().await;
        let mut violations: Vec<String> = done.err().into_iter().collect();
        violations.extend(self.watch.violations());
        let ledger = &self.world.ledger;
        Outcome {
            seed: self.scenario.seed,
            scenario: self.scenario.to_string(),
            digest: self.world.trace.digest(),
            trace: self.world.trace.lines(),
            seconds: self.world.trace.seconds(),
            acknowledged: ledger.count(),
            lost: self.lost,
            covered: self.covered,
            effects: self.world.sent(),
            violations,
        }
    }

    async fn acts(&mut self) -> Result<(), String> {
        let made = self.until_ready(MADE_WITHIN).await;
        made.map_err(|said| format!("not Ready within {} s: {said}", MADE_WITHIN.as_secs()))?;
        self.world.trace.tell("ready");
        for pace in [100, 170, 290] {
            self.world.client(Duration::from_millis(pace));
        }
        self.pass(Instant::now() + BEFORE).await;
        if self.world.ledger.count() == 0 {
            return Err(format!("nobody can write: {:?}", self.world.ledger.failed()));
        }
        self.events().await?;
        // What a node's clock dates ahead of the operator's is too young for so long.
        let limit = HEALED_WITHIN + Duration::from_secs(self.scenario.skew.unsigned_abs());
        let healed = self.until_ready(limit).await;
        healed.map_err(|said| format!("not healed within {} s: {said}", limit.as_secs()))?;
        self.world.trace.tell("healed");
        // Writes of the last moment have their replies; then nobody disturbs the quiet.
        self.pass(Instant::now() + BEFORE).await;
        self.world.ledger.close();
        self.quiet().await?;
        self.watch.end(&self.world);
        self.read_back().await
    }

    async fn events(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let mut due: Vec<(Instant, Due)> = self
            .scenario
            .events
            .iter()
            .map(|event| (began + event.at, Due::Event(event.clone())))
            .collect();
        while !due.is_empty() {
            // The earliest, and of equals the first.
            let next = (0..due.len()).min_by_key(|index| due[*index].0).unwrap_or(0);
            let (at, what) = due.remove(next);
            self.pass(at).await;
            match what {
                Due::Undo(undo) => undo.run(&mut self.world),
                Due::Event(event) => {
                    if let Some((at, undo)) = self.event(&event).await? {
                        due.push((at, Due::Undo(undo)));
                    }
                }
            }
        }
        // An operator that is dead has said that all was well, and nobody else looks.
        self.pass(self.over).await;
        Ok(())
    }

    async fn event(&mut self, event: &Event) -> Result<Option<(Instant, Undo)>, String> {
        if self.world.ready().is_ok() {
            self.phase = "steady";
        }
        match event.act {
            Act::Wish(wish) => {
                let patch = wish.patch(&self.world.plan);
                self.world
                    .wish(patch)
                    .await
                    .map_err(|error| format!("{wish:?}: {error:#}"))?;
                self.phase = wish.kind();
                Ok(None)
            }
            // All that would be left of a topology: without it a person must say what was where.
            Act::Hand(Hand::DeleteDump) if self.scenario.needs_the_dump() => {
                self.world.trace.tell("nobody deletes the dump");
                Ok(None)
            }
            Act::Hand(hand) => {
                let end = self.note(hand.kind(), hand.lasts(), hand.may_lose());
                Ok(self.world.lay(hand).map(|undo| (end, undo)))
            }
            Act::Fault(fault) => {
                let end = self.note(fault.kind(), fault.lasts(), fault.may_lose());
                if fault.loses_topology() {
                    self.watch.topology_goes(&self.world, self.scenario);
                }
                Ok(self.world.inject(fault).map(|undo| (end, undo)))
            }
            Act::Git(deed) => {
                let end = self.note(deed.kind(), deed.lasts(), false);
                let done = self.world.git(deed).await;
                let undo = done.map_err(|error| format!("{deed:?}: {error:#}"))?;
                Ok(undo.map(|undo| (end, undo)))
            }
        }
    }

    /// Notes that something goes wrong in this phase, and what may be lost by it. Says when it is over.
    fn note(&mut self, kind: &'static str, lasts: Duration, may_lose: bool) -> Instant {
        *self.covered.entry((kind, self.phase)).or_default() += 1;
        let now = Instant::now();
        let end = now + lasts;
        self.over = self.over.max(end);
        if may_lose {
            let first = now.checked_sub(LAG).unwrap_or(now);
            self.windows.push((first, end + UNTIL_FENCED));
        }
        end
    }

    /// Lets time pass, and looks at everything meanwhile.
    async fn pass(&mut self, until: Instant) {
        while Instant::now() < until {
            let lately = Instant::now().checked_sub(HEALS);
            let calm = self
                .windows
                .iter()
                .all(|(_, last)| lately.is_some_and(|lately| *last < lately));
            self.watch.look(&self.world, calm);
            self.world.run_until(until.min(Instant::now() + LOOK)).await;
        }
    }

    async fn until_ready(&mut self, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            let said = self.world.ready();
            if said.is_ok() || Instant::now() >= end {
                return said;
            }
            self.pass(Instant::now() + LOOK / 5).await;
        }
    }

    async fn quiet(&mut self) -> Result<(), String> {
        let end = Instant::now() + HEALED_WITHIN;
        // What comes after being Ready (unlocked budgets, labels) may still come.
        let (mut sent, mut since) = (self.world.sent(), Instant::now());
        while since.elapsed() < QUIET {
            if Instant::now() >= end {
                let names = self.world.sent_names();
                let last: Vec<_> = names.iter().rev().take(5).collect();
                return Err(format!("never quiet: {last:?}, {:?}", self.world.ready()));
            }
            self.pass(Instant::now() + LOOK).await;
            // What was Ready by luck, a failover just about to come, has to become so again.
            let now = self.world.sent();
            if now != sent || self.world.ready().is_err() {
                (sent, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    async fn read_back(&mut self) -> Result<(), String> {
        let (way, writes) = (self.world.way(), self.world.ledger.acknowledged());
        let reader = Ipv4Addr::new(10, 246, 1, 1);
        let reading = tokio::spawn(async move { way.missing(reader, writes).await });
        while !reading.is_finished() {
            self.pass(Instant::now() + LOOK / 10).await;
        }
        let missing = reading.await.map_err(|error| error.to_string())?;
        let missing = missing.map_err(|error| format!("nobody can read: {error}"))?;
        self.lost = missing.len();
        let without_reason: Vec<&Acknowledged> = missing.iter().filter(|write| !self.may_be_lost(write)).collect();
        if without_reason.is_empty() || self.watch.loss_was_told(&self.world) {
            return Ok(());
        }
        let names: BTreeSet<&str> = without_reason.iter().map(|write| write.key.as_str()).take(5).collect();
        Err(format!(
            "{} acknowledged writes are lost: {names:?}…",
            without_reason.len()
        ))
    }

    fn may_be_lost(&self, write: &Acknowledged) -> bool {
        let mut windows = self.windows.iter();
        windows.any(|(first, last)| *first <= write.at && write.at <= *last)
    }
}
