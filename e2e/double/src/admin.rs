//! `codis-admin`: one call, printed (§14).

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::flags::{Flags, Spec};
use crate::http::pretty;
use crate::identity::xauth;
use crate::rpc::Rpc;
use crate::store::{Coordinator, Store};
use crate::timings::Timings;
use crate::wire::{Group, Proxy, SlotMapping, Topom};

/// The options of `codis-admin`.
pub const SPEC: Spec = Spec {
    valued: &[
        "dashboard",
        "proxy",
        "auth",
        "product",
        "filesystem",
        "etcd",
        "zookeeper",
        "etcd-auth",
        "zookeeper-auth",
        "config-restore",
        "log-level",
        "addr",
        "token",
        "gid",
        "datacenter",
        "sid",
        "gid-from",
        "gid-to",
        "num-slots",
        "beg",
        "end",
        "interval",
        "disabled",
        "pid",
        "fillslots",
    ],
    switches: &[
        "remove-lock",
        "config-dump",
        "confirm",
        "dashboard-list",
        "shutdown",
        "reload",
        "list-proxy",
        "create-proxy",
        "online-proxy",
        "remove-proxy",
        "reinit-proxy",
        "list-group",
        "create-group",
        "remove-group",
        "resync-group",
        "group-add",
        "group-del",
        "promote-server",
        "sync-action",
        "slot-action",
        "create",
        "remove",
        "create-some",
        "create-range",
        "rebalance",
        "sentinel-add",
        "sentinel-del",
        "sentinel-resync",
        "slots-assign",
        "offline",
        "force",
        "all",
        "start",
        "reset-stats",
        "forcegc",
        "replica-groups",
        "enable",
        "disable",
        "slots-status",
        "proxy-status",
        "group-status",
        "version",
        "help",
    ],
    short: &[('h', "help")],
    usage: "usage: codis-admin --dashboard=ADDR (config|model|stats|slots|group|proxy|--<verb> ...)\n       codis-admin \
            --proxy=ADDR [--auth=P] (config|model|stats|slots|--<verb> ...)\n       codis-admin --remove-lock|--config-dump|\
            --config-restore=FILE [--confirm] --product=NAME STORE\n       codis-admin --dashboard-list STORE\nSTORE: \
            --zookeeper=ADDR [--zookeeper-auth=USER:PASS] | --etcd=ADDR [--etcd-auth=USER:PASS] | --filesystem=ROOT",
};

/// Does what the flags say; the text is to be printed.
pub async fn run(flags: &Flags) -> Result<String> {
    match (flags.get("dashboard"), flags.get("proxy")) {
        (Some(addr), _) => dashboard(addr, flags).await,
        (None, Some(addr)) => proxy(addr, flags).await,
        (None, None) => store(flags).await,
    }
}

fn text(value: &impl serde::Serialize) -> Result<String> {
    Ok(String::from_utf8(pretty(value)?)?)
}

/// The part of an overview that a verb names.
fn part(overview: &Value, verb: &str) -> Option<Value> {
    let pointer = match verb {
        "config" => "/config",
        "model" => "/model",
        "stats" => "/stats",
        "slots" if overview.get("slots").is_some() => "/slots",
        "slots" => "/stats/slots",
        "group" => "/stats/group",
        "proxy" => "/stats/proxy",
        _ => return None,
    };
    overview.pointer(pointer).cloned()
}

async fn dashboard(addr: &str, flags: &Flags) -> Result<String> {
    let rpc = Rpc::new(&Timings::default());
    if let Some(verb) = flags.words.first() {
        let overview: Value = rpc.get(addr, "/topom").await?;
        return text(&part(&overview, verb).context(SPEC.usage)?);
    }
    let listed = [
        ("list-proxy", "/stats/proxy/models"),
        ("list-group", "/stats/group/models"),
    ];
    let status = [
        ("slots-status", "/stats/slots"),
        ("proxy-status", "/stats/proxy"),
        ("group-status", "/stats/group"),
    ];
    if let Some((_, pointer)) = listed.iter().chain(&status).find(|(verb, _)| flags.has(verb)) {
        let overview: Value = rpc.get(addr, "/topom").await?;
        return text(&overview.pointer(pointer));
    }
    let model: Topom = rpc.get(addr, "/api/topom/model").await?;
    let x = xauth(&[&model.product_name]);
    if flags.has("rebalance") {
        let path = format!("/api/topom/slots/rebalance/{x}/{}", i32::from(flags.has("confirm")));
        return text(&rpc.put_for::<Value>(addr, &path).await?);
    }
    if flags.has("slots-assign") {
        return assign(&rpc, addr, &x, flags).await;
    }
    let path = if flags.has("remove-proxy") || flags.has("reinit-proxy") {
        proxy_path(&rpc, addr, &x, flags).await?
    } else {
        path(&x, flags)?
    };
    rpc.put(addr, &format!("/api/topom/{path}")).await?;
    Ok(String::new())
}

/// The path of a verb that is one call.
fn path(x: &str, flags: &Flags) -> Result<String> {
    let need = |name| flags.need(name);
    Ok(match first(flags)? {
        "shutdown" => format!("shutdown/{x}"),
        "reload" => format!("reload/{x}"),
        "log-level" => format!("loglevel/{x}/{}", need("log-level")?),
        "create-proxy" => format!("proxy/create/{x}/{}", need("addr")?),
        "online-proxy" => format!("proxy/online/{x}/{}", need("addr")?),
        "create-group" => format!("group/create/{x}/{}", need("gid")?),
        "remove-group" => format!("group/remove/{x}/{}", need("gid")?),
        "resync-group" if flags.has("all") => format!("group/resync-all/{x}"),
        "resync-group" => format!("group/resync/{x}/{}", need("gid")?),
        "group-add" => {
            let datacenter = flags
                .get("datacenter")
                .map(|name| format!("/{name}"))
                .unwrap_or_default();
            format!("group/add/{x}/{}/{}{datacenter}", need("gid")?, need("addr")?)
        }
        "group-del" => format!("group/del/{x}/{}/{}", need("gid")?, need("addr")?),
        "replica-groups" => {
            format!(
                "group/replica-groups/{x}/{}/{}/{}",
                need("gid")?,
                need("addr")?,
                i32::from(flags.has("enable"))
            )
        }
        "promote-server" => format!("group/promote/{x}/{}/{}", need("gid")?, need("addr")?),
        "sync-action" if flags.has("create") => format!("group/action/create/{x}/{}", need("addr")?),
        "sync-action" => format!("group/action/remove/{x}/{}", need("addr")?),
        "sentinel-add" => format!("sentinels/add/{x}/{}", need("addr")?),
        "sentinel-del" => format!("sentinels/del/{x}/{}/{}", need("addr")?, i32::from(flags.has("force"))),
        "sentinel-resync" => format!("sentinels/resync-all/{x}"),
        _ => slot_action(x, flags)?,
    })
}

fn slot_action(x: &str, flags: &Flags) -> Result<String> {
    let need = |name| flags.need(name);
    let rest = if flags.has("create") {
        format!("create/{x}/{}/{}", need("sid")?, need("gid")?)
    } else if flags.has("remove") {
        format!("remove/{x}/{}", need("sid")?)
    } else if flags.has("create-some") {
        format!(
            "create-some/{x}/{}/{}/{}",
            need("gid-from")?,
            need("gid-to")?,
            need("num-slots")?
        )
    } else if flags.has("create-range") {
        format!("create-range/{x}/{}/{}/{}", need("beg")?, need("end")?, need("gid")?)
    } else if let Some(value) = flags.get("interval") {
        format!("interval/{x}/{value}")
    } else {
        format!("disabled/{x}/{}", need("disabled")?)
    };
    Ok(format!("slots/action/{rest}"))
}

fn first(flags: &Flags) -> Result<&'static str> {
    const VERBS: &[&str] = &[
        "shutdown",
        "reload",
        "log-level",
        "create-proxy",
        "online-proxy",
        "create-group",
        "remove-group",
        "resync-group",
        "group-add",
        "group-del",
        "replica-groups",
        "promote-server",
        "sync-action",
        "slot-action",
        "sentinel-add",
        "sentinel-del",
        "sentinel-resync",
    ];
    VERBS.iter().find(|verb| flags.has(verb)).copied().context(SPEC.usage)
}

/// Proxies may be named by token, id or admin address.
async fn proxy_path(rpc: &Rpc, addr: &str, x: &str, flags: &Flags) -> Result<String> {
    let overview: Value = rpc.get(addr, "/topom").await?;
    let models: Vec<Proxy> = serde_json::from_value(overview["stats"]["proxy"]["models"].clone())?;
    let named = |proxy: &&Proxy| {
        flags.get("token") == Some(&proxy.token)
            || flags.get("addr") == Some(&proxy.admin_addr)
            || flags.get("pid") == Some(&proxy.id.to_string())
    };
    let token = &models.iter().find(named).context("no such proxy")?.token;
    if flags.has("reinit-proxy") {
        return Ok(format!("proxy/reinit/{x}/{token}"));
    }
    Ok(format!("proxy/remove/{x}/{token}/{}", i32::from(flags.has("force"))))
}

async fn assign(rpc: &Rpc, addr: &str, x: &str, flags: &Flags) -> Result<String> {
    let (beg, end): (i64, i64) = (flags.need("beg")?.parse()?, flags.need("end")?.parse()?);
    let gid: i64 = if flags.has("offline") {
        0
    } else {
        flags.need("gid")?.parse()?
    };
    let slots: Vec<Value> = (beg..=end).map(|id| json!({"id": id, "group_id": gid})).collect();
    if flags.has("confirm") {
        let offline = if flags.has("offline") { "/offline" } else { "" };
        rpc.put_json(addr, &format!("/api/topom/slots/assign/{x}{offline}"), &slots)
            .await?;
    }
    text(&slots)
}

async fn proxy(addr: &str, flags: &Flags) -> Result<String> {
    let rpc = Rpc::new(&Timings::default());
    if let Some(verb) = flags.words.first() {
        let overview: Value = rpc.get(addr, "/proxy").await?;
        return text(&part(&overview, verb).context(SPEC.usage)?);
    }
    let model: Proxy = rpc.get(addr, "/api/proxy/model").await?;
    let x = xauth(&[&model.product_name, flags.get("auth").unwrap_or_default(), &model.token]);
    let path = if flags.has("start") {
        format!("start/{x}")
    } else if flags.has("shutdown") {
        format!("shutdown/{x}")
    } else if flags.has("reset-stats") {
        format!("stats/reset/{x}")
    } else if flags.has("forcegc") {
        format!("forcegc/{x}")
    } else if let Some(level) = flags.get("log-level") {
        format!("loglevel/{x}/{level}")
    } else {
        bail!("{}", SPEC.usage);
    };
    rpc.put(addr, &format!("/api/proxy/{path}")).await?;
    Ok(String::new())
}

/// A product and where its dashboard is; empty: nobody holds its lock. The order is Codis's: scripts read it as text.
#[derive(serde::Serialize)]
struct Row {
    name: String,
    dashboard: String,
}

async fn store(flags: &Flags) -> Result<String> {
    let coordinator = Coordinator::named(flags)?.context(SPEC.usage)?;
    if flags.has("dashboard-list") {
        let listed = coordinator.products().await.context("list products failed")?;
        let row = |(name, holder): (String, Option<String>)| Row {
            name,
            dashboard: holder.unwrap_or_default(),
        };
        return text(&listed.into_iter().map(row).collect::<Vec<_>>());
    }
    let product = flags.need("product")?;
    let store = coordinator.product(product);
    if flags.has("remove-lock") {
        store.release().await.context("remove lock failed")?;
        return Ok(String::new());
    }
    if flags.has("config-dump") {
        return dump(product, &store).await;
    }
    if let Some(file) = flags.get("config-restore") {
        return restore(&store, &crate::host::read(file)?, flags.has("confirm")).await;
    }
    bail!("{}", SPEC.usage)
}

/// What a product has in its coordinator, in Codis's order; what is empty is left out.
#[derive(serde::Serialize)]
struct Dump {
    slots: Vec<SlotMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    group: Vec<Group>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proxy: Vec<Proxy>,
}

/// Slots, groups and proxies, never the sentinels (§10). A product with neither groups nor proxies doesn't exist for Codis.
async fn dump(product: &str, store: &Store) -> Result<String> {
    let (group, proxy) = (store.groups().await?, store.proxies().await?);
    ensure!(
        !(group.is_empty() && proxy.is_empty()),
        "cann't find product = {product} [v3]"
    );
    let slots = store.slots().await?;
    text(&Dump { slots, group, proxy })
}

/// The part of a dump; one that was left out is empty.
fn listed<T: serde::de::DeserializeOwned>(part: &Value) -> Result<Vec<T>> {
    Ok(serde_json::from_value::<Option<Vec<T>>>(part.clone())?.unwrap_or_default())
}

async fn restore(store: &Store, dumped: &[u8], confirm: bool) -> Result<String> {
    let dumped: Value = serde_json::from_slice(dumped)?;
    let slots: Vec<SlotMapping> = serde_json::from_value(dumped["slots"].clone())?;
    let groups: Vec<Group> = listed(&dumped["group"])?;
    let proxies: Vec<Proxy> = listed(&dumped["proxy"])?;
    ensure!(
        store.groups().await?.is_empty() && store.proxies().await?.is_empty(),
        "product isn't empty"
    );
    ensure!(
        slots.iter().all(|slot| slot.action.state.is_empty()),
        "a slot has an action"
    );
    ensure!(
        groups.iter().all(|group| group.promoting.state.is_empty()),
        "a group is promoting"
    );
    if confirm {
        for slot in &slots {
            store.put_slot(slot).await?;
        }
        for group in &groups {
            store.put_group("create", group).await?;
        }
        for proxy in &proxies {
            store.put_proxy("create", proxy).await?;
        }
    }
    Ok(String::new())
}
