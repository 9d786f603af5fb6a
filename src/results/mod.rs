//! The JSON contract: every record that the program prints, as serde types. Fields may be added;
//! what is here keeps its name and meaning.

mod answers;
mod evaluation;
mod measurements;
mod search;

pub use answers::{
    ClassShare, Classification, CocoResult, Detection, Detections, Rle, SavedFeatures, SavedSaliency, Scored,
    Segmentation,
};
pub use evaluation::{
    ClassScores, CocoMetrics, CocoSummary, Evaluation, EvaluationSettings, FailedImage, JudgedImage,
    KnnAccuracy, Metrics, PanopticMetrics, PanopticQuality, PixelMetrics, SearchedImage, SegmentedImage,
    ShardNumber, TopAccuracy,
};
pub use measurements::{
    CacheFolder, CheckResult, Diagnosis, GpuFacts, GpuLibrary, InstructionSet, LayerTiming, NetworkTiming,
    OperatorTiming, ThreadCount, Variable,
};
pub use search::{NearestImage, SearchResult};
