//! The small grammars of `--map-by`, `--rank-by` and `--bind-to`, in Open MPI's and Hydra's meaning: policy,
//! then qualifiers after colons; case-insensitive, unique abbreviations accepted.

use crate::draft::{PlaceDraft, PlaceFile};
use crate::row::Set;
use crate::values::{abbreviated, count};
use rmpi_types::CpuSet;
use rmpi_types::spec::{BindTo, CpuList, MapBy, Object, RankBy};
use std::ffi::OsString;

const OBJECTS: [&str; 9] =
    ["hwthread", "core", "l1cache", "l2cache", "l3cache", "numa", "socket", "package", "node"];

/// A hardware object by name.
fn object(what: &str, word: &str) -> Result<Object, String> {
    Ok(known_object(OBJECTS[abbreviated(what, word, &OBJECTS)?]))
}

fn known_object(name: &str) -> Object {
    match name {
        "hwthread" => Object::Hwthread,
        "core" => Object::Core,
        "l1cache" => Object::L1,
        "l2cache" => Object::L2,
        "l3cache" => Object::L3,
        "numa" => Object::Numa,
        "socket" | "package" => Object::Package,
        _ => Object::Node,
    }
}

/// `--map-by policy[:modifier]…`; a bare `:modifier` keeps the policy.
pub(crate) fn map_by(place: &mut PlaceDraft, text: &str) -> Set {
    const POLICIES: [&str; 16] = [
        "slot", "hwthread", "core", "l1cache", "l2cache", "l3cache", "numa", "socket", "package", "board",
        "node", "seq", "ppr", "rankfile", "pe-list", "dist",
    ];
    let mut parts = text.split(':');
    let policy = parts.next().unwrap_or_default();
    let (word, list) = policy.split_once('=').unwrap_or((policy, ""));
    if !policy.is_empty() {
        if !list.is_empty() && abbreviated("policy", word, &POLICIES).is_ok_and(|p| POLICIES[p] != "pe-list")
        {
            return Err(format!("'{policy}': this policy takes no value"));
        }
        place.file = PlaceFile::None;
        match POLICIES[abbreviated("policy", word, &POLICIES)?] {
            "slot" => place.spec.map_by = MapBy::Slot,
            "board" => place.spec.map_by = MapBy::Object(Object::Node),
            "seq" => place.file = PlaceFile::Seq,
            "rankfile" => place.file = PlaceFile::Rankfile,
            "ppr" => {
                let (n, of) = (parts.next().unwrap_or_default(), parts.next());
                let of = of.ok_or_else(|| format!("'{text}': ppr is written ppr:N:object"))?;
                let n = count(n).map_err(|e| format!("ppr: {e}"))?;
                place.spec.map_by = MapBy::Ppr(n, object("object", of)?);
            }
            "dist" => {
                return Err("dist needs a device distance matrix; use --map-by numa or a rankfile".into());
            }
            "pe-list" => {
                place.spec.map_by = MapBy::Slot;
                place.spec.bind_to = BindTo::List(cpu_list(list)?);
            }
            name => place.spec.map_by = MapBy::Object(known_object(name)),
        }
    }
    parts.try_for_each(|part| part.split(',').try_for_each(|m| map_modifier(place, m)))
}

/// `0,2-3`: one entry a CPU, in the order given. All ranks get all of them unless `ordered` follows.
fn cpu_list(text: &str) -> Result<CpuList, String> {
    let bad = || format!("'{text}' is not a list of CPUs (0,2,4-7)");
    let mut entries = Vec::new();
    for part in text.split(',') {
        let set = CpuSet::parse_list(part).filter(|s| !s.is_empty()).ok_or_else(bad)?;
        entries.extend(set.iter().map(|cpu| std::iter::once(cpu).collect::<CpuSet>()));
    }
    Ok(CpuList { entries, ..CpuList::default() })
}

/// `ordered` after a list of CPUs.
fn ordered(place: &mut PlaceDraft) -> Set {
    match &mut place.spec.bind_to {
        BindTo::List(list) => {
            list.ordered = true;
            Ok(())
        }
        _ => Err("ordered goes with pe-list or cpu-list".into()),
    }
}

/// Hydra's `-map-by`: the order in which the ranks of a node take the objects they are bound to.
pub(crate) fn hydra_map_by(place: &mut PlaceDraft, text: &str) -> Set {
    let (word, n) = text.split_once(':').unwrap_or((text, ""));
    if !n.is_empty() {
        count(n)?;
    }
    place.spec.bind_order = match word.to_ascii_lowercase().as_str() {
        "" | "none" => None,
        "board" => Some(Object::Node),
        word => Some(object("object", word)?),
    };
    Ok(())
}

fn map_modifier(place: &mut PlaceDraft, text: &str) -> Set {
    const MODIFIERS: [&str; 11] = [
        "pe",
        "span",
        "oversubscribe",
        "nooversubscribe",
        "nolocal",
        "hwtcpus",
        "corecpus",
        "inherit",
        "noinherit",
        "file",
        "ordered",
    ];
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let modifier = MODIFIERS[abbreviated("modifier", name, &MODIFIERS)?];
    let spec = &mut place.spec;
    match modifier {
        "pe" => spec.pe = Some(count(value).map_err(|e| format!("PE: {e}"))?),
        "file" if value.is_empty() => return Err("FILE= needs a path".into()),
        "file" => place.path = Some(OsString::from(value)),
        _ if !value.is_empty() => return Err(format!("'{text}': this modifier takes no value")),
        "span" => spec.span = true,
        "oversubscribe" => spec.oversubscribe = true,
        "nooversubscribe" => spec.oversubscribe = false,
        "nolocal" => spec.nolocal = true,
        "hwtcpus" => spec.use_hwthreads = true,
        "corecpus" => spec.use_hwthreads = false,
        "ordered" => ordered(place)?,
        // Inheritance is about spawned jobs, which there are none of.
        _ => {}
    }
    Ok(())
}

/// `--ppr N:object[,M:object]`: the patterns must come to the same, as ranks have one place.
pub(crate) fn ppr(place: &mut PlaceDraft, text: &str) -> Set {
    let mut patterns = text.split(',');
    map_by(place, &format!("ppr:{}", patterns.next().unwrap_or_default()))?;
    match patterns.next() {
        // Modifiers may hold commas.
        Some(more) if more.starts_with(|c: char| c.is_ascii_digit()) => {
            Err(format!("'{text}': ranks are placed by one pattern; give one N:object"))
        }
        Some(more) => more.split(',').chain(patterns).try_for_each(|m| map_modifier(place, m)),
        None => Ok(()),
    }
}

/// `--rank-by`.
pub(crate) fn rank_by(place: &mut PlaceDraft, text: &str) -> Set {
    const POLICIES: [&str; 13] = [
        "slot", "node", "fill", "span", "hwthread", "core", "l1cache", "l2cache", "l3cache", "numa",
        "socket", "package", "board",
    ];
    let (policy, modifier) = text.split_once(':').unwrap_or((text, ""));
    place.spec.rank_by = Some(match POLICIES[abbreviated("policy", policy, &POLICIES)?] {
        "slot" => RankBy::Slot,
        "node" | "board" => RankBy::Node,
        "fill" => RankBy::Fill,
        "span" => RankBy::Span,
        name => RankBy::Object(known_object(name)),
    });
    match modifier.to_ascii_lowercase().as_str() {
        "" => Ok(()),
        "fill" => {
            place.spec.rank_by = Some(RankBy::Fill);
            Ok(())
        }
        "span" => {
            place.spec.rank_by = Some(RankBy::Span);
            Ok(())
        }
        _ => Err(format!("modifier '{modifier}' is not known (there are: span fill)")),
    }
}

/// `--bind-to` in the default personality.
pub(crate) fn bind_to(place: &mut PlaceDraft, text: &str) -> Set {
    const POLICIES: [&str; 15] = [
        "none",
        "hwthread",
        "core",
        "l1cache",
        "l2cache",
        "l3cache",
        "numa",
        "socket",
        "package",
        "board",
        "cpu-list",
        "cpulist",
        "share",
        "default-openmpi",
        "gpu",
    ];
    const QUALIFIERS: [&str; 4] = ["overload-allowed", "if-supported", "ordered", "report"];
    let mut parts = text.split(':');
    let policy = parts.next().unwrap_or_default();
    if !policy.is_empty() {
        place.spec.bind_to = match POLICIES[abbreviated("policy", policy, &POLICIES)?] {
            "none" => BindTo::None,
            "share" => BindTo::Share,
            "default-openmpi" => BindTo::OpenMpi,
            "board" => BindTo::Object(Object::Node),
            // The list is that of `--cpu-list`, which may come later.
            "cpu-list" | "cpulist" => BindTo::List(CpuList::default()),
            "gpu" => BindTo::Gpu,
            name => BindTo::Object(known_object(name)),
        };
    }
    for part in parts.flat_map(|p| p.split(',')) {
        if part.parse::<u32>().is_ok() {
            return Err(format!(
                "'{text}' is Hydra's form; write --map-by slot:PE={part} --bind-to {policy}, or add --personality hydra"
            ));
        }
        match QUALIFIERS[abbreviated("qualifier", part, &QUALIFIERS)?] {
            "overload-allowed" => place.spec.overload = true,
            "ordered" => ordered(place)?,
            "report" => return Err("use --report-bindings".into()),
            // A binding that the node does not allow is only an error when it would be wrong to run without.
            _ => {}
        }
    }
    Ok(())
}

/// `-bind-to` in the hydra personality: `none`, `rr`, `user:LIST`, `object[:n]`, `gpu`.
pub(crate) fn hydra_bind_to(place: &mut PlaceDraft, text: &str) -> Set {
    const POLICIES: [&str; 17] = [
        "none", "rr", "hwthread", "core", "l1cache", "l2cache", "l3cache", "numa", "socket", "package",
        "board", "user", "gpu", "pci", "ib", "en", "hfi",
    ];
    let (policy, n) = text.split_once(':').unwrap_or((text, ""));
    let at = abbreviated("policy", policy, &POLICIES)?;
    // Hydra wraps round when there are more ranks than objects.
    (place.spec.pe, place.spec.bind_count, place.spec.overload) = (None, None, true);
    place.spec.bind_to = match POLICIES[at] {
        "none" => BindTo::None,
        "rr" => BindTo::Object(Object::Core),
        "board" => BindTo::Object(Object::Node),
        "user" => return user_list(place, n),
        "gpu" => BindTo::Gpu,
        name @ ("pci" | "ib" | "en" | "hfi") => {
            return Err(format!("{name}: binding near a device other than a GPU is not supported; use numa"));
        }
        name => BindTo::Object(known_object(name)),
    };
    if n.is_empty() {
        return Ok(());
    }
    match place.spec.bind_to {
        BindTo::Object(Object::Core | Object::Hwthread) => place.spec.pe = Some(count(n)?),
        BindTo::Object(_) => place.spec.bind_count = Some(count(n)?),
        BindTo::Gpu => drop(count(n)?),
        _ => return Err(format!("'{text}': {policy} takes no count")),
    }
    Ok(())
}

/// `user:0,1+2,3`: the CPUs of each local rank, round again from the start.
fn user_list(place: &mut PlaceDraft, text: &str) -> Set {
    let entry = |part: &str| {
        let set = CpuSet::parse_list(&part.replace('+', ",")).filter(|s| !s.is_empty());
        set.ok_or_else(|| format!("'{part}' is not a CPU or several joined by + (user:0,1+2,3)"))
    };
    let entries = text.split(',').map(entry).collect::<Result<_, String>>()?;
    place.spec.bind_to = BindTo::List(CpuList { entries, os: true, ordered: true });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(text: &str) -> Result<PlaceDraft, String> {
        let mut place = PlaceDraft::default();
        map_by(&mut place, text)?;
        Ok(place)
    }

    #[test]
    fn policies_and_modifiers() {
        assert_eq!(mapped("NODE").unwrap().spec.map_by, MapBy::Object(Object::Node));
        let place = mapped("ppr:2:soc:PE=4:SPAN,oversub").unwrap();
        assert_eq!(place.spec.map_by, MapBy::Ppr(2, Object::Package));
        assert_eq!((place.spec.pe, place.spec.span, place.spec.oversubscribe), (Some(4), true, true));
        assert!(mapped(":OVERSUBSCRIBE").unwrap().spec.oversubscribe);
        let place = mapped("rankfile:file=/a=b").unwrap();
        assert_eq!((place.file, place.path), (PlaceFile::Rankfile, Some("/a=b".into())));
        assert_eq!(mapped("seq").unwrap().file, PlaceFile::Seq);
    }

    #[test]
    fn wrong_ones_say_why() {
        for (text, part) in [
            ("s", "slot or socket"),
            ("zz", "there are"),
            ("ppr:2", "ppr:N:object"),
            ("ppr:0:node", "ppr: 0"),
            ("dist", "distance"),
            ("slot:PE=x", "PE: 'x'"),
            ("slot:zz", "modifier 'zz'"),
        ] {
            assert!(mapped(text).unwrap_err().contains(part), "{text}");
        }
        let mut place = PlaceDraft::default();
        assert!(bind_to(&mut place, "core:2").unwrap_err().contains("PE=2"));
        assert!(rank_by(&mut place, "s").is_err());
    }

    #[test]
    fn bindings() {
        let mut place = PlaceDraft::default();
        bind_to(&mut place, "core:overload").unwrap();
        assert_eq!(place.spec.bind_to, BindTo::Object(Object::Core));
        assert!(place.spec.overload);
        hydra_bind_to(&mut place, "core:2").unwrap();
        assert_eq!(place.spec.pe, Some(2));
        hydra_bind_to(&mut place, "socket:2").unwrap();
        assert_eq!((place.spec.pe, place.spec.bind_count), (None, Some(2)));
        hydra_bind_to(&mut place, "user:0,1+2").unwrap();
        let BindTo::List(list) = &place.spec.bind_to else { panic!() };
        assert!(list.os && list.entries[1].to_string() == "1-2", "{list:?}");
        map_by(&mut place, "pe-list=0,4-5:ordered").unwrap();
        let BindTo::List(list) = &place.spec.bind_to else { panic!() };
        assert!(!list.os && list.ordered && list.entries.len() == 3, "{list:?}");
        assert!(hydra_bind_to(&mut place, "pci:1").is_err());
        rank_by(&mut place, "node:fill").unwrap();
        assert_eq!(place.spec.rank_by, Some(RankBy::Fill));
    }
}
