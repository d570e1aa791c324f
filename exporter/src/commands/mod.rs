//! The program's commands: arguments, progress and what is printed.

pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod verify;
