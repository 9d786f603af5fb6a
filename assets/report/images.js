
// The images, worst or best first.
{
  const holder = document.getElementById("images-list");
  // Digits behind the point of an image's score, which is from 0 to 1.
  const SCORE_DECIMALS = 3;
  if (holder) setUp();

  function setUp() {
    const orders = [...document.querySelectorAll("input[name=images-order]")];
    const right = document.getElementById("images-right");
    const usual = "worst";
    const order = choice("images-order", usual, ["worst", "best"]);
    for (const input of orders) {
      input.checked = input.value === order;
      input.addEventListener("change", () => {
        choose("images-order", input.value, usual);
        update();
      });
    }
    right.value = choice("images-right", "all", ["all", "right", "wrong"]);
    right.addEventListener("change", () => {
      choose("images-right", right.value, "all");
      update();
    });
    const wanted = findField("images-find", update);
    const show = longList({ id: "images", holder, step: 24, draw, nouns: ["image", "images"] });

    function fact(what, value) {
      return value === "" ? undefined : element("div", {}, element("dt", { textContent: what }), element("dd", {}, value));
    }

    function draw(image) {
      // Only what is in the page is a picture; an address is never fetched.
      const own = image.picture?.startsWith("data:image/");
      const picture = own
        ? element("img", { src: image.picture, alt: "", decoding: "async" })
        : element("span", { className: "missing", textContent: "no picture" });
      const verdict = image.right === null ? "" : image.right ? "right" : "wrong";
      return element(
        "li",
        { className: verdict },
        element(
          "figure",
          {},
          picture,
          element(
            "figcaption",
            {},
            named(image.name, { className: "name" }),
            element(
              "dl",
              {},
              fact("Truth", image.truth && named(image.truth)),
              fact("Answer", image.answer && named(image.answer)),
              fact("Score", image.score === null ? "–" : image.score.toFixed(SCORE_DECIMALS)),
              verdict && element("div", { className: "verdict" }, element("dt", { className: "unseen", textContent: "The answer is" }), element("dd", { textContent: verdict })),
            ),
          ),
        ),
      );
    }

    function update() {
      const best = orders.some((input) => input.checked && input.value === "best");
      const found = data.images.filter(
        (image) =>
          contains([image.name, image.truth, image.answer], wanted()) &&
          (right.value === "all" || image.right === (right.value === "right")),
      );
      // Without a number: the worst.
      show(sorted(found, (image) => image.score ?? -Infinity, best));
    }
    update();
  }
}
