//! Where a worker's notification service is: what it registers, a Python pickle. Never unpickled: a small reader
//! knows only the operations that such a value needs, and makes plain data of them.

use std::net::Ipv4Addr;

/// Bytes of a registration at most.
const LARGEST: usize = 64 << 10;
/// Values on the reader's stack, and remembered ones, at most.
const DEEPEST: usize = 4096;

/// A worker's notification service.
#[derive(Clone, PartialEq, Eq)]
pub struct Registration {
    /// Addresses to try, in the order of the worker's interfaces.
    pub addresses: Vec<(Ipv4Addr, u16)>,
    /// The key that messages are signed with.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// A body that is no registration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the registration of a worker: {0}")]
pub struct BadRegistration(&'static str);

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Mark,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
}

/// Reads the body of `PUT /worker_addresses/...`: base64 of a pickled `(addresses, key)`.
///
/// # Errors
/// Anything else.
pub fn registration(body: &[u8]) -> Result<Registration, BadRegistration> {
    if body.len() > LARGEST {
        return Err(BadRegistration("it is too large"));
    }
    let bytes = base64(body).ok_or(BadRegistration("it is not base64"))?;
    let Value::Tuple(pair) = load(&bytes)? else { return Err(BadRegistration("it is no pair")) };
    let [Value::Dict(addresses), Value::Bytes(key)] = pair.as_slice() else {
        return Err(BadRegistration("it is not addresses and a key"));
    };
    let mut out = Vec::new();
    for (_, list) in addresses {
        let Value::List(list) = list else { return Err(BadRegistration("an interface has no list")) };
        for address in list {
            let Value::Tuple(pair) = address else { return Err(BadRegistration("an address is no pair")) };
            let [Value::Text(ip), Value::Int(port)] = pair.as_slice() else {
                return Err(BadRegistration("an address is not host and port"));
            };
            if let (Ok(ip), Ok(port)) = (ip.parse(), u16::try_from(*port)) {
                out.push((ip, port));
            }
        }
    }
    if out.is_empty() || key.is_empty() || key.len() > 1024 {
        return Err(BadRegistration("it has no address or no key"));
    }
    Ok(Registration { addresses: out, key: key.clone() })
}

/// Standard base64 with its padding; line breaks are skipped.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut have) = (0u32, 0);
    let mut ended = false;
    for &byte in text {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                ended = true;
                continue;
            }
            b'\n' | b'\r' => continue,
            _ => return None,
        };
        if ended {
            return None;
        }
        bits = bits << 6 | u32::from(six);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have & 0xff) as u8);
        }
    }
    Some(out)
}

/// Runs a pickle's operations, those that build plain data alone.
fn load(bytes: &[u8]) -> Result<Value, BadRegistration> {
    const SHORT: BadRegistration = BadRegistration("it ends too early");
    let mut at = 0;
    let mut stack: Vec<Value> = Vec::new();
    let mut memo: Vec<Value> = Vec::new();
    // Copies of remembered values may not blow up what is held.
    let mut copied = 0usize;
    loop {
        let mut take = |n: usize| {
            let slice = bytes.get(at..at + n);
            at += n;
            slice.ok_or(SHORT)
        };
        let op = take(1)?[0];
        let little = |b: &[u8]| b.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
        match op {
            0x80 => drop(take(1)?),
            0x95 => drop(take(8)?),
            b'}' => stack.push(Value::Dict(Vec::new())),
            b']' => stack.push(Value::List(Vec::new())),
            b')' => stack.push(Value::Tuple(Vec::new())),
            b'(' => stack.push(Value::Mark),
            0x94 => memo.push(stack.last().cloned().ok_or(SHORT)?),
            b'h' | b'j' => {
                let index = little(take(if op == b'h' { 1 } else { 4 })?);
                let value = usize::try_from(index).ok().and_then(|i| memo.get(i)).cloned();
                let value = value.ok_or(BadRegistration("it recalls what was never kept"))?;
                // What is kept is a copy, and containers are filled after they were: no registration shares any.
                if matches!(value, Value::List(_) | Value::Dict(_)) {
                    return Err(BadRegistration("it shares a container"));
                }
                copied += weight(&value);
                stack.push(value);
            }
            0x8c | b'X' => {
                let length = little(take(if op == 0x8c { 1 } else { 4 })?);
                let text = take(usize::try_from(length).unwrap_or(usize::MAX).min(LARGEST + 1))?;
                let text = std::str::from_utf8(text).map_err(|_| BadRegistration("a text is not UTF-8"))?;
                stack.push(Value::Text(text.to_owned()));
            }
            b'C' | b'B' => {
                let length = little(take(if op == b'C' { 1 } else { 4 })?);
                let bytes = take(usize::try_from(length).unwrap_or(usize::MAX).min(LARGEST + 1))?;
                stack.push(Value::Bytes(bytes.to_vec()));
            }
            b'K' => stack.push(Value::Int(little(take(1)?).try_into().unwrap_or(i64::MAX))),
            b'M' => stack.push(Value::Int(little(take(2)?).try_into().unwrap_or(i64::MAX))),
            b'J' => {
                let raw = take(4)?;
                stack.push(Value::Int(i32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]).into()));
            }
            0x85..=0x87 => {
                let from = stack.len().checked_sub(usize::from(op - 0x84)).ok_or(SHORT)?;
                let items = stack.split_off(from);
                stack.push(Value::Tuple(items));
            }
            b't' => {
                let items = to_mark(&mut stack)?;
                stack.push(Value::Tuple(items));
            }
            b'a' | b'e' => {
                let items = match op {
                    b'a' => vec![stack.pop().ok_or(SHORT)?],
                    _ => to_mark(&mut stack)?,
                };
                let Some(Value::List(list)) = stack.last_mut() else {
                    return Err(BadRegistration("it appends to what is no list"));
                };
                list.extend(items);
            }
            b's' | b'u' => {
                let items = match op {
                    b's' => stack.split_off(stack.len().checked_sub(2).ok_or(SHORT)?),
                    _ => to_mark(&mut stack)?,
                };
                let Some(Value::Dict(dict)) = stack.last_mut() else {
                    return Err(BadRegistration("it sets items of what is no dictionary"));
                };
                let mut items = items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    dict.push((key, value));
                }
            }
            b'.' => {
                return match (stack.pop(), stack.is_empty()) {
                    (Some(value), true) => Ok(value),
                    _ => Err(BadRegistration("it leaves more or less than one value")),
                };
            }
            // GLOBAL, REDUCE and all others that could make code run, or that no registration has.
            _ => return Err(BadRegistration("it has an operation that plain data does not need")),
        }
        if stack.len() > DEEPEST || memo.len() > DEEPEST || copied > LARGEST {
            return Err(BadRegistration("it is too complicated"));
        }
    }
}

/// About how much memory a value takes.
fn weight(value: &Value) -> usize {
    1 + match value {
        Value::Mark | Value::Int(_) => 8,
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) | Value::Tuple(items) => items.iter().map(weight).sum(),
        Value::Dict(items) => items.iter().map(|(k, v)| weight(k) + weight(v)).sum(),
    }
}

fn to_mark(stack: &mut Vec<Value>) -> Result<Vec<Value>, BadRegistration> {
    let mark = stack.iter().rposition(|v| *v == Value::Mark);
    let mark = mark.ok_or(BadRegistration("it closes what was never opened"))?;
    let items = stack.split_off(mark + 1);
    stack.pop();
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(bytes: &[u8]) -> Vec<u8> {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = Vec::new();
        for chunk in bytes.chunks(3) {
            let n = chunk.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
            for i in 0..4 {
                let digit = DIGITS[(n >> (18 - 6 * i) & 63) as usize];
                out.push(if i <= chunk.len() { digit } else { b'=' });
            }
        }
        out
    }

    /// What Python 3.11 pickles of `({'lo': [('127.0.0.1', 40001)], 'eth0': [('10.0.0.5', 40001)]}, 32 bytes)`.
    fn sample() -> Vec<u8> {
        let mut p =
            b"\x80\x05\x95\x60\0\0\0\0\0\0\0}\x94(\x8c\x02lo\x94]\x94\x8c\x09127.0.0.1\x94M\x41\x9c\x86\x94a"
                .to_vec();
        p.extend_from_slice(b"\x8c\x04eth0\x94]\x94\x8c\x0810.0.0.5\x94M\x41\x9c\x86\x94au");
        p.extend_from_slice(b"C\x20");
        p.extend_from_slice(&[7; 32]);
        p.extend_from_slice(b"\x94\x86\x94.");
        p
    }

    #[test]
    fn a_registration_is_read() {
        let read = registration(&encode(&sample())).unwrap();
        let port = 0x9c41;
        assert_eq!(read.addresses, [(Ipv4Addr::LOCALHOST, port), (Ipv4Addr::new(10, 0, 0, 5), port)]);
        assert_eq!(read.key, [7; 32]);
    }

    #[test]
    fn what_could_run_code_is_refused() {
        for evil in [
            &b"cos\nsystem\n(S'true'\ntR."[..],
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
            b"\x80\x02}(X\x01\0\0\0aK\x01u\x81.",
            b"\x80\x05h\x00.",
            b"\x80\x05.",
            b"\x80\x05(.",
            b"",
            b"\x80\x05\x8c\xff",
            b"\x80\x05K\x01K\x02.",
        ] {
            assert!(registration(&encode(evil)).is_err(), "{evil:?}");
        }
        assert!(registration(b"no base64!").is_err());
        assert!(registration(&vec![b'A'; LARGEST + 1]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = load(&bytes);
        }

        #[test]
        fn a_registration_with_a_wrong_byte_is_read_or_refused(at in 0usize..110, byte in any::<u8>()) {
            let mut p = sample();
            let at = at.min(p.len() - 1);
            p[at] = byte;
            let _ = registration(&encode(&p));
        }
    }
}
