// Names and figures of the tree, and the geometry of its map, without drawing.
"use strict";

// --- names and figures
// An id is a letter for the level and a number within it, "b480"; the older form, "1.480", is read too. See levels.py.
hiersae.id = (place) => {
  let level = 0;
  for (const width of hiersae.tree.widths) {
    if (place < width) break;
    place -= width;
    level++;
  }
  return String.fromCharCode(97 + level) + place;
};
hiersae.place = (id) => {
  const { widths } = hiersae.tree;
  const [, letter, old, latent] = /^(?:([a-z])|(\d+)\.)(\d+)$/.exec(id) ?? [];
  const level = letter ? letter.charCodeAt(0) - 97 : +old;
  if (!(+latent < widths[level])) return -1;
  return widths.slice(0, level).reduce((sum, width) => sum + width, +latent);
};
hiersae.figure = (number) => {
  if (number == null) return "–";
  if (number === 0 || Math.abs(number) >= 1e-4) return String(+number.toPrecision(3)).replace("-", "−");
  const [digits, power] = number.toExponential(2).split("e");
  return `${digits} × 10${[...String(+power)].map((digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)]).join("")}`.replace("-", "−");
};
hiersae.percent = (share) => (share == null ? "–" : `${hiersae.figure(100 * share)} %`);

// The tree as nodes 0 … n-1 and four groups that are no features: the whole, roots without children (CHILDLESS), nodes
// without a parent that are no roots (LONE), and those that never fire (DEAD). Without any family, roots stay apart.
hiersae.grow = (tree) => {
  const n = tree.parent.length;
  const WHOLE = n, CHILDLESS = n + 1, LONE = n + 2, DEAD = n + 3;
  const first = tree.widths[0] ?? 0;
  const dead = new Uint8Array(n);
  for (const place of tree.dead) dead[place] = 1;
  const parent = Int32Array.from(tree.parent);
  const kids = new Int32Array(n + 4); // number of children
  // Bottom-up: a dead feature stays in its place only if a living feature is below it.
  const leaf = new Uint8Array(n).fill(1);
  for (let place = n - 1; place >= 0; place--) {
    if (tree.parent[place] < 0) parent[place] = place < first ? WHOLE : LONE;
    if (dead[place] && leaf[place]) parent[place] = DEAD;
    else if (parent[place] < n) leaf[parent[place]] = 0;
  }
  if (leaf.subarray(0, first).includes(0)) {
    for (let place = 0; place < first; place++) if (leaf[place] && parent[place] === WHOLE) parent[place] = CHILDLESS;
  }
  for (let place = 0; place < n; place++) kids[parent[place]]++;
  for (const group of [CHILDLESS, LONE, DEAD]) kids[WHOLE] += kids[group] > 0;
  const from = new Int32Array(n + 5);
  for (let node = 0; node < n + 4; node++) from[node + 1] = from[node] + kids[node];
  const next = from.slice();
  const child = new Int32Array(from[n + 4]);
  for (let place = 0; place < n; place++) child[next[parent[place]]++] = place;
  for (const group of [CHILDLESS, LONE, DEAD]) if (kids[group]) child[next[WHOLE]++] = group;
  const up = new Int32Array(n + 4).fill(-1);
  up.set(parent);
  up[CHILDLESS] = up[LONE] = up[DEAD] = WHOLE;
  return { n, WHOLE, CHILDLESS, LONE, DEAD, up, from, child, dead };
};

// The weights of siblings decide their areas. By firing rate, children are weighed by their shares of the parent's
// firings; a parent's area comes from its own weight, not from its children's.
hiersae.weigh = (tree, grown, by) => {
  const { n, from } = grown;
  const weight = new Float64Array(n + 4);
  const column = by === "fvu" ? tree.fvu : tree.rate;
  let least = Infinity;
  for (let place = 0; place < n; place++) {
    const figure = Math.max(0, column[place] ?? 0);
    weight[place] = by === "equal" ? 1 : figure;
    if (figure > 0 && figure < least) least = figure;
  }
  // Nothing is hidden: a feature without weight gets a tenth of the smallest weight.
  if (!Number.isFinite(least)) least = 1;
  for (let place = n - 1; place >= 0; place--) {
    if (weight[place] === 0) weight[place] = least / 10;
    if (by === "equal" && from[place + 1] > from[place]) {
      weight[place] = 0;
      for (let at = from[place]; at < from[place + 1]; at++) weight[place] += weight[grown.child[at]];
    }
  }
  return weight;
};

// Squarified treemap (Bruls, Huizing and van Wijk, 2000): rows of rectangles as square as possible, passed to ``put``.
hiersae.squarify = (nodes, weight, x, y, w, h, put) => {
  let remaining = 0;
  for (const node of nodes) remaining += weight[node];
  let at = 0;
  while (at < nodes.length && w > 0 && h > 0) {
    const side = Math.min(w, h);
    const scale = (w * h) / remaining;
    let sum = 0, end = at, worst = Infinity;
    while (end < nodes.length) {
      const area = weight[nodes[end]] * scale;
      const all = sum + area;
      const most = weight[nodes[at]] * scale;
      const shape = Math.max((side * side * most) / (all * all), (all * all) / (side * side * area));
      if (shape > worst) break;
      worst = shape;
      sum = all;
      end++;
    }
    const across = sum / side;
    let offset = 0;
    for (; at < end; at++) {
      const length = (weight[nodes[at]] * scale) / across;
      if (w >= h) put(nodes[at], x, y + offset, across, length);
      else put(nodes[at], x + offset, y, length, across);
      offset += length;
      remaining -= weight[nodes[at]];
    }
    if (w >= h) { x += across; w -= across; } else { y += across; h -= across; }
  }
};
