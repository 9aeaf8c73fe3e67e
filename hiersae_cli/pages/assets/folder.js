// A folder of pages: opens the page after "#" in the address, and searches without a server.
"use strict";

{
  const TOGETHER = 32; // pages per file, the same as in pages/static.py
  const $ = (selector) => document.querySelector(selector);
  const content = $("#content");
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

  async function pages(name) {
    await script(name);
    let file = unpacked.get(name);
    if (typeof file === "string") {
      const bytes = Uint8Array.from(atob(file), (character) => character.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
      const [lines, content] = await new Response(stream).json();
      for (const page of Object.values(content)) page[2] = page[2].replace(/\x01(\d+);/g, (_, number) => lines[number]);
      file = content;
      unpacked.set(name, file);
      // Only a few files stay unpacked, so that a walk through a large tree does not fill the memory.
      if (unpacked.size > 24) for (const old of [...unpacked.keys()].slice(0, -12)) {
        unpacked.delete(old);
        loading.delete(old);
      }
    }
    return file;
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
      const page = file && (await pages(file))[key];
      if (page) return page;
    } catch (error) {
      if (typeof DecompressionStream === "undefined") return message("This browser is too old", "The pages need DecompressionStream, which browsers have had since 2023.");
    }
    return missing();
  }

  hiersae.part = async (address) => {
    const parts = address.slice(2).split("/"); // behind "#/"
    const page = (await pages(await fileOf(parts)))[parts.join("/")];
    if (!page) throw new Error(address);
    return page[2];
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

  // --- search
  async function search(parameters) {
    const query = parameters.get("q") ?? "";
    const by = parameters.get("by") === "label" ? "label" : "token";
    $("#query").value = query;
    $(`input[name=by][value=${by}]`).checked = true;
    if (!query) return $("#query").focus();
    await Promise.all([script("tree"), script("labels"), script("tokens")]);
    const places = by === "token" ? byToken(query) : byLabel(query);
    $("#found").replaceChildren(...(places.length ? [list(places.slice(0, 50))] : [nothing(by)]));
  }

  function byToken(query) {
    const { tokens } = hiersae;
    if (Object.hasOwn(tokens, query)) return tokens[query];
    // No such token: use tokens that contain it or are part of it, those with the longest match first.
    const near = Object.keys(tokens).filter((token) => token.trim() && (token.includes(query) || query.includes(token)));
    near.sort((first, second) => Math.min(second.length, query.length) - Math.min(first.length, query.length));
    return [...new Set(near.slice(0, 40).flatMap((token) => tokens[token].slice(0, 8)))];
  }

  function byLabel(query) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const { tree, labels } = hiersae;
    const hits = [];
    for (let place = 0; place < tree.hint.length; place++) {
      const text = `${hiersae.id(place)} ${labels[place] ?? ""} ${tree.hint[place]}`.toLowerCase();
      if (words.every((word) => text.includes(word))) hits.push(place);
    }
    const labelled = (place) => (labels[place] ? 1 : 0);
    return hits.sort((first, second) => labelled(second) - labelled(first) || tree.rate[second] - tree.rate[first]);
  }

  function make(name, properties, ...children) {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  }

  function list(places) {
    const { tree, labels } = hiersae;
    return make("ol", { className: "roots" }, ...places.map((place) => {
      const name = labels[place] ? make("span", { className: "label" }, labels[place]) : make("span", { className: "hint" }, tree.hint[place]);
      const link = make("a", { className: "node", href: `#/feature/${hiersae.id(place)}` }, make("span", { className: "id" }, hiersae.id(place)), " ", name);
      return make("li", {}, link, make("span", {}, hiersae.percent(tree.rate[place])));
    }));
  }

  function nothing(by) {
    return make("p", { className: "empty" }, by === "token" ? "No feature fires at it. Try a part of it, or a space before it." : "No label, id or characteristic token has these words.");
  }

  document.addEventListener("submit", (event) => {
    if (event.target.id !== "search") return;
    event.preventDefault();
    location.hash = `#/search?${new URLSearchParams(new FormData(event.target))}`;
  });

  history.scrollRestoration = "manual";
  addEventListener("hashchange", open);
  hiersae.script = script;
  open();
}
