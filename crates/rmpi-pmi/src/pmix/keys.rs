//! Names of attributes, and ranks that name more than one process.

/// No particular rank.
pub const RANK_UNDEF: u32 = 0xffff_ffff;
/// All ranks of a namespace, or the job itself.
pub const RANK_WILDCARD: u32 = 0xffff_fffe;
/// Ranks from here on are wildcards of one kind or another.
pub const RANK_VALID_END: u32 = 0xffff_ffcd;

/// Where a key of the standard begins.
pub const RESERVED: &str = "pmix";

/// Data for processes of the same node.
pub const SCOPE_LOCAL: u8 = 1;
/// Data for processes of other nodes.
pub const SCOPE_REMOTE: u8 = 2;
/// Data for all.
pub const SCOPE_GLOBAL: u8 = 3;

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
    };
}

keys! {
    /// BOOL: exchange data in a fence.
    COLLECT = "pmix.collect",
    /// BOOL: answer at once with what is there.
    IMMEDIATE = "pmix.immediate",
    /// INT: seconds.
    TIMEOUT = "pmix.timeout",
    /// BOOL: what is here may be stale, fetch it anew.
    REFRESH = "pmix.get.refresh",
    /// INT: how many keys to wait for, 0 all.
    WAIT = "pmix.wait",
    /// DATA_RANGE.
    RANGE = "pmix.range",
    /// PERSIST.
    PERSISTENCE = "pmix.persist",
    /// STRING: job name.
    JOB_ID = "pmix.jobid",
    /// UINT32.
    SESSION_ID = "pmix.session.id",
    /// UINT32: processes of the job.
    JOB_SIZE = "pmix.job.size",
    /// UINT32: slots.
    UNIVERSE_SIZE = "pmix.univ.size",
    /// UINT32: processes the job may have.
    MAX_PROCS = "pmix.max.size",
    /// UINT32: applications.
    NUM_APPS = "pmix.job.napps",
    /// UINT32: nodes.
    NUM_NODES = "pmix.num.nodes",
    /// STRING: session directory.
    TMPDIR = "pmix.tmpdir",
    /// STRING: job directory.
    NSDIR = "pmix.nsdir",
    /// STRING: directory of a process.
    PROCDIR = "pmix.pdir",
    /// BOOL: the server removes the directories.
    TDIR_RMCLEAN = "pmix.tdir.rmclean",
    /// STRING: comma list of nodes.
    NODE_LIST = "pmix.nlist",
    /// BOOL: the job was spawned by another.
    SPAWNED = "pmix.spawned",
    /// PROC: who spawned it.
    PARENT_ID = "pmix.parent",
    /// DATA_ARRAY of INFO about a node.
    NODE_INFO_ARRAY = "pmix.node.arr",
    /// DATA_ARRAY of INFO about an application.
    APP_INFO_ARRAY = "pmix.app.arr",
    /// BYTE_OBJECT: rank and its keys.
    PROC_BLOB = "pmix.pblob",
    /// DATA_ARRAY of INFO about a process.
    PROC_DATA = "pmix.pdata",
    /// STRING: host name.
    HOSTNAME = "pmix.hname",
    /// UINT32: node.
    NODEID = "pmix.nodeid",
    /// BOOL: the question is about a node.
    NODE_INFO = "pmix.node.info",
    /// BOOL: the question is about an application.
    APP_INFO = "pmix.app.info",
    /// UINT32: processes of the job on the node.
    LOCAL_SIZE = "pmix.local.size",
    /// UINT32: processes of all jobs on the node.
    NODE_SIZE = "pmix.node.size",
    /// STRING: comma list of ranks.
    LOCAL_PEERS = "pmix.lpeers",
    /// RANK: lowest on the node.
    LOCALLDR = "pmix.lldr",
    /// BOOL: more processes than CPUs.
    OVERSUBSCRIBED = "pmix.ndosub",
    /// UINT32: application number.
    APPNUM = "pmix.appnum",
    /// UINT32: processes of the application.
    APP_SIZE = "pmix.app.size",
    /// RANK: lowest of the application.
    APPLDR = "pmix.aldr",
    /// STRING: working directory.
    WDIR = "pmix.wdir",
    /// STRING: command line.
    APP_ARGV = "pmix.app.argv",
    /// RANK.
    RANK = "pmix.rank",
    /// UINT16: rank among the job's on its node.
    LOCAL_RANK = "pmix.lrank",
    /// UINT16: rank among all on its node.
    NODE_RANK = "pmix.nrank",
    /// RANK: within its application.
    APP_RANK = "pmix.apprank",
    /// RANK: over all applications.
    GLOBAL_RANK = "pmix.grank",
    /// UINT32: times it was started again.
    REINCARNATION = "pmix.reinc",
    /// STRING: topology of the node.
    HWLOC_XML2 = "pmix.hwlocxml2",
    /// PROC: whom an event is about.
    EVENT_AFFECTED_PROC = "pmix.evproc",
    /// DATA_ARRAY of PROC: whom an event is about.
    EVENT_AFFECTED_PROCS = "pmix.evaffected",
    /// BOOL: not for default handlers.
    EVENT_NON_DEFAULT = "pmix.evnondef",
    /// PROC or DATA_ARRAY of PROC: for whom an event is.
    EVENT_CUSTOM_RANGE = "pmix.evrange",
    /// BOOL: assign a context id.
    GROUP_ASSIGN_CONTEXT_ID = "pmix.grp.actxid",
    /// SIZE: context id.
    GROUP_CONTEXT_ID = "pmix.grp.ctxid",
    /// DATA_ARRAY of INFO: what a member tells the group.
    GROUP_INFO = "pmix.grp.info",
    /// DATA_ARRAY of INFO: a value with its qualifiers.
    QUALIFIED_VALUE = "pmix.qual.val",
    /// STRING: file to remove.
    REGISTER_CLEANUP = "pmix.reg.cleanup",
    /// STRING: directory to remove.
    REGISTER_CLEANUP_DIR = "pmix.reg.cleanupdir",
    /// BOOL: with all that is in it.
    CLEANUP_RECURSIVE = "pmix.clnup.recurse",
    /// BOOL: end the targets.
    JOB_CTRL_KILL = "pmix.jctrl.kill",
    /// BOOL: ask the targets to end.
    JOB_CTRL_TERMINATE = "pmix.jctrl.term",
    /// INT: send a signal to the targets.
    JOB_CTRL_SIGNAL = "pmix.jctrl.sig",
    /// BOOL: watch me by heartbeats.
    MONITOR_HEARTBEAT = "pmix.monitor.mbeat",
    /// UINT32: seconds between them.
    MONITOR_HEARTBEAT_TIME = "pmix.monitor.btime",
    /// UINT32: how many may be missing.
    MONITOR_HEARTBEAT_DROPS = "pmix.monitor.bdrop",
    /// STRING.
    LOG_STDERR = "pmix.log.stderr",
    /// STRING.
    LOG_STDOUT = "pmix.log.stdout",
    /// BYTE_OBJECT in Open MPI 4's own packing.
    LOG_MSG = "pmix.log.msg",
    /// STRING: comma list of hosts.
    HOST = "pmix.host",
    /// STRING: file with hosts.
    HOSTFILE = "pmix.hostfile",
    /// STRING: comma list of hosts to add.
    ADD_HOST = "pmix.addhost",
    /// STRING: file with hosts to add.
    ADD_HOSTFILE = "pmix.addhostfile",
    /// STRING: mapping policy.
    MAPBY = "pmix.mapby",
    /// STRING: ranking policy.
    RANKBY = "pmix.rankby",
    /// STRING: binding policy.
    BINDTO = "pmix.bindto",
    /// STRING: comma list of namespaces.
    QUERY_NAMESPACES = "pmix.qry.ns",
    /// SIZE: number of process sets.
    QUERY_NUM_PSETS = "pmix.qry.psetnum",
    /// STRING: comma list of process sets.
    QUERY_PSET_NAMES = "pmix.qry.psets",
}
