//! Parameters of Open MPI's MCA: those that name a function of the launcher are done as the option they stand
//! for; all of them reach the ranks as variables. Open MPI does not check keys, so unknown ones are no error.

use crate::draft::{Target, variable};
use crate::personality::Personality;
use crate::row::{Scope, Set};
use crate::table;
use crate::typed;
use crate::values::{port, port_range, truth};
use rmpi_types::launch::IpFamily;
use rmpi_types::spec::OnFailure;
use rmpi_types::transport::{MAX_STREAMS, STREAMS_VARIABLE};
use std::ffi::{OsStr, OsString};

/// What a parameter or variable of another launcher does here.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    /// As the option of this name with the same value.
    Option(&'static str),
    /// As the flag of this name when the value is true.
    Flag(&'static str),
    /// Something no single option does.
    Call(fn(&mut Target<'_>, &str) -> Set),
}

const KEYS: &[(&str, Use)] = &[
    ("orte_default_hostfile", Use::Option("default-hostfile")),
    ("prte_default_hostfile", Use::Option("default-hostfile")),
    ("orte_default_dash_host", Use::Option("host")),
    ("prte_default_dash_host", Use::Option("host")),
    ("orte_set_default_slots", Use::Call(default_slots)),
    ("prte_set_default_slots", Use::Call(default_slots)),
    ("rmaps_base_oversubscribe", Use::Flag("oversubscribe")),
    ("rmaps_base_no_oversubscribe", Use::Flag("nooversubscribe")),
    ("rmaps_base_no_schedule_local", Use::Flag("nolocal")),
    ("rmaps_base_mapping_policy", Use::Option("map-by")),
    ("rmaps_default_mapping_policy", Use::Option("map-by")),
    ("rmaps_base_ranking_policy", Use::Option("rank-by")),
    ("rmaps_default_ranking_policy", Use::Option("rank-by")),
    ("rmaps", Use::Call(mapper)),
    ("hwloc_base_binding_policy", Use::Option("bind-to")),
    ("hwloc_default_binding_policy", Use::Option("bind-to")),
    ("hwloc_base_cpu_set", Use::Option("cpu-set")),
    ("hwloc_base_cpu_list", Use::Option("cpu-set")),
    ("hwloc_default_cpu_list", Use::Option("cpu-set")),
    ("hwloc_base_use_hwthreads_as_cpus", Use::Flag("use-hwthread-cpus")),
    ("hwloc_use_hwthreads_as_cpus", Use::Flag("use-hwthread-cpus")),
    ("hwloc_base_report_bindings", Use::Flag("report-bindings")),
    ("orte_rankfile", Use::Option("rankfile")),
    ("mca_base_env_list", Use::Call(env_list)),
    ("orte_tag_output", Use::Flag("tag-output")),
    ("orte_timestamp_output", Use::Flag("timestamp-output")),
    ("orte_output_filename", Use::Option("output-filename")),
    ("iof_base_output_filename", Use::Option("output-filename")),
    ("orte_execute_quiet", Use::Flag("quiet")),
    ("plm_rsh_agent", Use::Option("launch-exec")),
    ("plm_ssh_agent", Use::Option("launch-exec")),
    ("orte_rsh_agent", Use::Option("launch-exec")),
    ("pls_rsh_agent", Use::Option("launch-exec")),
    ("plm_rsh_args", Use::Option("ssh-args")),
    ("plm_ssh_args", Use::Option("ssh-args")),
    ("plm_rsh_num_concurrent", Use::Option("ssh-concurrency")),
    ("plm_ssh_num_concurrent", Use::Option("ssh-concurrency")),
    ("orte_startup_timeout", Use::Option("launch-timeout")),
    ("odls_base_sigkill_timeout", Use::Option("kill-grace")),
    ("orte_abort_on_non_zero_status", Use::Call(abort_on_failure)),
    ("orte_enable_recovery", Use::Flag("continuous")),
    ("btl_tcp_if_include", Use::Option("iface")),
    ("oob_tcp_if_include", Use::Call(control_iface)),
    ("prte_if_include", Use::Call(control_iface)),
    ("btl_tcp_if_exclude", Use::Call(iface_exclude)),
    ("oob_tcp_if_exclude", Use::Call(iface_exclude)),
    ("prte_if_exclude", Use::Call(iface_exclude)),
    ("oob_tcp_disable_ipv4_family", Use::Call(no_ipv4)),
    ("oob_tcp_disable_ipv6_family", Use::Call(no_ipv6)),
    ("prte_disable_ipv4_family", Use::Call(no_ipv4)),
    ("prte_disable_ipv6_family", Use::Call(no_ipv6)),
    ("oob_tcp_keepalive_time", Use::Call(keepalive)),
    ("orte_fork_agent", Use::Option("wrap")),
    ("orte_launch_agent", Use::Option("launch-agent")),
    ("prte_launch_agent", Use::Option("launch-agent")),
    ("orte_report_launch_progress", Use::Flag("show-progress")),
    ("orte_xml_output", Use::Flag("xml")),
    ("orte_report_child_jobs_separately", Use::Flag("report-child-jobs-separately")),
    ("orte_allowed_exit_without_sync", Use::Flag("allow-exit-without-sync")),
    ("odls_base_signal_direct_children_only", Use::Flag("signal-direct-children-only")),
    ("orte_timeout_for_stack_trace", Use::Call(stack_limit)),
    ("orte_max_vm_size", Use::Option("max-nodes")),
    ("mca_base_envar_file_prefix", Use::Option("tune")),
    ("btl_tcp_port_min_v4", Use::Call(port_min)),
    ("btl_tcp_port_range_v4", Use::Call(port_count)),
    ("btl_tcp_links", Use::Call(links)),
    ("btl_tcp_sndbuf", Use::Call(send_buffer)),
    ("mpi_yield_when_idle", Use::Call(yields)),
    ("btl_tcp_rcvbuf", Use::Call(receive_buffer)),
    ("oob_tcp_static_ipv4_ports", Use::Call(control_ports)),
    ("oob_tcp_dynamic_ipv4_ports", Use::Call(control_ports)),
];

/// Parameters that only a launcher could act on.
const LAUNCHER: &[&str] = &[
    "orte_", "plm_", "ras_", "rmaps_", "odls_", "oob_", "iof_", "routed_", "grpcomm_", "rml_", "ess_",
    "errmgr_", "state_", "schizo_", "regx_", "filem_", "rtc_", "prte_",
];

/// Of those, the ones there is nothing to do about.
const NEEDLESS: &[&str] = &[
    "orte_keep_fqdn_hostnames",
    "orte_base_help_aggregate",
    "orte_tmpdir_base",
    "orte_hetero_nodes",
    "orte_show_resolved_nodenames",
    "plm_rsh_no_tree_spawn",
    "plm_ssh_no_tree_spawn",
    "plm_rsh_delay",
    "plm_rsh_assume_same_shell",
    "plm_rsh_pass_libpath",
    "plm_base_verbose",
    "plm_rsh_disable_qrsh",
    "routed_radix",
    "oob_tcp_peer_retries",
    "oob_tcp_keepalive_intvl",
    "oob_tcp_keepalive_probes",
    "oob_tcp_sndbuf",
    "oob_tcp_rcvbuf",
    "prte_keep_fqdn_hostnames",
    "ras_base_verbose",
    "rmaps_base_verbose",
    "oob_base_verbose",
    "odls_base_verbose",
    "rmaps_base_inherit",
];

/// A parameter for the program at hand: repeats are joined by commas, as Open MPI does.
pub(crate) fn set(t: &mut Target<'_>, prefix: &'static str, key: &OsStr, value: &OsStr) -> Set {
    variable(key)?;
    let joined = match t.app.mca.iter_mut().find(|(p, k, _)| *p == prefix && k == key) {
        Some((_, _, old)) => {
            old.push(",");
            old.push(value);
            old.clone()
        }
        None => {
            t.app.mca.push((prefix, key.to_owned(), value.to_owned()));
            value.to_owned()
        }
    };
    launcher(t, key, value, &joined)
}

/// A parameter for all programs.
pub(crate) fn set_global(t: &mut Target<'_>, prefix: &'static str, key: &OsStr, value: &OsStr) -> Set {
    variable(key)?;
    let mut name = OsString::from(prefix);
    name.push(key);
    let joined = match t.job.env.set.iter_mut().find(|(n, _)| *n == name) {
        Some((_, Some(old))) => {
            old.push(",");
            old.push(value);
            old.clone()
        }
        _ => {
            t.job.env.set.push((name, Some(value.to_owned())));
            value.to_owned()
        }
    };
    if prefix == "PMIX_MCA_" { Ok(()) } else { launcher(t, key, value, &joined) }
}

/// What the launcher itself does about a parameter. Lists of interfaces add up, other values replace.
fn launcher(t: &mut Target<'_>, key: &OsStr, value: &OsStr, joined: &OsStr) -> Set {
    let Some(key) = key.to_str() else { return Ok(()) };
    if let Some(what) = find(key) {
        let value = if key.ends_with("_if_include") { joined } else { value };
        return act(t, what, value).map_err(|e| format!("{key}: {e}"));
    }
    if LAUNCHER.iter().any(|p| key.starts_with(p)) && !NEEDLESS.contains(&key) {
        t.job.unknown_mca.insert(key.to_owned());
    }
    Ok(())
}

/// What a key does, if anything.
pub(crate) fn find(key: &str) -> Option<Use> {
    KEYS.iter().find(|(k, _)| *k == key).map(|&(_, what)| what)
}

/// Does what a foreign parameter or variable stands for.
pub(crate) fn act(t: &mut Target<'_>, what: Use, value: &OsStr) -> Set {
    let text = || value.to_str().ok_or_else(|| "the value is not valid UTF-8".to_owned());
    let name = match what {
        Use::Call(f) => return f(t, text()?),
        Use::Flag(_) if !truth(text()?)? => return Ok(()),
        Use::Flag(name) | Use::Option(name) => name,
    };
    // Open MPI's words are meant in Open MPI's sense whatever we are called.
    let row = table::find(name, Personality::Default);
    let Some(act) = row.and_then(|r| r.act) else { return Err(format!("--{name} takes no value")) };
    t.job.placement_said |= row.is_some_and(|r| r.scope == Scope::Placement);
    let values = match what {
        Use::Flag(_) => Vec::new(),
        _ => vec![typed::read(act, value)?],
    };
    typed::call(act, t, values)
}

fn default_slots(t: &mut Target<'_>, text: &str) -> Set {
    t.job.default_slots = match text {
        "cores" | "numas" | "sockets" | "hwthreads" | "none" => None,
        n => Some(crate::values::count(n)?),
    };
    Ok(())
}

fn mapper(t: &mut Target<'_>, text: &str) -> Set {
    match text {
        "seq" => t.app.place.file = crate::draft::PlaceFile::Seq,
        "rank_file" => t.app.place.file = crate::draft::PlaceFile::Rankfile,
        _ => {}
    }
    Ok(())
}

/// `mca_base_env_list`: `A;B=1;C`.
fn env_list(t: &mut Target<'_>, text: &str) -> Set {
    text.split(';').filter(|item| !item.is_empty()).try_for_each(|item| t.export(OsStr::new(item)))
}

fn abort_on_failure(t: &mut Target<'_>, text: &str) -> Set {
    t.job.job.on_failure = if truth(text)? { OnFailure::Stop } else { OnFailure::Continue };
    Ok(())
}

/// Seconds; 0 and less waits for ever in Open MPI, as long as can be here.
fn stack_limit(t: &mut Target<'_>, text: &str) -> Set {
    let seconds: i64 = text.trim().parse().map_err(|_| format!("'{text}' is not a number"))?;
    let limit = u64::try_from(seconds).ok().filter(|s| (1..=86_400).contains(s)).unwrap_or(86_400);
    t.job.job.on_timeout.stacks_wait = Some(std::time::Duration::from_secs(limit));
    Ok(())
}

fn control_iface(t: &mut Target<'_>, text: &str) -> Set {
    t.job.control_ifaces = table::network_names(text)?;
    Ok(())
}

/// Interfaces left out; loopback is never offered beside others, so its part of Open MPI's default is moot.
fn iface_exclude(t: &mut Target<'_>, text: &str) -> Set {
    let out = table::network_names(text)?;
    for name in
        out.into_iter().filter(|n| !["lo", "sppp", "127.0.0.1/8", "127.0.0.0/8"].contains(&n.as_str()))
    {
        let word = format!("^{name}");
        if !t.job.job.ifaces.contains(&word) {
            t.job.job.ifaces.push(word);
        }
    }
    Ok(())
}

fn no_ipv4(t: &mut Target<'_>, text: &str) -> Set {
    if truth(text)? {
        t.job.job.ip = Some(IpFamily::V6);
    }
    Ok(())
}

fn no_ipv6(t: &mut Target<'_>, text: &str) -> Set {
    if truth(text)? {
        t.job.job.ip = Some(IpFamily::V4);
    }
    Ok(())
}

/// Seconds of idleness after which Open MPI looks whether the other side lives; 0 and less is never, which we do not
/// offer.
fn keepalive(t: &mut Target<'_>, text: &str) -> Set {
    let seconds: i64 = text.trim().parse().map_err(|_| format!("'{text}' is not a number"))?;
    // Longer than our own silence is no wish for less care.
    if let Some(lost) = u64::try_from(seconds).ok().filter(|s| (2..=60).contains(s)) {
        t.job.job.limits.lost = std::time::Duration::from_secs(lost).max(2 * t.job.job.limits.heartbeat);
    }
    Ok(())
}

fn port_min(t: &mut Target<'_>, text: &str) -> Set {
    t.job.port_min = Some(port(text)?);
    Ok(())
}

fn port_count(t: &mut Target<'_>, text: &str) -> Set {
    t.job.port_count = Some(port(text)?);
    Ok(())
}

/// Open MPI makes as many as one says; ours stop at some number.
fn links(t: &mut Target<'_>, text: &str) -> Set {
    let links: u32 = text.trim().parse().map_err(|_| format!("'{text}' is not a number"))?;
    t.publish(STREAMS_VARIABLE, &links.clamp(1, MAX_STREAMS).to_string())
}

fn send_buffer(t: &mut Target<'_>, text: &str) -> Set {
    buffer(t, "RMPI_TCP_SNDBUF", text)
}

fn receive_buffer(t: &mut Target<'_>, text: &str) -> Set {
    buffer(t, "RMPI_TCP_RCVBUF", text)
}

/// Tells our own ranks, too; 0 and less is the kernel's choice.
fn buffer(t: &mut Target<'_>, variable: &str, text: &str) -> Set {
    let bytes: i64 = text.trim().parse().map_err(|_| format!("'{text}' is not a number"))?;
    t.job.env.set.push((variable.into(), Some(bytes.max(0).to_string().into())));
    Ok(())
}

/// Tells our own ranks, too: others wait for their cores that the launcher does not know of.
fn yields(t: &mut Target<'_>, text: &str) -> Set {
    let yields = if truth(text)? { "1" } else { "0" };
    t.job.env.set.push(("RMPI_YIELD_WHEN_IDLE".into(), Some(yields.into())));
    Ok(())
}

fn control_ports(t: &mut Target<'_>, text: &str) -> Set {
    t.job.control_ports = Some(port_range(text)?);
    Ok(())
}
