//! A layer's activations as rows of features: computed once as far as they fit in memory, else whenever they are needed.

use indicatif::{ProgressBar, ProgressStyle};
use tch::{Device, Kind, Tensor, no_grad};

use super::ProbeError;
use crate::data::{Batch, Loader, in_order};
use crate::network::TorchNetwork;

/// Images that the network computes at a time.
const AT_ONCE: usize = 128;

/// The features of images.
pub struct Features<'a> {
    network: &'a TorchNetwork,
    loader: &'a Loader,
    layer: &'a str,
    device: Device,
    cache: Option<Cache>,
}

/// The features of the first images.
struct Cache {
    /// `[N, F]`.
    features: Tensor,
    /// `[N]`.
    labels: Tensor,
    /// Of every one of the first images, its row; `None` where it is corrupt and left out.
    rows: Vec<Option<i64>>,
}

impl<'a> Features<'a> {
    /// Features of a layer of `network`, of which nothing is computed yet.
    pub fn new(network: &'a TorchNetwork, loader: &'a Loader, layer: &'a str, device: Device) -> Self {
        Self {
            network,
            loader,
            layer,
            device,
            cache: None,
        }
    }

    /// Computes those of as many images as fit in so many bytes, and keeps them.
    ///
    /// # Errors
    /// [`ProbeError`] where the images don't fit the network or libtorch refuses.
    pub fn cached(self, bytes: u64) -> Result<Self, ProbeError> {
        let count: usize = self.network.layer(self.layer)?.shape.iter().product();
        let of_image = (4 * count).max(1) as u64;
        let images = usize::try_from(bytes / of_image).map_or(self.len(), |fitting| fitting.min(self.len()));
        if images == 0 {
            return Ok(self);
        }
        let features = Tensor::f_empty([images as i64, count as i64], (Kind::Float, self.device))?;
        let labels = Tensor::f_empty([images as i64], (Kind::Int64, self.device))?;
        let mut rows = vec![None; images];
        let mut first = 0;
        let bar = progress_bar(self.layer, images);
        for batch in self.loader.load(0, &in_order(images, AT_ONCE)) {
            let batch = batch?;
            bar.inc((batch.indices.len() + batch.skipped) as u64);
            // All of its images were corrupt.
            if batch.indices.is_empty() {
                continue;
            }
            for (row, &index) in (first..).zip(&batch.indices) {
                rows[index] = Some(row);
            }
            let length = batch.indices.len() as i64;
            features
                .f_narrow(0, first, length)?
                .f_copy_(&self.compute(&batch)?)?;
            labels.f_narrow(0, first, length)?.f_copy_(&batch.labels)?;
            first += length;
        }
        bar.finish_and_clear();
        Ok(Self {
            cache: Some(Cache {
                features,
                labels,
                rows,
            }),
            ..self
        })
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.loader.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.loader.is_empty()
    }

    /// How many images' features are kept.
    pub fn cached_images(&self) -> usize {
        self.cache
            .as_ref()
            .map_or(0, |cache| cache.rows.iter().flatten().count())
    }

    /// The features `[N, F]` of some images, F in the order (channel, row, column), with their classes `[N]`. Those that are
    /// kept come first; corrupt ones are left out where the loader does so. Nothing where all are.
    ///
    /// # Errors
    /// As [`Features::cached`].
    pub fn batch(&self, indices: &[usize]) -> Result<Option<(Tensor, Tensor)>, ProbeError> {
        let cached = self.cache.as_ref().map_or(0, |cache| cache.rows.len());
        let (kept, others): (Vec<usize>, Vec<usize>) = indices.iter().partition(|&&index| index < cached);
        let mut features = Vec::new();
        let mut labels = Vec::new();
        if let Some(cache) = &self.cache {
            let rows: Vec<i64> = kept.iter().filter_map(|&index| cache.rows[index]).collect();
            if !rows.is_empty() {
                let rows = Tensor::f_from_slice(&rows)?.f_to(self.device)?;
                features.push(cache.features.f_index_select(0, &rows)?);
                labels.push(cache.labels.f_index_select(0, &rows)?);
            }
        }
        let others: Vec<Vec<usize>> = others.chunks(AT_ONCE).map(<[usize]>::to_vec).collect();
        for batch in self.loader.load(0, &others) {
            let batch = batch?;
            if !batch.indices.is_empty() {
                features.push(self.compute(&batch)?);
                labels.push(batch.labels);
            }
        }
        if features.is_empty() {
            return Ok(None);
        }
        Ok(Some((Tensor::f_cat(&features, 0)?, Tensor::f_cat(&labels, 0)?)))
    }

    fn compute(&self, batch: &Batch) -> Result<Tensor, ProbeError> {
        let activations = self.network.activations(&batch.images, self.layer)?;
        Ok(no_grad(|| {
            activations.f_reshape([batch.indices.len() as i64, -1])
        })?)
    }
}

fn progress_bar(layer: &str, images: usize) -> ProgressBar {
    let bar = ProgressBar::new(images as u64);
    // An invalid template leaves indicatif's own style, which shows the same numbers.
    if let Ok(style) =
        ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} images, {per_sec}, {eta} left")
    {
        bar.set_style(style);
    }
    bar.with_prefix(format!("{layer}, features"))
}
