"use strict";
// Charts: as wide as the page is; drawn anew when that changes.
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();
function fit(spec, width) {
  if (width < 500) {
    spec.config.legend.columns = 2;
    spec.config.axis.labelLimit = 130;
  }
  if (spec.hconcat) spec.hconcat.at(-1).width = Math.max(110, width - spec.hconcat[0].width - 60);
  return spec;
}
async function draw(script) {
  const box = document.getElementById(script.dataset.for), spec = JSON.parse(script.textContent);
  drawn.get(box)?.finalize();
  const options = { actions: false, renderer: "svg", tooltip: { theme: dark.matches ? "dark" : "light" } };
  try {
    drawn.set(box, await vegaEmbed(box, fit(spec, box.clientWidth), options));
    box.querySelector("svg").setAttribute("role", "img");
  } catch (error) {
    box.textContent = "This chart cannot be drawn here; the table below has its figures.";
    console.error(error);
  }
}
const scripts = [...document.querySelectorAll("script.vega")];
const all = () => Promise.all(scripts.map(draw)).then(() => { document.body.dataset.drawn = drawn.size; });
let width = innerWidth, timer;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(timer);
  timer = setTimeout(all, 150);
});
dark.addEventListener("change", all);
all();

// Tables: a heading sorts by its column, numbers as numbers; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && column > 0);
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending && head.getAttribute("aria-sort") !== "descending" ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const order = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const by = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return descending ? -by : by;
    });
    body.append(...order);
  }));
}
