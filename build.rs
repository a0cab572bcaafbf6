//! Links the CPU libtorch that `ops/setup` lays down, with the C++ shim over it, and writes its
//! place into the binary, so that it runs without environment variables.

use std::path::{Path, PathBuf};
use std::process::Command;

const SHIM: &str = "src/tensor/shim.cpp";

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={SHIM}");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    tell_version("RUSTC", version_of(&rustc, &["--version"], 1));
    let gstreamer = version_of("pkg-config", &["--modversion", "gstreamer-1.0"], 0);
    tell_version("GSTREAMER", gstreamer);
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!(
            "cargo:warning=LIBTORCH is not set: run ops/setup, which puts libtorch into .libtorch/"
        );
        tell_version("LIBTORCH", None);
        return;
    };
    tell_version("LIBTORCH", libtorch_version(&libtorch));
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

/// For the metric `opusflow_build_info`, which reads it with `env!`.
fn tell_version(what: &str, version: Option<String>) {
    let version = version.unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=OPUSFLOW_BUILD_{what}={version}");
}

/// The word at `position` of what a command prints.
fn version_of(program: &str, arguments: &[&str], position: usize) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(position).map(str::to_owned)
}

/// The version that libtorch's own header states as a string.
fn libtorch_version(libtorch: &Path) -> Option<String> {
    let header = libtorch.join("include/torch/headeronly/version.h");
    let text = std::fs::read_to_string(header).ok()?;
    let (_, after) = text.split_once("#define TORCH_VERSION ")?;
    after.split('"').nth(1).map(str::to_owned)
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
