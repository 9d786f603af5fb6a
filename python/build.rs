//! Python's symbols are those of the interpreter that imports the module: on macOS the linker has to be told. And the
//! wheel holds the programs `nat-infer` and `nat-convert`: where maturin builds it, they are put where pyproject.toml
//! takes them from.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where programs are that are built already, and right: nobody looks.
const BUILT: &str = "NAT_INFER_PROGRAMS";

fn main() -> Result<(), Box<dyn Error>> {
    pyo3_build_config::add_extension_module_link_args();
    println!("cargo::rerun-if-env-changed={BUILT}");
    println!("cargo::rerun-if-env-changed=PYO3_BUILD_EXTENSION_MODULE");
    // What maturin sets, and nobody else.
    if env::var_os("PYO3_BUILD_EXTENSION_MODULE").is_none() {
        println!("cargo::rerun-if-changed=build.rs");
        return Ok(());
    }
    // There is no such file: cargo itself knows best whether a program is built of other sources than before.
    println!("cargo::rerun-if-changed=none");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let programs = match env::var_os(BUILT) {
        Some(folder) => PathBuf::from(folder),
        None => build(&out)?,
    };
    for name in ["nat-infer", "nat-convert"] {
        let name = format!("{name}{}", if variable("CARGO_CFG_WINDOWS").is_ok() { ".exe" } else { "" });
        let from = programs.join(&name);
        fs::copy(&from, out.join(&name)).map_err(|error| format!("{}: {error}", from.display()))?;
    }
    Ok(())
}

/// Builds the programs, with the profile and for the machine that the module is built with and for, in a folder of their
/// own, as the usual one is locked. Returns where they are.
fn build(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    // target[/TRIPLE]/PROFILE/build/nat-infer-python-HASH/out
    let folder = out.ancestors().nth(3).ok_or("OUT_DIR is not where cargo has it")?;
    let profile = folder.file_name().and_then(|name| name.to_str()).ok_or("a folder without a name")?;
    let target = folder.join("programs");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.args(["build", "--locked", "--bins", "--package", "nat-infer", "--package", "nat-convert"]);
    let name = if profile == "debug" { "dev" } else { profile };
    cargo.args(["--profile", name, "--config", &format!("profile.{name}.strip = true")]);
    cargo.arg("--target-dir").arg(&target);
    let mut built = target.clone();
    let (host, triple) = (variable("HOST")?, variable("TARGET")?);
    if host != triple {
        cargo.args(["--target", &triple]);
        built.push(&triple);
    }
    if variable("CARGO_FEATURE_CUDA").is_ok() {
        cargo.args(["--features", "nat-infer/cuda"]);
    }
    // Those of the module, which is a library.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    match cargo.current_dir("..").status()? {
        status if status.success() => Ok(built.join(profile)),
        status => Err(format!("the programs can't be built: {status}").into()),
    }
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|_| format!("cargo does not say {name}").into())
}
