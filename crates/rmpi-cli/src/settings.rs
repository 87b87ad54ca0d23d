//! What a command line came to, setting by setting, for `--dry-run`: everything that is not as it is without options.
//! Whoever adds a field to the specification adds it here: the patterns below name them all.

use crate::command::{Command, LogLevel, Show, SignalRules};
use rmpi_types::JobSpec;
use rmpi_types::spec::{
    App, BindTo, Elastic, Env, FileLayout, Files, Forward, Horovod, Limits, OnFailure, Output, Placement,
    RankBy, Reach, Redirects, Shown, Stdin, Tag, Universe,
};
use std::fmt::Display;
use std::time::Duration;

/// `name=value` of each setting.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn put(&mut self, name: &str, value: impl Display) {
        self.0.push(format!("{name}={value}"));
    }

    /// Only where it differs from the default.
    fn other<T: PartialEq>(&mut self, name: &str, value: &T, default: &T, shown: impl Display) {
        if value != default {
            self.put(name, shown);
        }
    }

    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.0.push(name.to_owned());
        }
    }

    fn option(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }
}

/// The lines of `--dry-run` that say how the job would be run.
pub(crate) fn lines(command: &Command) -> Vec<String> {
    let mut out = Lines::default();
    let JobSpec {
        apps,
        hosts: _,
        placement,
        reach,
        output,
        stdin,
        limits,
        on_failure,
        ifaces,
        port_range,
        pmi,
        data,
        ip,
        advertise,
        universe,
        restarts,
        rank_vars,
        horovod,
        gpus_per_rank,
        gpu_parts,
        memory,
        on_timeout,
        preload,
        in_session,
        stop_on_exec,
        pmi_port,
        children_apart,
        unfinished_ok,
        signal_direct,
    } = &command.job;
    for (index, app) in apps.iter().enumerate() {
        program(&mut out, index, app);
    }
    place(&mut out, placement);
    getting_there(&mut out, reach);
    streams(&mut out, output);
    match stdin {
        Stdin::Rank(rank) => out.other("stdin", &rank.0, &0, rank),
        Stdin::None => out.put("stdin", "none"),
        Stdin::All => out.put("stdin", "all"),
    }
    times(&mut out, limits);
    out.flag("on-failure=continue", *on_failure == OnFailure::Continue);
    out.flag(&format!("iface={}", ifaces.join(",")), !ifaces.is_empty());
    out.option("port-range", port_range.map(|(lo, hi)| format!("{lo}:{hi}")));
    out.other("pmi", pmi, &Default::default(), format!("{pmi:?}").to_lowercase());
    out.other("transport", data, &Default::default(), format!("{data:?}").to_lowercase());
    out.option("ip", ip.map(|v| format!("{v:?}")));
    out.option("advertise", advertise.as_ref());
    match universe {
        Universe::Slots => {}
        Universe::Infinite => out.put("usize", "INFINITE"),
        Universe::Count(n) => out.put("usize", n),
    }
    out.other("max-restarts", restarts, &0, restarts);
    out.other("rank-variables", rank_vars, &Default::default(), format!("{rank_vars:?}").to_lowercase());
    out.flag("gloo", *horovod == Horovod::Gloo);
    if let Horovod::Elastic(elastic) = horovod {
        elastic_lines(&mut out, elastic);
    }
    out.option("membind", memory.map(|m| format!("{m:?}").to_lowercase()));
    let gpus = if *gpu_parts { "gpu-subdevs-per-proc" } else { "gpus-per-proc" };
    out.option(gpus, gpus_per_rank.map(|n| format!("{n:?}").to_lowercase()));
    out.flag("report-state-on-timeout", on_timeout.state);
    out.flag("get-stack-traces", on_timeout.stacks);
    out.option("timeout-for-stack-trace", on_timeout.stacks_wait.map(Seconds));
    preload.iter().for_each(|file| out.put("preload-files", file.display()));
    out.flag("set-cwd-to-session-dir", *in_session);
    out.flag("stop-on-exec", *stop_on_exec);
    out.flag("pmi-port", *pmi_port);
    out.flag("report-child-jobs-separately", *children_apart);
    out.flag("allowed-exit-without-sync", *unfinished_ok);
    out.flag("signal-direct-children-only", *signal_direct);
    ourselves(&mut out, command);
    out.0
}

fn program(out: &mut Lines, index: usize, app: &App) {
    let App { program, args, np, wdir, search, env, hosts, pset, preload } = app;
    let words: Vec<String> =
        std::iter::once(program).chain(args).map(|w| format!("'{}'", w.to_string_lossy())).collect();
    out.put(&format!("program {index}"), words.join(" "));
    let name = |what: &str| format!("program {index} {what}");
    out.option(&name("np"), *np);
    out.option(&name("wdir"), wdir.as_ref().map(|w| w.display()));
    if !search.is_empty() {
        let dirs: Vec<_> = search.iter().map(|d| d.to_string_lossy()).collect();
        out.put(&name("path"), dirs.join(":"));
    }
    out.option(&name("hosts"), hosts.as_ref().map(|h| format!("{h:?}")));
    out.option(&name("pset"), pset.as_ref());
    out.flag(&name("preload-binary"), *preload);
    let Env { forward, merge, set, export, edits } = env;
    out.other(&name("forward"), forward, &Forward::Most, format!("{forward:?}").to_lowercase());
    out.other(&name("merge"), merge, &Default::default(), format!("{merge:?}").to_lowercase());
    for (variable, value) in set {
        let variable = variable.to_string_lossy();
        match value {
            Some(value) => out.put(&name("sets"), format!("{variable}={}", value.to_string_lossy())),
            None => out.put(&name("unsets"), variable),
        }
    }
    for edit in edits {
        let how = if edit.front { "prepends" } else { "appends" };
        let (variable, value) = (edit.name.to_string_lossy(), edit.value.to_string_lossy());
        out.put(&name(how), format!("{variable}[{}]{value}", char::from(edit.separator)));
    }
    export.iter().for_each(|n| out.put(&name("exports"), n.to_string_lossy()));
}

fn place(out: &mut Lines, placement: &Placement) {
    let none = Placement::default();
    let Placement {
        map_by,
        pe,
        span,
        rank_by,
        bind_to,
        oversubscribe,
        overload,
        nolocal,
        max_nodes,
        per_node,
        use_hwthreads,
        listed_order,
        cpu_set,
        slots_by_gpu,
        bind_count,
        bind_order,
    } = placement;
    out.other("map-by", map_by, &none.map_by, format!("{map_by:?}").to_lowercase());
    out.option("pe", *pe);
    out.flag("span", *span);
    out.option("rank-by", rank_by.map(|r: RankBy| format!("{r:?}").to_lowercase()));
    out.other("bind-to", bind_to, &BindTo::Share, format!("{bind_to:?}").to_lowercase());
    out.flag("oversubscribe", *oversubscribe);
    out.flag("overload-allowed", *overload);
    out.flag("nolocal", *nolocal);
    out.option("max-nodes", *max_nodes);
    out.option("per-node", *per_node);
    out.flag("use-hwthread-cpus", *use_hwthreads);
    out.flag("listed-order", *listed_order);
    out.option("cpu-set", cpu_set.as_ref());
    out.flag("slots=gpu", *slots_by_gpu);
    out.option("bind-count", *bind_count);
    out.option("bind-order", bind_order.map(|o| format!("{o:?}").to_lowercase()));
}

fn getting_there(out: &mut Lines, reach: &Reach) {
    let none = Reach::default();
    let Reach {
        agent,
        local_beside_agent,
        dial_back,
        patient,
        own_names,
        ssh_port,
        ssh_user,
        identities,
        ssh_config,
        ssh_options,
        host_keys,
        concurrency,
        connect_timeout,
        connect_retries,
        daemon,
        local_direct,
        min_hosts,
    } = reach;
    if let Some(agent) = agent {
        let words: Vec<_> = agent.iter().map(|w| w.to_string_lossy()).collect();
        out.put("agent", words.join(" "));
        out.flag("local-beside-agent", *local_beside_agent);
        out.flag("dial-back", *dial_back);
    }
    out.flag("launcher-pod", *patient);
    own_names.iter().for_each(|name| out.put("this-pod", name));
    out.option("ssh-port", *ssh_port);
    out.option("ssh-user", ssh_user.as_ref());
    identities.iter().for_each(|i| out.put("ssh-identity-file", i.display()));
    out.option("ssh-config", ssh_config.as_ref().map(|c| c.display()));
    ssh_options.iter().for_each(|(key, value)| out.put("ssh-option", format!("{key}={value}")));
    out.option("host-keys", host_keys.map(|k| format!("{k:?}").to_lowercase()));
    out.other("ssh-concurrency", concurrency, &none.concurrency, concurrency);
    out.other("connect-timeout", connect_timeout, &none.connect_timeout, Seconds(*connect_timeout));
    out.other("connect-retries", connect_retries, &none.connect_retries, connect_retries);
    out.option("daemon", daemon.as_ref().map(|d| d.display()));
    out.flag("local-ssh", !local_direct);
    out.option("min-hosts", *min_hosts);
}

fn streams(out: &mut Lines, output: &Output) {
    let Output {
        tag,
        timestamp,
        merge_stderr,
        shown,
        pty,
        files,
        on_nodes,
        console,
        ignore_broken_pipe,
        quiet,
    } = output;
    out.other("tag", tag, &Tag::None, format!("{tag:?}").to_lowercase());
    out.flag("timestamp", *timestamp);
    out.flag("merge-stderr-to-stdout", *merge_stderr);
    match shown {
        Shown::All => {}
        Shown::Ranks(set) => out.put("ranks-shown", set),
        Shown::Local(set) => out.put("local-ranks-shown", set),
        Shown::Failed => out.put("ranks-shown", "failed"),
    }
    out.option("stdio", pty.map(|pty| if pty { "pty" } else { "pipe" }));
    if let Some(Files { layout, nocopy }) = files {
        out.put("files", layout_text(layout));
        out.flag("files-only", *nocopy);
        out.flag("output-where=node", *on_nodes);
    }
    out.option("xml-file", console.as_ref().map(|p| p.display()));
    out.flag("on-broken-pipe=ignore", *ignore_broken_pipe);
    out.flag("quiet", *quiet);
}

fn layout_text(layout: &FileLayout) -> String {
    match layout {
        FileLayout::OpenMpi4 { dir, nojobid: false } => format!("{}/1/rank.N/stdout", dir.display()),
        FileLayout::OpenMpi4 { dir, nojobid: true } | FileLayout::Horovod(dir) => {
            format!("{}/rank.N/stdout", dir.display())
        }
        FileLayout::OpenMpi5(dir) => format!("{}/NAMESPACE/rank.N/stdout", dir.display()),
        FileLayout::Prefix(prefix) => format!("{}.NAMESPACE.N.out", prefix.display()),
        FileLayout::Torch { dir, redirects, tee } => {
            format!(
                "{}/ID/attempt_0/N/stdout.log redirects {} tee {}",
                dir.display(),
                Streams(redirects),
                Streams(tee)
            )
        }
        FileLayout::Pattern(pieces) => format!("{pieces:?}.stdout"),
        FileLayout::Patterns { out, err } => format!("stdout {out:?} stderr {err:?}"),
    }
}

struct Streams<'a>(&'a Redirects);

impl Display for Streams<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.all)?;
        self.0.of.iter().try_for_each(|(rank, streams)| write!(f, ",{rank}:{streams}"))
    }
}

fn elastic_lines(out: &mut Lines, elastic: &Elastic) {
    let Elastic { script, slots_per_host, min_np, max_np, timeout, reset_limit, cooldown } = elastic;
    out.flag("elastic", true);
    out.option("host-discovery-script", script.as_ref().map(|s| s.to_string_lossy()));
    out.option("slots-per-host", *slots_per_host);
    out.option("min-np", *min_np);
    out.option("max-np", *max_np);
    out.option("elastic-timeout", timeout.map(Seconds));
    out.option("reset-limit", *reset_limit);
    let range = cooldown.map(|(low, high)| format!("{},{}", Seconds(low), Seconds(high)));
    out.option("blacklist-cooldown-range", range);
}

fn times(out: &mut Lines, limits: &Limits) {
    let none = Limits::default();
    let Limits { launch, job, kill_grace, pod_grace, drain, heartbeat, lost } = limits;
    out.option("launch-timeout", launch.map(Seconds));
    out.option("timeout", job.map(Seconds));
    out.other("kill-grace", kill_grace, &none.kill_grace, Seconds(*kill_grace));
    out.option("pod-grace", pod_grace.map(Seconds));
    out.other("drain", drain, &none.drain, Seconds(*drain));
    let pulse = (heartbeat, lost);
    let shown = format!("{},{}", Seconds(*heartbeat), Seconds(*lost));
    out.other("heartbeat", &pulse, &(&none.heartbeat, &none.lost), shown);
}

/// What concerns the command itself.
fn ourselves(out: &mut Lines, command: &Command) {
    out.other("log", &command.log.level, &LogLevel::Warn, format!("{:?}", command.log.level).to_lowercase());
    out.flag("log-format=json", command.log.json);
    let Show { events, timeline, summary, pid, progress, exit_codes, compat } = &command.show;
    out.option("events", events.as_ref().map(|p| p.display()));
    out.option("timeline", timeline.as_ref().map(|p| p.display()));
    out.option("summary", summary.as_ref().map(|p| p.display()));
    out.option("report-pid", pid.as_ref().map(|p| format!("{p:?}")));
    out.other("progress", progress, &Default::default(), format!("{progress:?}").to_lowercase());
    out.flag("print-all-exitcodes", *exit_codes);
    out.other("compat-text", compat, &Default::default(), format!("{compat:?}").to_lowercase());
    let SignalRules { forward, handle } = &command.signals;
    out.option("forward-signals", forward.as_ref().map(|s| format!("{s:?}")));
    out.option("signals-to-handle", handle.as_ref().map(|s| format!("{s:?}")));
    out.flag("display-topo", command.display.topology);
    out.flag("output-proctable", command.display.proctable);
}

/// Seconds without needless digits.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.as_secs_f64())
    }
}
