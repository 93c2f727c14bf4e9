//! What the dashboard's `/topom` says, as far as tests ask.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

/// What the dashboard says.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Groups by id.
    pub groups: BTreeMap<i64, Group>,
    /// The group of each slot; 0 is none.
    pub slots: Vec<i64>,
    /// The registered proxies.
    pub proxies: Vec<Proxy>,
    /// What each sentinel watches: sentinel's address → master's name → what it has.
    pub sentinels: BTreeMap<String, BTreeMap<String, Watched>>,
    /// Whether the dashboard takes the sentinels' masters for other than its own.
    pub sentinels_out_of_sync: bool,
}

/// A group, the master first.
#[derive(Clone, Debug)]
pub struct Group {
    /// The members.
    pub servers: Vec<Server>,
    /// Whether proxies may hold another view of it.
    pub out_of_sync: bool,
    /// Whether a promotion is under way.
    pub promoting: bool,
}

/// A server, with what it said of itself.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its address.
    pub address: String,
    /// master or slave; empty when it said nothing.
    pub role: String,
    /// Whom it follows.
    pub master: String,
    /// Whether its link is up.
    pub link_up: bool,
}

/// A proxy's record.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Where it is administered.
    pub admin: String,
    /// Whether it said that it serves.
    pub online: bool,
}

/// A master as a sentinel has it.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Its address.
    pub address: String,
    /// How many other sentinels this sentinel knows.
    pub others: String,
    /// Its flags; `master` alone is healthy.
    pub flags: String,
}

impl Topology {
    /// Reads the dashboard's answer.
    pub fn parse(text: &str) -> Result<Self> {
        let all: Value = serde_json::from_str(text)?;
        let stats = all.get("stats").context("no stats in /topom")?;
        Ok(Self {
            groups: groups(stats),
            slots: items(&stats["slots"])
                .map(|slot| slot["group_id"].as_i64().unwrap_or(0))
                .collect(),
            proxies: proxies(stats),
            sentinels: sentinels(stats),
            sentinels_out_of_sync: stats["sentinels"]["model"]["out_of_sync"].as_bool().unwrap_or(false),
        })
    }

    /// How many slots a group has.
    pub fn slots_of(&self, group: i64) -> usize {
        self.slots.iter().filter(|owner| **owner == group).count()
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn groups(stats: &Value) -> BTreeMap<i64, Group> {
    let group = |model: &Value| Group {
        servers: items(&model["servers"])
            .map(|server| self_description(stats, &text(&server["server"])))
            .collect(),
        out_of_sync: model["out_of_sync"].as_bool().unwrap_or(false),
        promoting: !text(&model["promoting"]["state"]).is_empty(),
    };
    let models = items(&stats["group"]["models"]);
    models
        .map(|model| (model["id"].as_i64().unwrap_or(0), group(model)))
        .collect()
}

fn self_description(stats: &Value, address: &str) -> Server {
    let said = &stats["group"]["stats"][address]["stats"];
    Server {
        address: address.to_owned(),
        role: text(&said["role"]),
        master: text(&said["master_addr"]),
        link_up: said["master_link_status"] == "up",
    }
}

fn proxies(stats: &Value) -> Vec<Proxy> {
    let record = |model: &Value| Proxy {
        admin: text(&model["admin_addr"]),
        online: stats["proxy"]["stats"][text(&model["token"])]["stats"]["online"] == true,
    };
    items(&stats["proxy"]["models"]).map(record).collect()
}

fn sentinels(stats: &Value) -> BTreeMap<String, BTreeMap<String, Watched>> {
    let watched = |master: &Value| Watched {
        address: format!("{}:{}", text(&master["ip"]), text(&master["port"])),
        others: text(&master["num-other-sentinels"]),
        flags: text(&master["flags"]),
    };
    let of = |address: &str| {
        let masters = stats["sentinels"]["stats"][address]["sentinel"].as_object();
        let rows = masters.into_iter().flatten();
        rows.map(|(name, row)| (name.clone(), watched(&row["master"])))
            .collect()
    };
    let addresses = items(&stats["sentinels"]["model"]["servers"]).map(text);
    addresses.map(|address| (address.clone(), of(&address))).collect()
}
