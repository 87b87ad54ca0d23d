//! `cargo xtask order`: writes `bin/order.ld`, by which the linker puts the functions of a launch beside each other. What
//! is run is seen by running a launch of one rank step by step (`steps.c`), where it lies by the linker's map.

use crate::stage::{self, cargo, root, say, target};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::process::Command;

const HEAD: &str = "\
/* Written by `cargo xtask order`: the functions that a launch of one rank runs, in the order in which it first comes to
   them, beside each other: they need half of the page faults. What the compiler makes of names by itself is left open,
   so that another compiler or version of a crate changes little, and whoever is not found is linked where it would be
   (bin/link.rs). */
";

/// A pattern that matches more than this beside what is run is no help: in bytes.
const MUCH: u64 = 8 << 10;

/// A section of code: where it begins, its size, what names it in a linker's script.
struct Section {
    start: u64,
    size: u64,
    pattern: Option<String>,
}

/// Writes the file; it holds from the next build on.
///
/// # Errors
/// When something cannot be built or run, or no section of a launch was found.
pub(crate) fn run() -> Result<(), String> {
    let (map, steps) = (target().join("order.map"), target().join("steps"));
    let mut build = cargo(&["build", "--release", "--locked", "-p", "rmpirun"]);
    stage::run("build with a map", build.env("RMPI_LINK_MAP", &map))?;
    let source = root().join("bin/xtask/steps.c");
    stage::run("build steps.c", Command::new("cc").args(["-O1", "-o"]).arg(&steps).arg(&source))?;
    let launch = target().join("release/rmpirun");
    let run = Command::new(&steps).arg(&launch).args(["-np", "1", "/bin/true"]).output();
    let run = run.map_err(|e| format!("{}: {e}", steps.display()))?;
    let addresses = String::from_utf8_lossy(&run.stdout);
    let addresses = addresses.lines().filter_map(|line| u64::from_str_radix(line, 16).ok());
    let map = fs::read_to_string(&map).map_err(|e| format!("{}: {e}", map.display()))?;
    let mut sections: Vec<Section> = map.lines().filter_map(section).collect();
    sections.sort_by_key(|s| s.start);
    let script = script(&sections, addresses);
    let lines = script.lines().count();
    if lines < 100 {
        return Err(format!(
            "xtask: only {lines} lines: is the map one of lld's, the program at fixed addresses?"
        ));
    }
    let out = root().join("bin/order.ld");
    fs::write(&out, script).map_err(|e| format!("{}: {e}", out.display()))?;
    say(&format!("xtask: {lines} lines in {}", out.display()));
    Ok(())
}

/// A line of lld's map that is a section of code: addresses, size, alignment, then `file:(section)`.
fn section(line: &str) -> Option<Section> {
    let mut words = line.split_whitespace();
    let mut number = || u64::from_str_radix(words.next()?, 16).ok();
    let (start, _, size) = (number()?, number()?, number()?);
    let name = words.nth(1)?;
    let (file, section) = name.strip_suffix(')')?.rsplit_once(":(")?;
    section.starts_with(".text").then(|| Section { start, size, pattern: pattern(file, section) })
}

/// What matches this section, and few others: `None` where names say too little.
fn pattern(file: &str, section: &str) -> Option<String> {
    let rust = section.strip_prefix(".text.").filter(|name| name.contains("_ZN") || name.contains("_R"));
    let file = file.rsplit('/').next()?;
    let Some(name) = rust else {
        let member = file.strip_suffix(')')?.replace('(', ":");
        return Some(format!("*{member}(.text .text.*)"));
    };
    // Of `program-HASH.crate-HASH.crate.HASH-cgu.0.rcgu.o` the crate's name says which of many instances it is.
    let unit = file.split('.').nth(2).filter(|_| file.contains("-cgu."));
    let unit = unit.map_or_else(|| "*".to_owned(), |unit| format!("*.{unit}.*"));
    let mut open = match name.rsplit_once("17h") {
        Some((before, hash)) if hash.len() >= 17 && hash.is_char_boundary(17) => {
            let rest = hash.get(17..).filter(|rest| !rest.starts_with(".llvm.")).unwrap_or("*");
            format!("{before}17h*E{rest}")
        }
        _ => name.to_owned(),
    };
    if open.contains("_R") {
        open = without_hashes(&open);
    }
    Some(format!("{unit}(.text.{open})"))
}

/// A name of the newer kind (`_R...`) without the numbers of its crates, `Cs...._`.
fn without_hashes(name: &str) -> String {
    let mut parts = name.split("Cs");
    let mut open = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let hash = part.split('_').next().unwrap_or_default();
        let is_hash = hash.len() >= 8 && hash.bytes().all(|b| b.is_ascii_alphanumeric());
        open += "Cs";
        open += if is_hash { "*" } else { hash };
        open += &part[hash.len()..];
    }
    open
}

/// The script for these addresses, in their order.
fn script(sections: &[Section], addresses: impl Iterator<Item = u64>) -> String {
    let mut whole: HashMap<&str, u64> = HashMap::new();
    for section in sections {
        *whole.entry(section.pattern.as_deref().unwrap_or_default()).or_default() += section.size;
    }
    let mut run: BTreeMap<usize, u64> = BTreeMap::new();
    let (mut order, mut known, mut used) = (Vec::new(), HashSet::new(), HashMap::<&str, u64>::new());
    for address in addresses {
        let Some(index) = sections.partition_point(|s| s.start <= address).checked_sub(1) else { continue };
        let section = &sections[index];
        let Some(pattern) = section.pattern.as_deref().filter(|_| address < section.start + section.size)
        else {
            continue;
        };
        if run.insert(index, section.size).is_none() {
            *used.entry(pattern).or_default() += section.size;
        }
        if known.insert(pattern) {
            order.push(pattern);
        }
    }
    order.retain(|pattern| whole[pattern] - used[pattern] <= MUCH);
    let lines: String = order.iter().map(|pattern| format!("    {pattern}\n")).collect();
    format!("{HEAD}SECTIONS {{\n  .text.launch : {{\n{lines}  }}\n}}\nINSERT BEFORE .text;\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_named_by_what_stays() {
        for (line, want) in [
            (
                " 3765c0 3765c0 2a 16   /t/rmpirun-a3.tokio-51.tokio.9f-cgu.0.rcgu.o.rcgu.o:(.text._ZN5tokio4poll17h0123456789abcdefE)",
                Some("*.tokio.*(.text._ZN5tokio4poll17h*E)"),
            ),
            (
                " 3765c0 3765c0 2a 16   /t/rmpirun-a3.x-51.x.9f-cgu.0.rcgu.o:(.text._ZN1a17h0123456789abcdefE.llvm.123)",
                Some("*.x.*(.text._ZN1a17h*E*)"),
            ),
            (
                " bfb1e0 bfb1e0 5c56 16  /usr/lib/libc.a(malloc.o):(.text)",
                Some("*libc.a:malloc.o(.text .text.*)"),
            ),
            (
                " 3765c0 3765c0 2a 16 /l/libstd-1.rlib(std.o):(.text._RNvNtCs12345678901_3std3env8args_os)",
                Some("*(.text._RNvNtCs*_3std3env8args_os)"),
            ),
            (" 2c09c0 2c09c0 28 4 /usr/lib/libc.a(malloc.o):(.rodata)", None),
            ("     VMA  LMA  Size Align Out", None),
        ] {
            assert_eq!(section(line).and_then(|s| s.pattern).as_deref(), want, "{line}");
        }
    }

    #[test]
    fn order_is_that_of_running_and_what_matches_too_much_is_left_out() {
        let at = |start, size, pattern: &str| Section { start, size, pattern: Some(pattern.to_owned()) };
        let sections = [at(0, 16, "a"), at(16, 16, "b"), at(32, 16, "many"), at(64, MUCH + 1, "many")];
        let script = script(&sections, [40, 20, 0, 21, 50].into_iter());
        let lines: Vec<&str> = script.lines().filter(|l| l.starts_with("    ")).map(str::trim).collect();
        assert_eq!(lines, ["b", "a"]);
    }
}
