//! The IDX format of MNIST (<http://yann.lecun.com/exdb/mnist/>): big-endian `magic u32`, a `u32` per
//! dimension, then bytes. Magic `0x0801` is a list of labels, `0x0803` a list of images.

const LABELS: u32 = 0x0801;
const IMAGES: u32 = 0x0803;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why bytes are not an IDX file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdxError {
    /// A compressed file.
    #[error("is compressed (gunzip it first)")]
    Compressed,
    /// Another kind of file.
    #[error("is not an IDX file of {expected} (magic {found:#010x})")]
    Magic {
        /// Labels or images.
        expected: &'static str,
        /// What it begins with.
        found: u32,
    },
    /// Too short or too long for its dimensions.
    #[error("has {found} bytes, its header says {expected}")]
    Length {
        /// By the header.
        expected: u64,
        /// In the file.
        found: u64,
    },
}

/// Images of one size.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Images {
    /// How many.
    pub(crate) count: usize,
    /// Pixels of one.
    pub(crate) width: usize,
    /// All pixels.
    pub(crate) pixels: Vec<u8>,
}

/// Reads a file of labels.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn labels(bytes: Vec<u8>) -> Result<Vec<u8>, IdxError> {
    body::<1>(bytes, LABELS, "labels").map(|(_, labels)| labels)
}

/// Reads a file of images.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn images(bytes: Vec<u8>) -> Result<Images, IdxError> {
    let ([count, rows, columns], pixels) = body::<3>(bytes, IMAGES, "images")?;
    Ok(Images { count, width: rows * columns, pixels })
}

fn body<const D: usize>(
    mut bytes: Vec<u8>,
    magic: u32,
    expected: &'static str,
) -> Result<([usize; D], Vec<u8>), IdxError> {
    if bytes.starts_with(&GZIP) {
        return Err(IdxError::Compressed);
    }
    let header = 4 * (D + 1);
    let word = |i: usize| bytes.get(4 * i..4 * i + 4).and_then(|w| w.try_into().ok()).map(u32::from_be_bytes);
    let found = word(0).unwrap_or(0);
    if found != magic {
        return Err(IdxError::Magic { expected, found });
    }
    let mut dimensions = [0; D];
    let mut product = 1u64;
    for (i, dimension) in dimensions.iter_mut().enumerate() {
        let length = IdxError::Length { expected: header as u64, found: bytes.len() as u64 };
        *dimension = word(i + 1).ok_or(length)? as usize;
        product = product.saturating_mul(*dimension as u64);
    }
    let length = product.saturating_add(header as u64);
    if length != bytes.len() as u64 {
        return Err(IdxError::Length { expected: length, found: bytes.len() as u64 });
    }
    bytes.drain(..header);
    Ok((dimensions, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(words: &[u32], body: &[u8]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).chain(body.iter().copied()).collect()
    }

    #[test]
    fn well_formed_files() {
        assert_eq!(labels(file(&[LABELS, 3], &[7, 8, 9])), Ok(vec![7, 8, 9]));
        let two = images(file(&[IMAGES, 2, 1, 2], &[1, 2, 3, 4])).unwrap();
        assert_eq!(two, Images { count: 2, width: 2, pixels: vec![1, 2, 3, 4] });
    }

    #[test]
    fn malformed_files_say_what_is_wrong() {
        assert_eq!(labels(vec![0x1f, 0x8b, 8, 0]), Err(IdxError::Compressed));
        assert_eq!(labels(vec![]), Err(IdxError::Magic { expected: "labels", found: 0 }));
        assert_eq!(
            labels(file(&[IMAGES, 1, 1, 1], &[0])),
            Err(IdxError::Magic { expected: "labels", found: IMAGES })
        );
        assert_eq!(labels(file(&[LABELS, 3], &[7])), Err(IdxError::Length { expected: 11, found: 9 }));
        assert_eq!(images(file(&[IMAGES, 1], &[])), Err(IdxError::Length { expected: 16, found: 8 }));
        let huge = images(file(&[IMAGES, u32::MAX, u32::MAX, u32::MAX], &[]));
        assert_eq!(huge, Err(IdxError::Length { expected: u64::MAX, found: 16 }));
    }
}
