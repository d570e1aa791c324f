//! Where in which shard every sample's image lies.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::image::{ImageError, Limits};
use serde_json::Value;
use tar::{Archive, EntryType};

use super::DataError;
use crate::data::default_workers;

/// Bytes of a `.cls` or `.json` at most.
const MAX_LABEL_BYTES: u64 = 1 << 20;

/// Classes at most: every one gets a name, also those that no image has.
const MAX_CLASSES: u32 = 1_000_000;

/// Of images, as WebDataset's files are called.
const IMAGES: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];

/// The samples of some shards, in their order.
#[derive(Debug)]
pub(super) struct Index {
    shards: Vec<PathBuf>,
    samples: Vec<Sample>,
}

#[derive(Debug, PartialEq, Eq)]
struct Sample {
    shard: u32,
    label: u32,
    offset: u64,
    length: u64,
    /// The image's name in the shard.
    name: Box<str>,
}

/// A sample of which not everything has been seen yet.
struct Partial {
    key: String,
    image: Option<(u64, u64, Box<str>)>,
    class: Option<u32>,
    /// What a `.json` says, or why it says nothing; a `.cls` overrules it.
    json: Option<Result<u32, String>>,
}

impl Index {
    /// Reads the headers of all shards, on several threads.
    pub(super) fn read(shards: &[PathBuf]) -> Result<Self, DataError> {
        let next = AtomicUsize::new(0);
        let found = Mutex::new((0..shards.len()).map(|_| None).collect::<Vec<_>>());
        std::thread::scope(|scope| {
            for _ in 0..default_workers().min(shards.len()) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(path) = shards.get(number) else { break };
                        let samples = read_shard(number as u32, path);
                        let Ok(mut found) = found.lock() else { break };
                        found[number] = Some(samples);
                    }
                });
            }
        });
        let mut samples = Vec::new();
        for found in found
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            samples.extend(found.ok_or(DataError::Worker)??);
        }
        Ok(Self {
            shards: shards.to_vec(),
            samples,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn label(&self, index: usize) -> usize {
        self.samples.get(index).map_or(0, |sample| sample.label as usize)
    }

    pub(super) fn highest_label(&self) -> usize {
        let labels = self.samples.iter().map(|sample| sample.label as usize);
        labels.max().unwrap_or(0)
    }

    pub(super) fn name(&self, index: usize) -> String {
        match self.samples.get(index) {
            Some(sample) => format!(
                "{} in {}",
                sample.name,
                self.shards[sample.shard as usize].display()
            ),
            None => format!("number {index}"),
        }
    }

    /// An encoded image.
    pub(super) fn image(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let Some(sample) = self.samples.get(index) else {
            return Err(DataError::Inconsistent(format!("there is no sample {index}")));
        };
        let limit = Limits::default().bytes;
        if sample.length > limit as u64 {
            return Err(DataError::Image {
                name: self.name(index),
                source: ImageError::TooManyBytes {
                    found: usize::try_from(sample.length).unwrap_or(usize::MAX),
                    limit,
                },
            });
        }
        let path = &self.shards[sample.shard as usize];
        // Opened every time: there may be more shards than files that a program may have open.
        let read = || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(sample.offset))?;
            let mut bytes = vec![0; sample.length as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| DataError::Read {
            path: path.clone(),
            source,
        })
    }
}

fn read_shard(shard: u32, path: &Path) -> Result<Vec<Sample>, DataError> {
    let failed = |source| DataError::Read {
        path: path.into(),
        source,
    };
    let invalid = |reason: String| DataError::Invalid {
        name: path.display().to_string(),
        format: "tar shard",
        reason,
    };
    let file = File::open(path).map_err(failed)?;
    let total = file.metadata().map_err(failed)?.len();
    let mut archive = Archive::new(BufReader::new(file));
    let mut samples = Vec::new();
    let mut partial: Option<Partial> = None;
    let damaged = |error: std::io::Error| invalid(format!("it ends too early or is damaged ({error})"));
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if !matches!(
            entry.header().entry_type(),
            EntryType::Regular | EntryType::Continuous
        ) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (offset, length) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(length).is_none_or(|end| end > total) {
            return Err(invalid(format!("it ends within {name}")));
        }
        let Some((key, extension)) = split_name(&name) else {
            continue;
        };
        if partial.as_ref().is_none_or(|partial| partial.key != key) {
            if let Some(partial) = partial.take() {
                samples.extend(partial.finish(shard).map_err(invalid)?);
            }
            partial = Some(Partial::new(key));
        }
        let Some(partial) = &mut partial else { continue };
        if IMAGES.contains(&extension.as_str()) {
            if let Some((.., other)) = &partial.image {
                return Err(invalid(format!(
                    "{other} and {name} are images of the same sample"
                )));
            }
            partial.image = Some((offset, length, name.into_boxed_str()));
        } else if extension == "cls" || extension == "json" {
            let mut text = Vec::new();
            entry
                .by_ref()
                .take(MAX_LABEL_BYTES)
                .read_to_end(&mut text)
                .map_err(damaged)?;
            if extension == "cls" {
                let label = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                partial.class =
                    Some(label.ok_or_else(|| invalid(format!("{name} isn't the number of a class")))?);
            } else {
                partial.json = Some(label_in(&text).map_err(|reason| format!("{name} {reason}")));
            }
        }
    }
    if let Some(partial) = partial {
        samples.extend(partial.finish(shard).map_err(invalid)?);
    }
    if samples.is_empty() {
        return Err(invalid(
            "it holds no samples (an image KEY.jpg beside KEY.cls or KEY.json)".into(),
        ));
    }
    Ok(samples)
}

impl Partial {
    fn new(key: String) -> Self {
        Self {
            key,
            image: None,
            class: None,
            json: None,
        }
    }

    /// The sample; none of files that belong to no image.
    fn finish(self, shard: u32) -> Result<Option<Sample>, String> {
        let Some((offset, length, name)) = self.image else {
            return match (self.class, self.json) {
                (None, None | Some(Err(_))) => Ok(None),
                _ => Err(format!("the sample {} has a label, but no image", self.key)),
            };
        };
        let label = match (self.class, self.json) {
            (Some(label), _) => label,
            (None, Some(label)) => label?,
            (None, None) => {
                return Err(format!(
                    "{name} has no label: neither {key}.cls nor {key}.json with a \"label\" follows it",
                    key = self.key
                ));
            }
        };
        if label >= MAX_CLASSES {
            return Err(format!(
                "the label {label} of {name} is no number of a class: at most {MAX_CLASSES} classes are allowed"
            ));
        }
        Ok(Some(Sample {
            shard,
            label,
            offset,
            length,
            name,
        }))
    }
}

/// The class that a `.json` names: its `label`, or else its `cls`, whichever is a whole number; or what is wrong with it.
fn label_in(text: &[u8]) -> Result<u32, String> {
    let json: Value = serde_json::from_slice(text).map_err(|error| format!("isn't JSON: {error}"))?;
    ["label", "cls"]
        .iter()
        .find_map(|key| u32::try_from(json.get(key)?.as_u64()?).ok())
        .ok_or_else(|| {
            "has no \"label\" (or \"cls\") that is the number of a class, and there is no .cls".into()
        })
}

/// WebDataset's key and extension of a file: the name ends at the first point of its last part. Hidden files have none.
fn split_name(name: &str) -> Option<(String, String)> {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let point = start + name[start..].find('.')?;
    (point > start).then(|| (name[..point].to_owned(), name[point + 1..].to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_point() {
        let split = |name| split_name(name).map(|(key, extension)| format!("{key} {extension}"));
        assert_eq!(split("a/b.c/0001.JPG").unwrap(), "a/b.c/0001 jpg");
        assert_eq!(split("0001.seg.png").unwrap(), "0001 seg.png");
        assert_eq!(split("./.hidden"), None);
        assert_eq!(split("plain"), None);
    }
}
