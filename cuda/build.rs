//! Compiles the kernels to PTX with nvcc, when the feature `ptx` asks for them: for a low virtual
//! architecture, which the driver compiles for the card that is present.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Each file of kernels, and the lowest architecture that it compiles for.
const KERNELS: [(&str, u32); 9] = [
    ("attention", 75),
    ("attention_grad", 75),
    ("attention_mma", 80),
    ("images", 75),
    ("layers", 75),
    ("maps", 75),
    ("norms_f32", 75),
    ("norms_f16", 75),
    ("norms_bf16", 75),
    ("regions", 75),
];

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
    let nvcc = nvcc();
    let out = out()?;
    let asked = match env::var("CUDA_COMPUTE_CAP") {
        Ok(text) => capability(&text)?,
        Err(_) => 0,
    };
    for (name, lowest) in KERNELS {
        let source = Path::new("kernels").join(name).with_extension("cu");
        let architecture = format!("arch=compute_{0},code=compute_{0}", asked.max(lowest));
        let mut command = Command::new(&nvcc);
        command.args(["-std=c++17", "-O3", "--ptx", "-gencode", &architecture, "-o"]);
        command.arg(out.join(name).with_extension("ptx")).arg(&source);
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
