//! A sweep: networks of the paper, learning rates and seeds, trained one after the other.
//!
//! Where there are several learning rates, the first stage chooses one for every preset: training images are held out by a
//! fixed seed, and the rate with the best accuracy on them wins. The second stage trains with it on all training images and
//! is tested. [`Member`] is one run of either; every one has a folder of its own, and what is finished there isn't done
//! again.

mod choices;
mod figures;
mod member;
mod outcome;
mod plan;
mod report;
mod running;
mod settings;

pub use member::{Member, Stage};
pub use outcome::{Epoch, Finish, Outcome};
pub use plan::Plan;
pub use report::{Report, ReportError, Row, Spread};
pub use running::{Runner, RunningError};
pub use settings::{Choice, Sweep, SweepError};
