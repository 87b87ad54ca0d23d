//! Labelled images, scaled to 0..1: the built-in digits, or a folder of IDX files.

use crate::{TrainError, idx};
use std::path::Path;

/// 65 bytes a record: see `data/README.md`.
const DIGITS: &[u8] = include_bytes!("../data/digits.bin");
const DIGIT_PIXELS: usize = 64;
const DIGIT_MAX: f32 = 16.0;
/// Every fifth digit is kept for testing.
const TEST_EVERY: usize = 5;

/// Images and their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Samples {
    /// Pixels of all images in a row.
    pub(crate) pixels: Vec<f32>,
    /// Labels, one an image.
    pub(crate) labels: Vec<u8>,
}

/// A training and a test set of images of one size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Data {
    /// Pixels of an image.
    pub(crate) width: usize,
    /// Number of labels.
    pub(crate) classes: usize,
    /// To learn from.
    pub(crate) train: Samples,
    /// To measure with.
    pub(crate) test: Samples,
}

impl Samples {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Image `i` of images of `width` pixels.
    pub(crate) fn image(&self, i: usize, width: usize) -> &[f32] {
        &self.pixels[i * width..(i + 1) * width]
    }
}

/// The 1,797 digits: 1,437 to learn from, 360 to test with.
pub(crate) fn digits() -> Data {
    let (mut train, mut test) = (Samples::default(), Samples::default());
    for (i, record) in DIGITS.chunks_exact(DIGIT_PIXELS + 1).enumerate() {
        let part = if i % TEST_EVERY == 0 { &mut test } else { &mut train };
        part.pixels.extend(record[..DIGIT_PIXELS].iter().map(|&p| f32::from(p) / DIGIT_MAX));
        part.labels.push(record[DIGIT_PIXELS]);
    }
    Data { width: DIGIT_PIXELS, classes: 10, train, test }
}

/// The four files of MNIST and its relatives in `dir`.
///
/// # Errors
/// [`TrainError::Input`] naming the file that is missing, compressed, truncated or of another shape.
pub(crate) fn load(dir: &Path) -> Result<Data, TrainError> {
    let (width, train) = pair(dir, "train")?;
    let (test_width, test) = pair(dir, "t10k")?;
    if width != test_width {
        let text = format!("{}: images of {width} pixels to train, of {test_width} to test", dir.display());
        return Err(TrainError::Input(text));
    }
    let classes = train.labels.iter().chain(&test.labels).max().map_or(0, |&l| usize::from(l) + 1);
    Ok(Data { width, classes, train, test })
}

fn pair(dir: &Path, part: &str) -> Result<(usize, Samples), TrainError> {
    let images_file = dir.join(format!("{part}-images-idx3-ubyte"));
    let labels_file = dir.join(format!("{part}-labels-idx1-ubyte"));
    let images = read(&images_file, idx::images)?;
    let labels = read(&labels_file, idx::labels)?;
    if images.count != labels.len() || labels.is_empty() {
        let text = format!(
            "{}: {} images, but {} labels in {}",
            images_file.display(),
            images.count,
            labels.len(),
            labels_file.display()
        );
        return Err(TrainError::Input(text));
    }
    let pixels = images.pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
    Ok((images.width, Samples { pixels, labels: labels.to_vec() }))
}

fn read<T>(file: &Path, parse: impl Fn(Vec<u8>) -> Result<T, idx::IdxError>) -> Result<T, TrainError> {
    let bytes = std::fs::read(file).map_err(|e| {
        let packed =
            file.with_file_name(format!("{}.gz", file.file_name().unwrap_or_default().to_string_lossy()));
        let hint =
            if packed.exists() { format!(" (gunzip {} first)", packed.display()) } else { String::new() };
        TrainError::Input(format!("{}: {e}{hint}", file.display()))
    })?;
    parse(bytes).map_err(|e| TrainError::Input(format!("{}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_are_whole_and_every_class_is_in_both_parts() {
        let data = digits();
        assert_eq!((data.train.len(), data.test.len()), (1437, 360));
        for part in [&data.train, &data.test] {
            assert_eq!(part.pixels.len(), part.len() * data.width);
            assert!((0..10).all(|c| part.labels.contains(&c)) && part.labels.iter().all(|&l| l < 10));
            assert!(part.pixels.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = load(Path::new("/no/such/folder")).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/folder/train-images-idx3-ubyte: "), "{error}");
    }
}
