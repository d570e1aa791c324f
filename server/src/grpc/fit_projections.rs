//! `FitProjections`: principal components of layers' activations, fitted on a stream of images.
//!
//! A task does the work and tells the stream of answers how far it is. When the client goes away, the answers are dropped:
//! that ends the task, and what it has begun to compute with the next step of it.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt as _, stream};
use model::MappedFile;
use proto::ventral::v1::fit_projections_request::Part;
use proto::ventral::v1::fit_projections_response::Part as Answer;
use proto::ventral::v1::{
    ActivationOptions, FitPhase, FitProgress, FitProjectionsRequest, FitProjectionsResponse, FitResult,
    FitStart, FittedProjection, StimulusGroup, Unreadable,
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::groups::{Computed, Groups};
use super::{bounds, messages, projections};
use crate::bundle::Bundle;
use crate::error::{InternalError, ServerError, chain};
use crate::fitting::disk::DiskSpace;
use crate::fitting::{Fit, FitError, FitRequest, Fitted, Phase, Progress};
use crate::front::call::Call;
use crate::inference::{Compression, ElementType, Options, Priority};
use crate::projection::store::ProjectionStore;
use crate::state::State;

/// The answers of a fit.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<FitProjectionsResponse, Status>> + Send>>;

/// Components of a projection at most, unless a request says so.
const COMPONENTS: u32 = 1000;

/// Answers that wait to be read; what is told of the progress while there are as many is forgotten.
const UNREAD_ANSWERS: usize = 16;

/// A fit whose first message is checked.
struct Job {
    state: Arc<State>,
    bundle: Arc<Bundle>,
    layers: Vec<String>,
    options: Options,
    /// The projections' names, in the order of the layers.
    names: Vec<String>,
    components: usize,
    seed: u64,
    skip_unreadable: bool,
}

/// Where answers go.
type Sender = mpsc::Sender<Result<FitProjectionsResponse, Status>>;

/// Begins a fit: reads its first message.
pub(super) async fn fit_projections(
    state: &Arc<State>,
    request: Request<Streaming<FitProjectionsRequest>>,
) -> Result<Response<Answers>, Status> {
    // The whole stream's, unlike the time that the server gives to each message.
    let deadline = bounds::client_deadline(&request);
    let call = Arc::clone(Call::of(request.extensions())?);
    let mut incoming = request.into_inner();
    let first = incoming.message().await?.and_then(|message| message.part);
    let Some(Part::Start(start)) = first else {
        return Err(invalid("a fit's first message must be `start`").into());
    };
    call.use_model(&start.model)?;
    let job = Job::check(state, start, deadline).await?;
    let (sender, answers) = mpsc::channel(UNREAD_ANSWERS);
    let work = async move {
        let result = job.work(incoming, &sender, deadline).await;
        let last = result.map(|result| FitProjectionsResponse {
            part: Some(Answer::Result(result)),
            ..Default::default()
        });
        // Nobody is told where nobody listens.
        let _ = sender.send(last).await;
    };
    let task = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
    let answers = stream::unfold((answers, Some(task)), |(mut answers, task)| async move {
        if let Some(answer) = answers.recv().await {
            return Some((answer, (answers, task)));
        }
        // The last answer was taken, unless the task has panicked.
        let failed = task?.await.err()?;
        Some((
            Err(ServerError::from(InternalError::from(failed)).into()),
            (answers, None),
        ))
    });
    Ok(Response::new(Box::pin(answers)))
}

impl Job {
    async fn check(
        state: &Arc<State>,
        start: FitStart,
        deadline: Option<Instant>,
    ) -> Result<Self, ServerError> {
        let bundle = state.bundle(&start.model, &start.version).await?;
        let options = options(start.options, deadline)?;
        for (index, layer) in start.layers.iter().enumerate() {
            if start.layers[..index].contains(layer) {
                return Err(invalid(format!("layer `{layer}` is named more than once")));
            }
        }
        // Said now, and not when the fits before are done.
        drop(
            state
                .inference
                .open(&bundle, &start.layers, options.clone())
                .await?,
        );
        let names: Vec<_> = start
            .layers
            .iter()
            .map(|layer| format!("{}.{layer}", start.name))
            .collect();
        if start.name.is_empty() {
            return Err(invalid("`name` is empty: the projections' names begin with it"));
        }
        let check = {
            let names = names.clone();
            move |store: &Arc<ProjectionStore>, bundle: &_| {
                names.iter().try_for_each(|name| store.check_fit(bundle, name))
            }
        };
        state.inference.with_projections(&bundle, check).await??;
        let components = if start.components == 0 {
            COMPONENTS
        } else {
            start.components
        };
        Ok(Self {
            state: Arc::clone(state),
            bundle,
            layers: start.layers,
            options,
            names,
            components: components as usize,
            seed: start.seed,
            skip_unreadable: start.skip_unreadable,
        })
    }

    /// All of it, until the client's deadline.
    async fn work(
        self,
        incoming: Streaming<FitProjectionsRequest>,
        sender: &Sender,
        deadline: Option<Instant>,
    ) -> Result<FitResult, Status> {
        let work = self.fit(incoming, sender);
        match deadline {
            None => work.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), work)
                .await
                .unwrap_or_else(|_| Err(ServerError::DeadlineExceeded.into())),
        }
    }

    async fn fit(
        self,
        incoming: Streaming<FitProjectionsRequest>,
        sender: &Sender,
    ) -> Result<FitResult, Status> {
        let began = Instant::now();
        let fitter = &self.state.fitter;
        let phase = if fitter.is_free() {
            FitPhase::Gathering
        } else {
            FitPhase::Waiting
        };
        let first = FitProjectionsResponse {
            model: self.bundle.model.clone(),
            version: self.bundle.version.to_string(),
            checkpoint_digest: self.bundle.manifest.checkpoint_digest.clone(),
            part: Some(Answer::Progress(FitProgress {
                phase: phase as i32,
                ..Default::default()
            })),
        };
        // The channel is empty.
        let _ = sender.send(Ok(first)).await;
        let place = fitter.wait().await?;
        let (fit, unreadable) = self.gather(incoming, sender).await?;
        let images = fit.images();
        let finish = {
            let sender = sender.clone();
            move || {
                // The next fit begins when nothing of this one is left, even if nobody waits for it any more.
                let _place = place;
                fit.finish(&mut |progress| tell_layer(&sender, images, progress))
            }
        };
        let fitted = run_blocking(finish).await?;
        let (told, files): (Vec<_>, Vec<_>) = std::iter::zip(self.names, fitted).map(split).unzip();
        let keep = self.state.fitter.keeps();
        let store = move |store: &Arc<ProjectionStore>, bundle: &_| store.put_fitted(bundle, files, keep);
        let stored = self
            .state
            .inference
            .with_projections(&self.bundle, store)
            .await??;
        tracing::info!(
            model = self.bundle.model,
            version = self.bundle.version,
            layers = self.layers.len(),
            images,
            seconds = began.elapsed().as_secs_f64(),
            disk = self.state.fitter.disk_used(),
            "projections were fitted"
        );
        let projections = std::iter::zip(told, stored).map(|(told, projection)| FittedProjection {
            projection: Some(projections::message(&projection)),
            ..told
        });
        Ok(FitResult {
            projections: projections.collect(),
            unreadable,
        })
    }

    /// Takes in all images; those that can't be read are counted among all that came.
    async fn gather(
        &self,
        incoming: Streaming<FitProjectionsRequest>,
        sender: &Sender,
    ) -> Result<(Fit, Vec<Unreadable>), Status> {
        let inference = &self.state.inference;
        let stream = inference
            .open(&self.bundle, &self.layers, self.options.clone())
            .await?;
        let values = stream.values();
        let request = FitRequest {
            layers: std::iter::zip(self.layers.clone(), values).collect(),
            components: self.components,
            seed: self.seed,
            checkpoint_digest: self.bundle.manifest.checkpoint_digest.clone(),
        };
        let mut fit = {
            let state = Arc::clone(&self.state);
            run_blocking(move || state.fitter.begin(request)).await?
        };
        let groups = Groups::new(&self.state, stream, self.skip_unreadable);
        let mut computed =
            std::pin::pin!(groups.compute(incoming, content, |_, computed| ready(Ok(computed))));
        let (mut came, mut unreadable) = (0, Vec::new());
        let time = self.state.limits.time;
        loop {
            // A client that sends nothing must not keep others waiting for ever.
            let Ok(next) = tokio::time::timeout(time, computed.next()).await else {
                return Err(ServerError::DeadlineExceeded.into());
            };
            let Some(Computed {
                ids, stimuli, answer, ..
            }) = next.transpose()?
            else {
                return Ok((fit, unreadable));
            };
            unreadable.extend(answer.unreadable.iter().map(|(index, error)| Unreadable {
                index: u32::try_from(came + *index as u64).unwrap_or(u32::MAX),
                id: ids.get(*index).cloned().unwrap_or_default(),
                message: chain(error),
            }));
            came += stimuli;
            fit = run_blocking(move || {
                let pieces = answer.activations.iter();
                fit.append(pieces.map(|layer| layer.chunks.iter().map(AsRef::as_ref)))?;
                // With the answer, its place in the window is free again.
                drop(answer);
                Ok(fit)
            })
            .await?;
            let progress = FitProgress {
                phase: FitPhase::Gathering as i32,
                images: fit.images() as u64,
                ..Default::default()
            };
            tell(sender, progress).map_err(ServerError::from)?;
        }
    }
}

/// What the images of a fit are made of: not what answers are.
fn options(message: Option<ActivationOptions>, deadline: Option<Instant>) -> Result<Options, ServerError> {
    let options = messages::options(message, Priority::Bulk, deadline)?;
    let expected = Options {
        projections: Vec::new(),
        data_type: ElementType::Float32,
        compression: Compression::None,
        ..options.clone()
    };
    if options != expected {
        return Err(invalid(
            "a fit's options have no projections, data type or compression",
        ));
    }
    Ok(options)
}

fn content(message: FitProjectionsRequest) -> Result<StimulusGroup, &'static str> {
    match message.part {
        Some(Part::Stimuli(group)) => Ok(group),
        Some(Part::Start(_)) => Err("only a fit's first message may be `start`"),
        None => Err("the message is empty: expected `stimuli`"),
    }
}

/// What is told of a layer, and what becomes its projection.
fn split((name, fitted): (String, Fitted)) -> (FittedProjection, (String, MappedFile, DiskSpace)) {
    let told = FittedProjection {
        projection: None,
        images: fitted.images as u64,
        explained_variance: fitted.explained_variance,
        total_variance: fitted.total_variance,
        exact: fitted.exact,
    };
    (told, (name, fitted.file, fitted.space))
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FitError> + Send + 'static,
) -> Result<T, ServerError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(InternalError::from)??)
}

/// Tells how far a layer is.
fn tell_layer(sender: &Sender, images: usize, progress: Progress<'_>) -> Result<(), FitError> {
    let phase = match progress.phase {
        Phase::Decomposing => FitPhase::Decomposing,
        Phase::Storing => FitPhase::Storing,
    };
    let progress = FitProgress {
        phase: phase as i32,
        images: images as u64,
        layer: progress.layer.into(),
        layers_done: u32::try_from(progress.layers_done).unwrap_or(u32::MAX),
        fraction: progress.fraction,
    };
    tell(sender, progress)
}

/// Tells how far it is, if there is room for that; an error where nobody listens.
fn tell(sender: &Sender, progress: FitProgress) -> Result<(), FitError> {
    let response = FitProjectionsResponse {
        part: Some(Answer::Progress(progress)),
        ..Default::default()
    };
    match sender.try_send(Ok(response)) {
        Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
        Err(mpsc::error::TrySendError::Closed(_)) => Err(FitError::Cancelled),
    }
}

fn invalid(message: impl Into<String>) -> ServerError {
    ServerError::InvalidArgument(message.into())
}
