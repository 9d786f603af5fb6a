//! What a test asks of the emulated GPU that it runs on (`cuda/emulate/`): that recording fails, and what was launched.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_uint};

use libloading::Library;

/// The emulated GPU of this process.
pub struct EmulatedGpu {
    library: Library,
}

/// How often something was done, and over how many bytes: tensors read and written, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How often.
    pub times: u64,
    /// Bytes of all times.
    pub bytes: u64,
}

impl EmulatedGpu {
    /// The one of this process, or `None` where the driver is none of this project's or there is no driver.
    pub fn find() -> Option<Self> {
        // SAFETY: the driver is loaded already where there is one.
        let library = unsafe { Library::new("libcuda.so.1") }.ok()?;
        // SAFETY: the address is not used.
        unsafe { library.get::<unsafe extern "C" fn()>(b"nat_emulated_reset") }.ok()?;
        Some(Self { library })
    }

    /// Has the `call`-th call in a recording fail, counted from now and from 1, or none if it is 0; gives how many calls before
    /// that one were to come of what was asked for last, with it: 0 if it has failed.
    pub fn fail(&self, call: u32) -> u32 {
        // SAFETY: driver.cpp defines the function with this type.
        unsafe {
            self.library.get::<unsafe extern "C" fn(c_uint) -> c_uint>(b"nat_emulated_fail").unwrap()(call)
        }
    }

    /// Counts anew.
    pub fn reset(&self) {
        // SAFETY: driver.cpp defines the function with this type.
        unsafe { self.library.get::<unsafe extern "C" fn()>(b"nat_emulated_reset").unwrap()() };
    }

    /// What was done since it counts, by the names of kernels and `product`, `copy`, `set`, `graph launch`; kernels of candle's
    /// begin with `candle `, and of `module ` and its name it counts how often it was loaded.
    pub fn counted(&self) -> BTreeMap<String, Counted> {
        // SAFETY: driver.cpp defines the function with this type, and what it returns stays until the next call.
        let report = unsafe {
            let report =
                self.library.get::<unsafe extern "C" fn() -> *const c_char>(b"nat_emulated_report").unwrap();
            CStr::from_ptr(report()).to_str().unwrap().to_owned()
        };
        let line = |line: &str| {
            let [times, bytes, name] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("the emulated driver reports `{line}`")
            };
            (name.to_owned(), Counted { times: times.parse().unwrap(), bytes: bytes.parse().unwrap() })
        };
        report.lines().map(line).collect()
    }
}
