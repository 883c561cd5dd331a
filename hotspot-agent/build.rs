//! Builds the kernel programs and puts them into the agent.
//!
//! Without a toolchain for them the agent still compiles, so that editors and other machines can work on it; it then says at
//! start what is missing.

use std::path::Path;
use std::{env, fs};

use ebpf_build::Toolchain;

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let workspace = Path::new(&manifest).join("..");
    for watched in ["hotspot-ebpf/src", "hotspot-ebpf/Cargo.toml", "hotspot-ebpf/Cargo.lock", "hotspot-common/src"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    println!("cargo::rerun-if-env-changed=PATH");
    let (hotspot, bench) = match Toolchain::find() {
        Ok(toolchain) => match toolchain.build(&workspace.join("hotspot-ebpf"), &workspace.join("target/ebpf")) {
            Ok(objects) => (read(&objects.hotspot), read(&objects.bench)),
            Err(error) => {
                println!("cargo::error={error}");
                return;
            }
        },
        Err(missing) => {
            println!("cargo::warning={missing}; this agent will not be able to capture");
            (Vec::new(), Vec::new())
        }
    };
    fs::write(Path::new(&out).join("hotspot.o"), hotspot).expect("OUT_DIR is writable");
    fs::write(Path::new(&out).join("bench.o"), bench).expect("OUT_DIR is writable");
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
