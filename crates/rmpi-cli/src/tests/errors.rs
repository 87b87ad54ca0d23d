//! Bad command lines and what the user is told.

use super::{error, try_run};

#[test]
fn options_nobody_knows() {
    for (line, want) in [
        ("--hostfiel h p", "unknown option '--hostfiel' (did you mean '--hostfile'?)"),
        ("--tag-out p", "unknown option '--tag-out' (did you mean '--tag-output'?)"),
        ("-np4 p", "unknown option '-np4' (did you mean '-np 4'?)"),
        ("-zz_qq p", "unknown option '-zz_qq'; rmpirun --help all lists them"),
        ("-np 1 p : -nq 1 q", "unknown option '-nq'"),
        ("- p", "unknown option '-'"),
    ] {
        let got = error(line);
        assert!(got.starts_with(want), "{line}: {got}");
    }
}

#[test]
fn values_that_cannot_be() {
    for (line, part) in [
        ("-np 0 p", "-np: 0 is not possible (nearly always an empty or unset shell variable)"),
        ("-np '' p", "-np: the value is empty (nearly always an empty shell variable)"),
        ("-np x p", "-np: 'x' is not a number"),
        ("-n -1 p", "-n: -1 is out of range"),
        ("-np", "-np needs a value: -np N"),
        ("-mca a", "-mca needs a name and a value"),
        ("--tag-output=1 p", "--tag-output takes no value"),
        ("--timeout 0 p", "above 0"),
        ("--heartbeat 5,6 p", "twice"),
        ("--port-range 9:8 p", "above the last"),
        ("--transport rdma p", "--transport: unknown transport 'rdma': there are auto, shm, tcp, tls, quic"),
        ("--transport tcp --encrypt p", "--encrypt: --transport tcp sends in clear; use tls or quic"),
        ("--stdin x p", "'x' is not a rank, 'all' or 'none'"),
        ("--map-by dist p", "--map-by: dist needs a device distance matrix"),
        ("--mca rmaps_base_mapping_policy zz p", "--mca: rmaps_base_mapping_policy: policy 'zz'"),
        ("--mca plm_rsh_args -p p", "-p of ssh needs a value"),
        ("-x =1 p", "-x: the name of the variable is empty"),
        ("--hostfile '' p", "host file is empty"),
        ("--wdir '' p", "the directory is empty"),
        ("--output-filename '' p", "the directory is empty"),
        ("--cpu-set x p", "not a list of CPUs"),
        ("--launcher rsh p", "neither authenticated nor encrypted"),
        ("-p 22 p", "-p means ssh port in horovodrun (use --ssh-port)"),
        ("-soft 1:2 p", "-soft is reserved by the MPI standard"),
        ("--map-by slot:FILE=x p", "goes with seq or rankfile"),
        ("--map-by rankfile p", "needs a file"),
        ("--map-by seq p", "needs a host list"),
        ("--personality zz p", "personality 'zz' is not known"),
    ] {
        let got = error(line);
        assert!(got.contains(part), "{line}: {got}");
    }
}

#[test]
fn programs_that_are_missing() {
    for (line, part) in [
        ("", "no program given"),
        ("-np 2", "no program given"),
        ("''", "the program is empty"),
        ("a : : b", "no program before ':' number 2"),
        ("a :", "no program after the last ':'"),
        ("--app apps p", "both by an app file and on the command line"),
        ("--map-by node a : --map-by slot b", "program 2 asks for another mapping"),
        ("--hostfile hosts a : --hostfile bare b", "a job has one host file"),
    ] {
        let got = error(line);
        assert!(got.contains(part), "{line}: {got}");
    }
}

#[test]
fn files_that_cannot_be_used() {
    for (line, want) in [
        ("--hostfile nofile p", "cannot read host file 'nofile': no such file or directory"),
        ("--hostfile . p", "cannot read host file '.': is a directory"),
        ("--app nofile", "cannot read app file 'nofile'"),
        ("--hostfile hosts --host n9 p", "n9 is not in hosts"),
        ("--hostfile hosts -rf hosts p", "hosts:1:"),
        ("--stdin 0 --hostfile - p", "standard input cannot be both"),
    ] {
        let got = error(line);
        assert!(got.starts_with(want), "{line}: {got}");
    }
    let bad = error("--hostfile bad p");
    assert!(bad.starts_with("bad:2:") && bad.contains("'x' is not a number"), "{bad}");
    assert!(bad.lines().skip(1).all(|l| l.starts_with("  ")), "{bad}");
}

#[test]
fn variables_are_named() {
    for (name, value, part) in [
        ("MPIEXEC_TIMEOUT", "soon", "MPIEXEC_TIMEOUT: 'soon' is not a time"),
        ("RMPIRUN_TAG_OUTPUT", "perhaps", "RMPIRUN_TAG_OUTPUT: 'perhaps' is not true or false"),
        ("OMPI_MCA_hwloc_base_binding_policy", "zz", "OMPI_MCA_hwloc_base_binding_policy: policy 'zz'"),
        ("RMPIRUN_PERSONALITY", "zz", "personality 'zz' is not known"),
    ] {
        let got = try_run(&[(name, value)], "p").unwrap_err().message;
        assert!(got.starts_with(part), "{got}");
    }
}
