//! Rows that do nothing here: accepted and ignored, accepted with a note, or refused with the way to do it.

use crate::personality::Personality;
use crate::row::Behaviour::{Ignored, Noted, Refused};
use crate::row::{Arity, Row, idle};

const FLAG: Arity = Arity::Flag;
const ONE: Arity = Arity::One;
const RESERVED: &str = "is reserved by the MPI standard and not supported by any launcher";
const DVM: &str = "persistent daemons are not supported; each job brings its own";
const DEBUGGER: &str = "debuggers are not started; attach one to a rank by its process id";
const LATER: &str = "is not supported by this version";

pub(super) const ROWS: &[Row] = &[
    idle("allow-run-as-root", &[], FLAG, Ignored),
    idle("tcp", &["mpi", "gloo"], FLAG, Ignored),
    idle("disable-cache", &[], FLAG, Ignored),
    idle("hetero-nodes", &["hybrid-hosts", "novm"], FLAG, Ignored),
    idle("fwd-mpirun-port", &["use-regexp", "enable-instant-on-support", "do-not-resolve"], FLAG, Ignored),
    idle("do-not-aggregate-help", &["no-aggregate-help"], FLAG, Ignored),
    idle("pmix-prefix", &["app-prefix", "app-pmix-prefix"], ONE, Ignored),
    idle("no-app-prefix", &[], FLAG, Ignored),
    idle("topolib", &[], ONE, Ignored),
    idle("demux", &[], ONE, Ignored),
    idle("disable-x", &[], FLAG, Ignored),
    idle("disable-hostname-propagation", &["enable-hostname-propagation"], FLAG, Ignored),
    idle("exitinfo", &["silent-abort"], FLAG, Ignored),
    idle("start-method", &[], ONE, Ignored),
    idle("monitor-interval", &[], ONE, Ignored),
    idle("enable-x", &[], FLAG, Noted("X11 is not forwarded")),
    idle("order-nodes", &[], ONE, Noted("hosts are used in the order they are listed in")),
    idle("cartofile", &["cf"], ONE, Noted("carto files are obsolete; the node's own topology is used")),
    idle("index-argv-by-rank", &[], FLAG, Noted("argv[0] is the same for all ranks")),
    idle("xterm", &[], ONE, Noted("no terminal windows are opened; see --tag-output and --output-filename")),
    idle("with-ft", &[], ONE, Noted("fault-tolerant MPI is not offered; see --on-failure")),
    idle("launch-agent", &[], ONE, Noted("our own daemon is used; see --daemon")),
    idle("map-by", &[], ONE, Noted("binding follows the order of ranks in a node")).only(Personality::Hydra),
    idle("soft", &["arch", "file"], ONE, Refused(RESERVED)),
    idle("dvm", &["hnp", "daemonize", "set-sid", "singleton"], FLAG, Refused(DVM)),
    idle("dvm-uri", &["ompi-server", "nameserver", "keepalive"], ONE, Refused(DVM)),
    idle("tv", &["debug", "gdb"], FLAG, Refused(DEBUGGER)),
    idle("debugger", &[], ONE, Refused(DEBUGGER)),
    idle("report-events", &[], ONE, Refused("event sinks of Open MPI are not supported")),
    idle("jsrun", &[], FLAG, Refused("jsrun is not used; hosts are reached over SSH")),
    idle("pmi-args", &[], ONE, Refused("is an internal option")),
    idle("trace", &[], FLAG, Refused("tracing libraries are not loaded")),
    idle(
        "p",
        &[],
        ONE,
        Refused(
            "means ssh port in horovodrun (use --ssh-port) and parseable output in Open MPI 5 (use --display)",
        ),
    ),
    idle(
        "i",
        &[],
        ONE,
        Refused("means identity file in horovodrun and nothing elsewhere (use --ssh-identity-file)"),
    ),
    idle("m", &[], ONE, Refused("means a Python module in torchrun (write python -m MODULE)")),
    idle("r", &[], ONE, Refused("means redirects in torchrun (use --output-filename)")),
    idle("t", &[], ONE, Refused("means tee in torchrun (use --tag-output)")),
    idle(
        "s",
        &["preload-binary"],
        FLAG,
        Refused("copying the program to the hosts is not supported by this version"),
    ),
    idle("preload-files", &[], ONE, Refused("copying files to the hosts is not supported by this version")),
    idle("xml", &[], FLAG, Refused("is not supported; use --output json")),
    idle("xml-file", &[], ONE, Refused("is not supported; use --output json")),
    idle(
        "prepend-pattern",
        &[],
        ONE,
        Refused("is not supported by this version; use -l, --tag-output or --output json"),
    ),
    idle(
        "outfile-pattern",
        &["outfile", "errfile", "errfile-pattern"],
        ONE,
        Refused("is not supported by this version; use --output-filename DIR:nocopy"),
    ),
    idle("usize", &["rankmap", "membind", "rmk", "pset", "gpus-per-proc", "g"], ONE, Refused(LATER)),
    idle("max-restarts", &["restarts", "elastic", "hang-check"], ONE, Refused(LATER)),
    idle("tune", &["am", "amca", "runtime-options", "forward-signals"], ONE, Refused(LATER)),
    idle("report-pid", &["report-uri", "events", "metrics", "timeline", "summary"], ONE, Refused(LATER)),
    idle("show-progress", &["output-proctable", "print-all-exitcodes", "display-topo"], FLAG, Refused(LATER)),
    idle("report-state-on-timeout", &["get-stack-traces"], FLAG, Refused(LATER)),
    idle("ip", &["tree-width", "control-iface", "advertise", "localhost"], ONE, Refused(LATER)),
];
