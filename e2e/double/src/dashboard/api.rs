//! The dashboard's routes (§5). Order of checks: closed, xauth, parameters left to right, then the rest (§2).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Dashboard;
use super::looks::Looks;
use super::state::State;
use crate::config::DashboardConfig;
use crate::http::{Answer, Call, Handler, Refusal, integer};
use crate::sentinel::watch::Masters;
use crate::wire::{Group, Proxy, ProxyStats, RedisStats, Sentinel, Topom};
use crate::{COMPILE, VERSION};

type Answered = Result<Answer, Refusal>;

impl Handler for Dashboard {
    async fn call(self: Arc<Self>, call: Call) -> Answered {
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        match (&call.method, path.as_slice()) {
            (&Method::GET, []) => Ok(Answer::Redirect("/topom")),
            (&Method::GET, ["topom", rest @ ..]) => self.read(rest).await,
            (&Method::GET, ["api", "topom", rest @ ..]) => self.read_api(rest).await,
            (&Method::PUT, ["api", "topom", rest @ ..]) => self.change(rest, &call).await,
            _ => Ok(Answer::NotFound),
        }
    }
}

impl Dashboard {
    async fn read(&self, path: &[&str]) -> Answered {
        match path {
            [] => self.overview().await,
            ["model"] => Answer::json(&self.model),
            ["stats"] => self.told_stats().await,
            ["slots"] => self.told_slots().await,
            _ => Ok(Answer::NotFound),
        }
    }

    async fn read_api(&self, path: &[&str]) -> Answered {
        match path {
            ["model"] => Answer::json(&self.model),
            ["xping", xauth] => self.check(xauth).and_then(|()| Answer::ok()),
            ["stats", xauth] => {
                self.check(xauth)?;
                self.told_stats().await
            }
            ["slots", xauth] => {
                self.check(xauth)?;
                self.told_slots().await
            }
            ["group", "info", addr] => Answer::json(&self.redis_info(addr).await?),
            ["sentinels", "info", addr] => Answer::json(&self.sentinel_info(addr).await?),
            ["sentinels", "info", addr, "monitored"] => Answer::json(&self.monitored(addr).await?),
            _ => Ok(Answer::NotFound),
        }
    }

    async fn change(&self, path: &[&str], call: &Call) -> Answered {
        match path {
            ["proxy", verb, xauth, rest @ ..] => self.change_proxy(verb, xauth, rest).await,
            ["group", rest @ ..] => self.change_group(rest).await,
            ["slots", "action", verb, xauth, rest @ ..] => self.change_action(verb, xauth, rest).await,
            ["slots", rest @ ..] => self.change_slots(rest, call).await,
            ["sentinels", verb, xauth, rest @ ..] => self.change_sentinel(verb, xauth, rest).await,
            rest => self.control(rest).await,
        }
    }

    async fn control(&self, path: &[&str]) -> Answered {
        match path {
            ["reload", xauth] => {
                self.check(xauth)?;
                self.open().await?.loaded = false;
            }
            ["shutdown", xauth] => {
                self.check(xauth)?;
                self.stop.raise();
            }
            ["loglevel", xauth, value] => {
                self.check(xauth)?;
                if !self.log_level.set(value) {
                    return Err("invalid loglevel".into());
                }
            }
            _ => return Ok(Answer::NotFound),
        }
        Answer::ok()
    }

    async fn change_proxy(&self, verb: &str, xauth: &str, rest: &[&str]) -> Answered {
        match (verb, rest) {
            ("create" | "online", [addr]) => {
                self.check(xauth)?;
                self.register_proxy(addr, verb == "create").await?;
            }
            ("reinit", [token]) => {
                self.check(xauth)?;
                self.reinit_proxy(token).await?;
            }
            ("remove", [token, force]) => {
                self.check(xauth)?;
                self.remove_proxy(token, integer("force", force)? != 0).await?;
            }
            _ => return Ok(Answer::NotFound),
        }
        Answer::ok()
    }

    async fn change_group(&self, path: &[&str]) -> Answered {
        match path {
            ["action", verb @ ("create" | "remove"), xauth, addr] => {
                self.check(xauth)?;
                self.change_sync(addr, *verb == "create").await?;
            }
            ["resync-all", xauth] => {
                self.check(xauth)?;
                self.resync_all_groups().await?;
            }
            ["replica-groups-all", xauth, value] => {
                self.check(xauth)?;
                self.all_replica_groups(integer("value", value)? != 0).await?;
            }
            [verb, xauth, gid, rest @ ..] => return self.change_one_group(verb, xauth, gid, rest).await,
            _ => return Ok(Answer::NotFound),
        }
        Answer::ok()
    }

    async fn change_one_group(&self, verb: &str, xauth: &str, gid: &str, rest: &[&str]) -> Answered {
        let gid = || self.check(xauth).and_then(|()| integer("gid", gid));
        match (verb, rest) {
            ("create", []) => self.create_group(gid()?).await?,
            ("remove", []) => self.remove_group(gid()?).await?,
            ("resync", []) => self.resync_group(gid()?).await?,
            ("add", [addr]) => self.add_server(gid()?, addr, "").await?,
            ("add", [addr, datacenter]) => self.add_server(gid()?, addr, datacenter).await?,
            ("del", [addr]) => self.del_server(gid()?, addr).await?,
            ("promote", [addr]) => self.promote(gid()?, addr).await?,
            ("replica-groups", [addr, value]) => {
                self.replica_group(gid()?, addr, integer("value", value)? != 0).await?;
            }
            _ => return Ok(Answer::NotFound),
        }
        Answer::ok()
    }

    async fn change_action(&self, verb: &str, xauth: &str, rest: &[&str]) -> Answered {
        let number = |name, text| self.check(xauth).and_then(|()| integer(name, text));
        match (verb, rest) {
            ("create", [sid, gid]) => self.create_action(number("sid", sid)?, number("gid", gid)?).await?,
            ("create-some", [src, dst, num]) => {
                let (src, dst) = (number("src", src)?, number("dst", dst)?);
                self.create_some(src, dst, number("num", num)?).await?;
            }
            ("create-range", [beg, end, gid]) => {
                let (beg, end) = (number("beg", beg)?, number("end", end)?);
                self.create_range(beg, end, number("gid", gid)?).await?;
            }
            ("remove", [sid]) => self.remove_action(number("sid", sid)?).await?,
            ("interval", [value]) => self.set_interval(number("value", value)?).await?,
            ("disabled", [value]) => self.set_disabled(number("value", value)? != 0).await?,
            _ => return Ok(Answer::NotFound),
        }
        Answer::ok()
    }

    async fn change_slots(&self, path: &[&str], call: &Call) -> Answered {
        match path {
            ["assign", xauth] => {
                self.check(xauth)?;
                self.assign(call.json()).await?;
            }
            ["assign", xauth, "offline"] => {
                self.check(xauth)?;
                self.assign_offline(call.json()).await?;
            }
            ["rebalance", xauth, confirm] => {
                self.check(xauth)?;
                return Answer::json(&self.rebalance(integer("confirm", confirm)? != 0).await?);
            }
            _ => return Ok(Answer::NotFound),
        }
        Answer::ok()
    }

    async fn change_sentinel(&self, verb: &str, xauth: &str, rest: &[&str]) -> Answered {
        match (verb, rest) {
            ("add", [addr]) => {
                self.check(xauth)?;
                self.add_sentinel(addr).await?;
            }
            ("del", [addr, force]) => {
                self.check(xauth)?;
                self.del_sentinel(addr, integer("force", force)? != 0).await?;
            }
            ("resync-all", []) => {
                self.check(xauth)?;
                self.resync_sentinels().await?;
            }
            _ => return Ok(Answer::NotFound),
        }
        Answer::ok()
    }

    fn check(&self, xauth: &str) -> Result<(), Refusal> {
        self.check_open()?;
        if xauth == self.xauth {
            Ok(())
        } else {
            Err("invalid xauth, please check product name & auth".into())
        }
    }

    async fn told_slots(&self) -> Answered {
        let state = self.open().await?;
        let method = self.config.forward_method();
        Answer::json(
            &state
                .slots
                .iter()
                .map(|slot| state.view(slot, method, None))
                .collect::<Vec<_>>(),
        )
    }

    async fn overview(&self) -> Answered {
        let mut state = self.open().await?;
        let slots = state.slots_text()?;
        Answer::json(&Overview {
            version: VERSION,
            compile: COMPILE,
            config: &self.config,
            model: &self.model,
            stats: self.stats(&state, &self.looks(), &*slots),
        })
    }

    async fn told_stats(&self) -> Answered {
        let state = self.open().await?;
        Answer::json(&self.stats(&state, &self.looks(), &state.slots))
    }

    fn stats<'a, S>(&'a self, state: &'a State, looks: &'a Looks, slots: S) -> Stats<'a, S> {
        let mut proxies: Vec<_> = state.proxies.values().collect();
        proxies.sort_by_key(|proxy| proxy.id);
        Stats {
            closed: self.stop.is_raised(),
            slots,
            group: Seen {
                models: state.groups.values().collect(),
                stats: &looks.servers,
            },
            proxy: Seen {
                models: proxies,
                stats: &looks.proxies,
            },
            slot_action: self.mover.stats(),
            sentinels: SeenSentinels {
                model: &state.sentinel,
                stats: &looks.sentinels,
                masters: &looks.masters,
            },
        }
    }
}

/// What `/topom` tells (§4).
#[derive(Serialize)]
struct Overview<'a> {
    version: &'static str,
    compile: &'static str,
    config: &'a DashboardConfig,
    model: &'a Topom,
    stats: Stats<'a, &'a RawValue>,
}

/// `Stats` (§4).
#[derive(Serialize)]
struct Stats<'a, S> {
    closed: bool,
    slots: S,
    group: Seen<'a, Group, RedisStats>,
    proxy: Seen<'a, Proxy, ProxyStats>,
    slot_action: Value,
    sentinels: SeenSentinels<'a>,
}

#[derive(Serialize)]
struct Seen<'a, M, L> {
    models: Vec<&'a M>,
    stats: &'a BTreeMap<String, L>,
}

#[derive(Serialize)]
struct SeenSentinels<'a> {
    model: &'a Sentinel,
    stats: &'a BTreeMap<String, RedisStats>,
    masters: &'a Masters,
}
