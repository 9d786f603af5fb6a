//! The form of the report in JSON: keys, their order, nesting and types, held against `tests/golden/shapes`.

use nat_testing::golden;
use nat_testing::place::Place;
use nat_testing::shape::{Shapes, json};

#[test]
fn inspect() {
    let place = Place::of(env!("CARGO_BIN_EXE_nat-convert"));
    let mut shapes = Shapes::of("inspect");
    for file in [
        "doors/read/clip.pt",
        "classify/dinat-k7-f16.pth",
        "transformers/nat-hf",
        "detect/cascade_b/model.pth",
        "segment/upernet_b/model.pth",
    ] {
        let path = golden::path(file).display().to_string();
        let text = place.run(&[&path, "--inspect", "--format", "json"]).success();
        shapes.add(&format!("nat-convert {file} --inspect --format json"), &json(&text, &[]));
    }
    assert_eq!(place.files(), [""; 0]);
    shapes.check();
}
