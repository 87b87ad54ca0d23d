//! The mutual keyed handshake: fixed-size hellos, HMAC-SHA256 challenge and response under the job's key.
//!
//! Dialler and acceptor exchange `hello` (dialler), `answer` (acceptor), `proof` (dialler), one verdict byte
//! (acceptor). Every code binds the whole conversation before it and the route (namespace, epoch, from, to),
//! with a word of its own for each step, so nothing can be replayed, reflected or carried to another rank.
//! The hello itself carries a code too: who does not know the key does not even get an answer. No IO here.

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};
use std::fmt;
use std::io;

/// First bytes of a hello: protocol and version.
const MAGIC: [u8; 8] = *b"rmpilnk2";
const NONCE: usize = 32;
const MAC: usize = digest::SHA256_OUTPUT_LEN;
/// Magic, route and number: what a hello says in clear.
const FIXED: usize = 8 + 20;

/// Bytes of the dialler's hello.
pub const HELLO_LEN: usize = FIXED + NONCE + MAC;
/// Bytes of the acceptor's answer.
pub const ANSWER_LEN: usize = NONCE + MAC;
/// Bytes of the dialler's proof.
pub const PROOF_LEN: usize = MAC;
/// Verdict: the connection is taken.
pub(crate) const VERDICT_TAKEN: u8 = b'A';
/// Verdict: the two ranks share another connection already, or will in a moment.
pub(crate) const VERDICT_DUPLICATE: u8 = b'D';

/// The job's data-plane key. Printing it shows nothing.
#[derive(Clone)]
pub struct JobKey(hmac::Key);

impl JobKey {
    /// The key made of these 32 secret bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl JobKey {
    /// A code over `parts`, with a word for its purpose.
    pub(crate) fn code(&self, word: &[u8], parts: &[&[u8]]) -> [u8; MAC] {
        code(self, word, parts)
    }

    /// Constant-time comparison of two codes.
    pub(crate) fn same(&self, a: &[u8], b: &[u8]) -> bool {
        same(self, a, b)
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobKey(..)")
    }
}

/// Who dials whom: the ids that a handshake binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Namespace of both ranks.
    pub namespace: u32,
    /// Membership generation of the namespace.
    pub epoch: u32,
    /// The dialling rank.
    pub from: u32,
    /// The accepting rank.
    pub to: u32,
}

pub(crate) type Hello = [u8; HELLO_LEN];
pub(crate) type Answer = [u8; ANSWER_LEN];
pub(crate) type Proof = [u8; PROOF_LEN];

fn code(key: &JobKey, word: &[u8], parts: &[&[u8]]) -> [u8; MAC] {
    let mut ctx = hmac::Context::with_key(&key.0);
    ctx.update(word);
    parts.iter().for_each(|p| ctx.update(p));
    let mut out = [0; MAC];
    out.copy_from_slice(ctx.sign().as_ref());
    out
}

/// Constant-time comparison of two codes.
fn same(key: &JobKey, a: &[u8], b: &[u8]) -> bool {
    // Comparing codes of the codes takes the same time whatever differs.
    let tag = hmac::sign(&key.0, a);
    hmac::verify(&key.0, b, tag.as_ref()).is_ok()
}

fn nonce() -> io::Result<[u8; NONCE]> {
    let mut bytes = [0; NONCE];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random bytes to be had"))?;
    Ok(bytes)
}

/// Makes the dialler's hello; `number` counts the connections of the two ranks, from 0.
pub(crate) fn hello(key: &JobKey, route: Route, number: u32) -> io::Result<Hello> {
    let mut out = [0; HELLO_LEN];
    out[..8].copy_from_slice(&MAGIC);
    for (i, word) in [route.namespace, route.epoch, route.from, route.to, number].into_iter().enumerate() {
        out[8 + 4 * i..12 + 4 * i].copy_from_slice(&word.to_le_bytes());
    }
    out[FIXED..FIXED + NONCE].copy_from_slice(&nonce()?);
    let mac = code(key, b"rmpi hello", &[&out[..FIXED + NONCE]]);
    out[FIXED + NONCE..].copy_from_slice(&mac);
    Ok(out)
}

/// The acceptor's check of a hello: the route it claims and the connection's number, when its code holds.
pub(crate) fn check_hello(key: &JobKey, hello: &Hello) -> Option<(Route, u32)> {
    if hello[..8] != MAGIC {
        return None;
    }
    let word = |i: usize| {
        let mut w = [0; 4];
        w.copy_from_slice(&hello[8 + 4 * i..12 + 4 * i]);
        u32::from_le_bytes(w)
    };
    let mac = code(key, b"rmpi hello", &[&hello[..FIXED + NONCE]]);
    let route = Route { namespace: word(0), epoch: word(1), from: word(2), to: word(3) };
    same(key, &mac, &hello[FIXED + NONCE..]).then(|| (route, word(4)))
}

/// Makes the acceptor's answer to `hello`.
pub(crate) fn answer(key: &JobKey, hello: &Hello) -> io::Result<Answer> {
    let mut out = [0; ANSWER_LEN];
    out[..NONCE].copy_from_slice(&nonce()?);
    let mac = code(key, b"rmpi answer", &[hello, &out[..NONCE]]);
    out[NONCE..].copy_from_slice(&mac);
    Ok(out)
}

/// The dialler's check of an answer: whether the acceptor knows the key and answers this very hello.
pub(crate) fn check_answer(key: &JobKey, hello: &Hello, answer: &Answer) -> bool {
    let mac = code(key, b"rmpi answer", &[hello, &answer[..NONCE]]);
    same(key, &mac, &answer[NONCE..])
}

/// Makes the dialler's proof.
pub(crate) fn proof(key: &JobKey, hello: &Hello, answer: &Answer) -> Proof {
    code(key, b"rmpi proof", &[hello, answer])
}

/// The acceptor's check of a proof.
pub(crate) fn check_proof(key: &JobKey, hello: &Hello, answer: &Answer, given: &Proof) -> bool {
    same(key, &proof(key, hello, answer), given)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route = Route { namespace: 0, epoch: 1, from: 2, to: 3 };

    #[test]
    fn the_whole_conversation_holds_and_every_bit_counts() {
        let key = JobKey::new(&[7; 32]);
        let h = hello(&key, ROUTE, 5).unwrap();
        assert_eq!(check_hello(&key, &h), Some((ROUTE, 5)));
        let a = answer(&key, &h).unwrap();
        assert!(check_answer(&key, &h, &a));
        let p = proof(&key, &h, &a);
        assert!(check_proof(&key, &h, &a, &p));
        for bit in 0..HELLO_LEN * 8 {
            let mut bad = h;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check_hello(&key, &bad), None, "bit {bit}");
            assert!(!check_answer(&key, &bad, &a));
        }
        for bit in 0..ANSWER_LEN * 8 {
            let mut bad = a;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!check_answer(&key, &h, &bad) && !check_proof(&key, &h, &bad, &p));
        }
    }

    #[test]
    fn another_key_or_a_replayed_conversation_fails() {
        let (key, other) = (JobKey::new(&[7; 32]), JobKey::new(&[8; 32]));
        let h = hello(&key, ROUTE, 0).unwrap();
        assert_eq!(check_hello(&other, &h), None);
        let (first, second) = (answer(&key, &h).unwrap(), answer(&key, &h).unwrap());
        let replayed = proof(&key, &h, &first);
        assert!(!check_proof(&key, &h, &second, &replayed), "an old proof must not answer a new challenge");
        assert_eq!(format!("{key:?}"), "JobKey(..)");
    }
}
