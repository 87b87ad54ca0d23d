//! More ranks while others run (a spawned namespace): one order at a time is prepared and started beside what
//! runs. The node does not end meanwhile; what is being stopped takes no more ranks.

use super::ranks::Ranks;
use super::{DaemonAction, DaemonEvent, DaemonMachine, Phase, Sweep, of_a_rank};
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::launch::NodeEndpoints;
use rmpi_types::{EndpointTable, LaunchFault, Namespace, NodeLaunch, ProcId, Stage};
use rmpi_wire::Up;
use rmpi_wire::msg::Stream;

/// Where an order for more ranks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Preparing,
    Prepared,
    Spawning,
}

/// An order for more ranks that has not come to run yet.
#[derive(Debug)]
pub(super) struct More {
    step: Step,
    ns: Namespace,
    ranks: Ranks,
    /// What its quick ranks did before the driver had told of their start.
    held: Vec<DaemonEvent>,
}

impl DaemonMachine {
    /// Whether more ranks are on their way.
    pub(super) fn more_coming(&self) -> bool {
        self.more.is_some()
    }

    /// Whether they are being started at this moment: what stops ranks waits for that.
    pub(super) fn more_spawning(&self) -> bool {
        self.more.as_ref().is_some_and(|m| m.step == Step::Spawning)
    }

    fn stopping(&self) -> bool {
        self.leaving || self.stop.is_some() || self.sweep != Sweep::No
    }

    /// Prepares more ranks, unless the node is ending.
    pub(super) fn prepare_more(&mut self, now: Time, launch: Box<NodeLaunch>, out: &mut Vec<DaemonAction>) {
        if self.phase != Phase::Running || self.stopping() || self.more.is_some() {
            return self.refuse_more("the node is busy or ending", out);
        }
        self.more = Some(More {
            step: Step::Preparing,
            ns: launch.ns.ns,
            ranks: Ranks::new(&launch, now),
            held: Vec::new(),
        });
        out.push(DaemonAction::Prepare(launch));
    }

    fn refuse_more(&mut self, why: &str, out: &mut Vec<DaemonAction>) {
        self.send_up(Up::Failed(LaunchFault::passing(Stage::Exec, why)), Bytes::new(), out);
    }

    pub(super) fn more_prepared(
        &mut self,
        result: Result<NodeEndpoints, LaunchFault>,
        out: &mut Vec<DaemonAction>,
    ) {
        let Some(more) = self.more.as_mut().filter(|m| m.step == Step::Preparing) else { return };
        match result {
            Ok(endpoints) => {
                more.step = Step::Prepared;
                self.send_up(Up::Prepared(endpoints), Bytes::new(), out);
            }
            Err(fault) => self.more_failed(fault, out),
        }
    }

    /// Starts what was prepared; an empty table gives it up.
    pub(super) fn start_more(
        &mut self,
        table: EndpointTable,
        out: &mut Vec<DaemonAction>,
    ) -> Result<(), String> {
        let stopping = self.stopping();
        let Some(more) = self.more.as_mut().filter(|m| m.step == Step::Prepared) else {
            return Err("start of what is not prepared".into());
        };
        if table.nodes.is_empty() {
            self.more = None;
            self.ended_meanwhile(out);
        } else if stopping {
            self.more_failed(LaunchFault::passing(Stage::Exec, "the node is ending"), out);
        } else {
            more.step = Step::Spawning;
            out.push(DaemonAction::Spawn(table));
        }
        Ok(())
    }

    fn more_failed(&mut self, fault: LaunchFault, out: &mut Vec<DaemonAction>) {
        self.more = None;
        self.send_up(Up::Failed(fault), Bytes::new(), out);
        self.ended_meanwhile(out);
    }

    pub(super) fn more_spawned(
        &mut self,
        now: Time,
        result: Result<Vec<(ProcId, u32)>, LaunchFault>,
        out: &mut Vec<DaemonAction>,
    ) {
        let Some(more) = self.more.take_if(|m| m.step == Step::Spawning) else { return };
        match result {
            Err(fault) => {
                self.send_up(Up::Failed(fault), Bytes::new(), out);
            }
            Ok(pids) => {
                self.send_up(Up::Started(pids), Bytes::new(), out);
                for (proc, stream, bytes) in self.ranks.add(more.ranks) {
                    out.push(DaemonAction::Read { proc, stream, bytes });
                }
                for event in more.held {
                    self.take(now, event, out);
                }
            }
        }
        self.catch_up(now, out);
        self.ended_meanwhile(out);
    }

    /// The ranks that ran may have ended while more were expected.
    fn ended_meanwhile(&mut self, out: &mut Vec<DaemonAction>) {
        if self.ranks.all_reported() {
            self.all_reported(out);
        }
    }

    /// Keeps what ranks do that are being started; false for anything else.
    pub(super) fn hold_more(&mut self, event: DaemonEvent) -> Option<DaemonEvent> {
        let spawning = self.more.as_mut().filter(|m| m.step == Step::Spawning);
        match spawning {
            Some(more) if of_a_rank(&event).is_some_and(|proc| proc.ns == more.ns) => {
                more.held.push(event);
                None
            }
            _ => Some(event),
        }
    }
}

/// The streams of ranks and what may be read of them.
pub(super) type Credits = Vec<(ProcId, Stream, u32)>;
