//! JPEG to the byte as Pillow and OpenCV read it: decoded by libjpeg-turbo's own C, as mozjpeg carries it
//! (slow integer IDCT, "fancy" upsampling), four channels turned into RGB by Pillow's formula.
//!
//! A C library is called here, so this file has `unsafe` beside the folders that usually hold it. The
//! library reports an error by calling back; [`stop`] then unwinds through its frames, which are compiled
//! for that, to the [`catch_unwind`] in [`decode`]. Nothing is jumped over, and [`Decompressor`] gives the
//! library's memory back whatever happens (a program built with `panic = "abort"` ends at a damaged file).
//! Sizes are checked after the header, before memory is taken.

mod headers;

use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::{mem, ptr, slice};

use image::RgbImage;
use mozjpeg_sys as sys;

pub(super) use self::headers::{dimensions, orientation};
use self::headers::{frame, unread};
use super::error::ImageErrorKind;
use super::limits::Limits;

/// How this format is called in errors.
const FORMAT: &str = "JPEG";

/// Scans that a file may have. Encoders write a dozen, and each scan, be it a few bytes, costs a walk over the
/// whole image: this many are seconds on the largest.
const MAX_SCANS: c_int = 100;

/// Rows of the image that the library holds at most, in all its buffers of samples together.
const WORKING_ROWS: u64 = 64;

/// Bytes of a block of 8x8 coefficients, which files of several scans keep until the last.
const BLOCK_BYTES: u64 = 128;

/// Rows that are asked for at once.
const ROWS: usize = 16;

/// Characters that the library may write into a message.
const MESSAGE_LENGTH: usize = 200;

/// How the library words a message: as it is, and as the crate declares it.
type FormatMessage = unsafe extern "C-unwind" fn(*mut sys::jpeg_common_struct, *mut c_char);
type DeclaredFormatMessage = unsafe extern "C-unwind" fn(&mut sys::jpeg_common_struct, &[u8; 80]);

/// The pixels of a JPEG file as they are stored, in RGB. `copies` says how many times the caller will hold
/// them at once: 2 where they are to be turned.
///
/// # Errors
/// When pixels are missing ([`ImageErrorKind::Truncated`]), when the file is damaged in a way that
/// libjpeg-turbo does not read over or uses what it does not read ([`ImageErrorKind::Damaged`]), and when one
/// of `limits` is exceeded.
pub(super) fn decode(bytes: &[u8], limits: &Limits, copies: u64) -> Result<RgbImage, ImageErrorKind> {
    let read = || Decompressor::new().read(bytes, limits, copies);
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| match panic.downcast::<Stop>() {
        Ok(stop) => Err(match *stop {
            Stop { code, .. } if code == sys::JERR_OUT_OF_MEMORY as c_int => {
                ImageErrorKind::TooMuchMemory { limit: limits.memory }
            }
            Stop { dry: true, .. } => ImageErrorKind::Truncated { format: FORMAT },
            Stop { code, reason, .. } => {
                let reason = if code == sys::JERR_SOF_UNSUPPORTED as c_int { unread(bytes) } else { reason };
                ImageErrorKind::Damaged { format: FORMAT, reason }
            }
        }),
        // Not the library's: for the one who catches decoders' panics.
        Err(panic) => resume_unwind(panic),
    })
}

/// What an error callback unwinds with.
struct Stop {
    code: c_int,
    reason: String,
    /// [`Notes::dry`].
    dry: bool,
}

/// What the library warned of.
#[derive(Default)]
struct Notes {
    /// It asked for bytes after the last; it goes on as if an end marker stood there.
    dry: bool,
    /// After that it lacked bits of a scan, and made up pixels.
    short: bool,
}

/// What the library works with; the first field points to the others.
struct DecoderState {
    library: sys::jpeg_decompress_struct,
    errors: sys::jpeg_error_mgr,
    progress: sys::jpeg_progress_mgr,
    notes: Notes,
}

/// Owns a [`DecoderState`] in a box that does not move.
struct Decompressor(*mut DecoderState);

impl Decompressor {
    /// Unwinds with [`Stop`] when there is no memory for it.
    fn new() -> Self {
        // SAFETY: they consist of integers, pointers and optional functions, for which zeros are valid.
        let (library, errors, progress) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        let state = DecoderState { library, errors, progress, notes: Notes::default() };
        let new = Self(Box::into_raw(Box::new(state)));
        // SAFETY: the box lives until `drop`, and its fields are reached by this pointer alone. The callbacks
        // are in place before the library can call them; from here on `drop` may destroy the library's state,
        // which before its creation is zero.
        unsafe {
            sys::jpeg_std_error(&mut (*new.0).errors);
            (*new.0).errors.error_exit = Some(stop);
            (*new.0).errors.emit_message = Some(note);
            (*new.0).progress.progress_monitor = Some(count_scans);
            (*new.0).library.common.err = &raw mut (*new.0).errors;
            (*new.0).library.common.client_data = new.0.cast();
            sys::jpeg_create_decompress(&raw mut (*new.0).library);
            (*new.0).library.common.progress = &raw mut (*new.0).progress;
        }
        new
    }

    fn read(&mut self, bytes: &[u8], limits: &Limits, copies: u64) -> Result<RgbImage, ImageErrorKind> {
        let damaged = |reason: String| Err(ImageErrorKind::Damaged { format: FORMAT, reason });
        // SAFETY: the box lives; while this reference does, the library's callbacks alone reach its other fields.
        let library = unsafe { &mut (*self.0).library };
        // SAFETY: the state was created, and `bytes` outlives this method, after which it is only destroyed.
        unsafe {
            sys::jpeg_mem_src(library, bytes.as_ptr(), bytes.len() as _);
            sys::jpeg_read_header(library, 1);
        }
        let (width, height) = (library.image_width, library.image_height);
        if u64::from(width) * u64::from(height) > limits.pixels {
            return Err(ImageErrorKind::TooManyPixels { width, height, limit: limits.pixels });
        }
        if needed(library, copies).saturating_add(bytes.len() as u64) > limits.memory {
            return Err(ImageErrorKind::TooMuchMemory { limit: limits.memory });
        }
        library.out_color_space = match library.num_components {
            1 | 3 => sys::J_COLOR_SPACE::JCS_RGB,
            4 => sys::J_COLOR_SPACE::JCS_CMYK,
            channels => return damaged(format!("it has {channels} channels; 1, 3 and 4 are read")),
        };
        // SAFETY: the header was read, and the bytes live.
        unsafe { sys::jpeg_start_decompress(library) };

        let (wide, channels) = (width as usize, library.output_components as usize);
        let mut pixels = vec![0; 3 * wide * height as usize];
        let mut ink = vec![0; if channels == 4 { 4 * wide * ROWS } else { 0 }];
        while library.output_scanline < library.output_height {
            let rows = &mut pixels[3 * wide * library.output_scanline as usize..];
            let lines = if channels == 4 { &mut ink[..] } else { &mut *rows };
            let mut starts = [ptr::null_mut(); ROWS];
            let mut asked = 0;
            for (start, line) in starts.iter_mut().zip(lines.chunks_exact_mut(channels * wide)) {
                *start = line.as_mut_ptr();
                asked += 1;
            }
            // SAFETY: decompression has started, and each of the first `asked` pointers has room for a row.
            let read = unsafe { sys::jpeg_read_scanlines(library, starts.as_mut_ptr(), asked) } as usize;
            if read == 0 {
                return damaged("its decoder makes no progress".to_owned());
            }
            if channels == 4 {
                for (rgb, ink) in rows.chunks_exact_mut(3).zip(ink.chunks_exact(4)).take(read * wide) {
                    rgb.copy_from_slice(&inverted_cmyk_to_rgb([ink[0], ink[1], ink[2], ink[3]]));
                }
            }
        }
        let whole = is_whole(library);
        // SAFETY: the box lives, and no call into the library is under way.
        let &Notes { dry, short } = unsafe { &(*self.0).notes };
        // An arithmetic decoder can't tell bits that are missing from zeros that the encoder left out.
        let arithmetic = frame(bytes).is_some_and(|(marker, _)| marker > 0xC8);
        if dry && (short || arithmetic || !whole) {
            return Err(ImageErrorKind::Truncated { format: FORMAT });
        }
        // What stands between the last pixels and the end marker may be wrong, and tell that the pixels are.
        // SAFETY: the box lives, decompression has started, and all rows were read.
        unsafe { sys::jpeg_finish_decompress(&mut (*self.0).library) };
        Ok(RgbImage::from_raw(width, height, pixels)
            .unwrap_or_else(|| unreachable!("three bytes were made of each of {width}x{height} pixels")))
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: the state may be destroyed at any time, also after an error and before its creation; the
        // pointer came from a box, which nobody uses any longer.
        unsafe {
            sys::jpeg_destroy_decompress(&mut (*self.0).library);
            drop(Box::from_raw(self.0));
        }
    }
}

/// The frame's components.
fn components(library: &sys::jpeg_decompress_struct) -> &[sys::jpeg_component_info] {
    // SAFETY: once the header is read there are that many, and they live as long as the library's state.
    unsafe { slice::from_raw_parts(library.comp_info, library.num_components as usize) }
}

/// Bytes that decoding takes at once when the header was read: `copies` of the pixels, the library's rows of
/// samples, and the coefficients where they come in several scans.
fn needed(library: &sys::jpeg_decompress_struct, copies: u64) -> u64 {
    let (width, height) = (u64::from(library.image_width), u64::from(library.image_height));
    let blocks = |component: &sys::jpeg_component_info| {
        let wide = component.width_in_blocks.next_multiple_of(component.h_samp_factor as u32);
        let high = component.height_in_blocks.next_multiple_of(component.v_samp_factor as u32);
        u64::from(wide) * u64::from(high)
    };
    // SAFETY: the header was read.
    let keeps_coefficients = unsafe { sys::jpeg_has_multiple_scans(library) } != 0;
    let coefficients = if keeps_coefficients {
        components(library).iter().map(blocks).sum::<u64>() * BLOCK_BYTES
    } else {
        0
    };
    3 * width * height * copies + WORKING_ROWS * width * library.num_components as u64 + coefficients
}

/// Whether all coefficients of all components have come, to their last bit.
fn is_whole(library: &sys::jpeg_decompress_struct) -> bool {
    let components = components(library);
    if library.coef_bits.is_null() {
        // A component without a table has had no scan.
        return components.iter().all(|component| !component.quant_table.is_null());
    }
    // SAFETY: where it is not null it points to the missing bits of each coefficient of each component.
    let missing =
        unsafe { slice::from_raw_parts(library.coef_bits.cast(), components.len() * sys::DCTSIZE2) };
    missing.iter().all(|&bits: &c_int| bits == 0)
}

/// Of a pixel of inverted ink, as Adobe and everybody after them write it, Pillow's RGB.
fn inverted_cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    // Rounded division by 255.
    let scaled = |ink: u8| {
        let product = u32::from(ink) * u32::from(k) + 128;
        ((product >> 8) + product) >> 8
    };
    [c, m, y].map(|light| k.saturating_sub(scaled(255 - light) as u8))
}

/// The library's way out of an error. It may not return, so it unwinds.
unsafe extern "C-unwind" fn stop(library: &mut sys::jpeg_common_struct) {
    let mut text = [0; MESSAGE_LENGTH];
    // SAFETY: the library calls this with the state of a `Decompressor`, to which `client_data` points.
    let (errors, dry) = unsafe {
        let state = library.client_data.cast::<DecoderState>();
        (&(*state).errors, (*state).notes.dry)
    };
    let code = errors.msg_code;
    if let Some(format) = errors.format_message {
        // SAFETY: it is one function to C. The crate declares the text as shorter and never written to.
        let format = unsafe { mem::transmute::<DeclaredFormatMessage, FormatMessage>(format) };
        // SAFETY: the text is as long as the library wants it.
        unsafe { format(library, text.as_mut_ptr()) };
    }
    let text: Vec<u8> = text.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    let reason = String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    resume_unwind(Box::new(Stop { code, reason, dry }))
}

/// Takes down the warnings that tell whether pixels are missing. The rest is read over, as Pillow does.
unsafe extern "C-unwind" fn note(library: &mut sys::jpeg_common_struct, _level: c_int) {
    let state = library.client_data.cast::<DecoderState>();
    // SAFETY: as in `stop`; nobody else uses the notes meanwhile.
    let (code, notes) = unsafe { ((*state).errors.msg_code, &mut (*state).notes) };
    notes.dry |= code == sys::JWRN_JPEG_EOF as c_int;
    notes.short |= notes.dry && code == sys::JWRN_HIT_MARKER as c_int;
}

/// Ends the reading of endless scans.
unsafe extern "C-unwind" fn count_scans(library: &mut sys::jpeg_common_struct) {
    // SAFETY: as in `stop`.
    let scans = unsafe { (*library.client_data.cast::<DecoderState>()).library.input_scan_number };
    if scans > MAX_SCANS {
        let reason = format!("it has more than {MAX_SCANS} scans");
        resume_unwind(Box::new(Stop { code: 0, reason, dry: false }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nat_testing::golden;
    use sha2::{Digest, Sha256};

    use image::metadata::Orientation;

    use super::*;
    use crate::images::{Exif, Reader};

    fn bytes(name: &str) -> Vec<u8> {
        golden::bytes(format!("pillow/jpeg/{name}"))
    }

    /// Of each file Pillow's width, height and SHA-256 of the bytes.
    fn answers() -> BTreeMap<String, (u32, u32, String)> {
        serde_json::from_slice(&bytes("answers.json")).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<RgbImage, ImageErrorKind> {
        Reader::default().bytes("x", bytes).map_err(|error| error.kind)
    }

    /// What the error says without the words that stand before every damaged file's.
    fn reason(bytes: &[u8]) -> String {
        let said = read(bytes).unwrap_err().to_string();
        said.replace("damaged or unsupported JPEG image: ", "")
    }

    /// Where the marker stands.
    fn find(bytes: &[u8], marker: u8) -> usize {
        bytes.windows(2).position(|pair| pair == [0xFF, marker]).unwrap()
    }

    #[test]
    fn every_kind_is_to_the_byte_what_pillow_reads() {
        let answers = answers();
        assert!(answers.len() >= 90, "{}", answers.len());
        for (name, (width, height, sha256)) in answers {
            let image = read(&bytes(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(image.dimensions(), (width, height), "{name}");
            let hash: String = Sha256::digest(image.as_raw()).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hash, sha256, "{name}");
        }
    }

    #[test]
    fn cmyk_becomes_rgb_as_in_pillow() {
        // Pillow 13's answers to Image.frombytes("CMYK", (1, 1), inverted).convert("RGB").
        for (inverted, rgb) in [
            ([255, 255, 255, 255], [255, 255, 255]),
            ([0, 128, 255, 0], [0, 0, 0]),
            ([10, 100, 200, 255], [10, 100, 200]),
            ([10, 100, 200, 128], [5, 50, 100]),
            ([1, 2, 254, 77], [0, 1, 77]),
        ] {
            assert_eq!(inverted_cmyk_to_rgb(inverted), rgb, "{inverted:?}");
        }
    }

    #[test]
    fn pixels_that_are_missing_are_an_error() {
        for name in ["sampling-420.jpg", "coded-progressive.jpg", "scans-apart.jpg", "grey.jpg", "cmyk-0.jpg"]
        {
            let whole = bytes(name);
            let scan = find(&whole, 0xDA) + 16;
            for cut in (4..scan).step_by(9).chain((scan..whole.len() - 12).step_by(37)) {
                let error = read(&whole[..cut]).unwrap_err();
                assert!(matches!(error, ImageErrorKind::Truncated { .. }), "{name}, {cut}: {error}");
            }
        }
        // Bits that are missing and zeros that were left out look the same.
        let arithmetic = bytes("coded-arithmetic.jpg");
        let error = read(&arithmetic[..arithmetic.len() - 2]).unwrap_err();
        assert!(matches!(error, ImageErrorKind::Truncated { .. }), "{error}");
        // Whole scans are missing, and nothing of those that are there.
        for name in ["noeoi-progressive.jpg", "noeoi-apart.jpg"] {
            let whole = bytes(name);
            let last = whole.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
            let error = read(&whole[..last]).unwrap_err();
            assert!(matches!(error, ImageErrorKind::Truncated { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn a_scan_that_breaks_off_is_not_half_an_image() {
        // A marker of another segment among the scan's bits: the rest of them is never read.
        let mut broken = bytes("sampling-444.jpg");
        let middle = broken.len() / 2;
        broken.splice(middle..middle, [0xFF, 0xC4]);
        assert!(matches!(read(&broken), Err(ImageErrorKind::Damaged { .. })));
    }

    #[test]
    fn damage_is_an_error_in_one_line_or_read_over() {
        let mut rng = fastrand::Rng::with_seed(0);
        for name in answers().keys().filter(|name| !name.starts_with("found-as")) {
            let whole = bytes(name);
            for _ in 0..40 {
                let mut bytes = whole.clone();
                for _ in 0..rng.usize(1..4) {
                    let at = rng.usize(2..bytes.len());
                    bytes[at] = rng.u8(..);
                }
                if let Err(error) = read(&bytes) {
                    let said = error.to_string();
                    assert!(!said.contains('\n') && !said.contains("crashed"), "{name}: {said}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        let whole = bytes("sampling-444.jpg");
        let frame = find(&whole, 0xC0);
        let changed = |offset: usize, value: u8| {
            let mut bytes = whole.clone();
            bytes[frame + offset] = value;
            reason(&bytes)
        };
        assert_eq!(changed(1, 0xC3), "lossless coding, which is not read");
        assert_eq!(changed(1, 0xC5), "hierarchical coding, which is not read");
        assert_eq!(changed(4, 12), "Unsupported JPEG data precision 12");
        // Two channels: one less in the frame's and the scan's header.
        let mut two = whole.clone();
        let scan = find(&two, 0xDA);
        two[scan + 3] -= 2;
        two[scan + 4] -= 1;
        two.drain(scan + 9..scan + 11);
        two[frame + 3] -= 3;
        two[frame + 9] -= 1;
        two.drain(frame + 16..frame + 19);
        assert_eq!(reason(&two), "it has 2 channels; 1, 3 and 4 are read");
    }

    /// A file's header with another size.
    fn sized(name: &str, frame: u8, width: u16, height: u16) -> Vec<u8> {
        let mut bytes = bytes(name);
        let at = find(&bytes, frame) + 5;
        bytes[at..at + 2].copy_from_slice(&height.to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
        bytes
    }

    #[test]
    fn limits_are_checked_before_memory_is_taken() {
        let bomb = sized("coded-progressive-444.jpg", 0xC2, 65500, 65500);
        let says = "65500x65500 is over the limit of 268435456 pixels; make it smaller first";
        assert_eq!(reason(&bomb), says);
        // 768 MB of pixels, and 1.5 GB of coefficients.
        let bomb = sized("coded-progressive-444.jpg", 0xC2, 16000, 16000);
        assert!(matches!(read(&bomb), Err(ImageErrorKind::TooMuchMemory { .. })));
        let tall = sized("sampling-444.jpg", 0xC0, 1, 65535);
        assert_eq!(reason(&tall), "Maximum supported image dimension is 65500 pixels");

        // What 24x20 pixels need: the file, and the library's rows, and the pixels, twice where they are turned.
        for (name, copies) in [("exif-1.jpg", 1), ("exif-6.jpg", 2), ("xmp-attribute.jpg", 2)] {
            let bytes = bytes(name);
            let memory = bytes.len() as u64 + copies * 3 * 24 * 20 + WORKING_ROWS * 24 * 3;
            let within = |memory| {
                let limits = Limits { memory, ..Limits::default() };
                Reader { limits, ..Reader::default() }.bytes(name, &bytes).map_err(|error| error.kind)
            };
            assert!(within(memory).is_ok(), "{name}");
            assert!(matches!(within(memory - 1), Err(ImageErrorKind::TooMuchMemory { .. })), "{name}");
        }
    }

    #[test]
    fn endless_scans_are_refused() {
        let whole = bytes("coded-progressive.jpg");
        let last = whole.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
        let (scan, end) = whole[last..].split_at(whole.len() - 2 - last);
        let scans = |count: usize| [&whole[..last], &scan.repeat(count), end].concat();
        assert!(read(&scans(80)).is_ok());
        assert_eq!(reason(&scans(100)), "it has more than 100 scans");
        assert_eq!(reason(&scans(100_000)), "it has more than 100 scans");
    }

    #[test]
    fn the_header_tells_size_and_orientation() {
        for (name, (width, height, _)) in answers() {
            let bytes = bytes(&name);
            let stored = dimensions(&bytes).unwrap();
            assert_eq!(
                Reader::default().decoded_bytes(&bytes),
                3 * u64::from(width) * u64::from(height),
                "{name}"
            );
            let turned = stored != (width, height);
            let mut image = Reader { exif: Exif::Ignore, ..Reader::default() }.bytes(&name, &bytes).unwrap();
            assert_eq!(image.dimensions(), stored, "{name}");
            let orientation = orientation(&bytes);
            assert_eq!(orientation.to_exif() > 4, turned, "{name}");
            if orientation == Orientation::FlipHorizontal {
                image::imageops::flip_horizontal_in_place(&mut image);
                assert_eq!(read(&bytes).unwrap(), image, "{name}");
            }
        }
        assert_eq!(dimensions(b"\xFF\xD8\xFF\xE0\0\x10JFIF"), None);
        assert_eq!(orientation(b"\xFF\xD8\xFF"), Orientation::NoTransforms);
    }
}
