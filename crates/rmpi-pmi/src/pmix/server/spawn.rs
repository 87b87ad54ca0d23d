//! Orders for more ranks.

use super::{Asker, Op, PmixServer};
use crate::api::Action;
use crate::pmix::codec::{App, Info, Text};
use crate::pmix::keys;
use crate::pmix::request::Request;
use crate::pmix::status;
use bytes::Bytes;
use rmpi_types::Rank;
use rmpi_wire::service::{self, Answer, Request as JobRequest, Spawn, SpawnApp};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Variables that come with a program but are ours to set for each of its processes.
const OURS: [&str; 4] = ["PMIX_", "OMPI_COMM_WORLD_", "OMPI_MCA_orte_", "PMI_"];

fn os(text: &Text) -> OsString {
    OsString::from_vec(text.0.to_vec())
}

fn text(infos: &[Info], key: &str) -> Option<Text> {
    Request::directive(infos, key).and_then(|i| i.value.as_text()).cloned()
}

/// Hosts in a comma list.
fn hosts(infos: &[Info], job: &[Info]) -> Vec<String> {
    let named = [(infos, keys::HOST), (infos, keys::ADD_HOST), (job, keys::HOST), (job, keys::ADD_HOST)];
    let list = named.into_iter().find_map(|(infos, key)| text(infos, key));
    let list = list.map(|l| l.lossy().into_owned()).unwrap_or_default();
    list.split(',').map(str::trim).filter(|h| !h.is_empty()).map(str::to_owned).collect()
}

/// A client's program as the job starts it; `None` when it is no program.
fn program(app: App, job: &[Info]) -> Option<SpawnApp> {
    let ranks = u32::try_from(app.processes).ok().filter(|&n| n > 0)?;
    let program = app.command.as_ref().or(app.args.first()).filter(|p| **p != "")?;
    let env = app.env.iter().filter_map(|pair| {
        let at = pair.0.iter().position(|&b| b == b'=').filter(|&at| at > 0)?;
        let (name, value) = (pair.0.slice(..at), pair.0.slice(at + 1..));
        let ours = OURS.iter().any(|p| name.starts_with(p.as_bytes()));
        (!ours).then(|| (os(&Text(name)), Some(os(&Text(value)))))
    });
    let wdir = text(&app.infos, keys::WDIR).or_else(|| text(job, keys::WDIR)).or(app.wdir.clone());
    Some(SpawnApp {
        program: os(program),
        args: app.args.iter().skip(1).map(os).collect(),
        ranks,
        wdir: wdir.filter(|w| *w != "").as_ref().map(os),
        path: None,
        hosts: hosts(&app.infos, job),
        env: env.collect(),
    })
}

impl PmixServer {
    pub(super) fn spawn(&mut self, asker: Asker, infos: &[Info], apps: Vec<App>, out: &mut Vec<Action>) {
        let count = apps.len();
        let apps: Vec<SpawnApp> = apps.into_iter().filter_map(|app| program(app, infos)).collect();
        if count == 0 || apps.len() != count || count > service::MAX_SPAWN_APPS {
            return Self::not_spawned(asker, status::BAD_PARAM, out);
        }
        let Some(token) = self.open(Op::Spawn(asker), None) else {
            return Self::not_spawned(asker, status::OUT_OF_RESOURCE, out);
        };
        let request = JobRequest::Spawn(Box::new(Spawn { apps, preputs: Vec::new() }));
        out.push(Action::Request { token, by: asker.proc, request, payload: Bytes::new() });
    }

    fn not_spawned(asker: Asker, status: i32, out: &mut Vec<Action>) {
        let mut w = asker.writer();
        w.status(status).text(None);
        asker.answer(w, out);
    }

    pub(super) fn spawned(&mut self, asker: Asker, answer: Answer, out: &mut Vec<Action>) {
        match answer {
            Answer::Spawned { ns, .. } => {
                let name = self.jobs.get(ns).map(|job| job.proc(Rank(0)).ns);
                let mut w = asker.writer();
                w.status(status::SUCCESS).text(name.as_ref());
                asker.answer(w, out);
            }
            Answer::Refused(why) => {
                let missing = why.contains("not found");
                out.push(Action::Note(format!("{} could not spawn: {why}", asker.proc)));
                let status = if missing { status::EXE_NOT_FOUND } else { status::JOB_FAILED_TO_LAUNCH };
                Self::not_spawned(asker, status, out);
            }
            _ => Self::not_spawned(asker, status::JOB_FAILED_TO_LAUNCH, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pmix::codec::Value;

    #[test]
    fn a_clients_program_is_ours_to_start() {
        let app = App {
            command: Some("/bin/child".into()),
            args: vec!["child".into(), "-v".into()],
            env: vec![
                "OMPI_PARENT_PORT=x=y".into(),
                "PMIX_RANK=7".into(),
                "OMPI_MCA_orte_launch=1".into(),
                "=odd".into(),
                "none".into(),
            ],
            wdir: Some("/tmp".into()),
            processes: 3,
            infos: vec![
                Info::new(keys::HOST, Value::text("n1, n2:2,")),
                Info::new(keys::WDIR, Value::text("/work")),
            ],
        };
        let spawn = program(app.clone(), &[]).unwrap();
        assert_eq!(spawn.args, ["-v"]);
        assert_eq!(spawn.env, [("OMPI_PARENT_PORT".into(), Some("x=y".into()))]);
        assert_eq!((spawn.hosts, spawn.wdir), (vec!["n1".into(), "n2:2".into()], Some("/work".into())));
        assert_eq!(program(App { processes: 0, ..app.clone() }, &[]), None);
        assert_eq!(program(App { command: None, args: Vec::new(), ..app }, &[]), None);
    }
}
