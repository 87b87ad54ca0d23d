//! The launcher's driver without a terminal: carries out what the job's machine asks for, checks output as it
//! comes, and places ranks in blocks over the hosts.

use crate::node::byte;
use crate::world::{ASLEEP, Event, Sim};
use bytes::Bytes;
use rmpi_control::{JobAction, JobEvent, JobEventOut, JobMachine};
use rmpi_types::launch::{AppLaunch, EnvMerge, StdioKind};
use rmpi_types::{JobId, NodeIdx, NodeLaunch, NodeReport, ProcId, Rank, RankLaunch};
use rmpi_wire::msg::Stream;
use rmpi_wire::service::Spawn;

impl Sim {
    pub(crate) fn job(&mut self, event: JobEvent) {
        if let Some(until) = self.asleep {
            // What comes to a stopped process waits, in order.
            return self.queue.push(until, Event::Job(Box::new(event)));
        }
        let mut out = Vec::new();
        let Some(job) = self.job.as_mut() else { return };
        job.on(self.now, event, &mut out);
        for action in out {
            self.job_action(action);
        }
        self.arm_job();
    }

    pub(crate) fn arm_job(&mut self) {
        let next = self.job.as_ref().and_then(JobMachine::next_timer);
        if let Some(at) = next.filter(|&at| self.job_timer.is_none_or(|old| at < old)) {
            self.job_timer = Some(at);
            self.queue.push(at.max(self.now), Event::JobTimer);
        }
    }

    fn job_action(&mut self, action: JobAction) {
        let soon = |sim: &mut Self, event| sim.queue.push(sim.now, Event::Job(Box::new(event)));
        match action {
            JobAction::Send { link, frame } => self.transmit(NodeIdx(link.0), true, frame),
            JobAction::Close { link } => self.close(NodeIdx(link.0), true),
            JobAction::Plan(reports) => {
                let plan = self.plan(&reports);
                soon(self, JobEvent::Planned(Ok(plan)));
            }
            JobAction::PlanSpawn { ns, by, order, nodes } => {
                let plan = self.plan_spawn(ns, by, &order, &nodes);
                soon(self, JobEvent::SpawnPlanned(plan));
            }
            JobAction::Output { proc, stream, bytes, last: _ } => {
                self.take_output(proc, stream, &bytes);
                let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let event = JobEvent::Written { proc, stream, bytes };
                self.queue.push(self.now + self.cfg.write, Event::Job(Box::new(event)));
            }
            JobAction::ReadStdin { up_to } => {
                let n = self.stdin_left.min(u64::from(up_to));
                self.stdin_left -= n;
                let bytes = Bytes::from(vec![0; usize::try_from(n).unwrap_or(0)]);
                soon(self, if n == 0 { JobEvent::StdinEof } else { JobEvent::Stdin(bytes) });
            }
            JobAction::Event(JobEventOut::NodeLost { node, .. }) => self.lost.push(node),
            JobAction::Event(JobEventOut::RankStarted { .. }) => self.started += 1,
            JobAction::SuspendSelf => {
                let until = self.now + ASLEEP;
                self.asleep = Some(until);
                self.queue.push(until, Event::Wake);
            }
            JobAction::Event(_) | JobAction::StdinRead { .. } => {}
            JobAction::Done(outcome) => {
                self.outcome = Some(*outcome);
                self.end_launcher();
            }
        }
    }

    fn take_output(&mut self, proc: ProcId, stream: Stream, bytes: &Bytes) {
        if stream == Stream::Stderr {
            return;
        }
        let got = &mut self.output[proc.rank.0 as usize];
        let right = bytes.iter().zip(*got..).all(|(b, k)| *b == byte(proc.rank.0, k));
        *got += bytes.len() as u64;
        if !right {
            self.wrong.push(format!("output of {proc} is not what it wrote"));
        }
    }

    /// Ranks in blocks over the hosts that reported.
    fn plan(&self, reports: &[(NodeIdx, NodeReport)]) -> Vec<(NodeIdx, NodeLaunch)> {
        let hosts: Vec<NodeIdx> = reports.iter().map(|(idx, _)| *idx).collect();
        self.blocks(ProcId::first(0), &hosts, self.cfg.ranks_per_node)
    }

    /// One new rank on each of the first nodes that run.
    fn plan_spawn(
        &self,
        ns: ProcId,
        by: ProcId,
        order: &Spawn,
        running: &[NodeIdx],
    ) -> Result<Vec<(NodeIdx, NodeLaunch)>, String> {
        let wanted = order.apps.iter().map(|a| a.ranks as usize).sum::<usize>();
        let hosts = running.get(..wanted).ok_or("too few nodes run")?;
        let mut plan = self.blocks(ns, hosts, 1);
        plan.iter_mut().for_each(|(_, launch)| launch.mpi.parent = Some(by));
        Ok(plan)
    }

    fn blocks(&self, ns: ProcId, hosts: &[NodeIdx], per_node: u32) -> Vec<(NodeIdx, NodeLaunch)> {
        let nodes = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        let app = AppLaunch {
            program: "train".into(),
            args: Vec::new(),
            wdir: "/".into(),
            wdir_explicit: false,
            search: Vec::new(),
            merge: EnvMerge::Fill,
            env: Vec::new(),
            set: Vec::new(),
            edits: Vec::new(),
        };
        let rank = |first: u32, local: u32| RankLaunch {
            rank: Rank(first + local),
            app: 0,
            local_rank: local,
            cpus: None,
            stdin: ns.ns.0 == 0,
        };
        let launch = |(dense, idx): (u32, &NodeIdx)| {
            let launch = NodeLaunch {
                job: JobId([1; 16]),
                ns,
                node: NodeIdx(dense),
                nodes,
                size: nodes * per_node,
                universe: nodes * per_node,
                host: format!("n{idx}"),
                apps: vec![app.clone()],
                ranks: (0..per_node).map(|local| rank(dense * per_node, local)).collect(),
                layout: vec![(per_node, nodes)],
                mpi: rmpi_types::launch::Mpi::default(),
                reached_at: None,
                ifaces: Vec::new(),
                port_range: None,
                key: [2; 32],
                data: rmpi_types::DataPlane::default(),
                oversubscribed: false,
                stdio: StdioKind::Pipe,
                kill_grace_ms: 5000,
                drain_ms: 5000,
                extras: Default::default(),
                output_credit: self.cfg.credit,
            };
            (*idx, launch)
        };
        (0u32..).zip(hosts).map(launch).collect()
    }
}
