"""Makes the answers of tests/golden/digits/expected.json: probabilities of the embedded model for 60 digits.

    pip install torch==2.5.1 numpy pillow safetensors
    python tests/golden/make/digits.py tests/golden/digits assets/demo-digits.safetensors OUT

The images are data like photographs: of the 360 held-out images of the Optical Recognition of Handwritten Digits
(UCI, CC BY 4.0, as scikit-learn ships it), enlarged, tinted, turned and with noise. `scores` are those of the weights
in f32, before they were rounded to what the program holds; the checkpoint is not kept, and they are copied.
`scores_f16_weights` are remade, to their last digit, 1e-6.
"""

import json
import pathlib
import sys

import torch
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import classify  # noqa: E402


def main():
    folder, weights, out = [pathlib.Path(argument) for argument in sys.argv[1:4]]
    expected = json.loads((folder / "expected.json").read_text())
    model = classify.nt.NAT(**expected["config"])
    model.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    model.eval()
    for answer in expected["answers"]:
        image = Image.open(folder / "images" / answer["image"])
        x = classify.preprocess(image, expected["resolution"], expected["crop_pct"])
        with torch.no_grad():
            scores = model(x).softmax(1)[0].tolist()
        answer["scores_f16_weights"] = [round(score, 6) for score in scores]
    out.mkdir(parents=True, exist_ok=True)
    (out / "expected.json").write_text(json.dumps(expected, indent=1))


main()
