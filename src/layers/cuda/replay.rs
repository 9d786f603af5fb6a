//! Networks as CUDA graphs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::DeviceId;
use candle_core::{CudaDevice, DType, Error, Result, Shape, Tensor};
use nat_cuda::TooLarge;

use crate::cuda::RecordedGraph;
use crate::layers::form::{BatchForm, NetworkRun};

/// A network whose launches are recorded and replayed as one: with few images, launching some hundred
/// kernels takes longer than they do.
#[derive(Default)]
pub(super) struct Replay(Mutex<Recordings>);

/// What a network has run for.
#[derive(Default)]
struct Recordings {
    /// The latest first.
    runs: Vec<(InputKind, InputState)>,
    /// Whether it can't be recorded: then it is run as it is.
    unable: bool,
}

/// What inputs of a recording have in common.
#[derive(Clone, PartialEq)]
struct InputKind {
    device: DeviceId,
    shape: Shape,
    dtype: DType,
}

/// How far a network is with inputs of a kind.
enum InputState {
    /// Has run once, so all kernels are loaded: what its output is like.
    Seen(Shape, DType),
    Recorded(RecordedGraph),
}

/// Values of an input that keeps the GPU busy for longer than its launches take: 32 images of the usual size.
const MOST_VALUES: usize = 32 * 3 * 224 * 224;
/// Kinds of inputs that are remembered: batches of a server differ, and the memory of each is kept.
const MOST_KINDS: usize = 4;

impl BatchForm for Replay {
    fn together(&self, batch: usize, _: usize, _: Option<usize>) -> usize {
        batch
    }

    /// The second input of a kind is recorded, which the later ones replay.
    fn run(&self, input: &Tensor, network: NetworkRun) -> Result<Tensor> {
        let device = input.device().as_cuda_device()?;
        // Kernels of candle's that copy count in 32 bits, and beyond that for ever.
        if i32::try_from(input.elem_count()).is_err() {
            return Err(Error::wrap(TooLarge));
        }
        if !(1..=MOST_VALUES).contains(&input.elem_count()) || input.track_op() || !can_record(device) {
            return network(input);
        }
        let kind = InputKind { device: device.id(), shape: input.shape().clone(), dtype: input.dtype() };
        if let Some(output) = self.lock().run(&kind, input, network) {
            return Ok(output);
        }
        let output = network(input)?;
        self.lock().saw(kind, &output);
        Ok(output)
    }
}

impl Replay {
    fn lock(&self) -> MutexGuard<'_, Recordings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recordings {
    /// The output by a recording, which is made if this is the second input of its kind.
    fn run(&mut self, kind: &InputKind, input: &Tensor, network: NetworkRun) -> Option<Tensor> {
        if self.unable {
            return None;
        }
        let (_, run) = self.runs.remove(self.runs.iter().position(|(of, _)| of == kind)?);
        let recording = match run {
            InputState::Recorded(recording) => Ok(recording),
            InputState::Seen(shape, dtype) => RecordedGraph::new(input, (&shape, dtype), network),
        };
        let output = recording.and_then(|recording| Ok((recording.replay(input)?, recording)));
        match output {
            Ok((output, recording)) => {
                self.runs.insert(0, (kind.clone(), InputState::Recorded(recording)));
                Some(output)
            }
            // Launches one by one give the same: whatever is wrong with the GPU, they meet it too and tell.
            Err(_) => {
                self.unable = true;
                // Their memory may be what is missing.
                self.runs.clear();
                None
            }
        }
    }

    /// Remembers what an input of a kind gave.
    fn saw(&mut self, kind: InputKind, output: &Tensor) {
        if !self.unable && self.runs.iter().all(|(of, _)| *of != kind) {
            self.runs.insert(0, (kind, InputState::Seen(output.shape().clone(), output.dtype())));
            self.runs.truncate(MOST_KINDS);
        }
    }
}

/// Whether a GPU's work can be recorded: its memory has to be given out in the order of a stream, and a caller's own device
/// may order streams by events, which a graph can't hold.
fn can_record(device: &CudaDevice) -> bool {
    device.cuda_stream().context().has_async_alloc() && !device.is_event_tracking()
}
