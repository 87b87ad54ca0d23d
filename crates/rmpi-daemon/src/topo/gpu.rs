//! The GPUs of this node, from the files of their drivers under a given root. Nothing is asked of a driver itself.

use super::{numbered, text};
use rmpi_types::cpus::{Gpu, GpuMaker};
use std::collections::BTreeMap;
use std::path::Path;

/// The GPUs, in the order their makers' libraries number them: by PCI address. `numa` maps the system's numbers of
/// NUMA nodes to ours.
pub(crate) fn read(root: &Path, numa: &BTreeMap<u32, u32>) -> Vec<Gpu> {
    let nvidia = nvidia(root);
    if !nvidia.is_empty() {
        return of(GpuMaker::Nvidia, root, numa, &nvidia);
    }
    let amd = amd(root);
    if !amd.is_empty() {
        return of(GpuMaker::Amd, root, numa, &amd);
    }
    let intel = intel(root);
    let addresses: Vec<Option<String>> = intel.keys().cloned().map(Some).collect();
    let mut gpus = of(GpuMaker::Intel, root, numa, &addresses);
    gpus.iter_mut().zip(intel.values()).for_each(|(gpu, &parts)| gpu.parts = parts);
    gpus
}

fn of(maker: GpuMaker, root: &Path, numa: &BTreeMap<u32, u32>, addresses: &[Option<String>]) -> Vec<Gpu> {
    let near = |address: &String| {
        let file = root.join("sys/bus/pci/devices").join(address).join("numa_node");
        numa.get(&text(&file)?.trim().parse().ok()?).copied()
    };
    addresses.iter().map(|a| Gpu { maker, numa: a.as_ref().and_then(near), parts: 1 }).collect()
}

/// PCI addresses of the driver's devices, or as many unknown ones as there are device files.
fn nvidia(root: &Path) -> Vec<Option<String>> {
    let known = std::fs::read_dir(root.join("proc/driver/nvidia/gpus")).into_iter().flatten().flatten();
    let mut addresses: Vec<String> =
        known.filter_map(|e| Some(e.file_name().to_str()?.to_ascii_lowercase())).collect();
    addresses.sort();
    // The driver is there, or a container has been given some of its devices.
    if addresses.is_empty() && !root.join("dev/nvidiactl").exists() {
        return Vec::new();
    }
    let files = numbered(&root.join("dev"), "nvidia").len();
    match addresses.len() {
        // A container shows all devices there, but only its own as files.
        n if n > 0 && (files == 0 || n == files) => addresses.into_iter().map(Some).collect(),
        _ => vec![None; files],
    }
}

/// PCI addresses of the nodes of the kernel's compute driver that have SIMD units.
fn amd(root: &Path) -> Vec<Option<String>> {
    let nodes = root.join("sys/class/kfd/kfd/topology/nodes");
    let mut found = Vec::new();
    for node in numbered(&nodes, "") {
        let Some(properties) = text(&nodes.join(node.to_string()).join("properties")) else { continue };
        let value = |key: &str| -> Option<u32> {
            properties.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
        };
        if value("simd_count").unwrap_or(0) == 0 {
            continue;
        }
        let domain = value("domain").unwrap_or(0);
        found.push(
            value("location_id")
                .map(|id| format!("{domain:04x}:{:02x}:{:02x}.{}", id >> 8 & 0xff, id >> 3 & 0x1f, id & 7)),
        );
    }
    found
}

/// PCI addresses of Intel's devices that may be opened here, with the number of their tiles: folders of the `xe`
/// driver, or graphics engines of the `i915` driver that have memory of their own.
fn intel(root: &Path) -> BTreeMap<String, u32> {
    let cards = root.join("sys/class/drm");
    let mut found = BTreeMap::new();
    for card in numbered(&cards, "card") {
        let card = cards.join(format!("card{card}"));
        let device = card.join("device");
        let renders = numbered(&device.join("drm"), "renderD");
        let ours = renders.iter().any(|n| root.join(format!("dev/dri/renderD{n}")).exists());
        let vendor = text(&device.join("vendor"));
        if !ours || vendor.is_none_or(|v| v.trim() != "0x8086") {
            continue;
        }
        let Some(uevent) = text(&device.join("uevent")) else { continue };
        let Some(address) = uevent.lines().find_map(|l| l.strip_prefix("PCI_SLOT_NAME=")) else { continue };
        let engines = numbered(&card.join("gt"), "gt");
        let memory = |n: &&u32| card.join(format!("gt/gt{n}/addr_range")).exists();
        let tiles = numbered(&device, "tile").len().max(engines.iter().filter(memory).count());
        found.insert(address.trim().to_owned(), u32::try_from(tiles).unwrap_or(1).max(1));
    }
    found
}
