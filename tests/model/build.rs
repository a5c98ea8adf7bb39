//! Says what the host's sources are compiled for here.

fn main() {
    println!("cargo::rustc-cfg=admission_model");
    println!("cargo::rerun-if-changed=build.rs");
}
