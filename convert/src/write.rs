//! One safetensors file out of a checkpoint, tensor by tensor.
//!
//! The file grows under a temporary name beside the target and takes the target's name only when it
//! has been read back: whatever happens before, the target is as it was and nothing else is left.
//! Memory holds one tensor, before and after its conversion.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use half::{bf16, f16};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::ConvertError;
use crate::metadata::Metadata;
use crate::source::{self, ElementType, TensorStore};

/// Data begins at a multiple of this, so that a mapped file's elements are aligned.
const ALIGN: usize = 8;

/// How a checkpoint is written.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// F32, F16 or BF16 for every tensor; `None` keeps each tensor's own.
    pub dtype: Option<FloatType>,
    /// Whether an existing target is replaced.
    pub overwrite: bool,
}

impl WriteOptions {
    /// Sets [`WriteOptions::dtype`].
    pub fn with_dtype(self, dtype: FloatType) -> Self {
        Self { dtype: Some(dtype), ..self }
    }

    /// Sets [`WriteOptions::overwrite`].
    pub fn with_overwrite(self, overwrite: bool) -> Self {
        Self { overwrite, ..self }
    }
}

/// The types that tensors are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum FloatType {
    F32,
    F16,
    BF16,
}

impl FloatType {
    fn dtype(self) -> ElementType {
        match self {
            FloatType::F32 => ElementType::F32,
            FloatType::F16 => ElementType::F16,
            FloatType::BF16 => ElementType::BF16,
        }
    }
}

/// Fails if nothing can be written to `target`, before any work is done.
///
/// # Errors
/// When the target exists and is not to be replaced, is not a plain file, or is the checkpoint.
pub fn check_target(source: &Path, target: &Path, overwrite: bool) -> Result<(), ConvertError> {
    let refuse = |reason| Err(ConvertError::Target { path: target.to_owned(), reason });
    match target.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match folder(target) {
            folder if folder.is_dir() => Ok(()),
            path => Err(ConvertError::Target { path, reason: "no such folder to write to" }),
        },
        Err(error) => Err(ConvertError::Io { path: target.to_owned(), action: "can't write", error }),
        Ok(found) if found.is_dir() => refuse("is a folder, not a file"),
        Ok(found) if !found.is_file() => refuse("is not a plain file; the result can't be put there"),
        Ok(_) if same_file(source, target) => refuse("is the checkpoint itself"),
        Ok(_) if !overwrite => Err(ConvertError::Exists(target.to_owned())),
        Ok(_) => Ok(()),
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn folder(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Writes a checkpoint as one safetensors file, reads it back and compares, then puts it in place.
/// Returns the metadata that it carries, the source's hash included.
///
/// `stop` is looked at between pieces of work; once it is set, everything is undone.
///
/// # Errors
/// When the target can't be written (see [`check_target`]), the source can't be read, a value does
/// not fit into the type, what was written reads back differently, or `stop` was set.
pub fn write(
    checkpoint: &Checkpoint,
    target: &Path,
    options: WriteOptions,
    stop: &AtomicBool,
) -> Result<Metadata, ConvertError> {
    for file in checkpoint.files() {
        check_target(file, target, options.overwrite)?;
    }
    let io = |action| move |error| ConvertError::Io { path: target.to_owned(), action, error };
    let mut temporary = temporary(target).map_err(io("can't write here"))?;
    let mut metadata = checkpoint.metadata().clone();
    metadata.source.sha256 = Some(hash(checkpoint, stop)?);

    let plan = WritePlan::new(checkpoint.tensors(), options.dtype);
    let header = plan.header(&metadata).map_err(|error| io("can't write")(error.into()))?;
    let hashes = {
        let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
        out.write_all(&header).map_err(io("can't write"))?;
        let hashes = plan.stream(checkpoint, &mut out, target, stop)?;
        out.flush().map_err(io("can't write"))?;
        hashes
    };
    temporary.as_file().sync_all().map_err(io("can't write"))?;
    plan.compare(temporary.path(), target, &hashes, stop)?;

    let persisted = match options.overwrite {
        true => temporary.persist(target),
        false => temporary.persist_noclobber(target),
    };
    persisted.map_err(|failed| match failed.error.kind() {
        io::ErrorKind::AlreadyExists => ConvertError::Exists(target.to_owned()),
        _ => io("can't put the finished file in place")(failed.error),
    })?;
    // The name lasts through a power failure only once the folder is on disk; where folders can't
    // be synced there is nothing to do.
    if let Ok(folder) = File::open(folder(target)) {
        folder.sync_all().ok();
    }
    Ok(metadata)
}

/// A new file beside the target, removed when it is dropped, with the rights of any new file.
fn temporary(target: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder(target))
}

fn interrupted(stop: &AtomicBool) -> Result<(), ConvertError> {
    if stop.load(Ordering::Relaxed) { Err(ConvertError::Interrupted) } else { Ok(()) }
}

/// Bytes that are hashed between two looks at whether to stop.
const PIECE: usize = 1 << 20;

/// SHA-256 of a checkpoint's bytes, of its files one behind the other, in hexadecimal.
fn hash(checkpoint: &Checkpoint, stop: &AtomicBool) -> Result<String, ConvertError> {
    let mut hasher = Sha256::new();
    for piece in checkpoint.bytes().unwrap_or_default().chunks(PIECE) {
        interrupted(stop)?;
        hasher.update(piece);
    }
    let mut buffer = vec![0; PIECE];
    for path in checkpoint.files() {
        let failed = |error| ConvertError::Io { path: path.to_owned(), action: "can't read", error };
        let mut file = File::open(path).map_err(failed)?;
        loop {
            interrupted(stop)?;
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

type Hash = [u8; 32];

/// The tensors in the order of the file: wider types first, as safetensors wants for alignment,
/// then by name.
struct WritePlan<'a> {
    tensors: Vec<(&'a Tensor, ElementType)>,
}

impl<'a> WritePlan<'a> {
    fn new(tensors: &'a [Tensor], dtype: Option<FloatType>) -> Self {
        let as_asked = |tensor: &'a Tensor| (tensor, dtype.map_or(tensor.dtype, FloatType::dtype));
        let mut tensors: Vec<_> = tensors.iter().map(as_asked).collect();
        tensors.sort_by(|(a, x), (b, y)| y.size().cmp(&x.size()).then_with(|| a.name.cmp(&b.name)));
        Self { tensors }
    }

    /// The length of the header and the header.
    fn header(&self, metadata: &Metadata) -> serde_json::Result<Vec<u8>> {
        let mut entries = Map::new();
        entries.insert("__metadata__".into(), json!(metadata.to_map()?));
        let mut start = 0;
        for (tensor, dtype) in &self.tensors {
            let end = start + tensor.shape.iter().product::<usize>() * dtype.size();
            let entry = json!({
                "dtype": format!("{dtype:?}"),
                "shape": tensor.shape,
                "data_offsets": [start, end],
            });
            entries.insert(tensor.name.clone(), entry);
            start = end;
        }
        let mut json = serde_json::to_vec(&Value::Object(entries))?;
        json.resize(json.len().next_multiple_of(ALIGN), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.append(&mut json);
        Ok(header)
    }

    /// Writes the data, and gives each tensor's hash.
    fn stream(
        &self,
        checkpoint: &Checkpoint,
        out: &mut impl Write,
        target: &Path,
        stop: &AtomicBool,
    ) -> Result<Vec<Hash>, ConvertError> {
        let (mut stored, mut converted) = (Vec::new(), Vec::new());
        let mut hashes = Vec::with_capacity(self.tensors.len());
        for &(tensor, dtype) in &self.tensors {
            interrupted(stop)?;
            let from = checkpoint.read(&tensor.name, &mut stored)?;
            let bytes = if from == dtype {
                &stored
            } else {
                convert(&stored, from, dtype, &mut converted)
                    .map_err(|Overflow| ConvertError::Range { tensor: tensor.name.clone() })?;
                &converted
            };
            hashes.push(Sha256::digest(bytes).into());
            out.write_all(bytes).map_err(|error| ConvertError::Io {
                path: target.to_owned(),
                action: "can't write",
                error,
            })?;
        }
        Ok(hashes)
    }

    /// Reads a written file as any other and compares every tensor.
    fn compare(
        &self,
        written: &Path,
        target: &Path,
        hashes: &[Hash],
        stop: &AtomicBool,
    ) -> Result<(), ConvertError> {
        let reread = TensorStore::open(written)?;
        let mut bytes = Vec::new();
        for ((tensor, dtype), hash) in self.tensors.iter().zip(hashes) {
            interrupted(stop)?;
            let same = match crate::layout::get(reread.root(), &tensor.name) {
                Some(source::Value::Tensor(found))
                    if found.dtype == *dtype && found.shape == tensor.shape =>
                {
                    reread.read(found, &mut bytes)?;
                    Hash::from(Sha256::digest(&bytes)) == *hash
                }
                _ => false,
            };
            if !same {
                let (path, tensor) = (target.to_owned(), tensor.name.clone());
                return Err(ConvertError::Compare { path, tensor });
            }
        }
        Ok(())
    }
}

/// A finite value that the new type has no finite value for.
#[derive(Debug)]
struct Overflow;

/// Rounds little-endian floats to another type, to nearest even.
fn convert(bytes: &[u8], from: ElementType, to: ElementType, out: &mut Vec<u8>) -> Result<(), Overflow> {
    out.clear();
    out.reserve_exact(bytes.len() / from.size() * to.size());
    let half = |b: &[u8]| [b[0], b[1]];
    let value = |b: &[u8]| match from {
        ElementType::F16 => f16::from_le_bytes(half(b)).to_f32(),
        ElementType::BF16 => bf16::from_le_bytes(half(b)).to_f32(),
        _ => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
    };
    for element in bytes.chunks_exact(from.size()) {
        let x = value(element);
        let finite = match to {
            ElementType::F16 => {
                let y = f16::from_f32(x);
                out.extend_from_slice(&y.to_le_bytes());
                y.is_finite()
            }
            ElementType::BF16 => {
                let y = bf16::from_f32(x);
                out.extend_from_slice(&y.to_le_bytes());
                y.is_finite()
            }
            _ => {
                out.extend_from_slice(&x.to_le_bytes());
                x.is_finite()
            }
        };
        if x.is_finite() && !finite {
            return Err(Overflow);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Options;

    #[test]
    fn a_full_disk_is_named() {
        let Ok(mut full) = File::options().write(true).open("/dev/full") else {
            eprintln!("skipped: no /dev/full here");
            return;
        };
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/classify/nat-k7.pth");
        let checkpoint = Checkpoint::open(golden.as_ref(), &Options::default()).unwrap();
        let plan = WritePlan::new(checkpoint.tensors(), None);
        let running = AtomicBool::new(false);
        let error = plan.stream(&checkpoint, &mut full, "out.safetensors".as_ref(), &running).unwrap_err();
        let says = "out.safetensors: can't write: No space left on device";
        assert!(error.to_string().starts_with(says), "{error}");
    }

    #[test]
    fn floats_are_rounded_to_nearest_even_and_never_to_infinity() {
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        let mut out = Vec::new();
        convert(
            &bytes(&[1.0, -65504.0, 1.0 + 1.0 / 2048.0, 1e-8, f32::INFINITY]),
            ElementType::F32,
            ElementType::F16,
            &mut out,
        )
        .unwrap();
        let halves: Vec<_> = out.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        assert_eq!(halves, [1.0, -65504.0, 1.0, 0.0, f32::INFINITY]);
        assert!(convert(&bytes(&[1.0, 65520.0]), ElementType::F32, ElementType::F16, &mut out).is_err());
        assert!(convert(&bytes(&[f32::MAX]), ElementType::F32, ElementType::BF16, &mut out).is_err());
        convert(&bytes(&[65520.0]), ElementType::F32, ElementType::BF16, &mut out).unwrap();
        assert_eq!(out, bf16::from_f32(65536.0).to_le_bytes());
        let exact = out.clone();
        convert(&exact, ElementType::BF16, ElementType::F32, &mut out).unwrap();
        assert_eq!(out, 65536f32.to_le_bytes());
    }
}
