//! The kernels that are loaded.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule, CudaStream};
use nat_cuda::Launch;

/// By a GPU's number and a name. The driver compiles a module when it is loaded, which takes seconds where it has not kept
/// it from earlier, and a program may open a GPU more than once: these are kept for all of them.
#[derive(Default)]
struct Loaded {
    modules: HashMap<(usize, &'static str), Arc<CudaModule>>,
    functions: HashMap<(usize, &'static str), CudaFunction>,
}

static LOADED: RwLock<Option<Loaded>> = RwLock::new(None);

/// The kernel of a launch, for the GPU of `stream`.
///
/// # Errors
/// When the driver can't compile it.
pub(super) fn function(launch: &Launch, stream: &CudaStream) -> Result<CudaFunction> {
    let gpu = stream.context().ordinal();
    let name = (gpu, launch.function);
    let loaded = LOADED.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(function) = loaded.as_ref().and_then(|loaded| loaded.functions.get(&name)) {
        return Ok(function.clone());
    }
    drop(loaded);
    let mut loaded = LOADED.write().unwrap_or_else(PoisonError::into_inner);
    let Loaded { modules, functions } = loaded.get_or_insert_default();
    let module = match modules.get(&(gpu, launch.module.name)) {
        Some(module) => module.clone(),
        None => {
            let module = stream.context().load_module(launch.module.ptx.into()).w()?;
            modules.insert((gpu, launch.module.name), module.clone());
            module
        }
    };
    let function = module.load_function(launch.function).w()?;
    functions.insert(name, function.clone());
    Ok(function)
}
