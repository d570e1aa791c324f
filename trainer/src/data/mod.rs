//! Image data sets, from files to batches.
//!
//! [`DataSet::open`] finds out what is at a path and lists its images; a [`Split`] gives any of them; [`Augmentation`]
//! varies those that are trained on; a [`Loader`] does all that on several threads, ahead of the step that needs a batch.

mod augmentation;
mod buffers;
mod cifar;
mod classes;
mod decoding;
mod embedded;
mod error;
mod idx;
pub mod image_files;
mod image_folder;
mod in_memory;
mod inspection;
mod loader;
mod order;
mod pipeline;
mod set;
mod shards;
mod sniff;
mod source;
mod split;
mod wordnet;

pub use augmentation::{Augmentation, AugmentationError, Draw};
pub use classes::{ClassMap, OtherClasses};
pub use error::DataError;
pub use in_memory::Images;
pub use inspection::{Inspection, Sizes, SplitInspection, Unreadable};
pub(crate) use loader::AHEAD;
pub use loader::{Batch, Batches, Loader, LoaderOptions, default_workers};
pub use order::{epoch_batches, in_order};
pub use set::{DataSet, DataSetKind};
pub use source::NativeSize;
pub use split::Split;
pub(crate) use wordnet::imagenet_class_names;
