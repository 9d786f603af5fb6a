//! The colours of classes and of their instances.

use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

/// A saturated colour, the same for a class in every picture. The colours of the first 256 classes
/// differ; they are used again for the next 256.
///
/// Each is as far as can be in OKLab from all before it, so that the first ones differ most: of 80 no two
/// are nearer than 0.055.
pub fn colour(index: usize) -> [u8; 3] {
    PALETTE[index % PALETTE.len()]
}

static PALETTE: LazyLock<Vec<[u8; 3]>> = LazyLock::new(|| {
    // In thousandths, whole numbers: every machine then chooses the same, however it rounds.
    let point = |lab: [f64; 3]| lab.map(|v| (1000.0 * v).round() as i32);
    let distance = |a: [i32; 3], b: [i32; 3]| (0..3).map(|i| (a[i] - b[i]).pow(2)).sum::<i32>();

    // What is darker or brighter drowns in shadows or in the sky, and so do pastels.
    let degrees = |hue: i32| f64::from(hue).to_radians();
    let all = (50..=86)
        .step_by(3)
        .flat_map(|l| (0..360).step_by(3).map(move |hue| vivid(f64::from(l) / 100.0, degrees(hue))));
    let saturated = all.filter(|&lab| {
        let [r, g, b] = srgb(lab);
        r.min(g).min(b) <= 0.5 * r.max(g).max(b)
    });
    let mut candidates: Vec<_> = saturated.map(|lab| (lab, i32::MAX)).collect();

    // Neither skin nor leaf: the people that MS-COCO begins with are drawn in it.
    let mut next = vivid(0.62, degrees(255));
    let mut palette = Vec::with_capacity(256);
    while palette.len() < 256 {
        palette.push(bytes(next));
        for (candidate, nearest) in &mut candidates {
            *nearest = distance(point(*candidate), point(next)).min(*nearest);
        }
        // Of equals the first.
        let farthest = candidates.iter().enumerate().max_by_key(|&(i, &(_, nearest))| (nearest, Reverse(i)));
        next = farthest.map_or(next, |(_, &(lab, _))| lab);
    }
    palette
});

/// Lightness, in OKLab, from one shade to the next: a step that is seen side by side.
const SHADE_STEP: f64 = 0.08;

/// Shades on either side of a class's colour.
const SHADES: i32 = 3;

/// The lightness of shades. What is darker or lighter has no hue left to know its class by.
const SHADE_LIGHTNESS: RangeInclusive<f64> = 0.41..=0.87;

/// The colours of a class's instances: of one hue, the class's own colour first, then those nearest to it. Each has with
/// it how many steps of lightness it is from the class's own.
pub fn shades(index: usize) -> Vec<([u8; 3], i32)> {
    let own = colour(index);
    let [lightness, a, b] = oklab(own);
    let steps = (1..=SHADES).flat_map(|step| [step, -step]);
    let at = |step: i32| (lightness + SHADE_STEP * f64::from(step), step);
    let possible = steps.map(at).filter(|(lightness, _)| SHADE_LIGHTNESS.contains(lightness));
    let shade = |(lightness, step)| (bytes(vivid(lightness, b.atan2(a))), step);
    [(own, 0)].into_iter().chain(possible.map(shade)).collect()
}

/// The colour of OKLab with the most chroma that sRGB has of a lightness of 0 to 1 and a hue in radians.
fn vivid(lightness: f64, hue: f64) -> [f64; 3] {
    let (sin, cos) = hue.sin_cos();
    let lab = |chroma: f64| [lightness, chroma * cos, chroma * sin];
    let (mut inside, mut outside) = (0.0, 0.4);
    for _ in 0..20 {
        let middle = (inside + outside) / 2.0;
        let is_inside = srgb(lab(middle)).iter().all(|v| (0.0..=1.0).contains(v));
        *(if is_inside { &mut inside } else { &mut outside }) = middle;
    }
    lab(inside)
}

/// OKLab to sRGB of 8 bits.
fn bytes(lab: [f64; 3]) -> [u8; 3] {
    srgb(lab).map(|v| (255.0 * v).round() as u8)
}

/// OKLab to sRGB of 0 to 1 (Björn Ottosson, "A perceptual color space for image processing", 2020).
/// Colours that sRGB has not are outside of 0 to 1.
fn srgb([l, a, b]: [f64; 3]) -> [f64; 3] {
    let cones = [
        l + 0.3963377774 * a + 0.2158037573 * b,
        l - 0.1055613458 * a - 0.0638541728 * b,
        l - 0.0894841775 * a - 1.2914855480 * b,
    ];
    let [l, m, s] = cones.map(|v| v.powi(3));
    let linear = [
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    ];
    linear.map(|v| if v <= 0.0031308 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 })
}

/// sRGB to OKLab, by the matrices that the article gives for this direction.
fn oklab(colour: [u8; 3]) -> [f64; 3] {
    let linear = colour.map(|v| f64::from(v) / 255.0);
    let [r, g, b] = linear.map(|v| if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) });
    let cones = [
        0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b,
        0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b,
        0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b,
    ];
    let [l, m, s] = cones.map(f64::cbrt);
    [
        0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
        1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
        0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_differ_and_stay() {
        for (index, expected) in [
            (0, [0, 131, 253]),
            (1, [62, 250, 0]),
            (2, [248, 20, 0]),
            (3, [25, 120, 0]),
            (15, [36, 58, 255]),
            (79, [255, 150, 61]),
        ] {
            assert_eq!(colour(index), expected, "{index}");
        }
        assert_eq!(colour(256), colour(0));
        colour(usize::MAX);

        let labs: Vec<[f64; 3]> = (0..256).map(|i| oklab(colour(i))).collect();
        let distance = |a: &[f64; 3], b: &[f64; 3]| (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
        for (classes, least) in [(12, 0.16), (80, 0.055), (150, 0.035), (256, 0.025)] {
            for (i, a) in labs[..classes].iter().enumerate() {
                for (j, b) in labs[..i].iter().enumerate() {
                    assert!(distance(a, b) > least, "{j} and {i} of {classes}: {}", distance(a, b));
                }
            }
        }
        for (i, [l, ..]) in labs.into_iter().enumerate() {
            assert!((0.49..0.87).contains(&l), "{i}: lightness {l}");
        }
    }

    #[test]
    fn shades_have_the_hue_of_their_class_and_differ() {
        for index in 0..256 {
            let shades = shades(index);
            assert_eq!(shades[0], (colour(index), 0));
            assert!((4..=7).contains(&shades.len()), "{index}: {}", shades.len());
            let [_, a, b] = oklab(colour(index));
            for (i, &(shade, step)) in shades.iter().enumerate() {
                let [lightness, a2, b2] = oklab(shade);
                let turn = (a * b2 - b * a2).atan2(a * a2 + b * b2).to_degrees();
                assert!(turn.abs() < 4.0, "{index}, {step}: {turn} degrees");
                let wanted = oklab(colour(index))[0] + 0.08 * f64::from(step);
                assert!((lightness - wanted).abs() < 0.01, "{index}, {step}: {lightness}, not {wanted}");
                assert!(shades[..i].iter().all(|other| other.0 != shade), "{index}, {step}");
            }
        }
        assert_eq!(shades(0).iter().map(|shade| shade.1).collect::<Vec<_>>(), [0, 1, -1, 2, -2, 3]);
    }
}
