"use strict";

// What the tables and lists of a report share. All text goes in as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
document.documentElement.classList.add("with-script");

/** An element with properties and children; what is undefined is left out. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value !== undefined) made[name] = value;
  }
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

/** A name from outside, set apart so that writing from right to left turns nothing around it. */
function named(text, properties) {
  return element("bdi", { textContent: text, ...properties });
}

/** A count with a comma before each three digits. */
function grouped(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** A count and what is counted. */
function counted(count, one, many) {
  return `${grouped(count)} ${count === 1 ? one : many}`;
}

/** A score as the figures print it; a dash of none. */
function score(value) {
  return value === null ? "–" : value.toFixed(data.decimals);
}

// What is chosen stands behind the address's #, so that a page opens as it was left.
const chosen = new URLSearchParams(location.hash.slice(1));

/** What was chosen under a name, if it is one of `allowed` (any text without them); else `usual`. */
function choice(name, usual, allowed) {
  const value = chosen.get(name);
  return value === null || (allowed && !allowed.includes(value)) ? usual : value;
}

/** Keeps a choice in the address. */
function choose(name, value, usual) {
  if (value === usual) chosen.delete(name);
  else chosen.set(name, value);
  try {
    const rest = chosen.toString();
    history.replaceState(null, "", rest === "" ? "#" : `#${rest}`);
  } catch {
    // Some browsers refuse many changes in a short time: the page goes on without.
  }
}

/** Compares two values of a column: numbers by size, text by letters; what is not there (null) comes last in both directions. */
function compare(a, b, down) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = a < b ? -1 : a > b ? 1 : 0;
  return down ? -order : order;
}

/** Sorts a copy; what compares equal stays in its order. */
function sorted(rows, value, down) {
  const keyed = rows.map((row) => [value(row), row]);
  keyed.sort((a, b) => compare(a[0], b[0], down));
  return keyed.map(([, row]) => row);
}

/** Whether one of the texts contains what is looked for, in small letters. */
function contains(texts, wanted) {
  return wanted === "" || texts.some((text) => text.toLowerCase().includes(wanted));
}

/**
 * A list that is drawn a part at a time. `id` begins the ids of its parts: -more, -status. `draw` makes an element of a row,
 * `step` rows are drawn at a time, `nouns` are one row and many.
 */
function longList({ id, holder, step, draw, nouns }) {
  const more = document.getElementById(`${id}-more`);
  const status = document.getElementById(`${id}-status`);
  let rows = [];
  let drawn = 0;
  function drawMore() {
    const next = rows.slice(drawn, drawn + step);
    holder.append(...next.map(draw));
    drawn += next.length;
    const all = counted(rows.length, ...nouns);
    status.textContent = drawn < rows.length ? `${grouped(drawn)} of ${all}.` : rows.length ? `${all}.` : `No ${nouns[1]}.`;
    more.hidden = drawn >= rows.length;
  }
  more.addEventListener("click", drawMore);
  return function show(list) {
    rows = list;
    drawn = 0;
    holder.replaceChildren();
    drawMore();
  };
}

/** A field to find rows by; calls `changed`. Returns what says what is looked for, in small letters. */
function findField(id, changed) {
  const field = document.getElementById(id);
  field.value = choice(id, "");
  field.addEventListener("input", () => {
    choose(id, field.value, "");
    changed();
  });
  return () => field.value.trim().toLowerCase();
}

/**
 * A table's head whose titles sort. `usual` is as the address says it: a column and its direction, `score-up`. `firstDown` are
 * the columns whose first press sorts downwards. Calls `changed`; returns what says the column and whether downwards.
 */
function sortingHead(id, usual, firstDown, changed) {
  const buttons = [...document.querySelectorAll(`#${id}-head button[data-sort]`)];
  const all = buttons.flatMap((button) => [`${button.dataset.sort}-up`, `${button.dataset.sort}-down`]);
  const name = `${id}-sort`;
  let [column, direction] = choice(name, usual, all).split("-");
  function mark() {
    for (const button of buttons) {
      const head = button.closest("th");
      if (button.dataset.sort === column) head.setAttribute("aria-sort", direction === "up" ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
  }
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const pressed = button.dataset.sort;
      if (pressed === column) direction = direction === "up" ? "down" : "up";
      else direction = firstDown.includes(pressed) ? "down" : "up";
      column = pressed;
      mark();
      choose(name, `${column}-${direction}`, usual);
      changed();
    });
  }
  mark();
  return () => ({ column, down: direction === "down" });
}
