//! Compiles the shim over libtorch, and makes the programs and tests of this crate find libtorch where they run.

use std::path::{Path, PathBuf};

const SOURCES: [&str; 9] = [
    "shim/composed.cpp",
    "shim/direct.cpp",
    "shim/direct_bf16.cpp",
    "shim/hardware.cpp",
    "shim/locally_connected.cpp",
    "shim/memory.cpp",
    "shim/optimizer.cpp",
    "shim/update.cpp",
    "shim/windows.cpp",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!(
            "cargo::error=LIBTORCH isn't set; `cargo xtask setup` prepares the folder that .cargo/config.toml names"
        );
        return;
    };
    compile_shim(&libtorch);
    // Where `cargo xtask setup` puts it, seen from target/PROFILE/trainer and from target/PROFILE/deps/…: these hold
    // when the checkout is moved.
    for folder in [
        "$ORIGIN/../native/libtorch/lib",
        "$ORIGIN/../../native/libtorch/lib",
    ] {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
    // Where it was built against, for a libtorch or a target folder elsewhere.
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}/lib", libtorch.display());
}

/// Links no more than libtorch_cpu and libc10, which the CUDA build has too: its kernels are found when the program runs.
fn compile_shim(libtorch: &Path) {
    let include = libtorch.join("include");
    if !include.is_dir() {
        println!(
            "cargo::error={} isn't there; `cargo xtask setup` prepares it",
            include.display()
        );
        return;
    }
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        // These are the training's inner loops in a development build too.
        .opt_level(3)
        .debug(false)
        .warnings(true)
        .flag_if_supported("-Wno-unused-parameter")
        // Roots in a loop can be taken several at a time only where none needs to set errno.
        .flag_if_supported("-fno-math-errno")
        .flag_if_supported("-mprefer-vector-width=512")
        .flag(format!("-isystem{}", include.display()))
        .flag(format!(
            "-isystem{}",
            include.join("torch/csrc/api/include").display()
        ))
        .files(SOURCES)
        .compile("ventral_engine");
    println!("cargo::rustc-link-search=native={}/lib", libtorch.display());
    println!("cargo::rustc-link-lib=dylib=torch_cpu");
    println!("cargo::rustc-link-lib=dylib=c10");
}
