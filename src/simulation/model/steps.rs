//! What each step does, and when Codis refuses it (contract §7).

use std::collections::BTreeMap;

use super::life::{Life, number, percent};
use crate::{
    domain::{ActionState, Address, Dump, Group, GroupId, Intent, Sentinels, Server, SlotId, SlotMove},
    plan::{Step, dump_with},
};

impl Life {
    /// Does a step, up to the call at which the operator dies, if it does.
    pub(super) fn act(&mut self, step: &Step, dies_at: Option<usize>) -> Result<(), String> {
        let kept = self.dump_before(step);
        if let Some(dump) = kept {
            self.dump = Some(dump);
        }
        let calls = |all: usize| dies_at.map_or(all, |at| at.min(all));
        if self.away > 0 && !matches!(step, Step::ForgetGroup(_) | Step::ArmGate(_) | Step::Restart { .. }) {
            return Err("the dashboard is away".into());
        }
        match step {
            Step::CreateGroup(id) => self.create_group(*id)?,
            Step::AddServer { group, server, .. } => self.add_server(*group, server)?,
            Step::RemoveServer { group, server } => self.remove_server(*group, server)?,
            Step::RemoveGroup(id) => {
                if !self.known(*id)?.servers.is_empty() {
                    return Err(format!("group-[{id}] isn't empty"));
                }
                self.topology.groups.remove(id);
            }
            Step::ForgetGroup(id) => {
                self.gates.remove(id);
                if calls(2) > 1 {
                    self.sets.remove(id);
                    self.run_pods();
                }
            }
            Step::ArmGate(groups) => self.gates.extend(groups),
            Step::Attach { group, server } => {
                let master = self.known(*group)?.master().cloned().unwrap();
                let process = self.processes.get_mut(server).unwrap();
                if process.answers() && *server == master {
                    process.follows = None;
                } else if process.answers() {
                    process.attach(&master);
                }
            }
            Step::MoveSlots(moves) => {
                for (slot, to) in &moves[..calls(moves.len())] {
                    self.move_slot(*slot, *to)?;
                }
            }
            Step::CancelMoves(slots) => {
                for slot in &slots[..calls(slots.len())] {
                    let mapping = &mut self.topology.slots[number(*slot)];
                    if !mapping.moving.is_some_and(|moving| moving.pending) {
                        return Err(format!("slot-[{slot}] action isn't pending"));
                    }
                    mapping.moving = None;
                }
            }
            Step::AssignSlots(slots) => self.assign(&slots[..calls(slots.len())], dies_at.is_none())?,
            Step::RemoveProxy { token, .. } => self.topology.proxies.retain(|record| record.token != *token),
            Step::Announce { server, .. } => {
                let process = self.processes.get_mut(server).unwrap();
                // It connects anew to tell it.
                (process.announced, process.link) = (Some(server.clone()), false);
            }
            Step::HaltMoves => self.topology.migrations_disabled = true,
            Step::RestoreSlots(slots) => {
                let owners: Vec<_> = slots.iter().filter_map(|slot| Some((slot.id, slot.group?))).collect();
                self.assign(&owners[..calls(owners.len())], dies_at.is_none())?;
            }
            Step::ResumeMoves => self.topology.migrations_disabled = false,
            Step::MarkReplicas { group, servers, reads } => {
                let count = calls(servers.len());
                self.known(*group)?.out_of_sync = true;
                let known = self.known(*group)?.servers.iter_mut();
                known
                    .filter(|s| servers[..count].contains(&s.address))
                    .for_each(|s| s.is_read = *reads);
                if dies_at.is_none() {
                    self.resync_group(*group)?;
                }
            }
            Step::ResyncGroup(id) => self.resync_group(*id)?,
            Step::ResyncGroups => {
                let all: Vec<GroupId> = self.topology.groups.keys().copied().collect();
                all.into_iter().try_for_each(|id| self.resync_group(id))?;
            }
            Step::Promote { group, server } => self.promote(*group, server, dies_at.is_some())?,
            Step::Switchover { group, from, to, .. } => self.switch_over(*group, from, to, dies_at)?,
            Step::Undo(intent) => self.undo(intent)?,
            Step::OnlineProxy(admin) => {
                let known = self.proxies.iter().position(|proxy| proxy.admin == *admin).unwrap();
                self.register(known);
            }
            Step::Listen { proxies, sentinels } => {
                let records = self.topology.proxies.iter_mut();
                for record in records.filter(|record| proxies.iter().any(|(_, token)| *token == record.token)) {
                    record.sentinels = sentinels.iter().map(Address::to_string).collect();
                }
            }
            Step::AddSentinel(address) => {
                self.topology.sentinels.servers.push(address.clone());
                self.topology.sentinels.out_of_sync = true;
            }
            Step::ResyncSentinels => self.resync_sentinels()?,
            Step::Redirect {
                sentinels,
                group,
                master,
            } => {
                for sentinel in &sentinels[..calls(sentinels.len())] {
                    let sentinel = self.sentinels.get_mut(sentinel).unwrap();
                    sentinel.watches.insert(*group, master.clone());
                }
            }
            Step::Monitor {
                sentinel,
                group,
                master,
            } => {
                self.sentinels
                    .get_mut(sentinel)
                    .unwrap()
                    .watches
                    .insert(*group, master.clone());
            }
            other => return Err(format!("not in this model: {other:?}")),
        }
        Ok(())
    }

    /// What `dump::foresee` and `dump::restoring` keep before a step.
    pub(super) fn dump_before(&self, step: &Step) -> Option<Dump> {
        match step {
            Step::MoveSlots(moves) => dump_with(&self.desired(false), &self.observe(), moves),
            Step::RestoreSlots(slots) => {
                let mut dump = self.dump.clone()?;
                for slot in slots {
                    dump.slots[number(slot.id)] = *slot;
                }
                dump.restoring = true;
                Some(dump)
            }
            _ => None,
        }
    }

    pub(super) fn known(&mut self, id: GroupId) -> Result<&mut Group, String> {
        self.topology
            .groups
            .get_mut(&id)
            .ok_or_else(|| format!("group-[{id}] doesn't exist"))
    }

    pub(super) fn create_group(&mut self, id: GroupId) -> Result<(), String> {
        if self.topology.groups.contains_key(&id) {
            return Err(format!("group-[{id}] already exists"));
        }
        let group = Group {
            id,
            servers: Vec::new(),
            promoting: None,
            out_of_sync: false,
        };
        self.topology.groups.insert(id, group);
        Ok(())
    }

    pub(super) fn add_server(&mut self, id: GroupId, address: &Address) -> Result<(), String> {
        let mut all = self.topology.groups.values().flat_map(|group| &group.servers);
        if all.any(|server| server.address == *address) {
            return Err(format!("server-[{address}] already exists"));
        }
        if !self.processes[address].answers() {
            return Err(format!("dial tcp {address}: i/o timeout"));
        }
        let group = self.known(id)?;
        if group.promoting.is_some() {
            return Err(format!("group-[{id}] is promoting"));
        }
        let server = Server {
            address: address.clone(),
            action: ActionState::Idle,
            is_read: false,
        };
        group.servers.push(server);
        self.topology.sentinels.out_of_sync = !self.topology.sentinels.servers.is_empty();
        Ok(())
    }

    pub(super) fn remove_server(&mut self, id: GroupId, address: &Address) -> Result<(), String> {
        let is_used = self
            .topology
            .slots
            .iter()
            .any(|slot| slot.group == Some(id) || slot.moves_with(id));
        let group = self.known(id)?;
        if group.promoting.is_some() {
            return Err(format!("group-[{id}] is promoting"));
        }
        let index = group.servers.iter().position(|server| server.address == *address);
        match index {
            None => return Err(format!("group-[{id}] doesn't have server-[{address}]")),
            Some(0) if is_used || group.servers.len() > 1 => {
                return Err(format!("group-[{id}] can't remove master, still in use"));
            }
            Some(index) => drop(group.servers.remove(index)),
        }
        self.topology.sentinels.out_of_sync = !self.topology.sentinels.servers.is_empty();
        Ok(())
    }

    pub(super) fn move_slot(&mut self, slot: SlotId, to: GroupId) -> Result<(), String> {
        if self.known(to)?.servers.is_empty() {
            return Err(format!("group-[{to}] is empty"));
        }
        let mapping = &mut self.topology.slots[number(slot)];
        if mapping.moving.is_some() {
            return Err(format!("slot-[{slot}] action already exists"));
        }
        if mapping.group == Some(to) {
            return Err(format!("slot-[{slot}] already in group-[{to}]"));
        }
        mapping.moving = Some(SlotMove { to, pending: true });
        Ok(())
    }

    /// Fails at the first proxy that doesn't answer (contract §15.2).
    fn resync_group(&mut self, id: GroupId) -> Result<(), String> {
        self.all_proxies_answer()?;
        self.known(id)?.out_of_sync = false;
        self.push_group(id);
        Ok(())
    }

    fn all_proxies_answer(&self) -> Result<(), String> {
        let dead = self.has_dead_record();
        (!dead)
            .then_some(())
            .ok_or_else(|| "proxy resync slots failed".to_owned())
    }

    /// A dashboard that dies in it has told no proxy.
    pub(super) fn assign(&mut self, slots: &[(SlotId, GroupId)], is_told: bool) -> Result<(), String> {
        for (slot, to) in slots {
            let group = self.known(*to)?;
            if group.servers.is_empty() {
                return Err(format!("group-[{to}] is empty"));
            }
            group.out_of_sync = true;
            self.topology.slots[number(*slot)].group = Some(*to);
        }
        let told: Vec<usize> = slots.iter().map(|(slot, _)| number(*slot)).collect();
        if is_told {
            self.all_proxies_answer()?;
            self.push(&told);
        }
        Ok(())
    }

    pub(super) fn promote(&mut self, id: GroupId, to: &Address, fails: bool) -> Result<(), String> {
        let has_sentinels = !self.topology.sentinels.servers.is_empty();
        let fails = fails || self.has_dead_record();
        let group = self.known(id)?;
        let Some(index) = group.servers.iter().position(|server| server.address == *to) else {
            return Err(format!("group-[{id}] doesn't have server-[{to}]"));
        };
        match group.promoting {
            None if index == 0 => return Err(format!("group-[{id}] can't promote master")),
            Some(other) if other != index => return Err(format!("group-[{id}] is promoting index = {other}")),
            _ => {}
        }
        if fails {
            group.promoting = Some(index);
            return Err("resync slots failed".into());
        }
        if index > 0 {
            let new = group.servers.remove(index);
            let old = group.servers.remove(0);
            group.servers.insert(0, new);
            group.servers.push(old);
        }
        (group.promoting, group.out_of_sync) = (None, false);
        self.topology.sentinels.out_of_sync = has_sentinels;
        for sentinel in self
            .sentinels
            .values_mut()
            .filter(|sentinel| has_sentinels && sentinel.out == 0)
        {
            sentinel.watches.remove(&id);
        }
        let process = self.processes.get_mut(to).unwrap();
        if process.answers() {
            process.follows = None;
        }
        self.push_group(id);
        Ok(())
    }

    /// Fenced and waited for: the new master has all that the old one had. It may die with the intent written, with the
    /// promotion begun, or before the old master follows.
    pub(super) fn switch_over(
        &mut self,
        id: GroupId,
        from: &Address,
        to: &Address,
        dies_at: Option<usize>,
    ) -> Result<(), String> {
        self.intent = Some(Intent {
            group: id,
            from: from.clone(),
            to: to.clone(),
        });
        self.topology.migrations_disabled = true;
        let is_in_touch = self.processes[to].link && self.processes[from].is_master();
        if !is_in_touch {
            let tries = self.failed_moves.get(&id).map_or(0, |(tries, _)| *tries);
            self.failed_moves.insert(id, (tries + 1, 0));
            (self.intent, self.topology.migrations_disabled) = (None, false);
            return Err("the replica isn't in step".into());
        }
        match dies_at {
            Some(0) => return Err("it died".into()),
            Some(1) => return self.promote(id, to, true),
            _ => self.promote(id, to, false)?,
        }
        if dies_at.is_some() {
            return Err("it died".into());
        }
        self.processes.get_mut(from).unwrap().attach(to);
        self.failed_moves.remove(&id);
        (self.intent, self.topology.migrations_disabled) = (None, percent(&mut self.chance, 20));
        Ok(())
    }

    pub(super) fn undo(&mut self, intent: &Intent) -> Result<(), String> {
        let tries = self.failed_moves.get(&intent.group).map_or(0, |(tries, _)| *tries);
        self.failed_moves.insert(intent.group, (tries + 1, 0));
        let group = self.known(intent.group)?;
        let is_done = group.master() == Some(&intent.to);
        let from = self.processes.get_mut(&intent.from).unwrap();
        if is_done && from.answers() {
            from.attach(&intent.to);
        }
        (self.intent, self.topology.migrations_disabled) = (None, false);
        Ok(())
    }

    pub(super) fn resync_sentinels(&mut self) -> Result<(), String> {
        let Sentinels { servers, .. } = &self.topology.sentinels;
        if servers.iter().any(|sentinel| self.sentinels[sentinel].out > 0) {
            return Err("dial tcp: i/o timeout".into());
        }
        let masters = self.topology.groups.values();
        let masters: BTreeMap<GroupId, Address> = masters.filter_map(|g| Some((g.id, g.master()?.clone()))).collect();
        for sentinel in servers {
            self.sentinels.get_mut(sentinel).unwrap().watches.clone_from(&masters);
        }
        let told: Vec<String> = servers.iter().map(Address::to_string).collect();
        self.topology
            .proxies
            .iter_mut()
            .for_each(|record| record.sentinels.clone_from(&told));
        self.topology.sentinels.masters = masters;
        self.topology.sentinels.out_of_sync = false;
        Ok(())
    }
}
