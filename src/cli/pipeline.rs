//! Images through a task: the next batch is read and prepared on a thread of its own while this one
//! is computed. Results keep the order of the inputs; an image that can't be read is reported and
//! skipped.

use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{Context, Result};
use nat_infer::images::{Exif, ImageError, Reader, RgbImage};

use super::exit::{Exit, OrFailed, say};
use super::inputs::{self, Input};

/// The images of a command, and how many of its arguments gave none.
pub struct Images {
    inputs: Vec<Input>,
    failed: usize,
    reader: Reader,
    /// Standard input, where it is among the inputs.
    stdin: Option<Result<RgbImage, ImageError>>,
    stop: Arc<AtomicBool>,
}

impl Images {
    /// Expands `INPUT...` and reports what gives no image. Standard input is read now: waiting for it
    /// must not keep a Ctrl-C waiting, nor a file half written.
    pub fn expand(arguments: &[PathBuf], exif: Exif) -> Self {
        let (inputs, errors) = inputs::expand(arguments);
        errors.iter().for_each(|error| say(&error.to_string()));
        let reader = Reader { exif, ..Reader::default() };
        let stdin = inputs.contains(&Input::Stdin).then(|| reader.stdin());
        Self { inputs, failed: errors.len(), reader, stdin, stop: Arc::default() }
    }

    /// The images, in order.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Becomes true with the first Ctrl-C: for work on a single image that takes long.
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Gives `compute` the images in batches of `batch_size`, each through `prepare`, and tells how it
    /// ended.
    ///
    /// Ctrl-C ends the work after the current batch, or when `compute` gives up; a second one ends the program.
    ///
    /// # Errors
    /// When `compute` fails; nothing else stops the work.
    pub fn run<T: Send>(
        self,
        batch_size: usize,
        prepare: impl Fn(RgbImage) -> T + Sync,
        mut compute: impl FnMut(&[&Input], Vec<T>) -> Result<()>,
    ) -> Result<Exit> {
        let handler = Arc::clone(&self.stop);
        let interrupt = move || {
            if handler.swap(true, Ordering::Relaxed) {
                process::exit(Exit::Interrupted as i32);
            }
        };
        ctrlc::set_handler(interrupt).context("can't catch Ctrl-C")?;

        let Self { inputs, mut failed, reader, mut stdin, stop } = self;
        let (sender, receiver) = sync_channel(batch_size.min(inputs.len()));
        thread::scope(|scope| {
            scope.spawn(|| {
                // Moved in, so that its end tells the other side that there is no more.
                let sender = sender;
                for input in &inputs {
                    let image = match input {
                        Input::File(path) => reader.file(path),
                        Input::Stdin => stdin.take().unwrap_or_else(|| reader.stdin()),
                    };
                    // The other end is gone when the work was stopped.
                    if sender.send((input, image.map(&prepare))).is_err() {
                        break;
                    }
                }
            });
            let (mut names, mut batch) = (Vec::new(), Vec::new());
            for (input, image) in receiver {
                match image {
                    Ok(image) => {
                        names.push(input);
                        batch.push(image);
                    }
                    Err(error) => {
                        say(&error.to_string());
                        failed += 1;
                    }
                }
                let done = match batch.len() == batch_size {
                    true => compute(&std::mem::take(&mut names), std::mem::take(&mut batch)),
                    false => Ok(()),
                };
                if stop.load(Ordering::Relaxed) {
                    return Ok(Exit::Interrupted);
                }
                done.or_failed()?;
            }
            if !batch.is_empty() {
                compute(&names, batch).or_failed()?;
            }
            Ok(if failed > 0 { Exit::Failed } else { Exit::Success })
        })
    }
}
