//! Arbitrary input: never a panic, and the program's arguments stay byte for byte.

use super::parse_as;
use crate::{Parsed, table};
use proptest::prelude::*;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

fn bytes() -> impl Strategy<Value = OsString> {
    proptest::collection::vec(1u8.., 0..12).prop_map(OsString::from_vec)
}

/// Words that reach deep: options of the table, likely values, and noise.
fn word() -> impl Strategy<Value = OsString> {
    let names: Vec<&'static str> = table::rows().flat_map(|r| r.names()).collect();
    let values =
        ["0", "2", "", ":", "--", "-", "hosts", "n1:2", "a=b", "1,6", "node", "none", "-p 22", "'", "x"];
    prop_oneof![
        4 => proptest::sample::select(names.clone()).prop_map(|n| OsString::from(format!("--{n}"))),
        2 => (proptest::sample::select(names), bytes()).prop_map(|(n, v)| {
            let mut word = OsString::from(format!("-{n}="));
            word.push(v);
            word
        }),
        4 => proptest::sample::select(values.to_vec()).prop_map(OsString::from),
        2 => bytes(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_line_is_understood_or_refused(line in proptest::collection::vec(word(), 0..12)) {
        if let Err(e) = parse_as("mpirun", &[], line) {
            prop_assert!(!e.message.is_empty());
        }
    }

    #[test]
    fn the_program_gets_its_arguments(args in proptest::collection::vec(bytes(), 0..8), np in 1u32..9) {
        let args: Vec<OsString> = args.into_iter().filter(|a| a != ":").collect();
        let mut line: Vec<OsString> = vec!["-np".into(), np.to_string().into(), "prog".into()];
        line.extend(args.iter().cloned());
        let Ok(Parsed::Run(command)) = parse_as("mpirun", &[], line) else { panic!("refused") };
        prop_assert_eq!(&command.job.apps[0].args, &args);
        prop_assert_eq!(command.job.apps[0].np, Some(np));
    }

    #[test]
    fn any_app_file_is_understood_or_refused(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = crate::appfile::read(&text, "apps", crate::Personality::Default);
    }
}
