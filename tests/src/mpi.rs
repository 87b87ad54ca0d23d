//! MPI implementations that are installed here, and our own test programs (`tests/mpi/*.c`) compiled with each.
//!
//! `RMPI_MPI` names prefixes of more implementations, separated by `:`, each with a `bin/mpicc`.

use crate::bins::root;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Compilers that distributions install side by side.
const COMPILERS: [&str; 2] = ["mpicc.openmpi", "mpicc.mpich"];

/// One implementation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mpi {
    /// Family and version: `openmpi-5.0.11`, `mpich-4.0.2`, `intel-2021.19.0`.
    pub name: String,
    compiler: PathBuf,
    /// Where it lives, if its programs have to be told.
    prefix: Option<PathBuf>,
    /// A library of another launcher by which it speaks PMI-2 instead of what it has inside.
    library: Option<PathBuf>,
}

impl Mpi {
    /// All that are here, in no particular order.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let of_system = COMPILERS.iter().map(|c| (PathBuf::from(c), None));
        let more = std::env::var_os("RMPI_MPI").unwrap_or_default();
        let more: Vec<PathBuf> = std::env::split_paths(&more).filter(|p| !p.as_os_str().is_empty()).collect();
        let of_prefix = more.into_iter().map(|p| (p.join("bin/mpicc"), Some(p)));
        let found = of_system.chain(of_prefix).filter_map(|(compiler, prefix)| Self::found(compiler, prefix));
        found.flat_map(|mpi| [mpi.by_slurm(), Some(mpi)]).flatten().collect()
    }

    fn found(compiler: PathBuf, prefix: Option<PathBuf>) -> Option<Self> {
        let mut mpi = Self { name: String::new(), compiler, prefix, library: None };
        let question = "#include <mpi.h>\n\
                        #ifdef OMPI_MAJOR_VERSION\n\
                        answer openmpi OMPI_MAJOR_VERSION OMPI_MINOR_VERSION OMPI_RELEASE_VERSION\n\
                        #elif defined(I_MPI_VERSION)\n\
                        answer intel I_MPI_VERSION\n\
                        #elif defined(MPICH_VERSION)\n\
                        answer mpich MPICH_VERSION\n\
                        #endif\n";
        let mut child = mpi.command().args(["-E", "-x", "c", "-"]).spawn().ok()?;
        child.stdin.take()?.write_all(question.as_bytes()).ok()?;
        let output = child.wait_with_output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.lines().rev().find_map(|l| l.strip_prefix("answer "))?.split_whitespace();
        let family = words.next()?;
        let version: Vec<&str> = words.map(|w| w.trim_matches('"')).collect();
        mpi.name = format!("{family}-{}", version.join("."));
        Some(mpi)
    }

    /// The same over Slurm's client library of PMI-2, which Intel's can load: a whole MPI that speaks that.
    fn by_slurm(&self) -> Option<Self> {
        let library = slurms_pmi2().filter(|_| self.is("intel"))?;
        Some(Self { library: Some(library), ..self.clone() })
    }

    /// What tables call it.
    #[must_use]
    pub fn title(&self) -> String {
        let by = if self.library.is_some() { "/pmi2" } else { "" };
        format!("{}{by}", self.name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.compiler);
        if let Some(prefix) = &self.prefix {
            command.env("OPAL_PREFIX", prefix).env("I_MPI_ROOT", prefix);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Whether it is of this family (`openmpi`, `mpich`, `intel`), and of this version when it says one.
    #[must_use]
    pub fn is(&self, family: &str) -> bool {
        self.name.starts_with(family)
    }

    /// Compiles one of our programs, unless that was done since it was changed.
    ///
    /// # Panics
    /// When it does not compile.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let folder = root().join("tests/mpi");
        let source = folder.join(name).with_extension("c");
        let out = root().join("target/mpi").join(&self.name);
        std::fs::create_dir_all(&out).expect("the target folder is writable");
        let program = out.join(name);
        // One at a time: tests of one process may want the same program.
        static COMPILING: Mutex<()> = Mutex::new(());
        let _one = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = |p: &Path| p.metadata().and_then(|m| m.modified()).ok();
        let newest = changed(&source).max(changed(&folder.join("common.h")));
        if changed(&program) < newest {
            let mut compile = self.command();
            compile.args(["-O1", "-Wall", "-pthread", "-o"]).arg(&program).arg(&source);
            let output = compile.output().unwrap_or_else(|e| panic!("{compile:?}: {e}"));
            assert!(output.status.success(), "{compile:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        program
    }

    /// Where it was moved to, if it was.
    #[must_use]
    pub fn prefix(&self) -> Option<&Path> {
        self.prefix.as_deref()
    }

    /// Options of rmpirun for programs of an installation that was moved.
    #[must_use]
    pub fn options(&self) -> Vec<String> {
        let Some(prefix) = &self.prefix else { return Vec::new() };
        let prefix = prefix.display();
        let mut settings = vec![format!("LD_LIBRARY_PATH={prefix}/lib")];
        if self.is("openmpi") {
            settings.push(format!("OPAL_PREFIX={prefix}"));
        }
        if self.is("intel") {
            settings.push(format!("I_MPI_ROOT={prefix}"));
        }
        if let Some(library) = &self.library {
            settings.extend(["I_MPI_PMI=pmi2".into(), format!("I_MPI_PMI_LIBRARY={}", library.display())]);
        }
        settings.into_iter().flat_map(|setting| ["-x".into(), setting]).collect()
    }

    /// Options of rmpirun that make mpi4py load this implementation's library.
    ///
    /// # Panics
    /// When a program of it cannot be looked at.
    #[must_use]
    pub fn python_options(&self) -> Vec<String> {
        let hello = self.program("hello");
        let mut ldd = Command::new("ldd");
        if let Some(prefix) = &self.prefix {
            ldd.env("LD_LIBRARY_PATH", prefix.join("lib"));
        }
        let text = ldd.arg(&hello).output().expect("ldd runs").stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let library =
            text.lines().filter_map(|l| l.split_whitespace().nth(2)).find(|l| l.contains("/libmpi"));
        let library = PathBuf::from(library.unwrap_or_else(|| panic!("no MPI library in {text}")));
        let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut settings = vec![format!("MPI4PY_LIBMPI={}", library.display())];
        // Debian gives the library of MPICH's interface another name than everybody else.
        if let Some(version) = name.strip_prefix("libmpich.so.") {
            let folder = hello.with_file_name("lib");
            let alias = folder.join(format!("libmpi.so.{version}"));
            std::fs::create_dir_all(&folder).expect("the target folder is writable");
            if !alias.exists() {
                std::os::unix::fs::symlink(&library, &alias).expect("the target folder is writable");
            }
            settings = vec![
                format!("MPI4PY_LIBMPI={}", alias.display()),
                format!("LD_LIBRARY_PATH={}", folder.display()),
            ];
        }
        settings.into_iter().flat_map(|setting| ["-x".into(), setting]).collect()
    }
}

/// Slurm's client library of PMI-2, where Debian has it.
#[must_use]
pub fn slurms_pmi2() -> Option<PathBuf> {
    let folders = ["/usr/lib", "/usr/lib64"].map(PathBuf::from);
    let of_machine = PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let mut files = folders.into_iter().chain([of_machine]).map(|f| f.join("libpmi2.so.0"));
    files.find(|file| file.exists())
}

/// Our program of every call of PMI-2, linked with Slurm's library; `None` where that or its header is not installed.
///
/// # Panics
/// When it does not compile.
#[must_use]
pub fn pmi2_program() -> Option<PathBuf> {
    let library = slurms_pmi2().filter(|_| Path::new("/usr/include/slurm/pmi2.h").exists())?;
    let out = root().join("target/mpi");
    std::fs::create_dir_all(&out).expect("the target folder is writable");
    let program = out.join("pmi2");
    let mut compile = Command::new("cc");
    compile.args(["-O1", "-Wall", "-o"]).arg(&program).arg(root().join("tests/mpi/pmi2.c")).arg(library);
    let output = compile.output().unwrap_or_else(|e| panic!("{compile:?}: {e}"));
    assert!(output.status.success(), "{compile:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}

/// A Python with mpi4py, as `RMPI_PYTHON` says.
#[must_use]
pub fn python() -> Option<PathBuf> {
    std::env::var_os("RMPI_PYTHON").map(PathBuf::from)
}
