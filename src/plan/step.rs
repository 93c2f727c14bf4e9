//! What `plan` returns: one step at most, what is waited for, and what must not be done.

use std::fmt;

use crate::domain::{Address, GroupId, Intent, Part, SlotId, SlotMapping};

/// Reasons, as conditions and events show them.
pub mod reason {
    /// Wished pods aren't ready.
    pub const PODS_NOT_READY: &str = "PodsNotReady";
    /// The dashboard doesn't answer, or waits for its lock.
    pub const DASHBOARD_NOT_READY: &str = "DashboardNotReady";
    /// A person stopped it: paused, or a hold.
    pub const HELD: &str = "Held";
    /// Masters are moved only when a person asks.
    pub const SUPERVISED: &str = "Supervised";
    /// A master can't be moved yet.
    pub const SWITCHOVER: &str = "Switchover";
    /// A promotion that was asked for can't be.
    pub const PROMOTION_REFUSED: &str = "PromotionRefused";
    /// A node is being drained.
    pub const DRAINING: &str = "Draining";
    /// A node doesn't come back.
    pub const NODE_LOST: &str = "NodeLost";
    /// Servers are being replaced by ones of the changed spec.
    pub const ROLLING: &str = "Rolling";
    /// A group's master was replaced three times within ten minutes.
    pub const FLAPPING: &str = "Flapping";
    /// Servers don't answer yet.
    pub const SERVERS_NOT_READY: &str = "ServersNotReady";
    /// Replicas aren't in sync yet.
    pub const REPLICATION: &str = "Replication";
    /// A failover hasn't ended.
    pub const FAILOVER: &str = "Failover";
    /// Sentinels don't all watch every group.
    pub const SENTINELS_NOT_READY: &str = "SentinelsNotReady";
    /// Proxies aren't online.
    pub const PROXIES_NOT_READY: &str = "ProxiesNotReady";
    /// Slots move to another group.
    pub const MOVING_SLOTS: &str = "MovingSlots";
    /// Slots don't arrive.
    pub const SLOW_MOVES: &str = "SlowSlotMoves";
    /// A group that isn't wished any more isn't gone yet.
    pub const GROUP_LEAVES: &str = "GroupLeaves";
    /// Blocked: what a group has doesn't fit into the others.
    pub const NO_ROOM: &str = "NoRoom";
    /// Blocked: a group that is to leave has keys and no slots.
    pub const GROUP_NOT_EMPTY: &str = "GroupNotEmpty";
    /// A proxy that is no pod of the cluster.
    pub const FOREIGN_PROXY: &str = "ForeignProxy";
    /// Blocked: the API server refuses what is applied.
    pub const API_REFUSED: &str = "ApiServerRefused";
    /// Codis refused a step.
    pub const STEP_FAILED: &str = "StepFailed";
    /// Blocked: servers hold keys and the topology doesn't say where they belong.
    pub const TOPOLOGY_LOST: &str = "TopologyLost";
    /// A server has another address than the topology says.
    pub const ADDRESS_CHANGED: &str = "AddressChanged";
    /// The dump of the topology can't be written.
    pub const DUMP_NOT_KEPT: &str = "DumpNotKept";
    /// The topology was lost and is put back.
    pub const RESTORING: &str = "RestoringTopology";
    /// Blocked: the product is another cluster's: it holds the lock, has members in it, or was first to name it.
    pub const PRODUCT_OWNED_ELSEWHERE: &str = "ProductOwnedElsewhere";
    /// Blocked: every copy of a group's data is gone.
    pub const GROUP_LOST: &str = "GroupLost";
    /// Blocked: the official master is empty and another server has data.
    pub const MASTER_EMPTIED: &str = "MasterEmptied";
    /// Blocked: a master is gone and no replica is known to have had its data to the end.
    pub const NO_FIT_REPLICA: &str = "NoFitReplica";
    /// Blocked: two servers of a group are masters with data, and nobody knows which one was last.
    pub const SPLIT_MASTERS: &str = "SplitMasters";
    /// Blocked: a new member has data of its own.
    pub const SERVER_HAS_DATA: &str = "ServerHasData";
    /// Blocked: the images hold the stand-in.
    pub const STAND_IN_REFUSED: &str = "StandInRefused";
    /// Blocked: volumes of an earlier cluster of this name exist.
    pub const OLD_VOLUMES: &str = "OldVolumes";
    /// Blocked: an object of a wished name isn't ours.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// Blocked: objects of the predecessor exist.
    pub const ADOPTION_REQUIRED: &str = "AdoptionRequired";
    /// What the predecessor deployed is being taken over.
    pub const TAKING_OVER: &str = "TakingOver";
    /// Blocked: what the predecessor deployed can't be taken over as it is.
    pub const TAKEOVER_BLOCKED: &str = "TakeoverBlocked";
    /// Blocked: the spec makes no sense.
    pub const INVALID_SPEC: &str = "InvalidSpec";
}

/// One unit that changes the outside world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Mark the product as this cluster's. Nothing is written into it before.
    ClaimProduct,
    /// Take a proxy's record out of the dashboard, whether it answers or not.
    RemoveProxy {
        /// Its token.
        token: String,
        /// Its address.
        admin: Address,
    },
    /// Let a group start without data: every copy of it is provably gone.
    StartEmpty {
        /// The group.
        group: GroupId,
        /// The members' pods with their uids, to be made anew.
        pods: Vec<(String, String)>,
    },
    /// Create a group.
    CreateGroup(GroupId),
    /// Add a server to a group.
    AddServer {
        /// The group.
        group: GroupId,
        /// The server.
        server: Address,
        /// The zone of the node that its pod is on.
        zone: Option<String>,
    },
    /// Take a server out of its group: a replica, or the last one of a group without slots.
    RemoveServer {
        /// The group.
        group: GroupId,
        /// The server.
        server: Address,
    },
    /// Take an empty group out of the topology.
    RemoveGroup(GroupId),
    /// Have proxies read from servers of a group, or from none of these any more.
    MarkReplicas {
        /// The group.
        group: GroupId,
        /// The servers.
        servers: Vec<Address>,
        /// Whether they are to be read from.
        reads: bool,
    },
    /// Delete what ran a group that the topology doesn't have any more.
    ForgetGroup(GroupId),
    /// Have the dashboard move slots, with their keys.
    MoveSlots(Vec<(SlotId, GroupId)>),
    /// Cancel moves that haven't begun.
    CancelMoves(Vec<SlotId>),
    /// Let the dashboard move slots again: it was told to pause for a switchover.
    ResumeMoves,
    /// Have no slot move, also none that has begun.
    HaltMoves,
    /// Set the pause between two steps of a slot's move, in microseconds.
    PaceMoves(u32),
    /// Make a replica its group's master.
    Promote {
        /// The group.
        group: GroupId,
        /// The replica.
        server: Address,
    },
    /// Tell the proxies the official order of a group.
    ResyncGroup(GroupId),
    /// Tell the proxies the official order of all groups.
    ResyncGroups,
    /// Have proxies listen to these sentinels.
    Listen {
        /// Their administrative addresses and tokens.
        proxies: Vec<(Address, String)>,
        /// The sentinels.
        sentinels: Vec<Address>,
    },
    /// Make a server follow its group's master.
    Attach {
        /// The group.
        group: GroupId,
        /// The server.
        server: Address,
    },
    /// Have a replica announce its present address to its master, from whom sentinels learn it.
    Announce {
        /// The group.
        group: GroupId,
        /// The server.
        server: Address,
    },
    /// Make a sentinel known to the dashboard.
    AddSentinel(Address),
    /// Have the dashboard forget a sentinel that has another address now.
    RemoveSentinel(Address),
    /// Have the dashboard configure all sentinels anew.
    ResyncSentinels,
    /// Tell one sentinel of a master that it doesn't know.
    Monitor {
        /// The sentinel.
        sentinel: Address,
        /// The group.
        group: GroupId,
        /// The master.
        master: Address,
    },
    /// Have sentinels watch a master at its present address that they know by one that it had.
    Redirect {
        /// The sentinels.
        sentinels: Vec<Address>,
        /// The group.
        group: GroupId,
        /// The master.
        master: Address,
    },
    /// Have one sentinel connect anew to a master that was restarted.
    Relink {
        /// The sentinel.
        sentinel: Address,
        /// The group.
        group: GroupId,
        /// The master.
        master: Address,
    },
    /// Let a server that was restarted take writes without a replica again.
    Unfence(Address),
    /// Arm the start gate of groups: from now on no member starts as a master without data.
    ArmGate(Vec<GroupId>),
    /// Make a replica its group's master without losing a write (design, decision 4).
    Switchover {
        /// The group.
        group: GroupId,
        /// The master.
        from: Address,
        /// The replica that is to be.
        to: Address,
        /// Why.
        why: String,
    },
    /// Leave no trace of a switchover that was begun: no lock, no fence, no intent.
    Undo(Intent),
    /// Have Kubernetes make a pod anew.
    Restart {
        /// The pod's name.
        pod: String,
        /// Its uid: of one that was made since, nothing is known.
        uid: String,
        /// Why.
        why: String,
    },
    /// Remove a pod object whose process is provably gone: nobody will confirm its end.
    RemovePod {
        /// The pod's name.
        pod: String,
        /// Its uid.
        uid: String,
        /// Why.
        why: String,
    },
    /// Give up a volume that went with its node: its server is made anew elsewhere.
    ForgetVolume {
        /// The claim.
        claim: String,
        /// Its uid.
        uid: String,
        /// The node.
        node: String,
    },
    /// Assign slots in bulk.
    AssignSlots(Vec<(SlotId, GroupId)>),
    /// Assign slots as they were before the topology was lost; those that were on their way follow.
    RestoreSlots(Vec<SlotMapping>),
    /// Have the dashboard take a proxy online.
    OnlineProxy(Address),
    /// Give up a part of what the predecessor made; its volumes stay.
    Retire(Part),
}

impl Step {
    /// The event's reason, CamelCase.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ClaimProduct => "ClaimProduct",
            Self::RemoveProxy { .. } => "RemoveProxy",
            Self::StartEmpty { .. } => "GroupStartsEmpty",
            Self::CreateGroup(_) => "CreateGroup",
            Self::AddServer { .. } => "AddServer",
            Self::RemoveServer { .. } => "RemoveServer",
            Self::RemoveGroup(_) => "RemoveGroup",
            Self::MarkReplicas { .. } => "MarkReplicas",
            Self::ForgetGroup(_) => "ForgetGroup",
            Self::MoveSlots(_) => "MoveSlots",
            Self::CancelMoves(_) => "CancelMoves",
            Self::ResumeMoves => "ResumeMoves",
            Self::HaltMoves => "HaltMoves",
            Self::PaceMoves(_) => "PaceMoves",
            Self::Promote { .. } => "Promote",
            Self::ResyncGroup(_) => "ResyncGroup",
            Self::ResyncGroups => "ResyncGroups",
            Self::Listen { .. } => "ListenToSentinels",
            Self::Attach { .. } => "AttachReplica",
            Self::Announce { .. } => "AnnounceReplica",
            Self::AddSentinel(_) => "AddSentinel",
            Self::RemoveSentinel(_) => "RemoveSentinel",
            Self::ResyncSentinels => "ResyncSentinels",
            Self::Monitor { .. } => "MonitorMaster",
            Self::Redirect { .. } => "RedirectSentinels",
            Self::Relink { .. } => "RelinkSentinel",
            Self::Unfence(_) => "UnfenceServer",
            Self::ArmGate(_) => "ArmStartGate",
            Self::AssignSlots(_) => "AssignSlots",
            Self::RestoreSlots(_) => "RestoreSlots",
            Self::OnlineProxy(_) => "OnlineProxy",
            Self::Retire(_) => "RetirePredecessor",
            Self::Switchover { .. } => "Switchover",
            Self::Undo(_) => "UndoSwitchover",
            Self::Restart { .. } => "RestartPod",
            Self::RemovePod { .. } => "RemovePod",
            Self::ForgetVolume { .. } => "ForgetVolume",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClaimProduct => f.write_str("mark the product as this cluster's"),
            Self::RemoveProxy { admin, .. } => write!(f, "remove the record of the dead proxy {admin}"),
            Self::StartEmpty { group, .. } => {
                write!(f, "let group {group} start empty: every copy of its data is gone")
            }
            Self::CreateGroup(group) => write!(f, "create group {group}"),
            Self::AddServer { group, server, .. } => write!(f, "add {server} to group {group}"),
            Self::RemoveServer { group, server } => write!(f, "take {server} out of group {group}"),
            Self::RemoveGroup(group) => write!(f, "take group {group} out of the topology: it is empty"),
            Self::MarkReplicas { group, servers, reads } => {
                let what = if *reads { "have" } else { "have no" };
                write!(f, "{what} reads go to {} of group {group}", list(servers))
            }
            Self::ForgetGroup(group) => write!(f, "delete what ran group {group}; its volumes stay"),
            Self::MoveSlots(moves) => write!(f, "move {} slots", moves.len()),
            Self::CancelMoves(slots) => write!(f, "cancel the moves of {} slots", slots.len()),
            Self::ResumeMoves => f.write_str("let slots move again"),
            Self::HaltMoves => f.write_str("halt the moves of slots"),
            Self::PaceMoves(interval) => write!(f, "wait {interval} µs between two steps of a slot's move"),
            Self::Promote { group, server } => write!(f, "promote {server} to master of group {group}"),
            Self::ResyncGroup(group) => write!(f, "make the order of group {group} official at the proxies"),
            Self::ResyncGroups => f.write_str("make the order of all groups official at the proxies"),
            Self::Listen { proxies, sentinels } => {
                let admins: Vec<&Address> = proxies.iter().map(|(admin, _)| admin).collect();
                let count = sentinels.len();
                write!(f, "have the proxies {} listen to {count} sentinels", list(&admins))
            }
            Self::Attach { group, server } => write!(f, "attach {server} to the master of group {group}"),
            Self::Announce { group, server } => {
                write!(
                    f,
                    "have {server} announce its present address to the master of group {group}"
                )
            }
            Self::AddSentinel(sentinel) => write!(f, "make sentinel {sentinel} known to the dashboard"),
            Self::RemoveSentinel(sentinel) => write!(f, "have the dashboard forget sentinel {sentinel}"),
            Self::ResyncSentinels => f.write_str("configure all sentinels"),
            Self::Monitor {
                sentinel,
                group,
                master,
            } => {
                write!(
                    f,
                    "tell sentinel {sentinel} that {master} is the master of group {group}"
                )
            }
            Self::Redirect {
                sentinels,
                group,
                master,
            } => {
                let sentinels = list(sentinels);
                write!(
                    f,
                    "tell the sentinels {sentinels} that the master of group {group} is at {master} now"
                )
            }
            Self::Relink { sentinel, master, .. } => {
                write!(
                    f,
                    "have sentinel {sentinel} connect anew to {master}, which was restarted"
                )
            }
            Self::Unfence(server) => {
                write!(
                    f,
                    "let {server}, which was restarted, take writes without a replica again"
                )
            }
            Self::ArmGate(groups) => {
                write!(f, "arm the start gate of groups {}", list(groups))
            }
            Self::Switchover { group, from, to, why } => {
                write!(f, "hand group {group} over from {from} to {to}: {why}")
            }
            Self::Undo(intent) => write!(
                f,
                "clear away a switchover of group {} from {} to {}",
                intent.group, intent.from, intent.to
            ),
            Self::RemovePod { pod, why, .. } => write!(f, "remove pod {pod}: {why}"),
            Self::ForgetVolume { claim, node, .. } => {
                write!(f, "give up the claim {claim}, whose volume went with node {node}")
            }
            Self::Restart { pod, why, .. } => write!(f, "make pod {pod} anew: {why}"),
            Self::AssignSlots(slots) => write!(f, "assign {} slots", slots.len()),
            Self::RestoreSlots(slots) => write!(f, "put {} slots back where the dump has them", slots.len()),
            Self::OnlineProxy(admin) => write!(f, "take proxy {admin} online"),
            Self::Retire(part @ (Part::ProxyService | Part::FeService)) => {
                write!(f, "have the predecessor's {part} lead to ours")
            }
            Self::Retire(part @ Part::Proxies) => {
                write!(f, "delete the predecessor's {part}; its pods serve until ours do")
            }
            Self::Retire(part @ Part::Servers) => write!(f, "delete the predecessor's {part}; their volumes stay"),
            Self::Retire(part) => write!(f, "delete the predecessor's {part}"),
        }
    }
}

/// Numbers with commas between them.
pub(super) fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A reason and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// One of [`reason`].
    pub reason: &'static str,
    /// What is waited for, or must not be done and how a person can help.
    pub message: String,
}

/// The next step and all that stands in the way of being done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What to do now.
    pub step: Option<Step>,
    /// Whether the step could wait.
    pub is_voluntary: bool,
    /// What is waited for.
    pub waits: Vec<Note>,
    /// What a person has to decide.
    pub blocked: Vec<Note>,
    /// What is worth telling and changes nothing.
    pub alarms: Vec<Note>,
    /// Nodes that are being emptied or are lost, each with what that waits for.
    pub nodes: Vec<String>,
}

impl Decision {
    /// Notes what is waited for.
    pub fn wait(&mut self, reason: &'static str, message: String) {
        self.waits.push(Note { reason, message });
    }
    /// Notes that something must not be done without a person.
    pub fn block(&mut self, reason: &'static str, message: String) {
        self.blocked.push(Note { reason, message });
    }
    /// Notes what is worth telling and changes nothing.
    pub fn alarm(&mut self, reason: &'static str, message: String) {
        self.alarms.push(Note { reason, message });
    }
    /// Whether nothing is left to do or to wait for.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.step.is_none() && self.waits.is_empty() && self.blocked.is_empty()
    }
}
