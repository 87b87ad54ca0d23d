//! Planning more ranks for a running job: which of its nodes get how many, and what each is told. A node with few
//! ranks for its slots comes first; the spawning rank's program says what is not said otherwise.

use rmpi_types::launch::{AppLaunch, Mpi, RankLaunch};
use rmpi_types::{NodeIdx, NodeLaunch, ProcId, Rank, RankSet};
use rmpi_wire::service::{Spawn, SpawnApp};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A node of the job.
#[derive(Debug)]
struct Place {
    host: NodeIdx,
    /// Its number among the job's nodes.
    node: u32,
    name: String,
    reached_at: Option<IpAddr>,
    /// Ranks it was planned for, which stand for its slots, and ranks it was given in all.
    slots: u32,
    load: u32,
}

/// What is kept of a job's plan for ranks to come.
#[derive(Debug)]
pub(crate) struct Base {
    template: NodeLaunch,
    places: Vec<Place>,
}

impl Base {
    /// Of a job as it was planned; `None` without a node.
    pub(crate) fn of(launches: &[(NodeIdx, NodeLaunch)]) -> Option<Self> {
        let (_, first) = launches.first()?;
        let mut template = first.clone();
        template.ranks.clear();
        template.apps.truncate(1);
        let place = |(host, launch): &(NodeIdx, NodeLaunch)| {
            let slots = u32::try_from(launch.ranks.len()).unwrap_or(u32::MAX).max(1);
            Place {
                host: *host,
                node: launch.node.0,
                name: launch.host.clone(),
                reached_at: launch.reached_at,
                slots,
                load: slots,
            }
        };
        Some(Self { template, places: launches.iter().map(place).collect() })
    }

    /// Plans one order on these nodes.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn plan(
        &mut self,
        ns: ProcId,
        by: ProcId,
        order: &Spawn,
        running: &[NodeIdx],
    ) -> Result<Vec<(NodeIdx, NodeLaunch)>, String> {
        let mut ranks: BTreeMap<usize, Vec<RankLaunch>> = BTreeMap::new();
        let mut sets = Vec::with_capacity(order.apps.len());
        let mut next = 0;
        for (index, app) in (0u32..).zip(&order.apps) {
            let first = next;
            let mut room = self.room(app, running)?;
            for _ in 0..app.ranks {
                let at = self.least_loaded(&room).ok_or("the hosts it names have no room for as many")?;
                room.retain_mut(|(place, left)| {
                    *place != at || {
                        *left -= 1;
                        *left > 0
                    }
                });
                self.places[at].load += 1;
                let here = ranks.entry(at).or_default();
                let local_rank = u32::try_from(here.len()).unwrap_or(u32::MAX);
                here.push(RankLaunch { rank: Rank(next), app: index, local_rank, cpus: None, stdin: false });
                next += 1;
            }
            sets.push(RankSet::range(first, next - 1));
        }
        let mpi = Mpi {
            pmi: self.template.mpi.pmi,
            apps: sets,
            nodes: ranks.keys().map(|at| self.places[*at].node).collect(),
            parent: Some(by),
            preputs: order.preputs.clone(),
        };
        let apps: Vec<AppLaunch> = order.apps.iter().map(|app| self.app(app)).collect::<Result<_, _>>()?;
        let layout =
            ranks.values().map(|r| (u32::try_from(r.len()).unwrap_or(u32::MAX), 1)).collect::<Vec<_>>();
        let nodes = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
        let launch = |(dense, (at, ranks)): (u32, (usize, Vec<RankLaunch>))| {
            let place = &self.places[at];
            let launch = NodeLaunch {
                ns,
                node: NodeIdx(dense),
                nodes,
                size: next,
                host: place.name.clone(),
                apps: apps.clone(),
                ranks,
                layout: layout.clone(),
                mpi: mpi.clone(),
                reached_at: place.reached_at,
                oversubscribed: place.load > place.slots,
                ..self.template.clone()
            };
            (place.host, launch)
        };
        Ok((0u32..).zip(ranks).map(launch).collect())
    }

    /// The places an application may use, and how many ranks each may get.
    fn room(&self, app: &SpawnApp, running: &[NodeIdx]) -> Result<Vec<(usize, u32)>, String> {
        let runs = |at: &usize| running.contains(&self.places[*at].host);
        if app.hosts.is_empty() {
            return Ok((0..self.places.len()).filter(runs).map(|at| (at, u32::MAX)).collect());
        }
        let mut room: Vec<(usize, u32)> = Vec::new();
        for text in &app.hosts {
            let (name, count) = match text.rsplit_once(':').map(|(n, c)| (n, c.parse::<u32>())) {
                Some((name, Ok(count))) => (name, count.max(1)),
                _ => (text.as_str(), u32::MAX),
            };
            let at = self.places.iter().position(|p| p.name == name);
            let at =
                at.filter(runs).ok_or_else(|| format!("host {name} is none of the job's that still run"))?;
            match room.iter_mut().find(|(place, _)| *place == at) {
                Some((_, old)) => *old = old.saturating_add(count),
                None => room.push((at, count)),
            }
        }
        Ok(room)
    }

    fn least_loaded(&self, room: &[(usize, u32)]) -> Option<usize> {
        // Compared without division: a/b < c/d.
        let less = |a: &&(usize, u32), b: &&(usize, u32)| {
            let (a, b) = (&self.places[a.0], &self.places[b.0]);
            (u64::from(a.load) * u64::from(b.slots)).cmp(&(u64::from(b.load) * u64::from(a.slots)))
        };
        room.iter().min_by(less).map(|(at, _)| *at)
    }

    fn app(&self, app: &SpawnApp) -> Result<AppLaunch, String> {
        let parent = self.template.apps.first().ok_or("the job has no program")?;
        let mut launch = AppLaunch {
            program: app.program.clone(),
            args: app.args.clone(),
            search: app.path.iter().cloned().chain(parent.search.iter().cloned()).collect(),
            ..parent.clone()
        };
        if let Some(wdir) = &app.wdir {
            let base = std::path::Path::new(&parent.wdir);
            launch.wdir = base.join(wdir).into();
            launch.wdir_explicit = true;
        }
        launch.set.extend(app.env.iter().cloned());
        Ok(launch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(i: u32, n: u32) -> NodeLaunch {
        let app = AppLaunch {
            program: "a".into(),
            args: Vec::new(),
            wdir: "/w".into(),
            wdir_explicit: false,
            search: Vec::new(),
            merge: rmpi_types::launch::EnvMerge::Fill,
            env: Vec::new(),
            set: Vec::new(),
            edits: Vec::new(),
        };
        let rank = |r| RankLaunch { rank: Rank(r), app: 0, local_rank: r, cpus: None, stdin: false };
        NodeLaunch {
            job: rmpi_types::JobId([7; 16]),
            ns: ProcId::default(),
            node: NodeIdx(i),
            nodes: 3,
            size: n,
            universe: n,
            host: format!("n{i}"),
            apps: vec![app],
            ranks: (0..n).map(rank).collect(),
            layout: vec![(n, 3)],
            mpi: Mpi::default(),
            reached_at: None,
            ifaces: Vec::new(),
            port_range: None,
            key: [1; 32],
            data: rmpi_types::DataPlane::default(),
            oversubscribed: false,
            stdio: rmpi_types::launch::StdioKind::Pipe,
            kill_grace_ms: 1000,
            drain_ms: 1000,
            extras: Default::default(),
            output_credit: 256 << 10,
        }
    }

    fn base(ranks: &[u32]) -> Base {
        let launches: Vec<_> = (0u32..).zip(ranks).map(|(i, n)| (NodeIdx(i), launch(i, *n))).collect();
        Base::of(&launches).unwrap()
    }

    fn order(apps: &[(u32, &[&str])]) -> Spawn {
        let app = |(ranks, hosts): &(u32, &[&str])| SpawnApp {
            program: "child".into(),
            ranks: *ranks,
            hosts: hosts.iter().map(ToString::to_string).collect(),
            ..SpawnApp::default()
        };
        Spawn { apps: apps.iter().map(app).collect(), preputs: Vec::new() }
    }

    fn plan(base: &mut Base, order: &Spawn) -> Result<Vec<(u32, Vec<u32>)>, String> {
        let all: Vec<NodeIdx> = base.places.iter().map(|p| p.host).collect();
        let plan = base.plan(ProcId::first(0), ProcId::first(1), order, &all)?;
        Ok(plan.into_iter().map(|(n, l)| (n.0, l.ranks.iter().map(|r| r.rank.0).collect())).collect())
    }

    #[test]
    fn new_ranks_go_where_the_load_is_least() {
        let mut base = base(&[2, 2]);
        assert_eq!(plan(&mut base, &order(&[(3, &[])])), Ok(vec![(0, vec![0, 2]), (1, vec![1])]));
        assert_eq!(plan(&mut base, &order(&[(1, &[])])), Ok(vec![(1, vec![0])]));
    }

    #[test]
    fn hosts_may_be_named() {
        let mut base = base(&[1, 1, 1]);
        let named: &[&str] = &["n2:1", "n1"];
        assert_eq!(plan(&mut base, &order(&[(3, named)])), Ok(vec![(1, vec![1, 2]), (2, vec![0])]));
        assert!(plan(&mut base, &order(&[(2, &["n2:1"])])).is_err_and(|e| e.contains("no room")));
        assert!(plan(&mut base, &order(&[(1, &["n9"])])).is_err_and(|e| e.contains("host n9")));
    }

    #[test]
    fn working_directories_are_the_parents_unless_named() {
        let base = base(&[1]);
        let app = |wdir: Option<&str>| SpawnApp { wdir: wdir.map(Into::into), ..SpawnApp::default() };
        let place = |app: &SpawnApp| base.app(app).map(|a| (a.wdir, a.wdir_explicit)).unwrap();
        assert_eq!(place(&app(None)).0, "/w");
        assert_eq!(place(&app(Some("sub"))), ("/w/sub".into(), true));
        assert_eq!(place(&app(Some("/x"))), ("/x".into(), true));
    }
}
