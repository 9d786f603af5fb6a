//! Tensors for the kernels, and running these.

// Each test takes what it needs.
#![allow(dead_code)]

use std::ffi::c_void;

use half::{bf16, f16};
use nat_cuda::emulate::Emulator;
use nat_cuda::{Element, Launch};

/// Values of a type in memory aligned to 16 bytes.
pub struct Values {
    pub words: Vec<u128>,
    pub element: Element,
    pub count: usize,
}

impl Values {
    /// These values, rounded.
    pub fn new(element: Element, values: &[f64]) -> Self {
        let bytes: Vec<u8> = match element {
            Element::F32 => values.iter().flat_map(|&x| (x as f32).to_ne_bytes()).collect(),
            Element::F16 => values.iter().flat_map(|&x| f16::from_f32(x as f32).to_ne_bytes()).collect(),
            Element::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x as f32).to_ne_bytes()).collect(),
        };
        let word = |chunk: &[u8]| {
            let mut word = [0; 16];
            word[..chunk.len()].copy_from_slice(chunk);
            u128::from_ne_bytes(word)
        };
        Self { words: bytes.chunks(16).map(word).collect(), element, count: values.len() }
    }

    /// Values of a normal-looking spread around `centre`.
    pub fn random(element: Element, count: usize, centre: f64, rng: &mut fastrand::Rng) -> Self {
        let value = |_| centre + (0..4).map(|_| rng.f64() - 0.5).sum::<f64>() * 1.7;
        Self::new(element, &(0..count).map(value).collect::<Vec<_>>())
    }

    /// What no kernel has written yet.
    pub fn nan(element: Element, count: usize) -> Self {
        Self::new(element, &vec![f64::NAN; count])
    }

    /// Every value that 16 bits have.
    pub fn all(element: Element) -> Self {
        let words = (0..=u16::MAX / 8).map(|word| {
            let bits = |i| u128::from(8 * word + i) << (16 * i);
            (0..8).fold(0, |all, i| all | bits(i))
        });
        Self { words: words.collect(), element, count: 1 << 16 }
    }

    /// As the kernels see them.
    pub fn get(&self) -> Vec<f64> {
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let value = |x: &[u8]| match self.element {
            Element::F32 => f32::from_ne_bytes([x[0], x[1], x[2], x[3]]).into(),
            Element::F16 => f16::from_ne_bytes([x[0], x[1]]).into(),
            Element::Bf16 => bf16::from_ne_bytes([x[0], x[1]]).into(),
        };
        bytes.chunks_exact(self.element.bytes()).take(self.count).map(value).collect()
    }

    /// For the kernels.
    pub fn pointer(&mut self) -> *mut c_void {
        self.words.as_mut_ptr().cast()
    }
}

/// Runs a kernel, emulated, on tensors of its launch's sizes.
pub fn run(launch: &Launch, pointers: &[*mut c_void]) {
    // SAFETY: every test gives tensors of its launch's sizes.
    unsafe { Emulator::get().unwrap().launch(launch, pointers) }
}
