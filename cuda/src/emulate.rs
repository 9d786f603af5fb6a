//! Runs the kernels on the CPU: their sources, compiled as C++ with `emulate/cuda.h` in place of CUDA. For
//! tests on machines without a GPU.

use std::collections::hash_map::DefaultHasher;
use std::ffi::{CString, c_char, c_int, c_void};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use libloading::Library;

use crate::Launch;

const FLAGS: [&str; 8] =
    ["-std=c++17", "-fno-strict-aliasing", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-pthread", "-w"];

type Run = unsafe extern "C" fn(*const c_char, *const u32, *const u32, usize, *mut *mut c_void) -> c_int;

/// The kernels, compiled for the CPU.
pub struct Emulator {
    run: Run,
    _library: Library,
}

impl Emulator {
    /// The kernels, which are compiled by `$CXX` or `c++` when they have changed.
    ///
    /// # Errors
    /// When there is no C++ compiler, or it fails.
    pub fn get() -> Result<&'static Self, String> {
        static EMULATOR: OnceLock<Result<Emulator, String>> = OnceLock::new();
        EMULATOR.get_or_init(Self::open).as_ref().map_err(String::clone)
    }

    fn open() -> Result<Self, String> {
        let path = compile()?;
        let failed = |error: libloading::Error| format!("{}: {error}", path.display());
        // SAFETY: the library is compiled from this crate's sources; opening it only lists its kernels.
        let library = unsafe { Library::new(&path) }.map_err(failed)?;
        // SAFETY: launch.cpp defines the function with this type.
        let run = *unsafe { library.get::<Run>(b"nat_cuda_launch") }.map_err(failed)?;
        Ok(Self { run, _library: library })
    }

    /// Runs a kernel: all blocks are done when this returns.
    ///
    /// # Panics
    /// When there is no such kernel.
    ///
    /// # Safety
    /// The pointers are those that the launch's kernel takes, to as many elements as its sizes say.
    pub unsafe fn launch(&self, launch: &Launch, pointers: &[*mut c_void]) {
        let (mut pointers, mut sizes) = (pointers.to_vec(), launch.sizes.clone());
        let mut parameters: Vec<*mut c_void> = pointers.iter_mut().map(|p| (&raw mut *p).cast()).collect();
        parameters.extend(sizes.iter_mut().map(|size| (&raw mut *size).cast::<c_void>()));
        let name = CString::new(launch.function).unwrap_or_default();
        let (grid, block) = (launch.grid.as_ptr(), launch.block.as_ptr());
        // SAFETY: the parameters live until the call returns; the rest is the caller's promise.
        let status = unsafe {
            (self.run)(name.as_ptr(), grid, block, launch.shared_bytes as usize, parameters.as_mut_ptr())
        };
        assert_eq!(status, 0, "there is no kernel `{}`", launch.function);
    }
}

/// The library of this crate's kernels, beside the program that runs.
fn compile() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let mut hasher = DefaultHasher::new();
    FLAGS.hash(&mut hasher);
    let mut sources = Vec::new();
    for folder in ["kernels", "emulate"] {
        let entries = fs::read_dir(root.join(folder)).map_err(|error| format!("{folder}: {error}"))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            read(&path)?.hash(&mut hasher);
            // driver.cpp is for whole programs, which bring their own way in.
            if path.extension().is_some_and(|extension| extension == "cu") || path.ends_with("launch.cpp") {
                sources.push(path);
            }
        }
    }
    let folder = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let folder = folder.unwrap_or_else(env::temp_dir);
    let path = folder.join(format!("nat-cuda-{:016x}.so", hasher.finish()));
    if path.exists() {
        return Ok(path);
    }
    // Several tests may compile at once: each under its own name, and the last one stays.
    let mine = path.with_extension(std::process::id().to_string());
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(&compiler)
        .args(FLAGS)
        .arg("-I")
        .arg(root.join("emulate"))
        .args(["-x", "c++"])
        .args(&sources)
        .arg("-o")
        .arg(&mine)
        .output()
        .map_err(|error| {
            format!(
                "can't run `{compiler}` ({error}): the tests of the CUDA kernels need a C++ compiler; \
                     install g++ or clang++, or name one with CXX"
            )
        })?;
    if !output.status.success() {
        return Err(format!("{compiler} failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    fs::rename(&mine, &path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
