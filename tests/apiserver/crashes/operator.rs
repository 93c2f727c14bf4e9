//! The operator's process: its doors, and where it dies.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as TaskContext, Poll},
};

use codis_operator::{
    cluster::{Cluster, WriteGate},
    codis::{Link, Network, Stream},
    controller::{Context, Error, Requeue, reconcile},
    domain::Address,
    gitops::{self, Settings},
    telemetry::{Clock, Effects, Metrics},
};
use futures::future::{self, BoxFuture};
use http::{Method, Request, Response};
use kube::{Client, client::Body};
use tokio::sync::Notify;
use tower::{BoxError, Service};

/// Where an operator dies, at one of its effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The effect isn't sent.
    Before,
    /// It is done and answered; nothing comes after it.
    After,
    /// It is done, and the process dies before it reads the answer.
    Lost,
    /// It is done, and the connection breaks before the answer: the process lives on, and doesn't know.
    Torn,
}

/// All of them.
pub const MOMENTS: [Moment; 4] = [Moment::Before, Moment::After, Moment::Lost, Moment::Torn];

/// What is counted of the effects of all processes, one after the other, and where one is to die.
#[derive(Clone, Default)]
pub struct Hook(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    /// The effects that were sent.
    names: Vec<&'static str>,
    /// Requests that could change something.
    requests: usize,
    crash: Option<(usize, Moment)>,
    /// What is to become of the answer to the next request that could change something.
    answer: Option<Moment>,
}

impl Hook {
    /// Something happens at the n-th effect from now on, counted from 0.
    pub fn crash_at(&self, number: usize, moment: Moment) {
        let mut counts = self.counts();
        counts.crash = Some((counts.names.len() + number, moment));
    }

    /// Whether it is still to happen.
    pub fn is_armed(&self) -> bool {
        self.counts().crash.is_some()
    }

    /// How many effects were sent.
    pub fn sent(&self) -> usize {
        self.counts().names.len()
    }

    /// The names of all but the first so many.
    pub fn names_since(&self, first: usize) -> Vec<&'static str> {
        self.counts().names[first..].to_vec()
    }

    /// How many requests that could change something were sent. Each is an effect that was asked for.
    pub fn requests(&self) -> usize {
        self.counts().requests
    }

    /// What happens at this effect, which is the next one.
    fn next(&self, effect: &'static str) -> Option<Moment> {
        let mut counts = self.counts();
        let number = counts.names.len();
        let due = counts.crash.take_if(|(at, _)| *at == number).map(|(_, moment)| moment);
        if due != Some(Moment::Before) {
            counts.names.push(effect);
        }
        if matches!(due, Some(Moment::Lost | Moment::Torn)) {
            counts.answer = due;
        }
        due
    }

    /// What becomes of the answer to this request, which could change something.
    fn request(&self) -> Option<Moment> {
        let mut counts = self.counts();
        counts.requests += 1;
        counts.answer.take()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One process.
pub struct Process {
    context: Arc<Context>,
    door: Cluster,
    life: Arc<Life>,
}

/// What became of something that a process did.
pub enum Done<T> {
    /// It came to its end.
    Ended(T),
    /// The process died.
    Died,
}

impl Process {
    /// A process without memory.
    pub fn start(client: Client, hook: &Hook) -> Self {
        let life = Arc::new(Life {
            hook: hook.clone(),
            end: Mutex::new(End::Open),
            dead: Notify::new(),
        });
        let line = Line {
            client,
            life: Arc::clone(&life),
        };
        let asked = Arc::clone(&life);
        let effects = Effects::new(move |_, effect| asked.ask(effect));
        let door = Cluster::new(
            Client::new(line, "default"),
            WriteGate::open(),
            effects.clone(),
            "crashing",
        );
        let link = Link::over(Arc::new(Nobody));
        Self {
            context: Context::within(door.clone(), effects, Metrics::default(), true, Clock::default(), link),
            door,
            life,
        }
    }

    /// Serves all Git sources, for ever; what is fetched is in this folder.
    pub async fn serve(&self, root: &Path) -> Done<anyhow::Result<()>> {
        let settings = Settings {
            program: env!("CARGO_BIN_EXE_codis-operator").into(),
            root: root.to_owned(),
            watch_dir: None,
        };
        let run = gitops::run(self.door.clone(), Metrics::default(), settings, future::pending());
        self.lives(Box::pin(run)).await
    }

    /// One pass for one cluster.
    pub async fn pass(&self, namespace: &str, name: &str) -> Done<Result<Requeue, Error>> {
        self.lives(Box::pin(reconcile(&self.context, namespace, name))).await
    }

    /// Does something until it is done, or until the process dies in the middle of it.
    async fn lives<T>(&self, work: impl Future<Output = T>) -> Done<T> {
        let done = tokio::select! {
            biased;
            () = self.life.dead.notified() => return Done::Died,
            done = work => done,
        };
        // One that was to do nothing any more has ended by itself, a moment too early to be killed.
        if *self.life.end() == End::Open {
            Done::Ended(done)
        } else {
            Done::Died
        }
    }
}

/// Whether a process lives.
struct Life {
    hook: Hook,
    end: Mutex<End>,
    dead: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Not in sight.
    Open,
    /// At the next effect, whatever it is.
    Near,
    /// Now: nothing is sent any more.
    Here,
}

impl Life {
    /// Asked before each effect.
    fn ask(&self, effect: &'static str) -> Result<(), String> {
        let is_open = *self.end() == End::Open;
        let due = if is_open { self.hook.next(effect) } else { None };
        match due {
            _ if !is_open => self.die(),
            Some(Moment::Before) => self.die(),
            Some(Moment::After) => *self.end() = End::Near,
            Some(Moment::Lost | Moment::Torn) | None => (),
        }
        match *self.end() {
            End::Here => Err("the operator is dead".to_owned()),
            End::Open | End::Near => Ok(()),
        }
    }

    fn die(&self) {
        *self.end() = End::Here;
        self.dead.notify_one();
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the API server, on which answers are lost.
struct Line {
    client: Client,
    life: Arc<Life>,
}

impl Service<Request<Body>> for Line {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_write = request.method() != Method::GET;
        let fate = if is_write { self.life.hook.request() } else { None };
        let (client, life) = (self.client.clone(), Arc::clone(&self.life));
        Box::pin(async move {
            let answer = client.send(request).await?;
            match fate {
                Some(Moment::Lost) => {
                    life.die();
                    future::pending().await
                }
                Some(Moment::Torn) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
                _ => Ok(answer),
            }
        })
    }
}

/// Where no pod runs nobody answers. Only a coordinator is there, as far as can be seen without a word.
struct Nobody;

impl Network for Nobody {
    fn connect(&self, peer: &Address) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let is_coordinator = peer.port() == 2379;
        Box::pin(async move {
            if is_coordinator {
                let (here, _) = tokio::io::duplex(64);
                return Ok(Box::new(here) as Box<dyn Stream>);
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    }
}
