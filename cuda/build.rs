//! Compiles the kernels to PTX with nvcc, when the feature `ptx` asks for them: for a low virtual
//! architecture, which the driver compiles for the card that is present.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, panic, thread};

/// What one run of nvcc compiles: a module of `src/module.rs`.
struct Compilation {
    /// Its name there.
    name: String,
    /// The file in `kernels`.
    source: &'static str,
    /// What selects its kernels of those in the file.
    defines: Vec<String>,
    /// The lowest architecture that it compiles for.
    lowest: u32,
}

/// All of them.
fn modules() -> Vec<Compilation> {
    let whole = |source: &'static str| Compilation {
        name: source.to_owned(),
        source,
        defines: Vec::new(),
        lowest: 75,
    };
    let mut modules: Vec<_> = ["maps", "regions"].map(whole).into();
    for source in ["attention", "attention_grad", "images", "layers", "norms"] {
        for kind in ["f32", "f16", "bf16"] {
            let defines = vec![format!("-DONLY_{}", kind.to_uppercase())];
            modules.push(Compilation { name: format!("{source}_{kind}"), source, defines, lowest: 75 });
        }
    }
    for kind in ["f16", "bf16"] {
        for size in [3, 5, 7, 9, 11, 13] {
            let defines = vec![format!("-DONLY_{}", kind.to_uppercase()), format!("-DONLY_SIZE={size}")];
            let name = format!("attention_mma_{kind}_{size}");
            modules.push(Compilation { name, source: "attention_mma", defines, lowest: 80 });
        }
    }
    modules
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    if env::var_os("CARGO_FEATURE_PTX").is_none() {
        return;
    }
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "NVCC_CCBIN", "CUDA_COMPUTE_CAP"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let lazy = env::var_os("CARGO_FEATURE_LAZY").is_some();
    if let Err(message) = compile().and_then(|()| if lazy { stand_ins() } else { Ok(()) }) {
        // Its own line and no backtrace: what to do stands in it.
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

fn compile() -> Result<(), String> {
    let asked = match env::var("CUDA_COMPUTE_CAP") {
        Ok(text) => capability(&text)?,
        Err(_) => 0,
    };
    let (nvcc, out, modules) = (nvcc(), out()?, modules());
    // As many at once as cargo was told to run.
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1usize);
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), String> {
        while let Some(module) = modules.get(next.fetch_add(1, Ordering::Relaxed)) {
            compile_module(&nvcc, &out, module, asked.max(module.lowest))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.clamp(1, modules.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => panic::resume_unwind(panic),
        })
    })
}

fn compile_module(nvcc: &Path, out: &Path, module: &Compilation, architecture: u32) -> Result<(), String> {
    let source = Path::new("kernels").join(module.source).with_extension("cu");
    let mut command = Command::new(nvcc);
    command.args(["-std=c++17", "-O3", "--ptx", "-gencode"]);
    command.arg(format!("arch=compute_{architecture},code=compute_{architecture}"));
    command.args(&module.defines);
    command.arg("-o").arg(out.join(&module.name).with_extension("ptx")).arg(&source);
    if let Some(compiler) = env::var_os("NVCC_CCBIN") {
        command.arg("-allow-unsupported-compiler").arg("-ccbin").arg(compiler);
    }
    let output = command.output().map_err(|error| {
        format!(
            "can't run nvcc ({}: {error}). The feature `cuda` needs the CUDA toolkit to build: install it \
             and put nvcc on PATH, or say where it is with NVCC or CUDA_HOME",
            nvcc.display()
        )
    })?;
    if !output.status.success() {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        return Err(format!(
            "nvcc failed on {}:\n{}{}",
            source.display(),
            text(&output.stdout),
            text(&output.stderr)
        ));
    }
    Ok(())
}

/// Lets programs be linked where NVIDIA's libraries are not installed: candle asks for them by name, and
/// `src/lazy.rs` defines all that is used of them. An archive of nothing answers to each name.
fn stand_ins() -> Result<(), String> {
    let target = |name| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if (target("ARCH").as_str(), target("OS").as_str()) != ("x86_64", "linux") {
        return Ok(());
    }
    let folder = out()?.join("stand-ins");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    for library in ["cuda", "cudart", "cublas", "cublasLt", "curand", "nvrtc"] {
        fs::write(folder.join(format!("lib{library}.a")), "!<arch>\n").map_err(failed)?;
    }
    println!("cargo:rustc-link-search=native={}", folder.display());
    Ok(())
}

fn out() -> Result<PathBuf, String> {
    env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| "OUT_DIR is not set: cargo sets it".to_owned())
}

/// The compiler: `NVCC`, that of the toolkit a variable names, or the one on PATH.
fn nvcc() -> PathBuf {
    let given = env::var_os("NVCC").map(PathBuf::from);
    let of_toolkit = || {
        ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"]
            .iter()
            .filter_map(env::var_os)
            .map(|root| PathBuf::from(root).join("bin/nvcc"))
            .find(|path| path.exists())
    };
    given.or_else(of_toolkit).unwrap_or_else(|| "nvcc".into())
}

/// A compute capability as candle's build takes it: `80`, `8.0`, `90a`.
fn capability(text: &str) -> Result<u32, String> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    match digits.parse() {
        Ok(number) if number >= 50 => Ok(number),
        _ => Err(format!("CUDA_COMPUTE_CAP is `{text}`: a compute capability such as 80 is wanted")),
    }
}
