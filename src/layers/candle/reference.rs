//! Features of a region as mmcv's loops compute them, sample by sample in f64: written to be read, and what the
//! kernels are compared with.

/// The features of a region with these corners, in pixels, [`side`, `side`, channels], from a map [height, width,
/// channels] of `stride` pixels a position: in each bin the mean over ceil(bin) samples on each axis.
pub(super) fn align(
    map: &[f64],
    [height, width]: [usize; 2],
    stride: usize,
    corners: [f32; 4],
    side: usize,
) -> Vec<f64> {
    let channels = map.len() / (height * width).max(1);
    let [x1, y1, x2, y2] = corners.map(|x| f64::from(x) / stride as f64 - 0.5);
    let (bin_width, bin_height) = ((x2 - x1) / side as f64, (y2 - y1) / side as f64);
    let [rows, columns] = [bin_height, bin_width].map(|bin| bin.ceil() as usize);
    let mut out = Vec::with_capacity(side * side * channels);
    for bin in 0..side * side {
        let (top, left) = (y1 + (bin / side) as f64 * bin_height, x1 + (bin % side) as f64 * bin_width);
        for channel in 0..channels {
            let mut sum = 0.0;
            for i in 0..rows * columns {
                let y = top + ((i / columns) as f64 + 0.5) * bin_height / rows as f64;
                let x = left + ((i % columns) as f64 + 0.5) * bin_width / columns as f64;
                sum += sample(y, x, [height, width], |y, x| map[(y * width + x) * channels + channel]);
            }
            out.push(sum / (rows * columns).max(1) as f64);
        }
    }
    out
}

/// The value between four positions; nothing more than one position outside.
fn sample(y: f64, x: f64, [height, width]: [usize; 2], at: impl Fn(usize, usize) -> f64) -> f64 {
    if y < -1.0 || y > height as f64 || x < -1.0 || x > width as f64 {
        return 0.0;
    }
    let between = |place: f64, size: usize| {
        let place = place.max(0.0);
        let low = (place as usize).min(size - 1);
        if low == size - 1 { (low, low, 0.0) } else { (low, low + 1, place - low as f64) }
    };
    let ((top, bottom, down), (left, right, along)) = (between(y, height), between(x, width));
    (1.0 - down) * ((1.0 - along) * at(top, left) + along * at(top, right))
        + down * ((1.0 - along) * at(bottom, left) + along * at(bottom, right))
}
