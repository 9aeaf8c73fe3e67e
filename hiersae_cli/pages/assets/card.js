// The card of a feature on the map, at the pointer or at the box that the keys have chosen: name, figures, contexts.
"use strict";

{
  const FILE = 32; // features in a file of contexts, the same as CARDS in pages/cards.py
  const GAP = 14; // pixels between the pointer and the card

  hiersae.cards ??= {};
  const loading = new Map();
  let waiting = 0;

  // Load a script of the server or of the folder.
  hiersae.load = (address) => new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = address;
    element.addEventListener("load", resolve);
    element.addEventListener("error", reject);
    document.head.append(element);
  });

  // The strongest contexts of a feature, [[before, focus, after], …], or null; then ``loaded`` is called when they are
  // there.
  hiersae.contextsOf = (place, loaded) => {
    if (hiersae.cards[place]) return hiersae.cards[place];
    const file = Math.floor(hiersae.tree.order[place] / FILE);
    if (!loading.has(file)) {
      const map = document.querySelector("#map");
      const address = map.dataset.cards.replace("NUMBER", file);
      waiting += 1;
      map.dataset.loading = ""; // until no file is on its way: pictures wait for it
      loading.set(file, hiersae.load(address).catch(() => loading.delete(file)).finally(() => {
        waiting -= 1;
        if (!waiting) delete map.dataset.loading;
      }));
    }
    loading.get(file).then(loaded);
    return null;
  };

  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };

  // What is said about a node: pairs of a figure's name and its value.
  function figures(map, node) {
    const { tree, grown } = map;
    const percent = hiersae.percent;
    const kids = grown.from[node + 1] - grown.from[node];
    const pairs = [["fires in", grown.dead[node] ? "no indexed row" : percent(tree.rate[node])]];
    if (tree.parent[node] >= 0) {
      if (tree.inside[node] != null) pairs.push(["inside its parent", percent(tree.inside[node])]);
      if (tree.lift[node] != null) pairs.push(["lift", `${hiersae.figure(tree.lift[node])} ×`]);
      if (tree.share[node] != null) pairs.push(["share of the parent", percent(tree.share[node])]);
      if (tree.overlap[node] != null) pairs.push(["of it with a sibling", percent(tree.overlap[node])]);
    }
    if (kids) {
      pairs.push([kids === 1 ? "child" : "children", kids.toLocaleString("en")]);
      if (tree.alone[node] != null) pairs.push(["without any child", percent(tree.alone[node])]);
    }
    return pairs;
  }

  // The contents of the card; ``again`` is called when contexts arrive later.
  hiersae.card = (map, node, again) => {
    const { n } = map.grown;
    if (node >= n) return [make("p", { className: "card-name" }, make("strong", {}, map.name(node))), make("p", {}, map.explain(node))];
    const name = map.labels[node] ? make("span", { className: "label" }, map.labels[node]) : make("span", { className: "hint" }, map.tree.hint[node] || "no label");
    const parts = [make("p", { className: "card-name" }, make("span", { className: "id" }, hiersae.id(node)), " ", name)];
    parts.push(make("dl", {}, ...figures(map, node).map(([term, value]) => make("div", {}, make("dt", {}, term), " ", make("dd", {}, value)))));
    const contexts = map.grown.dead[node] ? [] : hiersae.contextsOf(node, again);
    if (contexts?.length) {
      parts.push(make("ul", { className: "card-contexts" }, ...contexts.slice(0, 3).map(([before, focus, after]) => make("li", {},
        make("span", { className: "before" }, make("bdi", {}, before)), make("span", { className: "after" }, make("mark", {}, focus), make("bdi", {}, after))))));
    }
    const does = map.has(node) ? "Click or Enter: its children. o: its page." : "Click or Enter: its page.";
    parts.push(make("p", { className: "card-keys" }, does));
    return parts;
  };

  // Next to a point or a box of the window, without covering it, and within the window.
  hiersae.placeCard = (card, { left, top, right, bottom }) => {
    const { offsetWidth: width, offsetHeight: height } = card;
    const beside = right + GAP + width <= innerWidth ? right + GAP : left - GAP - width >= 8 ? left - GAP - width : Math.max(8, innerWidth - width - 8);
    const fits = beside >= right || beside + width <= left;
    const below = bottom + GAP + height <= innerHeight ? bottom + GAP : top - GAP - height;
    card.style.left = `${beside}px`;
    card.style.top = `${Math.max(8, Math.min(fits ? top : below, innerHeight - height - 8))}px`;
  };
}
