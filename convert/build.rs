//! Finds the table of published models for `src/zoo.rs`.
//!
//! In the repository it stands at the root, and `weights.toml` in this folder is a link to it, so that the package has
//! a copy in the link's place. Where links can't be checked out (git on Windows), a text file that holds the link's
//! target stands there instead: so the root's file comes first. A stranger's `weights.toml` one folder above an
//! unpacked package is not taken: the root is where this crate's folder is called `convert`, beside a `Cargo.toml`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// What the link in this folder points to.
const LINK: &str = "../weights.toml";

fn main() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let table = in_repository(&package).unwrap_or_else(|| package.join("weights.toml"));
    let table = table.to_str().ok_or_else(|| format!("{}: a path that is no UTF-8", table.display()))?;
    // A package made of a text file in the link's place would build, and know no model.
    if fs::read_to_string(table)?.trim() == LINK {
        return Err(format!(
            "{table}: a link that was checked out as text; package this crate where git makes links"
        )
        .into());
    }
    println!("cargo::rustc-env=NAT_CONVERT_WEIGHTS={table}");
    println!("cargo::rerun-if-changed={table}");
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

/// The table at the root of the repository, if this is its `convert` folder.
fn in_repository(package: &Path) -> Option<PathBuf> {
    let root = package.parent().filter(|_| package.ends_with("convert"))?;
    let table = root.join("weights.toml");
    (root.join("Cargo.toml").is_file() && table.is_file()).then_some(table)
}
