//! Event files for TensorBoard: `event` is what a record says, `record` how records follow each other in a file.

mod event;
mod record;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;
use thiserror::Error;

use event::{Event, SessionLog, Summary, Value, What};

/// The version of the format that event files begin with.
const FILE_VERSION: &str = "brain.Event:2";

/// An event file that can't be written.
#[derive(Debug, Error)]
#[error("can't write the event file {}", path.display())]
pub struct EventFileError {
    /// The file, or its folder.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl EventFileError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

/// Writes scalars to an event file of its own; TensorBoard shows those of all files in a folder together.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Opens a new file in a folder, which is made where it isn't there. What other files in the folder say of `first_step`
    /// and later steps no longer counts: a run that starts anew or goes on from a checkpoint says it again.
    ///
    /// # Errors
    /// [`EventFileError`] where the folder isn't writable.
    pub fn create(folder: &Path, first_step: u64) -> Result<Self, EventFileError> {
        fs::create_dir_all(folder).map_err(EventFileError::at(folder))?;
        let (path, file) = new_file(folder).map_err(EventFileError::at(folder))?;
        let mut writer = Self { path, file };
        writer.write(0, What::FileVersion(FILE_VERSION.into()))?;
        writer.write(first_step, What::SessionLog(SessionLog::start()))?;
        Ok(writer)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends scalars of a step. They reach the operating system at once; those that aren't finite are left out.
    ///
    /// # Errors
    /// [`EventFileError`], for instance where the disk is full.
    pub fn scalars<'a>(
        &mut self,
        step: u64,
        scalars: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<(), EventFileError> {
        let values = scalars
            .into_iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(tag, value)| Value {
                tag: tag.into(),
                simple_value: Some(value as f32),
            });
        let values: Vec<Value> = values.collect();
        if values.is_empty() {
            return Ok(());
        }
        self.write(step, What::Summary(Summary { values }))
    }

    fn write(&mut self, step: u64, what: What) -> Result<(), EventFileError> {
        let event = Event {
            wall_time: since_epoch(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            what: Some(what),
        };
        // In one piece, so that a reader never sees half of one while the disk has room.
        let record = record::framed(&event.encode_to_vec());
        self.file
            .write_all(&record)
            .map_err(EventFileError::at(&self.path))
    }
}

/// A file that wasn't there: TensorBoard reads those of a folder in the order of their names, which begin with the time.
fn new_file(folder: &Path) -> io::Result<(PathBuf, File)> {
    let seconds = since_epoch() as u64;
    let process = std::process::id();
    let mut number = 0_u32;
    loop {
        let name = format!("events.out.tfevents.{seconds:010}.ventral.{process}.{number}");
        let path = folder.join(name);
        match File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Seconds.
fn since_epoch() -> f64 {
    // A clock before 1970 only makes TensorBoard's time axis wrong.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |duration| duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(path: &Path) -> Vec<Event> {
        record::parse(&fs::read(path).unwrap())
            .unwrap()
            .into_iter()
            .map(|bytes| Event::decode(bytes.as_slice()).unwrap())
            .collect()
    }

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("run/events");
        let mut writer = EventWriter::create(&folder, 7).unwrap();
        writer
            .scalars(7, [("train/loss", 0.5), ("weight_snr/conv1", f64::NAN)])
            .unwrap();
        writer.scalars(8, [("weight_snr/conv1", f64::INFINITY)]).unwrap();
        writer.scalars(9, [("train/loss", 0.25)]).unwrap();
        let events = events(writer.path());
        let steps: Vec<i64> = events.iter().map(|event| event.step).collect();
        assert_eq!(steps, [0, 7, 7, 9]);
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".into())));
        assert_eq!(events[1].what, Some(What::SessionLog(SessionLog::start())));
        let loss = |value| Value {
            tag: "train/loss".into(),
            simple_value: Some(value),
        };
        for (event, value) in events[2..].iter().zip([0.5, 0.25]) {
            let values = vec![loss(value)];
            assert_eq!(event.what, Some(What::Summary(Summary { values })));
            assert!(event.wall_time > 1.7e9);
        }
    }

    #[test]
    fn every_writer_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path(), 1).unwrap();
        let second = EventWriter::create(folder.path(), 1).unwrap();
        assert!(first.path() < second.path());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let folder = file.path().join("events");
        assert_eq!(EventWriter::create(&folder, 1).unwrap_err().path, folder);
    }
}
