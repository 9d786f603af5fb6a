//! Neighborhood attention as the papers define it, of candle's operators in f64: keys are gathered, products and a softmax
//! follow, and candle's `backward` gives the gradient. It shares nothing with `src/attention/`: the geometry there is common to
//! all kernels and their reference, and a window that is wrong in all of them is not wrong here.

use candle_core::{D, Device, Result, Tensor};

use crate::attention::NeighborhoodAttention;

/// On one axis: for each query the K keys that it attends to, with the place of each one's bias.
///
/// Keys are the K positions of the query's residue class modulo the dilation that follow each other and have the query
/// as near their middle as the axis allows (arXiv 2209.15001, section 3). An axis shorter than K·d is one of that length.
fn windows(length: usize, kernel: usize, dilation: usize) -> Vec<Vec<(usize, usize)>> {
    let whole = length.max(kernel * dilation);
    let window = |query: usize| {
        let class: Vec<usize> = (query % dilation..whole).step_by(dilation).collect();
        let nearest = class.windows(kernel).min_by_key(|window| window[kernel / 2].abs_diff(query));
        let bias = |key: usize| key / dilation + kernel - 1 - query / dilation;
        nearest.into_iter().flatten().map(|&key| (key, bias(key))).collect()
    };
    (0..length).map(window).collect()
}

/// The output [B, H, W, heads·dim] for `qkv` [B, H, W, 3·heads·dim], `rpb` [heads, 2K−1, 2K−1] and what a padded
/// position has, `pad` [3·heads·dim]; f64 on the CPU.
pub(super) fn attention(
    operator: NeighborhoodAttention,
    qkv: &Tensor,
    rpb: &Tensor,
    pad: &Tensor,
) -> Result<Tensor> {
    let NeighborhoodAttention { heads, kernel_size, dilation } = operator;
    let (batch, height, width, channels) = qkv.dims4()?;
    let (dim, side) = (channels / 3 / heads, 2 * kernel_size - 1);
    let positions = height * width;
    let [rows, columns] = [height, width].map(|length| windows(length, kernel_size, dilation));
    // Of each query in turn its neighbours: rows of a map, whose last row is the padded position's, and biases of a head.
    let (mut keys, mut biases) = (Vec::new(), Vec::new());
    for (row, column) in rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column))) {
        for (&(y, down), &(x, along)) in row.iter().flat_map(|y| column.iter().map(move |x| (y, x))) {
            let inside = y < height && x < width;
            keys.push(if inside { (y * width + x) as u32 } else { positions as u32 });
            biases.push((down * side + along) as u32);
        }
    }
    let neighbours = kernel_size * kernel_size;
    let count = keys.len();
    let (keys, biases) =
        (Tensor::from_vec(keys, count, &Device::Cpu)?, Tensor::from_vec(biases, count, &Device::Cpu)?);
    // [heads, biases] to [positions, neighbours, heads]
    let bias = rpb.reshape((heads, side * side))?.index_select(&biases, 1)?.t()?;
    let bias = bias.reshape((positions, neighbours, heads))?;
    let images = (0..batch).map(|image| {
        let own = qkv.narrow(0, image, 1)?.reshape((positions, 3, heads, dim))?;
        let all = Tensor::cat(&[&own, &pad.reshape((1, 3, heads, dim))?], 0)?;
        let gathered = |part: usize| {
            let part = all.narrow(1, part, 1)?.squeeze(1)?.contiguous()?;
            part.index_select(&keys, 0)?.reshape((positions, neighbours, heads, dim))
        };
        let query = own.narrow(1, 0, 1)?; // [positions, 1, heads, dim]
        let scores = gathered(1)?.broadcast_mul(&query)?.sum(D::Minus1)?;
        let scores = ((scores * (dim as f64).powf(-0.5))? + &bias)?;
        let powers = scores.broadcast_sub(&scores.max_keepdim(1)?.detach())?.exp()?;
        let probabilities = powers.broadcast_div(&powers.sum_keepdim(1)?)?;
        let mixed = gathered(2)?.broadcast_mul(&probabilities.unsqueeze(3)?)?.sum(1)?;
        mixed.reshape((1, height, width, heads * dim))
    });
    Tensor::cat(&images.collect::<Result<Vec<_>>>()?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_natten() {
        // (length, K, d, query) to (first key, its bias, last key).
        for (length, kernel, dilation, query, first, bias, last) in [
            (7, 7, 1, 0, 0, 6, 6),
            (7, 7, 1, 6, 0, 0, 6),
            (10, 3, 1, 1, 0, 1, 2),
            (10, 3, 1, 9, 7, 0, 9),
            (23, 5, 2, 11, 7, 2, 15),
            (23, 5, 2, 22, 14, 0, 22),
            (23, 5, 2, 21, 13, 0, 21),
            // Padded to 14.
            (5, 7, 2, 4, 0, 4, 12),
            (5, 7, 2, 1, 1, 6, 13),
        ] {
            let windows = windows(length, kernel, dilation);
            assert_eq!(windows.len(), length);
            let window = &windows[query];
            let case = format!("length {length}, K {kernel}, d {dilation}, query {query}: {window:?}");
            assert_eq!((window[0], window.len()), ((first, bias), kernel), "{case}");
            assert_eq!(window[kernel - 1], (last, bias + kernel - 1), "{case}");
        }
    }
}
