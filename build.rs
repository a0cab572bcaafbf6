//! Links the CPU libtorch that `ops/setup` lays down, with the C++ shim over it, and writes its
//! place into the binary, so that it runs without environment variables.

use std::path::{Path, PathBuf};

const SHIM: &str = "src/tensor/shim.cpp";

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={SHIM}");
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!(
            "cargo:warning=LIBTORCH is not set: run ops/setup, which puts libtorch into .libtorch/"
        );
        return;
    };
    let lib = libtorch.join("lib");
    if !lib.join("libtorch_cpu.so").exists() {
        println!(
            "cargo:warning={} has no libtorch_cpu.so: run ops/setup",
            lib.display()
        );
    }
    shim(&libtorch);
    // An installed binary finds libtorch beside itself; one in target/ finds the folder it was
    // built with.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/opusflow");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}

/// Compiled by the same ABI as torch-sys takes for its own half.
fn shim(libtorch: &Path) {
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        // libtorch's headers are not ours to be warned of.
        .flag("-isystem")
        .flag(libtorch.join("include"))
        .file(SHIM)
        .compile("opusflow_shim");
}
