//! One layer of neurons that come to share weights through lateral inhibition: the demonstration of Pogodin, Mehta,
//! Lillicrap & Latham 2021 that the sleep phase is something that neurons can do.
//!
//! Neurons j = 1 … n see the same patches x of Gaussian noise, one after the other. They learn by one of two
//! [rules](rules::Rule), and [`convergence`] follows how alike their weights become. [`plot`] draws it.

pub mod convergence;
pub mod plot;
mod population;
pub mod rules;

pub use population::Population;
