//! The store's requests and answers: as much of HTTP/1.1 as Horovod's C++ client and Python's `urllib` speak. Answers
//! spell `Content-Length` exactly so, as that client compares header names by their bytes, and are one block of
//! bytes, as it may read but once.

use bytes::{Bytes, BytesMut};

/// Bytes of a request's head at most.
const HEAD: usize = 16 << 10;
/// Bytes of a body at most: addresses of a hundred thousand peers.
pub const BODY: usize = 16 << 20;
/// Bytes of a scope's or key's name at most.
const NAME: usize = 1024;

/// What is asked of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The value.
    Get,
    /// Here is the value.
    Put(Bytes),
    /// This key has done its service.
    Delete,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub verb: Verb,
    /// Of which scope.
    pub scope: String,
    /// And key.
    pub key: String,
}

/// A request that is none of ours: the status to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Not HTTP, or a path without scope and key.
    #[error("400 Bad Request")]
    Malformed,
    /// Another method.
    #[error("405 Method Not Allowed")]
    Method,
    /// More than is sane.
    #[error("413 Content Too Large")]
    Large,
}

/// Collects the bytes of one request.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: BytesMut,
    head: Option<(usize, Head)>,
}

#[derive(Clone, Debug)]
struct Head {
    method: String,
    scope: String,
    key: String,
    length: usize,
}

impl Reader {
    /// Where to read into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// The request, when it is whole. Bytes after it are not looked at: a client opens a connection for each.
    ///
    /// # Errors
    /// What cannot become one.
    pub fn request(&mut self) -> Result<Option<Request>, BadRequest> {
        let (start, head) = match &self.head {
            Some(known) => known.clone(),
            None => {
                let Some(end) = self.bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
                    return if self.bytes.len() > HEAD { Err(BadRequest::Large) } else { Ok(None) };
                };
                if end > HEAD {
                    return Err(BadRequest::Large);
                }
                let head = read_head(&self.bytes[..end])?;
                self.head = Some((end + 4, head.clone()));
                (end + 4, head)
            }
        };
        if self.bytes.len() < start + head.length {
            return Ok(None);
        }
        let verb = match head.method.as_str() {
            "GET" => Verb::Get,
            "PUT" => Verb::Put(Bytes::copy_from_slice(&self.bytes[start..start + head.length])),
            "DELETE" => Verb::Delete,
            _ => return Err(BadRequest::Method),
        };
        Ok(Some(Request { verb, scope: head.scope, key: head.key }))
    }
}

fn read_head(bytes: &[u8]) -> Result<Head, BadRequest> {
    let text = std::str::from_utf8(bytes).map_err(|_| BadRequest::Malformed)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BadRequest::Malformed);
    };
    if !version.starts_with("HTTP/1.") {
        return Err(BadRequest::Malformed);
    }
    let mut length = 0;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(BadRequest::Malformed)?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| BadRequest::Malformed)?;
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(BadRequest::Malformed);
        }
    }
    if length > BODY {
        return Err(BadRequest::Large);
    }
    let mut parts = path.strip_prefix('/').ok_or(BadRequest::Malformed)?.splitn(2, '/');
    let (Some(scope), Some(key)) = (parts.next(), parts.next()) else { return Err(BadRequest::Malformed) };
    let (scope, key) = (decode(scope)?, decode(key)?);
    let fine = |name: &str| !name.is_empty() && name.len() <= NAME && !name.contains(['/', '\0']);
    if !fine(&scope) || !fine(&key) {
        return Err(BadRequest::Malformed);
    }
    Ok(Head { method: method.to_owned(), scope, key, length })
}

/// `%3A` as `:`: Python's client quotes what it puts into a path.
fn decode(text: &str) -> Result<String, BadRequest> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or(BadRequest::Malformed);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        out.push(u8::try_from(value).map_err(|_| BadRequest::Malformed)?);
    }
    String::from_utf8(out).map_err(|_| BadRequest::Malformed)
}

/// An answer's head, to be sent in one block with `body`; the connection is closed after it.
#[must_use]
pub fn head(status: &str, body: usize) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {body}\r\nConnection: close\r\n\r\n")
}

/// `200 OK` with this body, in one block.
#[must_use]
pub fn found(body: &[u8]) -> Vec<u8> {
    [head("200 OK", body.len()).as_bytes(), body].concat()
}

/// `404 Not Found`.
#[must_use]
pub fn missing() -> Vec<u8> {
    head("404 Not Found", 0).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Option<Request>, BadRequest> {
        let mut reader = Reader::default();
        reader.buffer().extend_from_slice(text);
        reader.request()
    }

    #[test]
    fn requests_of_both_clients() {
        let put = b"PUT /global/0 HTTP/1.1\r\nHost: 10.0.0.1\r\nContent-Length: 3\r\n\r\nabcxyz";
        let want =
            Request { verb: Verb::Put(Bytes::from_static(b"abc")), scope: "global".into(), key: "0".into() };
        assert_eq!(read(put), Ok(Some(want)));
        let get = b"GET /rank_and_size/h-1%3A0 HTTP/1.1\r\nAccept-Encoding: identity\r\nhost: x\r\n\r\n";
        let want = Request { verb: Verb::Get, scope: "rank_and_size".into(), key: "h-1:0".into() };
        assert_eq!(read(get), Ok(Some(want)));
        assert_eq!(read(&put[..put.len() - 4]), Ok(None), "the body is not whole");
    }

    #[test]
    fn strange_requests_are_refused() {
        for (text, want) in [
            (&b"GET /global HTTP/1.1\r\n\r\n"[..], BadRequest::Malformed),
            (b"GET global/0 HTTP/1.1\r\n\r\n", BadRequest::Malformed),
            (b"GET /a/b/c HTTP/1.1\r\n\r\n", BadRequest::Malformed),
            (b"GET /a/b\r\n\r\n", BadRequest::Malformed),
            (b"POST /a/b HTTP/1.1\r\n\r\n", BadRequest::Method),
            (b"PUT /a/b HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", BadRequest::Large),
            (b"PUT /a/b HTTP/1.1\r\nContent-Length: -1\r\n\r\n", BadRequest::Malformed),
            (b"PUT /a/b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest::Malformed),
            (b"GET /a/%zz HTTP/1.1\r\n\r\n", BadRequest::Malformed),
        ] {
            assert_eq!(read(text), Err(want), "{:?}", String::from_utf8_lossy(text));
        }
        assert_eq!(read(&vec![b'x'; HEAD + 1]), Err(BadRequest::Large));
    }

    #[test]
    fn answers_spell_their_length_as_the_client_looks_for_it() {
        let answer = found(b"abc");
        assert_eq!(answer, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
        assert!(missing().starts_with(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n"));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(cut in 0usize..70, body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut text = format!("PUT /s/k HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            text.extend_from_slice(&body);
            let cut = cut.min(text.len());
            let mut reader = Reader::default();
            reader.buffer().extend_from_slice(&text[..cut]);
            let first = reader.request().unwrap();
            reader.buffer().extend_from_slice(&text[cut..]);
            let second = reader.request().unwrap().unwrap();
            prop_assert!(first.is_none_or(|f| f == second));
            prop_assert_eq!(second.verb, Verb::Put(body.into()));
        }

        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
