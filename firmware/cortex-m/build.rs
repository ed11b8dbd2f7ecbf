//! Tells the two architectures apart: they protect a stack in different ways.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(armv8m)");
    println!("cargo::rerun-if-changed=build.rs");
    // Cargo sets it for build scripts.
    if std::env::var("TARGET").is_ok_and(|target| target.starts_with("thumbv8m.main")) {
        println!("cargo::rustc-cfg=armv8m");
    }
}
