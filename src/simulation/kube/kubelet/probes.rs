//! Probes: when they are made, and what comes of them.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    super::{
        Kubernetes,
        endpoints::port_of,
        object::{after, after_millis, number},
    },
    Container, Sandbox, State,
};

/// What a probe decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Aim {
    Startup,
    Liveness,
    Readiness,
}

/// A probe of a container that runs.
pub(in super::super) struct Prober {
    pub aim: Aim,
    /// As the pod's spec has it, with ports by number.
    probe: Value,
    next: Timestamp,
    period: i64,
    /// How many of the last ones were like the last one, and what that was.
    same: (bool, i64),
    /// How many successes, and how many failures, decide.
    thresholds: (i64, i64),
}

impl Prober {
    /// When it is due: all others wait for the one that says that the container has started.
    pub(super) fn due(&self, is_started: bool) -> Option<Timestamp> {
        (is_started != (self.aim == Aim::Startup)).then_some(self.next)
    }

    /// Takes note of an outcome; says what it decides, if it does.
    fn note(&mut self, is_good: bool, now: Timestamp) -> Option<bool> {
        self.next = after(now, self.period);
        let count = if self.same.0 == is_good { self.same.1 + 1 } else { 1 };
        self.same = (is_good, count);
        let (successes, failures) = self.thresholds;
        let needed = if is_good { successes } else { failures };
        (count >= needed).then_some(is_good)
    }
}

/// What came of the probes of a container.
#[derive(Default)]
struct Outcome {
    is_news: bool,
    is_dead: bool,
}

impl Kubernetes {
    /// The probes of a container that starts now.
    pub(super) fn probers(&mut self, pod: &Value, spec: &Value) -> Vec<Prober> {
        let all = [
            (Aim::Startup, "startupProbe"),
            (Aim::Liveness, "livenessProbe"),
            (Aim::Readiness, "readinessProbe"),
        ];
        let mut probers = Vec::new();
        for (aim, field) in all {
            let Some(probe) = spec.get(field) else { continue };
            let mut probe = probe.clone();
            for handler in ["tcpSocket", "httpGet"] {
                if let Some(port) = probe.pointer(&format!("/{handler}/port")) {
                    probe[handler]["port"] = json!(port_of(pod, port));
                }
            }
            let of = |field: &str, otherwise: i64| probe[field].as_i64().unwrap_or(otherwise);
            let period = of("periodSeconds", 10).max(1);
            let first = of("initialDelaySeconds", 0) * 1000;
            probers.push(Prober {
                aim,
                next: after_millis(self.now, first + self.chance(0, period * 1000)),
                period,
                same: (false, 0),
                thresholds: (of("successThreshold", 1), of("failureThreshold", 3)),
                probe,
            });
        }
        probers
    }

    /// Makes the probes that are due.
    pub(super) fn probe_due(&mut self, sandbox: &mut Sandbox) {
        let now = self.now;
        let grace = number(&sandbox.pod, "/spec/terminationGracePeriodSeconds").unwrap_or(30);
        for container in &mut sandbox.containers {
            let outcome = probe(container, now);
            sandbox.is_news |= outcome.is_news;
            if outcome.is_dead {
                container.terminate();
                if let State::Running(run) = &mut container.state {
                    run.killed_at = Some(after(now, grace));
                }
            } else if matches!(&container.state, State::Running(run) if run.killed_at.is_some_and(|at| at <= now)) {
                container.kill();
                if let State::Running(run) = &mut container.state {
                    run.killed_at = None;
                }
            }
        }
    }
}

fn probe(container: &mut Container, now: Timestamp) -> Outcome {
    let mut outcome = Outcome::default();
    let State::Running(run) = &mut container.state else {
        return outcome;
    };
    for prober in &mut run.probers {
        if prober.due(run.is_started).is_none_or(|due| due > now) {
            continue;
        }
        let is_good = run.process.probe(&prober.probe);
        match (prober.aim, prober.note(is_good, now)) {
            (_, None) => {}
            (Aim::Startup, Some(true)) => (run.is_started, outcome.is_news) = (true, true),
            (Aim::Startup | Aim::Liveness, Some(false)) => outcome.is_dead |= run.killed_at.is_none(),
            (Aim::Liveness, Some(true)) => {}
            (Aim::Readiness, Some(is)) => {
                outcome.is_news |= run.is_ready != is;
                run.is_ready = is;
            }
        }
    }
    let has = |aim: Aim| run.probers.iter().any(|prober| prober.aim == aim);
    if run.is_started && !run.is_ready && !has(Aim::Readiness) {
        (run.is_ready, outcome.is_news) = (true, true);
    }
    outcome
}
