//! Hands on what `libfabric-sys` found, for `DEP_FABRIC_*` reaches direct dependents only: a
//! package that depends on this one sees `DEP_COPPER_OFI_LIBDIR`, `DEP_COPPER_OFI_VERSION` and,
//! where the loader would not find libfabric by itself, `DEP_COPPER_OFI_RPATH`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["libdir", "root", "version", "rpath"] {
        if let Ok(value) = env::var(format!("DEP_FABRIC_{}", name.to_uppercase())) {
            println!("cargo::metadata={name}={value}");
            if name == "rpath" {
                // For this package's own tests.
                println!("cargo::rustc-link-arg=-Wl,-rpath,{value}");
            }
        }
    }
}
