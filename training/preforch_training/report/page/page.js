// Draws the plots, and lets every table be sorted by a click on a column's name.

for (const item of JSON.parse(document.getElementById("plot-models").textContent)) {
  Bokeh.embed.embed_item(item);
}

function sortKey(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
}

// Numbers before words, empty cells last, whichever way a table is sorted.
function compare(a, b, sign) {
  const kind = (key) => (key === "" ? 2 : typeof key === "number" ? 0 : 1);
  if (kind(a) !== kind(b)) return kind(a) - kind(b);
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
}

function sort(table, header) {
  const descending = header.ariaSort === "ascending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.ariaSort = descending ? "descending" : "ascending";
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [sortKey(row, header.cellIndex), row]);
  keyed.sort(([a], [b]) => compare(a, b, descending ? -1 : 1));
  body.append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table")) {
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, header));
    header.append(button);
  }
}
