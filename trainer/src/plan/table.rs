//! A plan for people to read.

use std::fmt;

use bytesize::ByteSize;

use super::{Need, Plan};

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |formatter: &mut fmt::Formatter<'_>, need: &Need| {
            writeln!(
                formatter,
                "  {:<14}{:>11}  {}",
                need.name,
                size(need.bytes),
                need.note
            )
        };
        writeln!(formatter, "memory, all the time")?;
        for need in &self.held {
            line(formatter, need)?;
        }
        if !self.between_steps.is_empty() {
            writeln!(formatter, "memory, now and then")?;
        }
        for need in &self.between_steps {
            line(formatter, need)?;
        }
        writeln!(formatter, "  {:<14}{:>11}", "peak", size(self.peak))?;
        writeln!(formatter, "a step")?;
        let step = &self.step;
        let operations = step.operations as f64 / 1e9;
        writeln!(formatter, "  {:<14}{operations:>7.0} GFLOP", "products")?;
        let moved = [
            (
                "passes",
                step.passes,
                "weights read, gradients where they are in memory",
            ),
            ("update", step.update, "weights and moments read and written"),
            (
                "sleep phase",
                step.sleep,
                "weights read and written, spread over the steps",
            ),
        ];
        for (name, bytes, note) in moved.into_iter().filter(|(_, bytes, _)| *bytes > 0) {
            writeln!(formatter, "  {name:<14}{:>11}  {note}", size(bytes))?;
        }
        Ok(())
    }
}

/// Bytes in binary units.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}
