//! A checkpoint of NAT or DiNAT, of any kind, to one safetensors file.
//!
//! ```sh
//! cargo run --release --example checkpoint nat_tiny.pth nat_tiny.safetensors
//! ```

use std::path::Path;
use std::sync::atomic::AtomicBool;

use nat_convert::checkpoint::{Checkpoint, Options};
use nat_convert::error::ConvertError;
use nat_convert::write::{FloatType, WriteOptions, write};

/// Writes the network in `source` to `target` in half precision, and says what it is.
pub fn convert(source: &Path, target: &Path) -> Result<String, ConvertError> {
    let checkpoint = Checkpoint::open(source, &Options::default())?;
    let options = WriteOptions::default().with_dtype(FloatType::F16).with_overwrite(true);
    // Another thread may stop it; nothing half written is left then.
    write(&checkpoint, target, options, &AtomicBool::new(false))?;
    Ok(checkpoint.report().to_string())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, target] = arguments.as_slice() else {
        return Err("usage: checkpoint SOURCE TARGET.safetensors".into());
    };
    println!("{}", convert(source.as_ref(), target.as_ref())?);
    Ok(())
}
