//! `cargo xtask`: what a newcomer or CI runs. Few foreign dependencies, so that it starts in seconds.

mod bench;
mod build;
mod contract;
mod demo;
mod failures;
mod frameworks;
mod fuzz;
mod group;
mod images;
mod kubernetes;
mod mpi;
mod order;
mod package;
mod stage;
mod test;
mod timeline;
mod tune;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask demo               build everything and run the main job on four loopback hosts
cargo xtask test [--long]      run all tests, installing what they need when root
                 --long        also those that take minutes
                 --frameworks [WORDS]  real Horovod, TensorFlow, PyTorch and JAX instead, or the cases with WORDS
cargo xtask contract [WORD]    check the command-line contract, or the rows with WORD in them
cargo xtask fuzz [SECONDS]     replay the fuzz seeds, then fuzz every target that long (60)
cargo xtask mpi [--long]       the programs of tests/mpi with every MPI implementation we can get, as a table
cargo xtask bench [WORDS]      measure against other implementations; --help says how
cargo xtask tune [WORDS]       measure what ranks choose ways and sizes by; --help says how
cargo xtask kubernetes [WORDS] every operator's pods in namespaces, or the cases with WORDS in their names
cargo xtask images             the steps of deploy/images in folders, and what comes of them run
cargo xtask timeline TRACE SVG draw what rmpirun --timeline wrote
cargo xtask order              say anew which functions a launch runs, for the linker (bin/order.ld)
cargo xtask package            one rmpirun file that carries its static daemon, in target/package
                 --worker      the static programs of a worker's image, in target/package-worker
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["demo"] => demo::run(),
        ["test"] => test::run(false),
        ["test", "--long"] => test::run(true),
        ["test", "--frameworks", ref words @ ..] => frameworks::run(words),
        ["contract"] => contract::run(""),
        ["contract", only] => contract::run(only),
        ["fuzz"] => fuzz::run("60"),
        ["fuzz", seconds] => fuzz::run(seconds),
        ["kubernetes", ref words @ ..] => kubernetes::run(words),
        ["images"] => images::run(),
        ["bench", "--help"] => {
            stage::say(bench::WORDS);
            Ok(())
        }
        ["bench", ref words @ ..] => bench::run(words),
        ["tune", "--help"] => {
            stage::say(tune::WORDS);
            Ok(())
        }
        ["tune", ref words @ ..] => tune::run(words),
        ["mpi"] => mpi::run(false),
        ["mpi", "--long"] => mpi::run(true),
        ["timeline", trace, picture] => timeline::run(trace, picture),
        ["order"] => order::run(),
        ["package"] => package::run(),
        ["package", "--worker"] => package::worker(),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            stage::say(&message);
            ExitCode::FAILURE
        }
    }
}
