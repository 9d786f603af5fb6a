
// The table of classes, with a bar for each score.
{
  const holder = document.getElementById("classes-rows");
  // Of more classes than this the worst are looked for, not the first.
  const FEW = 50;
  if (holder) setUp();

  function setUp() {
    const select = document.getElementById("classes-score");
    const title = document.getElementById("classes-shown");
    select.value = choice("classes-score", "0", [...data.scores.keys()].map(String));

    const usual = data.classes.length > FEW ? "score-up" : "index-up";
    const head = sortingHead("classes", usual, ["count"], update);
    const wanted = findField("classes-find", update);
    const show = longList({ id: "classes", holder, step: 50, draw, nouns: ["class", "classes"] });
    select.addEventListener("change", () => {
      choose("classes-score", select.value, "0");
      update();
    });

    function value([, , , scores]) {
      return scores[Number(select.value)];
    }

    function draw(row) {
      const [index, label, count] = row;
      const reached = value(row);
      const fill = reached === null ? undefined : element("div");
      if (fill) fill.style.width = `${(100 * Math.min(Math.max(reached / data.whole, 0), 1)).toFixed(2)}%`;
      return element(
        "tr",
        {},
        element("td", { className: "number", textContent: String(index) }),
        element("th", { scope: "row" }, named(label)),
        element("td", { className: "number", textContent: grouped(count) }),
        element("td", { className: "number", textContent: score(reached) }),
        element("td", { className: "bar" }, fill),
      );
    }

    function update() {
      const columns = { index: (row) => row[0], name: (row) => row[1].toLowerCase(), count: (row) => row[2], score: value };
      const { column, down } = head();
      title.textContent = data.scores[Number(select.value)];
      const found = data.classes.filter(([index, label]) => contains([label, String(index)], wanted()));
      show(sorted(found, columns[column], down));
    }
    update();
  }
}
