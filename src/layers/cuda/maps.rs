//! Means, regions and suppression by nat-cuda's kernels.

use candle_core::{DType, Result, Shape, Tensor};
use nat_cuda::{layers, maps, regions};

use crate::cuda::{element, tensor, tensor_of};
use crate::layers::candle::Operators;
use crate::layers::form::{MapForm, Roi};

/// nat-cuda's kernels.
pub(super) struct GpuMaps;

impl MapForm for GpuMaps {
    fn mean(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        let (batch, height, width, channels) = x.dims4()?;
        let shape = (batch, channels).into();
        tensor(&[Some(&x)], &shape, |element, _| layers::mean(element, [batch, height * width, channels]))
    }

    fn widened(&self, x: &Tensor) -> Result<Tensor> {
        match maps::widen(element(x.dtype())?, x.elem_count()) {
            Some(launch) => tensor_of(DType::F32, &[Some(&x.contiguous()?)], x.shape(), |_| launch),
            None => Ok(x.clone()),
        }
    }

    fn merged(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        let (batch, height, width, channels) = x.dims4()?;
        let shape = (batch, height.div_ceil(2), width.div_ceil(2), 4 * channels).into();
        tensor(&[Some(&x)], &shape, |element, vectors| {
            maps::merge(element, [batch, height, width, channels], vectors)
        })
    }

    fn resized(&self, x: &Tensor, size: [usize; 2], align_corners: bool) -> Result<Tensor> {
        Operators.resized(x, size, align_corners)
    }

    fn regions(&self, maps: &[Tensor], strides: &[usize], rois: &[Roi], side: usize) -> Result<Tensor> {
        let maps = maps.iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
        let Some(first) = maps.first() else { candle_core::bail!("regions of no maps") };
        let channels = first.dims4()?.3;
        let mut levels = Vec::with_capacity(maps.len());
        for (map, &stride) in maps.iter().zip(strides) {
            let (batch, height, width, c) = map.dims4()?;
            if batch != 1 || c != channels || height == 0 || width == 0 || map.dtype() != first.dtype() {
                candle_core::bail!("regions of one picture got a map of {:?}", map.shape());
            }
            levels.push(regions::PyramidLevel { height, width, stride });
        }
        if levels.len() > regions::LEVELS {
            candle_core::bail!("regions of {} maps: a GPU takes {}", levels.len(), regions::LEVELS);
        }
        if let Some(region) = rois.iter().find(|region| region.level >= levels.len()) {
            candle_core::bail!("a region on map {} of {}", region.level, levels.len());
        }
        let shape = Shape::from((rois.len(), side, side, channels));
        if rois.is_empty() {
            return Tensor::zeros(shape, first.dtype(), first.device());
        }
        let rows: Vec<f32> = rois.iter().flat_map(Roi::row).collect();
        let rows = Tensor::from_vec(rows, (rois.len(), 5), first.device())?;
        // The kernel takes as many maps as the published pyramids have: of fewer the last one stands in.
        let at = |level: usize| level.min(levels.len() - 1);
        let inputs: [&Tensor; regions::LEVELS] = std::array::from_fn(|level| &maps[at(level)]);
        let inputs = inputs.into_iter().chain([&rows]).map(Some).collect::<Vec<_>>();
        let (element, levels) = (element(first.dtype())?, std::array::from_fn(|level| levels[at(level)]));
        tensor_of(first.dtype(), &inputs, &shape, |_| {
            regions::roi_align(element, levels, channels, rois.len(), side)
        })
    }

    /// All pairs at once: of thousands of boxes a GPU has them sooner.
    fn kept(&self, boxes: &[[f32; 4]], threshold: f32, like: &Tensor) -> Result<Option<Vec<bool>>> {
        let count = boxes.len();
        if !(1..=regions::MOST_BOXES).contains(&count) {
            return Ok(None);
        }
        let boxes = Tensor::from_vec(boxes.concat(), (count, 4), like.device())?;
        let shape = (count, regions::words(count)).into();
        let mask = tensor_of(DType::U32, &[Some(&boxes)], &shape, |_| regions::overlaps(count, threshold))?;
        let kept = tensor_of(DType::U32, &[Some(&mask)], &count.into(), |_| regions::suppress(count))?;
        Ok(Some(kept.to_vec1::<u32>()?.into_iter().map(|kept| kept == 1).collect()))
    }
}
