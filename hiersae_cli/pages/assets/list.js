// A list of features: sorted and filtered through all its pages; the address holds what was chosen.
"use strict";

{
  const ROWS = 100; // of a page, the same as in pages/lists.py
  const $ = (selector) => document.querySelector(selector);
  const byHash = document.documentElement.dataset.links === "hash";

  hiersae.make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const { make } = hiersae;

  // A link to a feature: its id and its name.
  hiersae.node = (place) => {
    const { tree, labels } = hiersae;
    const name = labels[place] ? make("span", { className: "label" }, labels[place])
      : tree.hint[place] ? make("span", { className: "hint" }, tree.hint[place]) : make("span", { className: "hint none" }, "no label");
    return make("a", { className: "node", href: hiersae.link(`/feature/${hiersae.id(place)}`) }, make("span", { className: "id" }, hiersae.id(place)), " ", name);
  };

  // Whether id, label or name of a feature have all of some words.
  hiersae.wordsOf = (typed) => typed.toLowerCase().split(/\s+/).filter(Boolean);
  hiersae.hasWords = (place, words) => {
    const text = `${hiersae.id(place)} ${hiersae.labels[place] ?? ""} ${hiersae.tree.hint[place]}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };

  // --- the features of a list, in the order of pages/lists.py
  function members(list) {
    const { tree } = hiersae;
    if (list === "dead") return [...tree.dead];
    const first = tree.widths[0] ?? 0;
    const places = [...tree.parent.keys()];
    if (list === "root-children") return places.filter((place) => place >= first && tree.parent[place] < 0);
    const level = Number(list.split("-")[1]);
    const start = tree.widths.slice(0, level).reduce((sum, width) => sum + width, 0);
    return places.slice(start, start + tree.widths[level]).filter((place) => !level || tree.parent[place] >= 0);
  }

  let children = null; // of every feature
  function figure(column, place) {
    const { tree } = hiersae;
    if (column !== "children") return tree[column][place];
    if (!children) {
      children = new Uint32Array(tree.parent.length);
      for (const parent of tree.parent) if (parent >= 0) children[parent]++;
    }
    return children[place];
  }

  const CELLS = {
    name: (place) => hiersae.node(place),
    parent: (place) => (hiersae.tree.parent[place] < 0 ? "–" : hiersae.node(hiersae.tree.parent[place])),
    children: (place) => figure("children", place).toLocaleString("en"),
    lift: (place) => hiersae.figure(hiersae.tree.lift[place]),
  };
  const cell = (column, place) => make("td", { className: column === "parent" ? "wide" : "" },
    CELLS[column] ? CELLS[column](place) : hiersae.percent(hiersae.tree[column][place]));

  function show() {
    const table = $("#listing");
    const { tree, labels } = hiersae;
    const query = hiersae.query();
    const by = query.get("sort") ?? "rate", up = query.has("up"), words = hiersae.wordsOf(query.get("only") ?? "");
    const all = members(table.dataset.list);
    const places = all.filter((place) => hiersae.hasWords(place, words));
    const name = (place) => (labels[place] || tree.hint[place]).toLowerCase();
    const least = up ? Infinity : -Infinity; // what has no figure comes last
    const figures = new Map(by === "name" ? [] : places.map((place) => [place, figure(by, place) ?? least]));
    places.sort((first, second) => {
      const order = by === "name" ? name(first).localeCompare(name(second)) : figures.get(second) - figures.get(first) || first - second;
      return up ? -order : order;
    });
    const last = Math.max(1, Math.ceil(places.length / ROWS));
    const page = Math.min(last, Math.max(1, Number(query.get("page")) || 1));
    const columns = [...table.tHead.rows[0].cells].map((head) => head.dataset.column);
    table.tBodies[0].replaceChildren(...places.slice((page - 1) * ROWS, page * ROWS).map((place) =>
      make("tr", {}, ...columns.map((column) => cell(column, place)))));
    $("#sifted").textContent = words.length ? `${places.length.toLocaleString("en")} of ${all.length.toLocaleString("en")}` : "";
    const turn = (number, rel, text) => {
      const parameters = new URLSearchParams(query);
      parameters.set("page", number);
      return make("a", { rel, href: hiersae.link(`/list/${table.dataset.list}?${parameters}`) }, text);
    };
    $(".turn").replaceChildren(...(last === 1 ? [] : [
      ...(page > 1 ? [turn(page - 1, "prev", "← Before")] : []), make("span", {}, `${page} of ${last}`),
      ...(page < last ? [turn(page + 1, "next", "After →")] : [])]));
  }

  // --- the controls and the address
  async function load() {
    const { tree, labels } = $("#listing").dataset;
    await Promise.all([hiersae.tree ?? hiersae.load(tree), hiersae.labels ?? hiersae.load(labels)]);
  }

  async function start() {
    if (!$("#listing") || !$("#list-sort")) return;
    const query = hiersae.query();
    const sort = $("#list-sort");
    const known = [...sort.options].some((option) => option.value === query.get("sort"));
    sort.value = known ? query.get("sort") : "rate";
    if (!known) query.delete("sort");
    $("#list-up").checked = query.has("up");
    $("#list-only").value = query.get("only") ?? "";
    if (!query.size) return;
    hiersae.setQuery(query);
    await load();
    if ($("#listing")) show();
  }

  document.addEventListener("input", async (event) => {
    if (!event.target.matches("#list-sort, #list-up, #list-only")) return;
    const query = new URLSearchParams();
    if ($("#list-sort").value !== "rate") query.set("sort", $("#list-sort").value);
    if ($("#list-up").checked) query.set("up", "1");
    if ($("#list-only").value.trim()) query.set("only", $("#list-only").value.trim());
    hiersae.setQuery(query, `/list/${$("#listing").dataset.list}`);
    await load();
    if ($("#listing")) show();
  });
  addEventListener("hiersae:open", () => { hiersae.listed = start(); });
  if (!byHash) hiersae.listed = start();
}
