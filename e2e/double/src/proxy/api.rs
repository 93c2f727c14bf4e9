//! The proxy's admin routes (§8.1).

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::Inner;
use super::stats;
use crate::http::{Answer, Call, Handler, Refusal};
use crate::wire::{Sentinel, Slot};
use crate::{COMPILE, VERSION};

type Answered = Result<Answer, Refusal>;

/// `cmd` in the stats.
const COMMANDS: i64 = 1;
/// `runtime` in the stats.
const RUNTIME: i64 = 4;

impl Handler for Inner {
    async fn call(self: Arc<Self>, call: Call) -> Answered {
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        match (&call.method, path.as_slice()) {
            (&Method::GET, []) => Ok(Answer::Redirect("/proxy")),
            (&Method::GET, ["proxy", rest @ ..]) => self.read(rest),
            (&Method::GET, ["api", "proxy", "model"]) => Answer::json(&self.model),
            (&Method::GET, ["api", "proxy", verb, xauth, rest @ ..]) => self.read_api(verb, xauth, rest),
            (&Method::PUT, ["api", "proxy", verb, rest @ ..]) => self.change(verb, rest, &call).await,
            _ => Ok(Answer::NotFound),
        }
    }
}

impl Inner {
    fn read(&self, path: &[&str]) -> Answered {
        match path {
            [] => Answer::json(&json!({
                "version": VERSION,
                "compile": COMPILE,
                "config": self.config,
                "model": self.model,
                "stats": self.told_stats(COMMANDS | RUNTIME),
                "slots": self.router.slots(),
            })),
            ["model"] => Answer::json(&self.model),
            ["stats"] => Answer::json(&self.told_stats(COMMANDS | RUNTIME)),
            ["slots"] => self.told_slots(),
            _ => Ok(Answer::NotFound),
        }
    }

    fn read_api(&self, verb: &str, xauth: &str, rest: &[&str]) -> Answered {
        let known = matches!((verb, rest), ("xping" | "slots" | "stats", []) | ("stats", [_]));
        if !known {
            return Ok(Answer::NotFound);
        }
        self.check(xauth)?;
        match (verb, rest) {
            ("xping", _) => Answer::ok(),
            ("slots", _) => self.told_slots(),
            (_, [flags]) => {
                let bad = |_| Refusal(format!("strconv.Atoi: parsing \"{flags}\": invalid syntax"));
                Answer::json(&self.told_stats(flags.parse().map_err(bad)?))
            }
            _ => Answer::json(&self.told_stats(0)),
        }
    }

    async fn change(&self, verb: &str, rest: &[&str], call: &Call) -> Answered {
        let (verb, xauth, value) = match (verb, rest) {
            ("stats", ["reset", xauth]) => ("stats/reset", *xauth, ""),
            ("sentinels", [xauth, "rewatch"]) => ("sentinels/rewatch", *xauth, ""),
            ("loglevel", [xauth, value]) => (verb, *xauth, *value),
            ("start" | "fillslots" | "sentinels" | "forcegc" | "shutdown", [xauth]) => (verb, *xauth, ""),
            _ => return Ok(Answer::NotFound),
        };
        self.check(xauth)?;
        match verb {
            "start" => self.go_online(),
            "fillslots" => self.router.fill(call.json::<Vec<Slot>>()).await?,
            "sentinels" => self.watch(call.json::<Sentinel>().servers),
            "sentinels/rewatch" => self.rewatch(),
            "stats/reset" => self.stats.reset(),
            "shutdown" => self.stop.raise(),
            "loglevel" if !self.log_level.set(value) => return Err("invalid loglevel".into()),
            _ => {}
        }
        Answer::ok()
    }

    fn told_slots(&self) -> Answered {
        let text = self.router.text().map_err(|error| Refusal(error.to_string()))?;
        Ok(Answer::Json(Bytes::copy_from_slice(text.get().as_bytes())))
    }

    fn check(&self, xauth: &str) -> Result<(), Refusal> {
        if self.stop.is_raised() {
            return Err("use of closed proxy".into());
        }
        if xauth == self.xauth {
            Ok(())
        } else {
            Err("invalid xauth, please check product name & auth".into())
        }
    }

    fn told_stats(&self, flags: i64) -> Value {
        use std::sync::atomic::Ordering::Relaxed;
        let mut told = json!({
            "online": self.is_online(),
            "closed": self.stop.is_raised(),
            "sentinels": self.told_sentinels(),
            "ops": self.stats.ops(flags & COMMANDS != 0),
            "sessions": { "total": self.stats.sessions.load(Relaxed), "alive": self.stats.alive.load(Relaxed) },
            "rusage": stats::rusage(self.started.elapsed()),
            "backend": { "primary_only": self.config.backend_primary_only },
        });
        if flags & RUNTIME != 0 {
            told["runtime"] = stats::runtime();
        }
        told
    }

    fn told_sentinels(&self) -> Value {
        let watched = self.watched();
        let mut told = json!({});
        if !watched.servers.is_empty() {
            told["servers"] = json!(watched.servers);
        }
        if !watched.masters.is_empty() {
            told["masters"] = json!(watched.masters);
        }
        if self.router.switched() {
            told["switched"] = json!(true);
        }
        told
    }
}
