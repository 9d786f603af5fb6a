"use strict";

// Finds queries by the name of an image: theirs, or one of the nearest.
document.documentElement.classList.add("with-script");

const field = document.getElementById("gallery-find");
const found = document.getElementById("gallery-status");
const queries = [...document.querySelectorAll(".query")].map((section) => ({
  section,
  names: [...section.querySelectorAll("bdi")].map((name) => name.textContent.toLowerCase()),
}));

function show() {
  const wanted = field.value.trim().toLowerCase();
  let shown = 0;
  for (const { section, names } of queries) {
    const matches = names.some((name) => name.includes(wanted));
    section.hidden = !matches;
    if (matches) shown += 1;
  }
  found.textContent = wanted === "" ? "" : `${shown} of ${queries.length} queries.`;
}
field.addEventListener("input", show);
// A browser may have kept what was typed before the page was loaded again.
show();
