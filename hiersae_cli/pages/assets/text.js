// What fires on a text: the families of one token as a tree, where one feature fires, and a link to a token.
"use strict";

{
  const $ = (selector) => document.querySelector(selector);
  const byHash = document.documentElement.dataset.links === "hash";
  const FIRST = 8; // families of a token before "more"
  let codes = null; // { nodes: { place: [id, name, has a label, parent, strongest] }, active: [[place, activation, …]] }
  let firings = []; // for each token, activations by place

  function make(name, properties, ...children) {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  }

  const strength = (place, value) => (codes.nodes[place][4] ? Math.min(1, value / codes.nodes[place][4]) : 0);

  function start() {
    codes = null;
    if (!$("#tokens")) return;
    codes = JSON.parse($("#tokens").dataset.codes);
    firings = codes.active.map((pairs) => new Map(Array.from({ length: pairs.length / 2 }, (_, at) => [pairs[2 * at], pairs[2 * at + 1]])));
    const asked = Number(hiersae.query().get("token") ?? NaN);
    choose(asked in firings ? asked : codes.strongest);
  }

  // --- the families of a token
  function choose(at) {
    $("#tokens .at")?.classList.remove("at");
    const button = $(`#tokens [data-at="${at}"]`);
    if (!button) return;
    button.classList.add("at");
    $("#at-token").textContent = $(`#tokens [data-at="${at}"] span`).textContent.trim() || "white space";
    const below = new Map(); // from the place of a parent to those of its children; -1 has the roots
    for (let place of firings[at].keys()) {
      for (; ; place = codes.nodes[place][3]) {
        const parent = codes.nodes[place][3];
        if (!below.has(parent)) below.set(parent, new Set());
        if (below.get(parent).has(place)) break;
        below.get(parent).add(place);
        if (parent < 0) break;
      }
    }
    const best = new Map();
    const strongestIn = (place) => {
      if (!best.has(place)) best.set(place, Math.max(strength(place, firings[at].get(place) ?? 0), ...[...(below.get(place) ?? [])].map(strongestIn)));
      return best.get(place);
    };
    const sorted = (places) => [...places].sort((first, second) => strongestIn(second) - strongestIn(first));
    const branch = (place) => make("li", {}, row(place, firings[at].get(place)), ...list(below.get(place)));
    const list = (places) => (places ? [make("ul", {}, ...sorted(places).map(branch))] : []);
    // Families first: what has neither parent nor child here stands behind them.
    const roots = sorted(below.get(-1) ?? []);
    const families = roots.filter((place) => below.has(place));
    const single = roots.filter((place) => !below.has(place));
    const parts = [];
    if (at < codes.unmeasured) parts.push(make("p", { className: "note" }, "The cache leaves this position out, so the dictionary has not learned it: do not read a meaning into what fires."));
    parts.push(...pile(families, branch, "families"), ...(single.length ? [make("h3", {}, "Without a child here"), ...pile(single, branch, "features")] : []));
    if (!roots.length) parts.push(make("p", { className: "empty" }, "Nothing fires here."));
    $("#firings").replaceChildren(...parts);
  }

  function pile(places, branch, name) {
    if (!places.length) return [];
    const parts = [make("ul", { className: "paths" }, ...places.slice(0, FIRST).map(branch))];
    if (places.length > FIRST) {
      const more = make("ul", { className: "paths" }, ...places.slice(FIRST).map(branch));
      parts.push(make("details", {}, make("summary", {}, `${places.length - FIRST} weaker ${name}`), more));
    }
    return parts;
  }

  function row(place, value) {
    const [id, name, labelled] = codes.nodes[place];
    const link = make("a", { className: "node", href: hiersae.link(`/feature/${id}`) },
      make("span", { className: "id" }, id), " ", make("span", { className: labelled ? "label" : "hint" }, name));
    const share = strength(place, value ?? 0);
    const figure = value === undefined ? "silent" : `${hiersae.figure(value)} · ${Math.round(100 * share)} %`;
    return make("div", { className: value === undefined ? "silent" : "" }, link,
      make("span", { className: `h${value === undefined ? 0 : Math.max(1, Math.ceil(9 * share))} figure-at` }, figure));
  }

  // --- where one feature fires
  function show(button) {
    const on = button.getAttribute("aria-pressed") !== "true";
    for (const other of document.querySelectorAll("[data-show]")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(on));
    const place = +button.dataset.show;
    document.querySelectorAll("#tokens button").forEach((token, at) => {
      const share = on && at >= codes.unmeasured ? strength(place, firings[at].get(place) ?? 0) : 0;
      token.lastElementChild.className = share ? `h${Math.max(1, Math.ceil(9 * share))}` : "";
    });
  }

  // --- the address
  function address(at) {
    const parameters = hiersae.query();
    parameters.set("token", at);
    return `${byHash ? location.hash.split("?")[0] : location.pathname}?${parameters}`;
  }

  document.addEventListener("click", async (event) => {
    if (!codes) return;
    const token = event.target.closest?.("#tokens button");
    if (token) {
      choose(+token.dataset.at);
      history.replaceState(history.state, "", address(token.dataset.at));
    }
    const feature = event.target.closest?.("[data-show]");
    if (feature) show(feature);
    if (event.target.id === "copy") {
      const link = new URL(address($("#tokens .at").dataset.at), location.href).href;
      try {
        await navigator.clipboard.writeText(link);
        $("#copied").textContent = "Copied.";
      } catch {
        $("#copied").textContent = "Not allowed here: copy the address of this page.";
      }
    }
  });
  addEventListener("hiersae:open", start);
  if (!byHash) start();
}
