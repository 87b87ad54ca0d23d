//! A node's CPUs in hwloc's XML (format 2.0). A client that gets it does not read the machine itself, which would
//! cost every process of a node tens of milliseconds, most of them in plug-ins for displays and devices.

use rmpi_types::cpus::Cpu;
use rmpi_types::{CpuSet, Topology};
use std::cell::OnceCell;
use std::fmt::Write as _;

/// A topology, drawn when somebody wants it.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    topology: Topology,
    xml: OnceCell<Option<String>>,
}

impl Drawing {
    /// To be drawn.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        Self { topology, xml: OnceCell::new() }
    }

    /// The same where every CPU is as near to every device as any other: it says nothing of devices, which clients of
    /// PMI would read from it too.
    #[must_use]
    pub fn even_xml(&self) -> Option<&str> {
        let cpus = &self.topology.cpus;
        cpus.windows(2).all(|c| (c[0].package, c[0].numa) == (c[1].package, c[1].numa)).then(|| self.xml())?
    }

    /// The XML; `None` where it would take more than packages with one NUMA node each to draw.
    #[must_use]
    pub fn xml(&self) -> Option<&str> {
        self.xml.get_or_init(|| draw(&self.topology)).as_deref()
    }
}

/// A set as hwloc writes it: words of 32 bits, the highest first.
fn mask(set: &CpuSet) -> String {
    let mut halves: Vec<u64> = set.words().iter().flat_map(|w| [w & 0xffff_ffff, w >> 32]).collect();
    while halves.len() > 1 && halves.last() == Some(&0) {
        halves.pop();
    }
    halves.iter().rev().map(|half| format!("0x{half:08x}")).collect::<Vec<_>>().join(",")
}

fn set(cpus: &[Cpu]) -> CpuSet {
    cpus.iter().map(|c| c.os).collect()
}

/// Writes objects with numbers of their own.
struct Pen {
    out: String,
    last: u32,
}

impl Pen {
    fn open(&mut self, kind: &str, index: u32, cpus: &CpuSet, nodes: &CpuSet, leaf: bool) {
        self.last += 1;
        let (cpus, nodes, end) = (mask(cpus), mask(nodes), if leaf { "/" } else { "" });
        let allowed = if kind == "Machine" {
            format!(" allowed_cpuset=\"{cpus}\" allowed_nodeset=\"{nodes}\"")
        } else {
            String::new()
        };
        let _ = writeln!(
            self.out,
            "<object type=\"{kind}\" os_index=\"{index}\" cpuset=\"{cpus}\" complete_cpuset=\"{cpus}\" \
             nodeset=\"{nodes}\" complete_nodeset=\"{nodes}\"{allowed} gp_index=\"{}\"{end}>",
            self.last
        );
    }

    fn close(&mut self) {
        self.out.push_str("</object>\n");
    }
}

fn draw(topology: &Topology) -> Option<String> {
    let cpus = &topology.cpus[..];
    let packages: Vec<&[Cpu]> = cpus.chunk_by(|a, b| a.package == b.package).collect();
    let one_node = |p: &&[Cpu]| p.iter().all(|c| c.numa == p[0].numa);
    let distinct =
        packages.windows(2).all(|w| w[0][0].numa < w[1][0].numa && w[0][0].package < w[1][0].package);
    if cpus.is_empty() || !packages.iter().all(one_node) || !distinct {
        return None;
    }
    let node = |p: &[Cpu]| CpuSet::from_iter([p[0].numa]);
    let all_nodes: CpuSet = packages.iter().map(|p| p[0].numa).collect();
    let mut pen = Pen { out: String::new(), last: 0 };
    pen.out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    pen.out.push_str("<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology version=\"2.0\">\n");
    pen.open("Machine", 0, &set(cpus), &all_nodes, false);
    for package in &packages {
        let nodes = node(package);
        pen.open("Package", package[0].package, &set(package), &nodes, false);
        pen.open("NUMANode", package[0].numa, &set(package), &nodes, true);
        for core in package.chunk_by(|a, b| a.core == b.core) {
            pen.open("Core", core[0].core, &set(core), &nodes, false);
            for cpu in core {
                pen.open("PU", cpu.os, &CpuSet::from_iter([cpu.os]), &nodes, true);
            }
            pen.close();
        }
        pen.close();
    }
    pen.close();
    pen.out.push_str("</topology>\n");
    Some(pen.out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_drawn_once() {
        let drawing = Drawing::new(Topology::flat(2));
        let xml = drawing.xml().unwrap();
        assert_eq!(xml.matches("type=\"PU\"").count(), 2);
        assert_eq!(xml.matches("<object").count(), xml.matches("</object>").count() + 3);
        assert!(xml.contains("<object type=\"Core\" os_index=\"1\" cpuset=\"0x00000002\""));
        assert!(xml.contains("allowed_cpuset=\"0x00000003\""));
        assert_eq!(drawing.xml().map(str::as_ptr), drawing.xml().map(str::as_ptr));
    }

    #[test]
    fn odd_machines_are_left_to_their_clients() {
        let mut topology = Topology::flat(4);
        topology.cpus[2].numa = 1;
        assert_eq!(Drawing::new(topology.clone()).xml(), None, "two NUMA nodes in a package");
        topology.cpus[3].numa = 1;
        topology.cpus[2].package = 1;
        topology.cpus[3].package = 1;
        let two = Drawing::new(topology);
        assert!(two.xml().is_some());
        assert_eq!(two.even_xml(), None, "a device is nearer to one package");
        let one = Drawing::new(Topology::flat(2));
        assert!(one.even_xml().is_some());
        assert_eq!(one.even_xml(), one.xml());
        assert_eq!(Drawing::default().xml(), None);
    }

    #[test]
    fn masks_are_words_with_the_highest_first() {
        let table = [
            (vec![0], "0x00000001"),
            (vec![32], "0x00000001,0x00000000"),
            (vec![1, 95], "0x80000000,0x00000000,0x00000002"),
        ];
        for (cpus, text) in table {
            assert_eq!(mask(&cpus.into_iter().collect()), text);
        }
    }
}
