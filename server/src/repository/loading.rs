//! From a bundle's files to a bundle that answers requests: reading, the session, the warm-up.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::discovery::{Location, Stamp};
use super::error::BrokenBundleReason;
use super::options::WarmUp;
use crate::bundle::Bundle;
use crate::error::{InternalError, ServerError, chain};
use crate::inference::Inference;
use crate::limits::Limits;
use crate::stimuli::{Stimuli, StimulusType, TensorStimuli};

/// How often a bundle that is replaced while it is read is read again.
const ATTEMPTS: usize = 3;

/// Reads and checks a bundle's files; the stamp is that of the files that were read.
pub(super) async fn read(location: &Location) -> (Stamp, Result<Arc<Bundle>, BrokenBundleReason>) {
    let location = location.clone();
    let read = Handle::current().spawn_blocking(move || read_blocking(&location));
    match read.await {
        Ok(read) => read,
        Err(error) => (Stamp::default(), Err(InternalError::from(error).into())),
    }
}

fn read_blocking(location: &Location) -> (Stamp, Result<Arc<Bundle>, BrokenBundleReason>) {
    let mut stamp = Stamp::of(&location.folder);
    for _ in 0..ATTEMPTS {
        let bundle = Bundle::load(&location.model, location.version, &location.folder);
        let after = Stamp::of(&location.folder);
        if after == stamp {
            return (stamp, bundle.map(Arc::new).map_err(BrokenBundleReason::from));
        }
        // What was read may be half of one bundle and half of another.
        stamp = after;
    }
    (stamp, Err(BrokenBundleReason::Changing))
}

/// Has the session of the default cut made, and warms the bundle up. A warm-up that fails is no reason not to serve:
/// its message is returned.
///
/// # Errors
/// [`BrokenBundleReason::Session`] where ONNX Runtime refuses the graph.
pub(super) async fn prepare(
    inference: &Inference,
    bundle: &Arc<Bundle>,
    warm_up: WarmUp,
) -> Result<Option<String>, BrokenBundleReason> {
    inference.prepare(bundle).await?;
    if warm_up == WarmUp::Pages {
        touch_pages(bundle).await?;
    }
    if warm_up == WarmUp::None {
        return Ok(None);
    }
    let problem = forward_pass(inference, bundle).await.err();
    Ok(problem.map(|error| match &error {
        ServerError::Internal(cause) => chain(cause),
        error => error.to_string(),
    }))
}

/// Brings the weights into memory.
async fn touch_pages(bundle: &Arc<Bundle>) -> Result<(), InternalError> {
    let bundle = Arc::clone(bundle);
    let touch = move || bundle.weight_files.load();
    Ok(Handle::current().spawn_blocking(touch).await?)
}

/// Computes the default layer of an image of zeros.
async fn forward_pass(inference: &Inference, bundle: &Arc<Bundle>) -> Result<(), ServerError> {
    let input = bundle.manifest.architecture.input;
    let shape = [1, input.channels, input.height, input.width];
    let bytes = shape.iter().map(|&length| length as u128).product::<u128>() * size_of::<f32>() as u128;
    // A manifest can say anything, and no request may have more.
    let limit = Limits::default().tensor_bytes;
    let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes <= limit);
    let bytes =
        bytes.ok_or_else(|| ServerError::Tensor(format!("an image of it has more than {limit} bytes")))?;
    let zeros = Bytes::from(vec![0; bytes]);
    let shape = shape.iter().map(|&length| length as u64).collect();
    let layers: Vec<_> = bundle
        .default_layer()
        .map(|layer| layer.name.clone())
        .into_iter()
        .collect();
    let stimuli = Stimuli::Tensor(TensorStimuli {
        data_type: StimulusType::Float32,
        shape,
        data: zeros,
    });
    inference.warm_up(bundle, stimuli, &layers).await
}
