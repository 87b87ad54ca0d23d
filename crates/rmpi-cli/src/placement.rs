//! The small grammars of `--map-by`, `--rank-by` and `--bind-to`, in Open MPI's and Hydra's meaning: policy,
//! then qualifiers after colons; case-insensitive, unique abbreviations accepted.

use crate::draft::{PlaceDraft, PlaceFile};
use crate::row::Set;
use crate::values::{abbreviated, count};
use rmpi_types::spec::{BindTo, MapBy, Object, RankBy};
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
                return Err("pe-list is not supported; use --cpu-set LIST with --bind-to core".into());
            }
            name => place.spec.map_by = MapBy::Object(known_object(name)),
        }
    }
    parts.try_for_each(|part| part.split(',').try_for_each(|m| map_modifier(place, m)))
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
        "ordered" => return Err("ORDERED goes with pe-list, which is not supported".into()),
        // Inheritance is about spawned jobs, which there are none of.
        _ => {}
    }
    Ok(())
}

/// `--ppr N:object[,…]`: the first entry with what follows it.
pub(crate) fn ppr(place: &mut PlaceDraft, text: &str) -> Set {
    if text.contains(',') {
        return Err("a list of patterns is not supported; give one N:object".into());
    }
    map_by(place, &format!("ppr:{text}"))
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
    const POLICIES: [&str; 14] = [
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
            "cpu-list" | "cpulist" => {
                return Err("cpu-list is not supported; use --cpu-set LIST with --bind-to core".into());
            }
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
            "ordered" => return Err("ordered goes with cpu-list, which is not supported".into()),
            "report" => return Err("use --report-bindings".into()),
            // A binding that the node does not allow is only an error when it would be wrong to run without.
            _ => {}
        }
    }
    Ok(())
}

/// `-bind-to` in the hydra personality: `none`, `rr`, `object[:n]`.
pub(crate) fn hydra_bind_to(place: &mut PlaceDraft, text: &str) -> Set {
    const POLICIES: [&str; 12] = [
        "none", "rr", "hwthread", "core", "l1cache", "l2cache", "l3cache", "numa", "socket", "package",
        "board", "user",
    ];
    let (policy, n) = text.split_once(':').unwrap_or((text, ""));
    let at = abbreviated("policy", policy, &POLICIES)?;
    place.spec.pe = None;
    // Hydra wraps round when there are more ranks than objects.
    place.spec.overload = true;
    place.spec.bind_to = match POLICIES[at] {
        "none" => BindTo::None,
        "rr" => BindTo::Object(Object::Core),
        "board" => BindTo::Object(Object::Node),
        "user" => return Err("user lists are not supported; use a rankfile".into()),
        name => BindTo::Object(known_object(name)),
    };
    if n.is_empty() {
        return Ok(());
    }
    match place.spec.bind_to {
        BindTo::Object(Object::Core | Object::Hwthread) => place.spec.pe = Some(count(n)?),
        _ if n == "1" => {}
        _ => return Err(format!("'{text}': a count is only supported for core and hwthread")),
    }
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
        rank_by(&mut place, "node:fill").unwrap();
        assert_eq!(place.spec.rank_by, Some(RankBy::Fill));
    }
}
