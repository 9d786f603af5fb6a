//! NVIDIA's libraries, opened when the first of their functions is called.
//!
//! candle links them, so that a program with CUDA built in would not even start on a machine that has no
//! driver. Here stands a trampoline for each of their functions that candle calls: it finds the function,
//! remembers it and jumps there with all arguments in place. Defined in the program itself, the
//! trampolines come before the libraries, which the linker then leaves out.

use std::arch::naked_asm;
use std::ffi::{CStr, c_int};
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A library, by the names of its versions, newest first.
struct Lazy {
    names: &'static [&'static str],
    /// With the name that it was found by.
    opened: OnceLock<Option<(&'static str, libloading::Library)>>,
    /// What all its functions return where there is none.
    fail: extern "C" fn() -> c_int,
}

impl Lazy {
    const fn new(names: &'static [&'static str], fail: extern "C" fn() -> c_int) -> Self {
        Self { names, opened: OnceLock::new(), fail }
    }

    fn get(&self) -> Option<&libloading::Library> {
        self.found().map(|(_, library)| library)
    }

    fn found(&self) -> Option<&(&'static str, libloading::Library)> {
        // SAFETY: NVIDIA's libraries may be opened at any time; they are never closed.
        let open = |&name: &&'static str| Some((name, unsafe { libloading::Library::new(name) }.ok()?));
        self.opened.get_or_init(|| self.names.iter().find_map(open)).as_ref()
    }
}

/// A function of a library.
#[repr(C)]
struct LibraryFunction {
    /// Where it is, once it has been called; the trampoline reads it at offset 0.
    address: AtomicPtr<()>,
    name: &'static CStr,
    library: &'static Lazy,
}

/// Each library's error code for not being initialised.
extern "C" fn no_driver() -> c_int {
    3
}
extern "C" fn no_cublas() -> c_int {
    1
}
extern "C" fn no_curand() -> c_int {
    203
}
/// The runtime's functions that register the kernels of candle's static library, at the program's start: they
/// have to succeed, and what they return is used by none that is called later.
extern "C" fn no_cudart() -> c_int {
    0
}

static CUDA: Lazy = Lazy::new(&["libcuda.so.1"], no_driver);
static CUBLAS: Lazy = Lazy::new(&["libcublas.so.13", "libcublas.so.12"], no_cublas);
static CURAND: Lazy = Lazy::new(&["libcurand.so.10"], no_curand);
static CUDART: Lazy = Lazy::new(&["libcudart.so.13", "libcudart.so.12"], no_cudart);

/// The library among those that computing takes which can't be opened, if any.
pub fn missing_library() -> Option<&'static str> {
    // Keeps the trampolines together with this function, which the program is linked with first.
    black_box(&TRAMPOLINES);
    [&CUDA, &CUBLAS, &CURAND].into_iter().find(|library| library.get().is_none()).map(|lazy| lazy.names[0])
}

/// The libraries that computing takes: of each the file that was found or is missing, and whether it was found.
pub fn libraries() -> Vec<(&'static str, bool)> {
    let library = |lazy: &Lazy| lazy.found().map_or((lazy.names[0], false), |&(name, _)| (name, true));
    [&CUDA, &CUBLAS, &CURAND].map(library).into()
}

/// Finds the function of an entry.
extern "C" fn resolve(entry: &LibraryFunction) -> *mut () {
    let found = entry.library.get().and_then(|library| {
        // SAFETY: the address alone is taken; whoever calls it knows the function's type.
        unsafe { library.get::<*mut ()>(entry.name.to_bytes_with_nul()) }.ok().map(|symbol| *symbol)
    });
    let address = found.unwrap_or(entry.library.fail as *mut ());
    entry.address.store(address, Ordering::Release);
    address
}

/// Calls [`resolve`] with the entry in r11, and goes on to what it found as if nothing had happened.
#[unsafe(naked)]
unsafe extern "C" fn resolve_and_jump() {
    naked_asm!(
        // The registers that carry arguments (System V ABI, 3.2.3); seven words and the return address
        // leave the stack aligned.
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "push rax",
        "sub rsp, 128",
        "movups [rsp], xmm0",
        "movups [rsp + 16], xmm1",
        "movups [rsp + 32], xmm2",
        "movups [rsp + 48], xmm3",
        "movups [rsp + 64], xmm4",
        "movups [rsp + 80], xmm5",
        "movups [rsp + 96], xmm6",
        "movups [rsp + 112], xmm7",
        "mov rdi, r11",
        "call {resolve}",
        "mov r11, rax",
        "movups xmm0, [rsp]",
        "movups xmm1, [rsp + 16]",
        "movups xmm2, [rsp + 32]",
        "movups xmm3, [rsp + 48]",
        "movups xmm4, [rsp + 64]",
        "movups xmm5, [rsp + 80]",
        "movups xmm6, [rsp + 96]",
        "movups xmm7, [rsp + 112]",
        "add rsp, 128",
        "pop rax",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "jmp r11",
        resolve = sym resolve,
    )
}

macro_rules! trampolines {
    ($($library:ident: $($name:ident)*;)*) => {
        static TRAMPOLINES: &[unsafe extern "C" fn()] = &[$($($name,)*)*];

        $($(
        #[allow(non_snake_case)]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            static ENTRY: LibraryFunction = LibraryFunction {
                address: AtomicPtr::new(null_mut()),
                // SAFETY: the text ends in its only zero.
                name: unsafe { CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) },
                library: &$library,
            };
            naked_asm!(
                "mov r11, [rip + {entry}]",
                "test r11, r11",
                "je 2f",
                "jmp r11",
                "2:",
                "lea r11, [rip + {entry}]",
                "jmp {slow}",
                entry = sym ENTRY,
                slow = sym resolve_and_jump,
            )
        }
        )*)*
    };
}

trampolines! {
    CUDA:
        cuCtxDestroy_v2 cuCtxGetCurrent cuCtxSetCurrent cuCtxSynchronize cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount
        cuDeviceGetName cuDeviceTotalMem_v2 cuDriverGetVersion
        cuDeviceGetDefaultMemPool cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuEventCreate
        cuEventDestroy_v2 cuEventRecord cuGetErrorName cuGetErrorString cuGraphDestroy cuGraphExecDestroy
        cuGraphInstantiateWithFlags cuGraphLaunch cuInit cuLaunchKernel cuMemAllocAsync cuMemAlloc_v2
        cuMemFreeAsync cuMemFree_v2 cuMemPoolSetAttribute cuMemcpyDtoDAsync_v2 cuMemcpyDtoHAsync_v2
        cuMemcpyHtoDAsync_v2 cuMemcpyPeerAsync cuMemsetD8Async cuModuleGetFunction cuModuleLoad
        cuModuleLoadData cuModuleUnload cuStreamBeginCapture_v2 cuStreamDestroy_v2 cuStreamEndCapture
        cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent cuStreamCreate;
    CUBLAS:
        cublasCreate_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasGemmStridedBatchedEx
        cublasSetStream_v2;
    CURAND:
        curandCreateGenerator curandDestroyGenerator curandGenerateNormal curandGenerateNormalDouble
        curandGenerateUniform curandGenerateUniformDouble curandSetPseudoRandomGeneratorSeed curandSetStream;
    CUDART:
        __cudaGetKernel __cudaInitModule __cudaLaunchKernel __cudaLaunchKernel_ptsz
        __cudaPopCallConfiguration __cudaPushCallConfiguration __cudaRegisterFatBinary
        __cudaRegisterFatBinaryEnd __cudaRegisterFunction __cudaRegisterVar __cudaUnregisterFatBinary
        cudaFuncSetAttribute cudaGetDevice cudaLaunchKernel cudaLaunchKernel_ptsz;
}
