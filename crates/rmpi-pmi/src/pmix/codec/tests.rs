//! The codec against bytes made by an independent implementation of the protocol (`golden.hex`), against itself
//! over values of every kind, and against hostile payloads.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;

const FORMS: [Codec; 4] = [
    Codec { flex: false, described: false },
    Codec { flex: false, described: true },
    Codec { flex: true, described: false },
    Codec { flex: true, described: true },
];

fn golden() -> Vec<(Codec, Bytes)> {
    let lines = include_str!("golden.hex").lines().map(|line| {
        let mut words = line.split(' ');
        let (module, form) = (words.next().unwrap(), words.next().unwrap());
        let hex = words.next().unwrap().as_bytes();
        let bytes = hex.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap());
        (Codec::of_module(module, form == "described").unwrap(), bytes.collect())
    });
    lines.collect()
}

fn kvals() -> Vec<(&'static str, Value)> {
    let infos = vec![Info::new("pmix.hname", Value::text("n1")), Info::new("pmix.nodeid", Value::u32(300))];
    let proc = |rank| Proc { ns: "ns".into(), rank };
    let number = |ty, n: i64| Value::Number(ty, n.cast_unsigned());
    let info =
        ProcInfo { proc: proc(2), host: Some("h".into()), program: Some("e".into()), pid: 9, state: 4 };
    let envar = Envar { name: Some("N".into()), value: Some("V".into()), separator: b':' };
    vec![
        ("i", number(DataType::INT, -5)),
        ("u", number(DataType::UINT, 5)),
        ("s", Value::size(70000)),
        ("p", number(DataType::PID, 4711)),
        ("i16", number(DataType::INT16, -2)),
        ("i64", number(DataType::INT64, -(1 << 40))),
        ("u64", Value::Number(DataType::UINT64, (1 << 63) + 5)),
        ("b", Value::blob(vec![0, 1, 255])),
        ("f", Value::Text(DataType::FLOAT, Some("1.500000".into()))),
        ("t", Value::Timeval(3, -4)),
        ("a", Value::infos(infos)),
        ("e", Value::Array(Array { ty: DataType::UNDEF, values: Vec::new() })),
        ("n", Value::Undef),
        ("pi", Value::ProcInfo(Box::new(info))),
        ("ev", Value::Envar(Box::new(envar))),
    ]
}

#[test]
fn bytes_are_those_of_the_protocol() {
    for (codec, expected) in golden() {
        let kvals = kvals();
        let (before, after) = kvals.split_at(13);
        let mut w = Writer::new(codec);
        w.one_number(DataType::COMMAND, 3);
        w.counted(&[Proc { ns: "707461121".into(), rank: 0xffff_fffe }]);
        w.counted(&[Info::new("pmix.collect", Value::bool(true))]);
        w.status(-46).text(None).text(Some(&"x".into())).rank(7);
        for (key, value) in before {
            w.kval(&Text::fixed(key), value);
        }
        let proc = Proc { ns: "ns".into(), rank: 1 };
        w.one(&Pdata { proc, key: "key".into(), value: Value::text("v") }).buffer(b"zz");
        for (key, value) in after {
            w.kval(&Text::fixed(key), value);
        }
        assert_eq!(w.finish(), expected, "{codec:?}");

        let mut r = Reader::new(codec, expected);
        assert_eq!(r.small(DataType::COMMAND), Ok(3));
        assert_eq!(r.counted(), Ok(vec![Proc { ns: "707461121".into(), rank: 0xffff_fffe }]));
        assert_eq!(r.counted(), Ok(vec![Info::new("pmix.collect", Value::bool(true))]));
        assert_eq!(
            (r.status(), r.text(), r.text(), r.rank()),
            (Ok(-46), Ok(None), Ok(Some("x".into())), Ok(7))
        );
        for (key, value) in before {
            assert_eq!(r.one(), Ok(Kval { key: Text::fixed(key), value: value.clone() }));
        }
        assert_eq!(r.one::<Pdata>().unwrap().key, "key");
        assert_eq!(r.buffer().unwrap().left(), 2);
        for (key, value) in after {
            assert_eq!(r.one(), Ok(Kval { key: Text::fixed(key), value: value.clone() }));
        }
        assert!(r.is_empty());
    }
}

fn text() -> impl Strategy<Value = Text> {
    prop::collection::vec(1u8.., 0..12).prop_map(|b| Text(b.into()))
}

fn numbers() -> impl Strategy<Value = Value> {
    let limits = [
        (DataType::BOOL, 0, 1),
        (DataType::INT8, -128, 127),
        (DataType::INT16, -32768, 32767),
        (DataType::INT32, i32::MIN.into(), i32::MAX.into()),
        (DataType::INT64, i64::MIN, i64::MAX),
        (DataType::INT, i32::MIN.into(), i32::MAX.into()),
        (DataType::SIZE, 0, i64::MAX),
        (DataType::UINT16, 0, 65535),
        (DataType::UINT32, 0, u32::MAX.into()),
        (DataType::RANK, 0, u32::MAX.into()),
        (DataType::PID, 0, u32::MAX.into()),
        (DataType::STATUS, i32::MIN.into(), 0),
        (DataType::TIME, 0, i64::MAX),
        (DataType::SCOPE, 0, 255),
        (DataType::DEVTYPE, 0, i64::MAX),
    ];
    (0..limits.len()).prop_flat_map(move |i| {
        let (ty, lo, hi) = limits[i];
        (lo..=hi).prop_map(move |n| Value::Number(ty, n.cast_unsigned()))
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Undef),
        numbers(),
        prop::option::of(text()).prop_map(|t| Value::Text(DataType::STRING, t)),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::blob),
        (any::<i64>(), any::<i64>()).prop_map(|(s, us)| Value::Timeval(s, us)),
        (text(), any::<u32>()).prop_map(|(ns, rank)| Value::Proc(Proc { ns, rank })),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let info =
            (text(), any::<u32>(), inner.clone()).prop_map(|(key, flags, value)| Info { key, flags, value });
        let infos = prop::collection::vec(info, 0..5).boxed();
        let app = (prop::collection::vec(text(), 0..4), any::<i32>(), infos.clone()).prop_map(
            |(args, processes, infos)| App {
                command: args.first().cloned(),
                args,
                env: vec!["A=1".into()],
                wdir: None,
                processes,
                infos,
            },
        );
        prop_oneof![
            infos.clone().prop_map(Value::infos),
            inner.clone().prop_map(|v| Value::Nested(Box::new(v))),
            (text(), inner).prop_map(|(key, value)| Value::Kval(Box::new(Kval { key, value }))),
            app.prop_map(|a| Value::App(Box::new(a))),
            (prop::collection::vec(text(), 0..4), infos)
                .prop_map(|(keys, qualifiers)| Value::Query(Box::new(Query { keys, qualifiers }))),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_survives_every_form(values in prop::collection::vec((text(), value()), 1..4)) {
        let values: Vec<Info> =
            values.into_iter().map(|(key, value)| Info { key, flags: 0, value }).collect();
        for codec in FORMS {
            let mut w = Writer::new(codec);
            w.counted(&values);
            let packed = w.finish();
            let mut r = Reader::new(codec, packed.clone());
            prop_assert_eq!(r.counted::<Info>(), Ok(values.clone()));
            prop_assert!(r.is_empty());
            for cut in 0..packed.len() {
                let mut r = Reader::new(codec, packed.slice(..cut));
                prop_assert!(r.counted::<Info>().is_err(), "cut at {}", cut);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for codec in FORMS {
            let mut r = Reader::new(codec, Bytes::from(bytes.clone()));
            while !r.is_empty() && r.items::<Kval>().is_ok() {}
        }
    }
}

/// An item of one KVAL with an empty key and what `value` packs after the key.
fn one_kval(value: &[u8]) -> Bytes {
    let mut bytes = vec![0, 0, 0, 1, 0, 0, 0, 1, 0];
    bytes.extend_from_slice(value);
    bytes.into()
}

#[test]
fn hostile_payloads_are_refused_before_anything_is_allocated() {
    let read = |bytes: Bytes| Reader::new(Codec::PLAIN, bytes).one::<Kval>().unwrap_err();
    let size = |n: u64| [&[0, 15][..], &n.to_be_bytes()].concat();
    let array = |ty: u8, n: u64| one_kval(&[&[0, 39, 0, ty][..], &size(n)].concat());
    assert_eq!(read(array(24, u64::MAX)), CodecError::Count(i64::MAX));
    assert_eq!(read(array(24, 1 << 40)), CodecError::Count(1 << 40));
    assert_eq!(read(one_kval(&[&[0, 27][..], &size(1 << 62)].concat())), CodecError::Short);
    assert_eq!(read(one_kval(&[0, 3, 0x7f, 0xff, 0xff, 0xff])), CodecError::Short);
    assert_eq!(read(one_kval(&[0, 3, 0xff, 0xff, 0xff, 0xff])), CodecError::Count(-1));
    assert_eq!(read(one_kval(&[0, 3, 0, 0, 0, 2, b'a', b'b'])), CodecError::Text);
    assert_eq!(read(one_kval(&[0, 3, 0, 0, 0, 3, b'a', 0, 0])), CodecError::Text);
    assert_eq!(read(one_kval(&[0, 99])), CodecError::Type(99));
    assert_eq!(read(one_kval(&[0, 4, 0, 3])), CodecError::Mismatch { expected: 15, found: 3 });
    assert_eq!(read(one_kval(&[0, 4, 0, 10, 255, 0, 0, 0, 0, 0, 0, 0])), CodecError::Range);
    assert_eq!(read(one_kval(&[0, 21].repeat(40))), CodecError::Depth);
    assert_eq!(read(Bytes::from_static(&[0, 0, 0, 2, 0, 0, 0, 0])), CodecError::NotOne(2));
    assert_eq!(read(Bytes::from_static(&[255; 4])), CodecError::Count(-1));

    let mut many = vec![0, 39, 0, 1];
    many.extend(size(MAX_VALUES as u64 + 1));
    many.resize(many.len() + MAX_VALUES + 1, 1);
    assert_eq!(read(one_kval(&many)), CodecError::Values);
}

#[test]
fn numbers_that_do_not_fit_their_type_are_refused() {
    let flex = Codec { flex: true, described: false };
    let rank = |bytes: &'static [u8]| Reader::new(flex, Bytes::from_static(bytes)).rank();
    assert_eq!(rank(&[2, 0xfe, 0xff, 0xff, 0xff, 0x0f]), Ok(0xffff_fffe));
    assert_eq!(rank(&[2, 0xfe, 0xff, 0xff, 0xff, 0x1f]), Err(CodecError::Range));
    assert_eq!(rank(&[2, 255, 255, 255, 255, 255, 255, 255, 255, 255]), Err(CodecError::Range));
    let described = Codec { flex: false, described: true };
    let mut r = Reader::new(described, Bytes::from_static(&[0, 9, 0, 0, 0, 1, 0, 20, 0, 0, 0, 0]));
    assert_eq!(r.rank(), Err(CodecError::Mismatch { expected: 40, found: 20 }));
}

#[test]
fn values_that_old_clients_do_not_know_stay_out_of_their_payloads() {
    let new = Value::infos(vec![Info::new("x", Value::Number(DataType::JOB_STATE, 1))]);
    for (flex, kept) in [(false, false), (true, true)] {
        let mut w = Writer::new(Codec { flex, described: false });
        w.kval(&"k".into(), &new);
        assert_eq!(!w.bytes().is_empty(), kept);
    }
}

#[test]
fn modules_name_forms() {
    for (module, flex) in [("v21", false), ("v3", false), ("v4", true), ("v41", true), ("v61", true)] {
        assert_eq!(Codec::of_module(module, true), Some(Codec { flex, described: true }));
    }
    for module in ["v20", "v12", "v", "3", "", "vx"] {
        assert_eq!(Codec::of_module(module, false), None);
    }
}
