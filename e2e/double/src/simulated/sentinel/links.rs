//! A sentinel's conversations. Each is bounded: what isn't answered in time was not answered.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Sentinel;
use super::state::{HELLO, Instance, Peer, State, Task};
use crate::host;
use crate::redis::Connection;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The channel of hellos.
const CHANNEL: &str = "__sentinel__:hello";

/// Does a task, beside everything else.
pub(super) fn run(sentinel: &Sentinel, task: Task) {
    host::spawn(act(sentinel.clone(), task));
}

async fn act(sentinel: Sentinel, task: Task) {
    match task {
        Task::Look {
            master,
            address,
            password,
            info,
            hello,
        } => {
            let looked = timeout(PATIENCE, look(&address, &password, info, hello)).await;
            sentinel.state().looked(&master, &address, looked.ok().flatten());
        }
        Task::Subscribe {
            master,
            address,
            password,
        } => {
            let _ = hear(&sentinel, &address, &password).await;
            sentinel.state().heard.remove(&(master, address));
        }
        Task::Peer { master, id, address } => {
            let answered = timeout(PATIENCE, ping(&address)).await.is_ok_and(|pong| pong);
            sentinel.state().peer_answered(&master, &id, answered);
        }
        Task::Ask {
            master,
            id,
            address,
            words,
        } => {
            if let Ok(Some(said)) = timeout(PATIENCE, ask(&address, &words)).await {
                sentinel.state().peer_said(&master, &id, said);
            }
        }
        Task::Slaveof { address, password, to } => {
            let _ = timeout(PATIENCE, slave_of(&address, &password, to.as_deref())).await;
        }
    }
}

/// A PING, and what else is due; the INFO, empty if none was asked for.
async fn look(address: &str, password: &str, info: bool, hello: Option<String>) -> Option<BTreeMap<String, String>> {
    let mut connection = Connection::open(address, password, PATIENCE).await.ok()?;
    connection.command(&["PING"]).await.ok()?;
    if let Some(hello) = hello {
        connection.command(&["PUBLISH", CHANNEL, &hello]).await.ok()?;
    }
    if info {
        return connection.plain_info().await.ok();
    }
    Some(BTreeMap::new())
}

async fn hear(sentinel: &Sentinel, address: &str, password: &str) -> Option<()> {
    let mut connection = Connection::open(address, password, PATIENCE).await.ok()?;
    connection.command(&["SUBSCRIBE", CHANNEL]).await.ok()?;
    loop {
        // At least its own hellos arrive, where anything does.
        let message = timeout(3 * HELLO, connection.next()).await.ok()?.ok()?;
        let text = message.items().get(2).and_then(|payload| payload.text())?;
        sentinel.state().hello(&text);
    }
}

async fn ping(address: &str) -> bool {
    match Connection::open(address, "", PATIENCE).await {
        Ok(mut connection) => connection.command(&["PING"]).await.is_ok(),
        Err(_) => false,
    }
}

/// Whether the other one says that the master is down, and its vote.
async fn ask(address: &str, words: &[String]) -> Option<(bool, String, u64)> {
    let mut connection = Connection::open(address, "", PATIENCE).await.ok()?;
    let mut command = vec!["SENTINEL".to_owned(), "is-master-down-by-addr".to_owned()];
    command.extend_from_slice(words);
    let reply = connection.command(&command).await.ok()?;
    let [down, leader, epoch] = reply.items() else {
        return None;
    };
    Some((down.text()? == "1", leader.text()?, epoch.text()?.parse().ok()?))
}

async fn slave_of(address: &str, password: &str, to: Option<&str>) -> Option<()> {
    let mut connection = Connection::open(address, password, PATIENCE).await.ok()?;
    let (host, port) = to.and_then(|to| to.rsplit_once(':')).unwrap_or(("NO", "ONE"));
    let steps: [&[&str]; 5] = [
        &["MULTI"],
        &["SLAVEOF", host, port],
        &["CONFIG", "REWRITE"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["EXEC"],
    ];
    for step in steps {
        connection.command(step).await.ok()?;
    }
    Some(())
}

impl State {
    /// What came of a look at a server; none for no answer.
    fn looked(&mut self, name: &str, address: &str, info: Option<BTreeMap<String, String>>) {
        let Some(master) = self.masters.get_mut(name) else {
            return;
        };
        let is_master = master.address == address;
        let instance = if is_master {
            Some(&mut master.instance)
        } else {
            master.replicas.get_mut(address)
        };
        let Some(instance) = instance else { return };
        instance.is_busy = false;
        let Some(info) = info else {
            // The INFO that was due is due still.
            instance.next_info = Instant::now();
            return;
        };
        instance.last_ok = Instant::now();
        if info.is_empty() {
            return;
        }
        instance.learn(&info);
        if is_master && instance.reports_master {
            let replicas = (0..).map_while(|number| info.get(&format!("slave{number}")));
            for replica in replicas.filter_map(|line| replica_of(line)) {
                if replica != master.address {
                    master.replicas.entry(replica).or_insert_with(Instance::new);
                }
            }
        }
    }

    fn peer_answered(&mut self, name: &str, id: &str, answered: bool) {
        let peer = self.masters.get_mut(name).and_then(|master| master.peers.get_mut(id));
        if let Some(peer) = peer {
            peer.instance.is_busy = false;
            if answered {
                peer.instance.last_ok = Instant::now();
            }
        }
    }

    fn peer_said(&mut self, name: &str, id: &str, (down, leader, epoch): (bool, String, u64)) {
        let peer = self.masters.get_mut(name).and_then(|master| master.peers.get_mut(id));
        if let Some(peer) = peer {
            peer.instance.last_ok = Instant::now();
            peer.agrees_at = down.then(Instant::now);
            if leader != "*" {
                peer.vote = Some((leader, epoch));
            }
        }
    }
}

impl super::state::Master {
    /// A sentinel introduced itself.
    pub(super) fn meet(&mut self, id: &str, address: String) {
        let now = Instant::now();
        // One address is one sentinel: an older id there is gone.
        self.peers.retain(|known, peer| known == id || peer.address != address);
        let peer = self.peers.entry(id.to_owned()).or_insert_with(|| Peer {
            address: address.clone(),
            instance: Instance::new(),
            last_hello: now,
            agrees_at: None,
            vote: None,
            next_ask: now,
        });
        peer.address = address;
        peer.last_hello = now;
    }
}

impl Instance {
    fn learn(&mut self, info: &BTreeMap<String, String>) {
        let now = Instant::now();
        let text = |key: &str| info.get(key).cloned().unwrap_or_default();
        let number = |key: &str| text(key).parse::<i64>().unwrap_or(0);
        let is_master = text("role") == "master";
        if self.info_at.is_none() || is_master != self.reports_master {
            self.role_since = now;
        }
        self.reports_master = is_master;
        self.info_at = Some(now);
        self.run_id = text("run_id");
        let follows = format!("{}:{}", text("master_host"), text("master_port"));
        if follows != self.follows {
            (self.follows, self.follows_since) = (follows, now);
        }
        self.link_up = text("master_link_status") == "up";
        let down = u64::try_from(number("master_link_down_since_seconds")).unwrap_or(0);
        self.link_down = Duration::from_secs(down);
        self.offset = number("slave_repl_offset");
        self.priority = if info.contains_key("slave_priority") {
            number("slave_priority")
        } else {
            100
        };
    }
}

/// The address in `ip=1.2.3.4,port=6379,…`.
fn replica_of(line: &str) -> Option<String> {
    let part = |key: &str| line.split(',').find_map(|part| part.strip_prefix(key));
    Some(format!("{}:{}", part("ip=")?, part("port=")?))
}
