//! Links the CPU libtorch that `ops/setup` lays down and writes its place into the binary, so that it runs without environment variables.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!("cargo:warning=LIBTORCH is not set: run ops/setup, which puts libtorch into .libtorch/");
        return;
    };
    let lib = libtorch.join("lib");
    if !lib.join("libtorch_cpu.so").exists() {
        println!("cargo:warning={} has no libtorch_cpu.so: run ops/setup", lib.display());
    }
    // An installed binary finds libtorch beside itself; one in target/ finds the folder it was built with.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/opusflow");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
