//! Polls the model repository: network file systems, on which repositories often lie, announce no changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::models::ModelRepository;
use crate::error::chain;

/// Polling, until this is dropped.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Watch {
    /// Looks for differences at intervals. What was loaded stays loaded where the repository can't be read.
    pub fn start(repository: Arc<ModelRepository>, interval: Duration) -> Self {
        Self(tokio::spawn(async move {
            let mut last_problem = None;
            loop {
                tokio::time::sleep(interval).await;
                let problem = repository.refresh().await.err().map(|error| chain(&error));
                if problem != last_problem {
                    match &problem {
                        Some(error) => tracing::error!(error, "what is loaded is still served"),
                        None => tracing::info!("the model repository can be read again"),
                    }
                    last_problem = problem;
                }
            }
        }))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
