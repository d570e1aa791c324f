//! The memory that a run may take.

use std::fs;

use tch::Device;

use crate::engine::cuda_memory;
use crate::memory;

/// Bytes that are free for a run on a device: what the system says, within the bounds of the process's control group. `None`
/// where nobody tells.
pub fn available_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => cuda_memory(index).ok().map(|(free, _)| free),
        _ => {
            let free = memory::read_line("/proc/meminfo", "MemAvailable")?;
            Some(control_group().map_or(free, |bound| bound.min(free)))
        }
    }
}

/// What is left of a container's memory.
fn control_group() -> Option<u64> {
    let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let most = read("memory.max").and_then(number)?;
    let used = read("memory.current").and_then(number)?;
    Some(most.saturating_sub(used))
}
