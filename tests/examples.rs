//! The examples, run.

#[allow(dead_code)]
#[path = "../examples/backbone.rs"]
mod backbone;
#[allow(dead_code)]
#[path = "../examples/checkpoint.rs"]
mod checkpoint;
#[allow(dead_code)]
#[path = "../examples/operator.rs"]
mod operator;

use nat_convert::checkpoint::{Checkpoint, Options};
use nat_convert::source::ElementType;
use nat_convert::state_dict::StateDict;
use nat_testing::golden;

#[test]
fn the_operator_learns_what_it_can_see() {
    let [before, after] = operator::train(200).unwrap();
    assert!(before > 0.03 && after < 0.005, "from {before} to {after}");
}

#[test]
fn a_backbone_finds_the_picture_that_is_nearest() {
    let digits = golden::repository().join("assets/demo-digits.safetensors");
    let backbone = backbone::backbone(&digits, "demo-digits").unwrap();
    let alike = backbone::similarities(&backbone).unwrap().to_vec2::<f32>().unwrap();
    for (i, row) in alike.iter().enumerate() {
        assert!((row[i] - 1.0).abs() < 1e-4, "{alike:?}");
    }
    assert!(alike[0][1] > alike[0][2] && alike[0][2] < 0.999, "{alike:?}");
}

#[test]
fn a_checkpoint_becomes_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("nat.safetensors");
    let report = checkpoint::convert(&golden::path("classify/nat-k7.pth"), &target).unwrap();
    assert!(report.contains("nat-k7.pth"), "{report}");
    let written = StateDict::open(&target, None).unwrap();
    assert!(written.tensors().iter().all(|tensor| tensor.dtype == ElementType::F16));
    let source = Checkpoint::open(&golden::path("classify/nat-k7.pth"), &Options::default()).unwrap();
    let mut names: Vec<_> = source.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    let mut got: Vec<_> = written.names().collect();
    names.sort_unstable();
    got.sort_unstable();
    assert_eq!(got, names);
}
