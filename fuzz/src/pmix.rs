//! Bytes of PMIx clients: greetings, requests, values.

use crate::Input;
use bytes::Bytes;
use rmpi_pmi::pmix::codec::{Codec, Kval, Reader, Writer};
use rmpi_pmi::pmix::frame::Decoder;
use rmpi_pmi::pmix::hello::{self, Hello, Version};
use rmpi_pmi::pmix::request::Request;

/// A stream that begins with a greeting.
pub fn pmix_hello(data: &[u8]) {
    match hello::length(data) {
        Ok(Some(length)) if length <= data.len() => match Hello::parse(&data[..length]) {
            Ok(hello) => assert!(hello.ns.0.len() < 256 && !hello.vouched(u32::MAX - 7)),
            Err(e) => assert!(!e.to_string().is_empty()),
        },
        Ok(_) => {}
        Err(e) => assert!(e.to_string().is_ascii()),
    }
}

fn form(input: &mut Input<'_>) -> Codec {
    let form = input.below(4);
    Codec { flex: form & 1 != 0, described: form & 2 != 0 }
}

/// First byte: the form; second: whether the client is a new one. The rest: frames with requests.
pub fn pmix_request(data: &[u8]) {
    let mut input = Input::new(data);
    let (codec, new) = (form(&mut input), input.one_in(2));
    let version = if new { Version(5, 0, 0) } else { Version(4, 2, 2) };
    let mut decoder = Decoder::default();
    decoder.push(input.rest());
    while let Ok(Some(frame)) = decoder.next_frame() {
        if let Err(e) = Request::unpack(frame.payload, codec, version) {
            assert!(!e.to_string().is_empty());
        }
    }
}

/// First byte: the form. The rest: items of keys and values, which must come out the same in every form.
pub fn pmix_values(data: &[u8]) {
    let mut input = Input::new(data);
    let codec = form(&mut input);
    let mut reader = Reader::new(codec, Bytes::copy_from_slice(input.rest()));
    while !reader.is_empty() {
        let Ok(values) = reader.items::<Kval>() else { return };
        for (flex, described) in [(false, false), (false, true), (true, false), (true, true)] {
            let codec = Codec { flex, described };
            let mut writer = Writer::new(codec);
            writer.items(&values);
            let mut again = Reader::new(codec, writer.finish());
            assert_eq!(again.items::<Kval>().as_ref(), Ok(&values));
            assert!(again.is_empty());
        }
    }
}
