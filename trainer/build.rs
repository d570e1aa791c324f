//! Makes the programs and tests of this crate find libtorch where they run.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    // Where `cargo xtask setup` puts it, seen from target/PROFILE/trainer and from target/PROFILE/deps/…: these hold
    // when the checkout is moved.
    for folder in [
        "$ORIGIN/../native/libtorch/lib",
        "$ORIGIN/../../native/libtorch/lib",
    ] {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
    // Where it was built against, for a libtorch or a target folder elsewhere.
    if let Some(folder) = std::env::var_os("LIBTORCH") {
        println!(
            "cargo::rustc-link-arg=-Wl,-rpath,{}/lib",
            folder.to_string_lossy()
        );
    }
}
