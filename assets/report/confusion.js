
// The confusion matrix, and the pairs of classes that are most confused.
{
  const holder = document.getElementById("confusion-map");
  // Up to so many classes the matrix is a table, with more of them a picture.
  const TABLE = 60;
  // Up to so many the table has numbers in its cells.
  const NUMBERS = 20;
  // The picture has no more rows than this: of more classes a cell stands for several.
  const BINS = 340;
  // Pixels of the picture's side, about.
  const SIDE = 1000;
  // Pixels between the classes and the column of images without an answer, and that column's.
  const GAP = 8;
  const BAND = 16;
  // A small cell with a single image of many can still be seen.
  const FAINTEST = 0.4;
  const READ_PAIRS = 3;
  const HALF = 0.5;
  if (holder) setUp();

  function setUp() {
    const { labels } = data.confusion;
    const classes = labels.length;
    const counts = data.confusion.counts.filter(([truth, answer, count]) => truth < classes && answer <= classes && count > 0);
    const totals = new Array(classes).fill(0);
    for (const [truth, , count] of counts) totals[truth] += count;

    pairs(labels, counts, totals);
    if (classes <= TABLE) table(labels, counts, totals);
    else picture(labels, counts, totals);
  }

  /** What a class is called; the one behind the last is none. */
  function called(labels, index) {
    return index < labels.length ? labels[index] : "no answer";
  }

  /** The same in a sentence, in characters that set it apart as `bdi` does. */
  function quoted(labels, index) {
    return index < labels.length ? `\u2068${labels[index]}\u2069` : "no answer";
  }

  /** What kind of cell it is. */
  function kind(truth, answer, classes) {
    return answer === classes ? "none" : truth === answer ? "right" : "wrong";
  }

  /** How strong a cell's colour is, from 0 to 1, by its share of its row. */
  function shade(share) {
    return FAINTEST + (1 - FAINTEST) * Math.sqrt(share);
  }

  /**
   * The same of a cell with a number in it. At a half there is a step: numbers in the text's colour can be read on all that is
   * before it, those in the other one on all that is behind.
   */
  function shadeBelowNumber(share) {
    return share > HALF ? 0.85 + 0.3 * (share - HALF) : 0.2 + 0.6 * share;
  }

  function percent(part, whole) {
    return `${((100 * part) / whole).toFixed(1)} %`;
  }

  /** What is said of a cell. */
  function reading(labels, totals, truth, answer, count) {
    const share = totals[truth] > 0 ? `, ${percent(count, totals[truth])} of the class` : "";
    return `True ${quoted(labels, truth)}, answered ${quoted(labels, answer)}: ${counted(count, "image", "images")}${share}`;
  }

  function tell(text) {
    document.getElementById("confusion-reading").textContent = text;
  }

  /** Moves through `rows` x `columns` cells by keys; `go` is called with the cell. Returns what sets where it starts. */
  function arrows(rows, columns, go) {
    let [row, column] = [0, 0];
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    holder.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      row = Math.min(Math.max(row + step[0], 0), rows - 1);
      column = Math.min(Math.max(column + step[1], 0), columns - 1);
      go(row, column);
    });
    return (atRow, atColumn) => {
      [row, column] = [atRow, atColumn];
    };
  }

  /** The matrix as a table. */
  function table(labels, counts, totals) {
    const classes = labels.length;
    const numbers = classes <= NUMBERS;
    const found = new Map(counts.map(([truth, answer, count]) => [truth * (classes + 1) + answer, count]));
    const answers = [...labels.keys(), classes];
    const long = labels.some((label) => label.length > 3) || !numbers;
    const heads = answers.map((answer) => {
      const text = called(labels, answer);
      return element("th", { scope: "col", title: text }, named(text));
    });
    const cells = [];
    const rows = labels.map((label, truth) => {
      const row = answers.map((answer) => {
        const count = found.get(truth * (classes + 1) + answer) ?? 0;
        const cell = element("td", { title: reading(labels, totals, truth, answer, count) });
        if (count > 0) {
          const share = count / totals[truth];
          cell.className = `${kind(truth, answer, classes)}${share > HALF ? " dark" : ""}`;
          cell.style.setProperty("--shade", (numbers ? shadeBelowNumber : shade)(share).toFixed(3));
          if (numbers) cell.textContent = grouped(count);
        }
        return cell;
      });
      cells.push(row);
      return element("tr", {}, element("th", { scope: "row", title: label }, named(label)), ...row);
    });
    const corner = element("td", { textContent: "true ↓ answer →", className: "corner" });
    holder.replaceChildren(
      element(
        "table",
        { className: `matrix ${numbers ? "with-numbers" : "small"}${long ? " long" : ""}` },
        element("caption", { className: "unseen", textContent: "Images by true class (rows) and answer (columns)" }),
        element("thead", {}, element("tr", {}, corner, ...heads)),
        element("tbody", {}, ...rows),
      ),
    );

    let here;
    function go(truth, answer) {
      here?.classList.remove("here");
      here = cells[truth][answer];
      here.classList.add("here");
      tell(here.title);
    }
    const start = arrows(classes, classes + 1, (truth, answer) => {
      go(truth, answer);
      here.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    holder.addEventListener("pointerover", (event) => {
      const cell = event.target.closest("tbody td");
      if (!cell) return;
      const at = [cell.parentElement.sectionRowIndex, cell.cellIndex - 1];
      go(...at);
      start(...at);
    });
  }

  /** The matrix as a picture, where a cell of very many classes stands for some of them. */
  function picture(labels, counts, totals) {
    const classes = labels.length;
    const each = Math.ceil(classes / BINS);
    const bins = Math.ceil(classes / each);
    const size = Math.max(1, Math.round(SIDE / bins));
    const side = bins * size;
    const canvas = element("canvas", { width: side + GAP + BAND, height: side });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Images by true class (rows, from the top) and answer (columns)");
    const here = element("div", { className: "here", hidden: true });
    holder.replaceChildren(element("div", { className: "map" }, canvas, here));

    // Sums of the cells. Answers in a cell of the diagonal can be right and wrong: what is more is shown.
    const cells = new Map();
    const rowTotals = new Array(bins).fill(0);
    for (const pair of counts) {
      const [truth, answer, count] = pair;
      const row = Math.floor(truth / each);
      const column = answer === classes ? bins : Math.floor(answer / each);
      const key = row * (bins + 1) + column;
      if (!cells.has(key)) cells.set(key, { row, column, count: 0, right: 0, pairs: [] });
      const cell = cells.get(key);
      cell.count += count;
      if (truth === answer) cell.right += count;
      cell.pairs.push(pair);
      rowTotals[row] += count;
    }

    function paint() {
      const style = getComputedStyle(document.documentElement);
      const colour = (name) => style.getPropertyValue(name).trim();
      const colours = { right: colour("--right"), wrong: colour("--wrong"), none: colour("--none") };
      const context = canvas.getContext("2d");
      context.globalAlpha = 1;
      context.fillStyle = colour("--sunk");
      context.fillRect(0, 0, side, side);
      context.fillRect(side + GAP, 0, BAND, side);
      for (const cell of cells.values()) {
        const none = cell.column === bins;
        context.fillStyle = none ? colours.none : 2 * cell.right >= cell.count ? colours.right : colours.wrong;
        context.globalAlpha = shade(cell.count / rowTotals[cell.row]);
        context.fillRect(none ? side + GAP : cell.column * size, cell.row * size, none ? BAND : size, size);
      }
    }
    paint();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

    function classesOf(bin) {
      if (bin === bins) return "no answer";
      const [first, last] = [bin * each, Math.min((bin + 1) * each, classes) - 1];
      return first === last ? quoted(labels, first) : `${quoted(labels, first)} to ${quoted(labels, last)}`;
    }

    function go(row, column) {
      const left = column === bins ? side + GAP : column * size;
      const width = column === bins ? BAND : size;
      here.hidden = false;
      here.style.left = `${(100 * left) / canvas.width}%`;
      here.style.top = `${(100 * row * size) / canvas.height}%`;
      here.style.width = `${(100 * width) / canvas.width}%`;
      here.style.height = `${(100 * size) / canvas.height}%`;
      const cell = cells.get(row * (bins + 1) + column);
      if (!cell) return tell(`True ${classesOf(row)}, answered ${classesOf(column)}: 0 images`);
      const most = sorted(cell.pairs, (pair) => pair[2], true);
      const told = most.slice(0, READ_PAIRS).map((pair) => reading(labels, totals, ...pair));
      const rest = most.length > READ_PAIRS ? `; and ${most.length - READ_PAIRS} more pairs` : "";
      tell(told.join("; ") + rest);
    }
    const start = arrows(bins, bins + 1, go);
    canvas.addEventListener("pointermove", (event) => {
      const x = (event.offsetX / canvas.clientWidth) * canvas.width;
      const y = (event.offsetY / canvas.clientHeight) * canvas.height;
      const column = x >= side ? bins : Math.min(Math.max(Math.floor(x / size), 0), bins - 1);
      const row = Math.min(Math.max(Math.floor(y / size), 0), bins - 1);
      go(row, column);
      start(row, column);
    });
  }

  /** The table of pairs that differ. */
  function pairs(labels, counts, totals) {
    const classes = labels.length;
    const confused = counts.filter(([truth, answer]) => truth !== answer);
    const head = sortingHead("pairs", "count-down", ["count", "share"], update);
    const wanted = findField("pairs-find", update);
    const rows = document.getElementById("pairs-rows");
    const show = longList({ id: "pairs", holder: rows, step: 20, draw, nouns: ["pair", "pairs"] });

    function draw([truth, answer, count]) {
      const answered = answer === classes ? element("em", { textContent: "no answer" }) : named(labels[answer]);
      return element(
        "tr",
        {},
        element("th", { scope: "row" }, named(labels[truth])),
        element("td", {}, answered),
        element("td", { className: "number", textContent: grouped(count) }),
        element("td", { className: "number", textContent: percent(count, totals[truth]) }),
      );
    }

    function update() {
      const columns = {
        truth: ([truth]) => labels[truth].toLowerCase(),
        answer: ([, answer]) => called(labels, answer).toLowerCase(),
        count: ([, , count]) => count,
        share: ([truth, , count]) => count / totals[truth],
      };
      const { column, down } = head();
      const found = confused.filter(([truth, answer]) => contains([labels[truth], called(labels, answer)], wanted()));
      show(sorted(found, columns[column], down));
    }
    update();
  }
}
