//! What the decoders take is what they count: a limit that lets an image through is never exceeded, and what is
//! refused is refused before its pixels have memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};
use nat_infer::images::{Exif, Limits, Reader};
use nat_testing::picture;

/// The system's, which counts.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    MOST.fetch_max(NOW.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `work` has at most, beyond those that there are before.
fn most<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let result = work();
    (result, MOST.load(Relaxed) - before)
}

const WIDTH: u32 = 800;
const HEIGHT: u32 = 600;
/// Decoders' tables.
const TABLES: usize = 1 << 19;

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// A TIFF of one strip of zeros, not packed.
fn tiff(samples: u16, bits: u16, kind: u16, turned: u16) -> Vec<u8> {
    let photometric = if samples >= 3 { 2 } else { 1 };
    let tags = [
        (256, WIDTH as u16),
        (257, HEIGHT as u16),
        (258, bits),
        (262, photometric),
        (274, turned),
        (277, samples),
        (339, kind),
    ];
    picture::tiff(&tags, &vec![0; usize::from(samples * bits / 8) * (WIDTH * HEIGHT) as usize])
}

fn bmp() -> Vec<u8> {
    let mut out = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    out.extend(WIDTH.to_le_bytes());
    out.extend(HEIGHT.to_le_bytes());
    out.extend([1, 0, 24, 0]);
    out.resize(54 + 3 * (WIDTH * HEIGHT) as usize, 0);
    out
}

#[test]
fn limits_of_memory_hold() {
    let grey16 = ImageBuffer::from_fn(WIDTH, HEIGHT, |x, y| Luma([(x * y) as u16]));
    let pair16 = ImageBuffer::from_fn(WIDTH, HEIGHT, |x, y| LumaA([(x * y) as u16, x as u16]));
    let rgba16 = ImageBuffer::from_fn(WIDTH, HEIGHT, |x, y| Rgba([x as u16, y as u16, 9, 77]));
    let rgb = ImageBuffer::from_fn(WIDTH, HEIGHT, |x, y| Rgb([x as u8, y as u8, (x ^ y) as u8]));
    let rgba = ImageBuffer::from_fn(WIDTH, HEIGHT, |x, y| Rgba([x as u8, y as u8, 1, (x + y) as u8]));
    // One pixel on a large screen.
    let gif =
        b"GIF89a\x20\x03\x58\x02\x80\0\0\x01\x02\x03\x04\x05\x06,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;";
    let files = [
        ("grey of 16 bits, PNG", encoded(DynamicImage::ImageLuma16(grey16), ImageFormat::Png)),
        ("grey and alpha of 16 bits, PNG", encoded(DynamicImage::ImageLumaA16(pair16), ImageFormat::Png)),
        ("RGBA of 16 bits, PNG", encoded(DynamicImage::ImageRgba16(rgba16), ImageFormat::Png)),
        ("RGB, PNG", encoded(rgb.clone(), ImageFormat::Png)),
        ("RGB, WebP", encoded(rgb, ImageFormat::WebP)),
        ("RGBA, WebP", encoded(rgba, ImageFormat::WebP)),
        ("GIF", gif.to_vec()),
        ("BMP", bmp()),
        ("grey, TIFF", tiff(1, 8, 1, 1)),
        ("grey turned, TIFF", tiff(1, 8, 1, 6)),
        ("RGB of 16 bits, TIFF", tiff(3, 16, 1, 1)),
        ("RGB in floating point, TIFF", tiff(3, 32, 3, 8)),
    ];
    for (name, bytes) in files {
        let read = |memory| {
            let mut limits = Limits::default();
            limits.memory = memory;
            Reader::new(Exif::Apply, limits).bytes(name, &bytes)
        };
        let (mut refused, mut enough) = (0, 1 << 30);
        assert!(read(enough).is_ok(), "{name}");
        while enough - refused > 1 << 12 {
            let middle = (refused + enough) / 2;
            if read(middle).is_ok() { enough = middle } else { refused = middle }
        }
        let image = 3 * u64::from(WIDTH * HEIGHT);
        assert!(enough >= image + bytes.len() as u64, "{name} needs {enough}");
        let (result, taken) = most(|| read(enough));
        assert_eq!(result.unwrap().as_raw().len() as u64, image, "{name}");
        assert!(taken + bytes.len() <= enough as usize + TABLES, "{name}: {taken} within {enough}");
        // A limit of half an image: nothing of it has been made.
        let (result, taken) = most(|| read(bytes.len() as u64 + image / 2));
        let error = result.unwrap_err().to_string();
        assert!(error.contains("needs more memory than the limit"), "{error}");
        assert!(taken <= TABLES, "{name}: {taken}");
    }
}
