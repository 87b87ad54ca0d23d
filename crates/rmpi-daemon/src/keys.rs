//! Key pairs of native ranks: made here when the job's data is encrypted, before any rank exists. The public half
//! goes into the endpoint table; the private half goes to its rank through a pipe, so it is in no file, argument or
//! variable, and gone once the rank has read it.

use crate::stdio;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rmpi_wire::boot::SECRET_LEN;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use zeroize::Zeroizing;

/// One rank's key pair (Ed25519).
pub(crate) struct RankKeys {
    secret: Zeroizing<[u8; SECRET_LEN]>,
    public: [u8; 32],
}

impl std::fmt::Debug for RankKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RankKeys(..)")
    }
}

impl RankKeys {
    /// A fresh pair.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn make() -> io::Result<Self> {
        let bad = |_| io::Error::other("the system gives no random bytes");
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        SystemRandom::new().fill(&mut *secret).map_err(bad)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&*secret)
            .map_err(|_| io::Error::other("a random seed is no Ed25519 seed"))?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(Self { secret, public })
    }

    /// The public half.
    pub(crate) fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The reading end of a pipe that holds the private half and then ends.
    ///
    /// # Errors
    /// Descriptors exhausted.
    pub(crate) fn hand_over(self) -> io::Result<OwnedFd> {
        let (read, write) = stdio::pipe()?;
        // Fits the pipe's buffer, so nobody has to read meanwhile.
        std::fs::File::from(write).write_all(&*self.secret)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn the_private_half_belongs_to_the_public_one_and_can_be_read_once() {
        let (one, other) = (RankKeys::make().unwrap(), RankKeys::make().unwrap());
        assert_ne!(one.public(), other.public());
        assert_eq!(format!("{one:?}"), "RankKeys(..)");
        let public = one.public();
        let mut pipe = std::fs::File::from(one.hand_over().unwrap());
        let mut secret = Vec::new();
        pipe.read_to_end(&mut secret).unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&secret).unwrap();
        assert_eq!(pair.public_key().as_ref(), public);
        assert_eq!(pipe.read(&mut [0; 1]).unwrap(), 0);
    }
}
