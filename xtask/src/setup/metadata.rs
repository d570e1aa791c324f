//! A wheel's METADATA: which further packages its libraries need.

/// The requirements of torch that hold NVIDIA's libraries, as the wheel words them, markers included. For CPUs: those
/// that libtorch_cpu.so is linked with all the same, the CUDA run-time library and the profiler's.
pub(super) fn nvidia_requirements(metadata: &str, cuda: bool) -> Vec<String> {
    let requirements = metadata
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| line.strip_prefix("Requires-Dist:"))
        .map(str::trim);
    if cuda {
        requirements
            .filter(|requirement| {
                requirement.starts_with("nvidia-") || requirement.starts_with("cuda-toolkit")
            })
            .map(str::to_owned)
            .collect()
    } else {
        requirements.filter_map(only_run_time_libraries).collect()
    }
}

/// `cuda-toolkit[cublas,cudart,cupti,…]==13.0.3` with just the two extras.
fn only_run_time_libraries(requirement: &str) -> Option<String> {
    let (extras, rest) = requirement.strip_prefix("cuda-toolkit[")?.split_once(']')?;
    let kept: Vec<&str> = extras
        .split(',')
        .map(str::trim)
        .filter(|extra| ["cudart", "cupti"].contains(extra))
        .collect();
    Some(format!("cuda-toolkit[{}]{rest}", kept.join(",")))
}

#[cfg(test)]
mod tests {
    use super::nvidia_requirements;

    const METADATA: &str = "Metadata-Version: 2.1\nName: torch\nRequires-Dist: filelock\n\
        Requires-Dist: cuda-toolkit[cublas,cudart,cufft,cupti]==13.0.3; platform_system == \"Linux\"\n\
        Requires-Dist: cuda-bindings<14,>=13.0.3; platform_system == \"Linux\"\n\
        Requires-Dist: nvidia-cudnn-cu13==9.20.0.48; platform_system == \"Linux\"\n\
        \nRequires-Dist: nvidia-in-the-description\n";

    #[test]
    fn cuda_takes_every_package_of_libraries() {
        assert_eq!(
            nvidia_requirements(METADATA, true),
            [
                "cuda-toolkit[cublas,cudart,cufft,cupti]==13.0.3; platform_system == \"Linux\"",
                "nvidia-cudnn-cu13==9.20.0.48; platform_system == \"Linux\"",
            ]
        );
    }

    #[test]
    fn cpu_takes_the_run_time_library_and_the_profilers() {
        assert_eq!(
            nvidia_requirements(METADATA, false),
            ["cuda-toolkit[cudart,cupti]==13.0.3; platform_system == \"Linux\""]
        );
    }

    #[test]
    fn a_wheel_built_without_cuda_needs_nothing() {
        assert!(nvidia_requirements("Name: torch\nRequires-Dist: filelock\n", false).is_empty());
    }
}
