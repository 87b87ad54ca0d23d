//! What Horovod's workers and discovery scripts send: requests to the store, registrations, host lists.

use rmpi_horovod::http::{Reader, Verb};
use rmpi_horovod::store::{Got, Store, Waiter};
use rmpi_horovod::{discovery, pickle};

/// First byte: where the stream is cut. The rest: requests after one another, each on a connection of its own and split
/// by zero bytes, put to one store; what is held must be let go by a reset, and no size may be exceeded.
pub fn horovod_store(data: &[u8]) {
    let Some((&cut, rest)) = data.split_first() else { return };
    let mut store = Store::new(vec![("global".into(), 2)]);
    let mut held = 0;
    for (n, bytes) in rest.split(|&b| b == 0).enumerate() {
        let mut reader = Reader::default();
        let at = usize::from(cut).min(bytes.len());
        reader.buffer().extend_from_slice(&bytes[..at]);
        let first = reader.request();
        reader.buffer().extend_from_slice(&bytes[at..]);
        let request = match (first, reader.request()) {
            (Ok(Some(first)), again) => {
                assert_eq!(again, Ok(Some(first.clone())), "what comes after a request changes nothing");
                first
            }
            (_, Ok(Some(request))) => request,
            _ => continue,
        };
        assert!(!request.scope.contains('/') && !request.key.contains('/'));
        let waiter = Waiter(n as u64);
        match request.verb {
            Verb::Get => held += usize::from(store.get(&request.scope, &request.key, waiter) == Got::Held),
            Verb::Put(body) => held -= store.put(&request.scope, &request.key, body).map_or(0, |w| w.len()),
            Verb::Delete => store.delete(&request.scope, &request.key),
        }
    }
    assert_eq!(store.reset(Vec::new()).len(), held);
}

/// The body of a worker's registration.
pub fn horovod_registration(data: &[u8]) {
    if let Ok(read) = pickle::registration(data) {
        assert!(!read.addresses.is_empty() && !read.key.is_empty());
    }
}

/// What a discovery script prints.
pub fn horovod_hosts(data: &[u8]) {
    match discovery::read(data, Some(1)) {
        Ok(hosts) => {
            let mut names: Vec<&String> = hosts.iter().map(|(h, _)| h).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), hosts.len(), "each host once");
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
}
