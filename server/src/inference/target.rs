//! What a batch is computed to: the layers of a pool of sessions, some of them projected.

use std::sync::Arc;

use crate::inference::plan::Reduction;
use crate::inference::reduce;
use crate::projection::Projection;
use crate::projection::product::Projector;
use crate::session::{Batch, LayerOutput, Session, SessionError};
use crate::session_pool::SessionPool;

/// What a batch is computed to. Requests for the same target share batches.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Sessions of the layers.
    pub pool: Arc<SessionPool>,
    /// For each of the pool's layers, what is projected of it, if anything is.
    pub projected: Arc<[Option<Projected>]>,
}

/// A layer that is projected, once it has been reduced.
#[derive(Clone, Debug)]
pub(super) struct Projected {
    pub reduction: Reduction,
    pub projection: Arc<Projection>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pool, &other.pool) && self.projected == other.projected
    }
}

impl PartialEq for Projected {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.projection, &other.projection) && self.reduction == other.reduction
    }
}

impl Target {
    /// Computes a batch: one entry for each of the pool's layers, projected where it is to be. Blocks while it computes.
    pub fn run(
        &self,
        session: &mut Session,
        projector: &Projector,
        batch: Batch<'_>,
    ) -> Result<Vec<LayerOutput>, SessionError> {
        let outputs = session.run(batch)?;
        // Whole activations of which only a projection is wanted are let go of here.
        std::iter::zip(outputs, self.projected.iter())
            .map(|(output, projected)| match projected {
                None => Ok(output),
                Some(Projected {
                    reduction,
                    projection,
                }) => projector.project(
                    &reduce::values(reduction, &output, 0..output.images()),
                    projection,
                ),
            })
            .collect()
    }
}
