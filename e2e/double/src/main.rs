//! One program that is `codis-dashboard`, `codis-proxy`, `codis-fe` or `codis-admin` by its name.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use codis_double::config::{self, DashboardConfig, ProxyConfig};
use codis_double::flags::{Flags, Spec};
use codis_double::logging::{self, LogLevel};
use codis_double::store::{Coordinator, Store};
use codis_double::{COMPILE, VERSION, admin, dashboard, fe, proxy};
use tokio::signal::unix::{SignalKind, signal};

const DASHBOARD: Spec = Spec {
    valued: &[
        "ncpu",
        "config",
        "log",
        "log-level",
        "host-admin",
        "pidfile",
        "zookeeper",
        "etcd",
        "filesystem",
        "product_name",
        "product_auth",
    ],
    switches: &["remove-lock", "default-config", "version", "help"],
    short: &[('c', "config"), ('l', "log"), ('h', "help")],
    usage: "usage: codis-dashboard [--ncpu=N] [--config=CONF] [--log=FILE] [--log-level=LEVEL] [--host-admin=ADDR] \
            [--pidfile=FILE] [--zookeeper=ADDR|--etcd=ADDR|--filesystem=ROOT] [--product_name=NAME] \
            [--product_auth=AUTH] [--remove-lock]\n       codis-dashboard --default-config | --version",
};

const PROXY: Spec = Spec {
    valued: &[
        "ncpu",
        "max-ncpu",
        "config",
        "log",
        "log-level",
        "host-admin",
        "host-proxy",
        "dashboard",
        "zookeeper",
        "zookeeper-auth",
        "etcd",
        "etcd-auth",
        "filesystem",
        "fillslots",
        "ulimit",
        "pidfile",
        "product_name",
        "product_auth",
        "session_auth",
    ],
    switches: &["default-config", "version", "help"],
    short: &[('c', "config"), ('l', "log"), ('h', "help")],
    usage: "usage: codis-proxy [--ncpu=N [--max-ncpu=MAX]] [--config=CONF] [--log=FILE] [--log-level=LEVEL] \
            [--host-admin=ADDR] [--host-proxy=ADDR] [--dashboard=ADDR|--zookeeper=ADDR \
            [--zookeeper-auth=USER:PASS]|--etcd=ADDR [--etcd-auth=USER:PASS]|--filesystem=ROOT|--fillslots=FILE] \
            [--ulimit=N] [--pidfile=FILE] [--product_name=NAME] [--product_auth=AUTH] [--session_auth=AUTH]\n       codis-proxy \
            --default-config | --version",
};

const FE: Spec = Spec {
    valued: &[
        "ncpu",
        "log",
        "log-level",
        "assets-dir",
        "pidfile",
        "dashboard-list",
        "zookeeper",
        "zookeeper-auth",
        "etcd",
        "etcd-auth",
        "filesystem",
        "listen",
    ],
    switches: &["version", "help"],
    short: &[('d', "dashboard-list"), ('l', "log"), ('h', "help")],
    usage: "usage: codis-fe [--ncpu=N] [--log=FILE] [--log-level=LEVEL] [--assets-dir=PATH] [--pidfile=FILE] \
            (--dashboard-list=FILE|--zookeeper=ADDR [--zookeeper-auth=USER:PASS]|--etcd=ADDR \
            [--etcd-auth=USER:PASS]|--filesystem=ROOT) --listen=ADDR\n       codis-fe --version",
};

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args();
    let called = args.next().unwrap_or_default();
    let mut name = called.rsplit('/').next().unwrap_or_default().to_string();
    let mut rest: Vec<String> = args.collect();
    if name == "codis-double" && !rest.is_empty() {
        name = rest.remove(0);
    }
    match run(&name, &rest).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} [PANIC] {error:#}", jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S"));
            ExitCode::FAILURE
        }
    }
}

async fn run(name: &str, args: &[String]) -> Result<()> {
    let spec = match name {
        "codis-dashboard" => &DASHBOARD,
        "codis-proxy" => &PROXY,
        "codis-fe" => &FE,
        "codis-admin" => &admin::SPEC,
        "--version" => return print_version(),
        other => bail!("{other:?} is none of codis-dashboard, codis-proxy, codis-fe, codis-admin"),
    };
    let flags = spec.parse(args)?;
    if flags.has("help") {
        println!("{}", spec.usage);
        return Ok(());
    }
    if flags.has("version") {
        return print_version();
    }
    if name == "codis-admin" {
        let text = admin::run(&flags).await?;
        if !text.is_empty() {
            println!("{text}");
        }
        return Ok(());
    }
    let level = LogLevel::default();
    if flags.get("log-level").is_some_and(|name| !level.set(name)) {
        bail!("invalid log-level");
    }
    logging::start(flags.get("log"), &level);
    match name {
        "codis-dashboard" => run_dashboard(&flags, level).await,
        "codis-proxy" => run_proxy(&flags, level).await,
        _ => run_fe(&flags).await,
    }
}

fn print_version() -> Result<()> {
    println!("version: {VERSION}\ncompile: {COMPILE}");
    Ok(())
}

/// Writes the pid file; it goes with the guard.
struct PidFile(Option<PathBuf>);

impl PidFile {
    fn write(flags: &Flags) -> Result<Self> {
        let path = flags.get("pidfile").map(PathBuf::from);
        if let Some(path) = &path {
            std::fs::write(path, std::process::id().to_string()).context("write pidfile")?;
        }
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Someone may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Ends when a signal asks for a clean stop.
async fn asked_to_stop() -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::warn!("receive signal, shutting down");
    Ok(())
}

async fn run_dashboard(flags: &Flags, log_level: LogLevel) -> Result<()> {
    if flags.has("default-config") {
        print!("{}", toml::to_string(&DashboardConfig::default())?);
        return Ok(());
    }
    let mut config: DashboardConfig = config::load(flags.get("config"))?;
    for name in ["zookeeper", "etcd", "filesystem"] {
        if let Some(addr) = flags.get(name) {
            (config.coordinator_name, config.coordinator_addr) = (name.into(), addr.into());
        }
    }
    overrule(
        flags,
        &mut [
            ("product_name", &mut config.product_name),
            ("product_auth", &mut config.product_auth),
        ],
    );
    let options = dashboard::Options {
        config,
        host_admin: flags.get("host-admin").map(String::from),
        remove_lock: flags.has("remove-lock"),
        log_level,
        ..Default::default()
    };
    let handle = dashboard::start(options).await?;
    let _pid = PidFile::write(flags)?;
    tracing::warn!("{VERSION}: dashboard listens at {}", handle.addr);
    let stopper = handle.stopper();
    tokio::spawn(async move {
        if asked_to_stop().await.is_ok() {
            stopper.raise();
        }
    });
    handle.wait().await
}

async fn run_proxy(flags: &Flags, log_level: LogLevel) -> Result<()> {
    if flags.has("default-config") {
        print!("{}", toml::to_string(&ProxyConfig::default())?);
        return Ok(());
    }
    let mut config: ProxyConfig = config::load(flags.get("config"))?;
    overrule(
        flags,
        &mut [
            ("product_name", &mut config.product_name),
            ("product_auth", &mut config.product_auth),
            ("session_auth", &mut config.session_auth),
        ],
    );
    let slots = flags
        .get("fillslots")
        .map(|file| anyhow::Ok(serde_json::from_slice(&std::fs::read(file)?)?));
    let options = proxy::Options {
        dashboard: flags.get("dashboard").map(String::from),
        store: find_store(flags, &config.product_name)?,
        config,
        host_admin: flags.get("host-admin").map(String::from),
        host_proxy: flags.get("host-proxy").map(String::from),
        slots: slots.transpose()?,
        log_level,
        ..Default::default()
    };
    let handle = proxy::start(options).await?;
    let _pid = PidFile::write(flags)?;
    tracing::warn!(
        "{VERSION}: proxy serves {}, admin {}",
        handle.proxy_addr,
        handle.admin_addr
    );
    let stopper = handle.stopper();
    tokio::spawn(async move {
        if asked_to_stop().await.is_ok() {
            stopper.raise();
        }
    });
    handle.wait().await
}

/// The store whose lock tells where the dashboard is.
fn find_store(flags: &Flags, product: &str) -> Result<Option<Store>> {
    Ok(Coordinator::named(flags)?.map(|coordinator| coordinator.product(product)))
}

fn overrule(flags: &Flags, keys: &mut [(&str, &mut String)]) {
    for (name, value) in keys {
        if let Some(given) = flags.get(name) {
            **value = given.to_string();
        }
    }
}

async fn run_fe(flags: &Flags) -> Result<()> {
    let discovery = match (flags.get("dashboard-list"), Coordinator::named(flags)?) {
        (Some(file), None) => fe::Discovery::File(file.into()),
        (None, Some(coordinator)) => fe::Discovery::Store(coordinator),
        _ => bail!("{}", FE.usage),
    };
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(|folder| folder.join("assets")));
    let assets = flags
        .get("assets-dir")
        .map(PathBuf::from)
        .or(beside)
        .unwrap_or_default();
    let options = fe::Options {
        listen: flags.need("listen")?.to_string(),
        assets,
        discovery,
    };
    let handle = fe::start(options).await?;
    let _pid = PidFile::write(flags)?;
    tracing::warn!("{VERSION}: fe listens at {}", handle.addr);
    tokio::select! {
        stopped = asked_to_stop() => stopped,
        ended = handle.wait() => ended,
    }
}
