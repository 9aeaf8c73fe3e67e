// A folder of pages: opens the page after "#" in the address, and searches without a server.
"use strict";

{
  const TOGETHER = 32; // pages per file, the same as in pages/static.py
  const $ = (selector) => document.querySelector(selector);
  const content = $("#content");
  const { make } = hiersae;
  const overview = content.innerHTML;
  const overviewTitle = document.title;
  const loading = new Map();
  const unpacked = new Map();
  const scrolled = new Map();
  let at = null;

  function script(name) {
    if (!loading.has(name)) {
      loading.set(name, new Promise((resolve, reject) => {
        const element = document.createElement("script");
        element.src = `assets/${name}.js`;
        element.addEventListener("load", resolve);
        element.addEventListener("error", () => {
          loading.delete(name);
          reject(new Error(name));
        });
        document.head.append(element);
      }));
    }
    return loading.get(name);
  }
  hiersae.unpack = (name, packed) => unpacked.set(name, packed);

  // What a file holds; only a few stay unpacked, so that a walk through a large tree does not fill the memory.
  async function unpack(name) {
    await script(name);
    const file = unpacked.get(name);
    if (typeof file !== "string") return file;
    const text = atob(file);
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const content = await new Response(stream).json();
    unpacked.set(name, content);
    if (unpacked.size > 24) for (const old of [...unpacked.keys()].slice(0, -12)) {
      unpacked.delete(old);
      loading.delete(old);
    }
    return content;
  }

  // Title, view and HTML of the page at an address; the texts of contexts are in a file of their own.
  async function page(file, address) {
    const [lines, pages] = await unpack(file);
    if (!Object.hasOwn(pages, address)) return null;
    const [title, view, html] = pages[address];
    if (html.includes("\x7f")) hiersae.texts ??= await unpack("texts");
    return [title, view, hiersae.withLines(html, lines)];
  }

  async function fileOf(parts) {
    const [kind, name, number = 1] = parts;
    if (kind === "feature" || kind === "compare") {
      await script("tree");
      const place = hiersae.place(name ?? "");
      if (place < 0) return "";
      parts[1] = hiersae.id(place); // so that links with old ids still work
      return `feature-${Math.floor(place / TOGETHER)}`;
    }
    if (kind === "baseline" && /^\d+$/.test(name ?? "")) return `baseline-${Math.floor(name / TOGETHER)}`;
    if (kind === "document") return `document-${Math.floor(name / TOGETHER)}`;
    if (kind === "list") return `list-${name}-${Math.floor((number - 1) / TOGETHER)}`;
    return "rest";
  }

  async function find(parts) {
    if (!parts.length) return [overviewTitle.split(" · ")[0], "tree", overview];
    try {
      const file = await fileOf(parts);
      const key = parts.join("/") + (parts[0] === "list" && parts.length === 2 ? "/1" : "");
      const found = file && (await page(file, key));
      if (found) return found;
    } catch (error) {
      if (typeof DecompressionStream === "undefined") return message("This browser is too old", "The pages need DecompressionStream, which browsers have had since 2023.");
    }
    return missing();
  }

  hiersae.part = async (address) => {
    const parts = address.slice(2).split("/"); // behind "#/"
    const part = await page(await fileOf(parts), parts.join("/"));
    if (!part) throw new Error(address);
    return part[2];
  };

  function missing() {
    return message("No such page", "There is no feature, list or picture with that name in this folder. Look for it in the tree, or search.");
  }

  function message(title, explanation) {
    return [title, "", `<header class="head"><h1>${title}</h1><p class="lede">${explanation}</p><p><a href="#/">Back to the tree</a></p></header>`];
  }

  async function open() {
    if (location.hash && !location.hash.startsWith("#/")) return;
    const [path, queryText = ""] = location.hash.slice(1).split("?");
    const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
    const address = location.hash;
    hiersae.leave();
    if (at !== null) scrolled.set(at, scrollY);
    const first = at === null;
    const [title, view, html] = await find(parts);
    if (location.hash !== address) return; // the reader has moved on
    // Another view of the same map: map.js draws it.
    const sameMap = !parts.length && content.dataset.view === "tree" && $("#map") && !first;
    at = address;
    if (!sameMap && !(first && !parts.length)) {
      // pages/render.py has escaped everything, and the policy blocks foreign scripts.
      content.innerHTML = html;
      document.title = `${title} · HierSAE`;
      content.dataset.view = view;
      for (const link of document.querySelectorAll(".bar nav a")) {
        if (link.dataset.view === view) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
      scrollTo(0, scrolled.get(address) ?? 0);
      if (!first) content.focus({ preventScroll: true });
    }
    if (parts[0] === "search") {
      await search(new URLSearchParams(queryText)).catch(() => {
        $("#found").textContent = "The lists to search could not be loaded. Reload the page.";
      });
    }
    delete document.documentElement.dataset.opening;
    dispatchEvent(new Event("hiersae:open"));
  }

  // --- search, with the same sections and figures as templates/search.html.jinja
  async function search(parameters) {
    const query = parameters.get("q") ?? "";
    const by = ["token", "label"].find((way) => way === parameters.get("by")) ?? "";
    $("#query").value = query;
    $(`input[name=by][value="${by}"]`).checked = true;
    if (!query) return $("#query").focus();
    await Promise.all([script("tree"), script("labels"), script("tokens")]);
    const sections = [];
    const named = by === "token" ? [] : byLabel(query).slice(0, by ? 50 : 8);
    if (named.length) sections.push(section("Labels and names", list(named)));
    else if (by === "label") sections.push(section("Labels and names", make("p", { className: "empty" }, "No label, id or characteristic token has these words.")));
    if (by !== "label") sections.push(...byToken(query));
    $("#found").replaceChildren(...sections);
  }

  const section = (title, ...children) => make("section", {}, make("h2", {}, title), ...children);
  const note = (text) => make("p", { className: "note" }, text);

  function byToken(query) {
    const { tokens } = hiersae;
    const answer = [query, query.trim()].find((text) => Object.hasOwn(tokens, text));
    if (answer !== undefined) {
      const [occurrences, ...figures] = tokens[answer];
      const times = `It occurs ${occurrences.toLocaleString("en")} times in the indexed tokens. Recall: share of these at which the feature fires. Precision: share of its firings that are there. F1: their harmonic mean.`;
      return [section(`What fires at “${query}”`, note(times), table(figures))];
    }
    // Tokens that contain it or are part of it, those with the longest match first.
    const near = Object.keys(tokens).filter((token) => token.trim() && (token.includes(query) || (token.trim().length > 1 && query.includes(token.trim()))));
    near.sort((first, second) => Math.min(second.length, query.length) - Math.min(first.length, query.length) || first.length - second.length);
    if (!near.length) return [section(`What fires at “${query}”`, make("p", { className: "empty" }, "No feature fires at it. Try a part of it, or a space before it: tokens of many models begin with a space."))];
    const why = note(`“${query}” is no single token that occurs often, so this folder cannot search for it. These tokens are near it.`);
    return [section(`Tokens near “${query}”`, why), ...near.slice(0, 5).map((token) => section(`What fires at “${token}”`, table(tokens[token].slice(1, 1 + 3 * 5))))];
  }

  function byLabel(query) {
    const words = hiersae.wordsOf(query);
    const { tree, labels } = hiersae;
    const hits = [...tree.hint.keys()].filter((place) => hiersae.hasWords(place, words));
    const labelled = (place) => (labels[place] ? 1 : 0);
    return hits.sort((first, second) => labelled(second) - labelled(first) || tree.rate[second] - tree.rate[first]);
  }

  const list = (places) => make("ol", { className: "roots" }, ...places.map((place) => make("li", {}, hiersae.node(place), make("span", {}, hiersae.percent(hiersae.tree.rate[place])))));

  // ``figures`` are a place, recall and precision (both in thousandths), again and again.
  function table(figures) {
    const rows = [];
    for (let at = 0; at < figures.length; at += 3) {
      const [place, recall, precision] = [figures[at], figures[at + 1] / 1000, figures[at + 2] / 1000];
      const f1 = recall + precision ? (2 * recall * precision) / (recall + precision) : 0;
      const cells = [hiersae.percent(hiersae.tree.rate[place]), hiersae.percent(recall), hiersae.percent(precision), hiersae.figure(f1)];
      rows.push(make("tr", {}, make("td", {}, hiersae.node(place)), ...cells.map((cell) => make("td", {}, cell))));
    }
    const heads = ["Feature", "Fires in", "Recall", "Precision", "F1"].map((head) => make("th", { scope: "col" }, head));
    const drawn = make("table", { className: "listing" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
    return make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Features that fire at it" }, drawn);
  }

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("#search, #find")) return;
    event.preventDefault();
    const query = new URLSearchParams([...new FormData(event.target)].filter(([, value]) => value));
    location.hash = `#/search?${query}`;
  });

  history.scrollRestoration = "manual";
  addEventListener("hashchange", open);
  hiersae.script = script;
  open();
}
