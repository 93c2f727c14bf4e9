//! A container: whether it waits, runs or has ended.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{
    super::{
        Exit, Process,
        object::{after, seconds, text},
    },
    probes::Prober,
};

/// The waits between restarts, in seconds: each is twice the one before it.
const BACKOFF: (i64, i64) = (10, 300);
/// After so many seconds without an end all is forgiven.
const FORGIVEN: i64 = 600;

/// A container of a pod.
pub(in super::super) struct Container {
    pub spec: Value,
    pub state: State,
    pub restarts: u32,
    /// How it ended the last time.
    pub last: Option<Ended>,
    /// How long it waits after its next end.
    backoff: i64,
}

/// What a container does.
pub(in super::super) enum State {
    Waiting {
        until: Timestamp,
        /// For how long, where it broke down too often.
        backoff: Option<i64>,
    },
    Running(Box<Run>),
    /// For good.
    Over(Ended),
}

/// A container that runs.
pub(in super::super) struct Run {
    pub process: Box<dyn Process>,
    pub since: Timestamp,
    pub id: String,
    pub is_started: bool,
    pub is_ready: bool,
    pub probers: Vec<Prober>,
    /// When it is killed, once it was told to end by its liveness.
    pub killed_at: Option<Timestamp>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Ended {
    pub exit: Exit,
    pub since: String,
    pub at: String,
    pub id: String,
}

impl Container {
    pub(super) fn new(spec: &Value, starts: Timestamp) -> Self {
        Self {
            spec: spec.clone(),
            state: State::Waiting {
                until: starts,
                backoff: None,
            },
            restarts: 0,
            last: None,
            backoff: 0,
        }
    }

    pub(in super::super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    pub(super) fn has_succeeded(&self) -> bool {
        matches!(&self.state, State::Over(ended) if ended.exit.code == 0)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(&self.state, State::Running(run) if run.process.ended().is_some())
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        match &self.state {
            State::Waiting { until, .. } => Some(*until),
            State::Running(run) => {
                let probes = run.probers.iter().filter_map(|prober| prober.due(run.is_started));
                probes.chain(run.killed_at).min()
            }
            State::Over(_) => None,
        }
    }

    pub(super) fn terminate(&mut self) {
        let pre_stop = self.spec.pointer("/lifecycle/preStop");
        if let State::Running(run) = &mut self.state {
            run.process.terminate(pre_stop);
        }
    }

    pub(super) fn kill(&mut self) {
        if let State::Running(run) = &mut self.state {
            run.process.kill();
        }
    }

    /// Takes note of an end, and of when it starts again; says whether it ended.
    pub(super) fn note_end(&mut self, now: Timestamp, policy: &str) -> bool {
        let State::Running(run) = &self.state else {
            return false;
        };
        let Some(exit) = run.process.ended() else {
            return false;
        };
        self.put_end(exit, now, policy);
        true
    }

    fn put_end(&mut self, exit: Exit, now: Timestamp, policy: &str) {
        let State::Running(run) = &self.state else { return };
        if after(run.since, FORGIVEN) <= now {
            self.backoff = 0;
        }
        let restarts = policy == "Always" || (policy == "OnFailure" && exit.code != 0);
        let ended = Ended {
            exit,
            since: seconds(run.since),
            at: seconds(now),
            id: run.id.clone(),
        };
        if !restarts {
            self.state = State::Over(ended);
            return;
        }
        self.last = Some(ended);
        self.state = State::Waiting {
            until: after(now, self.backoff),
            backoff: (self.backoff > 0).then_some(self.backoff),
        };
        self.backoff = (self.backoff * 2).clamp(BACKOFF.0, BACKOFF.1);
    }

    /// The power is gone: there is no process any more, and nobody is to blame.
    pub(super) fn lose(&mut self, now: Timestamp) {
        let backoff = self.backoff;
        if let State::Running(run) = &mut self.state {
            run.process.kill();
            let exit = Exit {
                code: 255,
                message: String::new(),
            };
            self.put_end(exit, now, "Always");
        }
        self.backoff = backoff;
        if let State::Waiting { until, backoff } = &mut self.state {
            (*until, *backoff) = (now, None);
        }
    }

    pub(super) fn name(&self) -> &str {
        text(&self.spec, "/name")
    }
}
