//! Telling a worker that hosts have come or gone: one signed message to its notification service. The body is a
//! Python pickle that real Horovod reads; it is written here byte for byte, as there is no other way to say it.

use ring::hmac;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Hosts have gone, none has come: workers then skip sending their state around.
    Removed,
    /// Hosts have come.
    Added,
    /// Both.
    Mixed,
}

impl Change {
    /// Both of two changes.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Mixed }
    }
}

/// Bytes of an answer's head: signature and length.
pub const HEAD: usize = 36;
/// Bytes of an answer's body at most.
const ANSWER: usize = 64 << 10;

/// The message: HMAC-SHA256 of the body under the worker's key, its length, the body. `time` is in seconds since 1970
/// and must be larger than that of the last message, or workers ignore it.
#[must_use]
pub fn message(key: &[u8], time: i32, change: Change) -> Vec<u8> {
    let body = body(time, change);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &body);
    let length = i32::try_from(body.len()).unwrap_or(i32::MAX).to_ne_bytes();
    [tag.as_ref(), &length, &body].concat()
}

fn body(time: i32, change: Change) -> Vec<u8> {
    let which = match change {
        Change::Removed => 1,
        Change::Added => 2,
        Change::Mixed => 3,
    };
    let mut out = b"\x80\x02chorovod.runner.elastic.worker\nHostsUpdatedRequest\n)\x81}(".to_vec();
    let name = |out: &mut Vec<u8>, text: &str| {
        out.push(b'X');
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    name(&mut out, "timestamp");
    out.push(b'J');
    out.extend_from_slice(&time.to_le_bytes());
    name(&mut out, "res");
    out.extend_from_slice(b"chorovod.runner.elastic.worker\nHostUpdateResult\nK");
    out.extend_from_slice(&[which, 0x85]);
    out.extend_from_slice(b"Rub.");
    out
}

/// How long the body of an answer is whose first [`HEAD`] bytes these are; `None` for what cannot be one.
#[must_use]
pub fn answer_length(head: &[u8; HEAD]) -> Option<usize> {
    let length = i32::from_ne_bytes([head[32], head[33], head[34], head[35]]);
    usize::try_from(length).ok().filter(|n| *n <= ANSWER)
}

/// Whether an answer was signed with the worker's key. What it says does not matter.
#[must_use]
pub fn acknowledged(key: &[u8], head: &[u8; HEAD], body: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), body, &head[..32]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_the_one_that_horovod_reads() {
        let body = body(0x0102_0304, Change::Added);
        let want = b"\x80\x02chorovod.runner.elastic.worker\nHostsUpdatedRequest\n)\x81}(X\x09\0\0\0timestampJ\x04\x03\x02\x01\
                     X\x03\0\0\0reschorovod.runner.elastic.worker\nHostUpdateResult\nK\x02\x85Rub.";
        assert_eq!(body, want);
    }

    #[test]
    fn messages_are_signed_and_answers_checked() {
        let sent = message(b"key", 1, Change::Removed);
        let mut head = [0; HEAD];
        head.copy_from_slice(&sent[..HEAD]);
        assert_eq!(answer_length(&head), Some(sent.len() - HEAD));
        assert!(acknowledged(b"key", &head, &sent[HEAD..]));
        assert!(!acknowledged(b"other", &head, &sent[HEAD..]));
        head[35] = 0x80;
        assert_eq!(answer_length(&head), None);
    }

    #[test]
    fn changes_add_up() {
        assert_eq!(Change::Added.and(Change::Added), Change::Added);
        assert_eq!(Change::Added.and(Change::Removed), Change::Mixed);
    }
}
