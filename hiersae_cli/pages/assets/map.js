// The map of the tree: a treemap in which a child lies within its parent. Only what is a pixel or more is drawn, so that
// 100,000 features stay quick. Two canvases: the map, and above it what is chosen.
"use strict";

// --- names and figures
hiersae.id = (place) => {
  let level = 0;
  for (const width of hiersae.tree.widths) {
    if (place < width) break;
    place -= width;
    level++;
  }
  return `${level}.${place}`;
};
hiersae.place = (id) => {
  const { widths } = hiersae.tree;
  const [, level, latent] = /^(\d+)\.(\d+)$/.exec(id) ?? [];
  if (level === undefined || +latent >= (widths[level] ?? 0)) return -1;
  return widths.slice(0, +level).reduce((sum, width) => sum + width, +latent);
};
hiersae.figure = (number) => {
  if (number == null) return "–";
  if (number === 0 || Math.abs(number) >= 1e-4) return String(+number.toPrecision(3)).replace("-", "−");
  const [digits, power] = number.toExponential(2).split("e");
  return `${digits} × 10${[...String(+power)].map((one) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(one)]).join("")}`.replace("-", "−");
};
hiersae.percent = (share) => (share == null ? "–" : `${hiersae.figure(100 * share)} %`);

// The tree as nodes 0 … n-1, and three that are not features: the whole, those without a parent, those that never fire.
hiersae.grow = (tree) => {
  const n = tree.parent.length;
  const WHOLE = n, LONE = n + 1, DEAD = n + 2;
  const first = tree.widths[0] ?? 0;
  const dead = new Uint8Array(n);
  for (const place of tree.dead) dead[place] = 1;
  const parent = Int32Array.from(tree.parent);
  const kids = new Int32Array(n + 3); // how many of each
  // Bottom-up: a dead feature stays in its place only if something lives below it.
  const leaf = new Uint8Array(n).fill(1);
  for (let place = n - 1; place >= 0; place--) {
    if (tree.parent[place] < 0) parent[place] = place < first ? WHOLE : LONE;
    if (dead[place] && leaf[place]) parent[place] = DEAD;
    else if (parent[place] < n) leaf[parent[place]] = 0;
  }
  for (let place = 0; place < n; place++) kids[parent[place]]++;
  kids[WHOLE] += (kids[LONE] > 0) + (kids[DEAD] > 0);
  const from = new Int32Array(n + 4);
  for (let node = 0; node < n + 3; node++) from[node + 1] = from[node] + kids[node];
  const next = from.slice();
  const child = new Int32Array(from[n + 3]);
  for (let place = 0; place < n; place++) child[next[parent[place]]++] = place;
  for (const group of [LONE, DEAD]) if (kids[group]) child[next[WHOLE]++] = group;
  const up = new Int32Array(n + 3).fill(-1);
  up.set(parent);
  up[LONE] = up[DEAD] = WHOLE;
  return { n, WHOLE, LONE, DEAD, up, from, child, dead };
};

// Weights of siblings decide their areas. A parent has the area of its own weight, whatever its children weigh together.
hiersae.weigh = (tree, grown, by) => {
  const { n, WHOLE, LONE, DEAD, up, from } = grown;
  const weight = new Float64Array(n + 3);
  const column = by === "fvu" ? tree.fvu : tree.rate;
  let least = Infinity;
  for (let place = 0; place < n; place++) {
    const figure = Math.max(0, column[place] ?? 0);
    weight[place] = by === "equal" ? 1 : figure;
    if (figure > 0 && figure < least) least = figure;
  }
  // Nothing is hidden: what has no weight of its own gets a tenth of the least.
  if (!Number.isFinite(least)) least = 1;
  for (let place = n - 1; place >= 0; place--) {
    if (weight[place] === 0) weight[place] = least / 10;
    if (by === "equal" && from[place + 1] > from[place]) {
      weight[place] = 0;
      for (let at = from[place]; at < from[place + 1]; at++) weight[place] += weight[grown.child[at]];
    }
  }
  let whole = 0, lone = 0;
  for (let place = 0; place < n; place++) {
    if (up[place] === WHOLE) whole += weight[place];
    else if (up[place] === LONE) lone += weight[place];
  }
  // Groups that are no features are seen, and leave most of the map to those that are.
  const most = whole || 1;
  weight[LONE] = Math.min(Math.max(lone, most * 0.06), most * 0.35);
  const deadShare = (from[DEAD + 1] - from[DEAD]) / Math.max(1, n);
  weight[DEAD] = most * Math.min(0.2, Math.max(0.03, by === "equal" ? deadShare : deadShare / 2));
  return weight;
};

// Squarified treemap (Bruls, Huizing and van Wijk, 2000): rows of rectangles as square as they can be. ``put`` gets each.
hiersae.squarify = (nodes, weight, x, y, w, h, put) => {
  let left = 0;
  for (const node of nodes) left += weight[node];
  let at = 0;
  while (at < nodes.length && w > 0 && h > 0) {
    const side = Math.min(w, h);
    const scale = (w * h) / left;
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
      left -= weight[nodes[at]];
    }
    if (w >= h) { x += across; w -= across; } else { y += across; h -= across; }
  }
};

{
  const $ = (selector) => document.querySelector(selector);
  const HEAD = 20; // pixels of a group's title
  let map = null;

  class TreeMap {
    constructor(element, tree, labels) {
      Object.assign(this, { element, tree, labels });
      [this.canvas, this.above] = element.querySelectorAll("canvas");
      this.grown = hiersae.grow(tree);
      const { n, WHOLE } = this.grown;
      this.box = new Float32Array(4 * (n + 3)); // x, y, width, height of each node, in pixels
      this.laid = new Uint8Array(n + 3); // whether it has a box in this view
      this.open = new Uint8Array(n + 3); // whether its children are seen
      this.dust = new Uint8Array(n + 3); // whether some of them are less than a pixel
      this.focus = WHOLE;
      this.chosen = -1;
      this.over = -1;
      this.size = $("#size");
      this.colour = $("#colour");
      if (!tree.fvu.some((one) => one != null)) {
        for (const select of [this.size, this.colour]) select.querySelector("[value=fvu]").disabled = true;
      }
      this.listen();
      this.fromAddress();
      this.measure();
      this.layout();
      this.say();
    }

    // --- geometry
    measure() {
      const { width, height } = this.element.getBoundingClientRect();
      const ratio = devicePixelRatio || 1;
      Object.assign(this, { width, height, ratio });
      for (const canvas of [this.canvas, this.above]) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
      }
    }

    resize() {
      const { width, height } = this.element.getBoundingClientRect();
      if (!width || (width === this.width && height === this.height && this.ratio === devicePixelRatio)) return;
      this.measure();
      this.place();
    }

    children(node) {
      const { from, child } = this.grown;
      return child.subarray(from[node], from[node + 1]);
    }

    has(node) {
      const { from } = this.grown;
      return from[node + 1] > from[node];
    }

    layout() {
      this.weight = hiersae.weigh(this.tree, this.grown, this.size.value);
      const { n, LONE, DEAD } = this.grown;
      // Heaviest first, groups that are no features last.
      const key = (node) => (node >= n ? (node === LONE ? -1 : -2) : this.weight[node]);
      for (let node = 0; node < n + 3; node++) if (this.has(node) && node !== DEAD) this.children(node).sort((a, b) => key(b) - key(a) || a - b);
      this.place();
    }

    place() {
      this.laid.fill(0);
      this.open.fill(0);
      this.dust.fill(0);
      this.at(this.focus, 0, 0, this.width, this.height);
      const { WHOLE, LONE, DEAD, n } = this.grown;
      const stack = [this.focus];
      while (stack.length) {
        const node = stack.pop();
        if (!this.has(node)) continue;
        const at = 4 * node;
        let [x, y, w, h] = this.box.subarray(at, at + 4);
        if (node !== this.focus) {
          if (w < 5 || h < 5) continue;
          const titled = this.titled(w, h);
          x += 2; w -= 4; y += titled ? HEAD : 2; h -= titled ? HEAD + 2 : 4;
        }
        this.open[node] = 1;
        let inside = this.children(node);
        if (node === WHOLE) {
          // Those without a parent and the dead lie in a band of their own at the foot.
          const apart = inside.filter((one) => one >= n);
          if (apart.length) {
            inside = inside.filter((one) => one < n);
            let all = 0, outside = 0;
            for (const one of this.children(node)) all += this.weight[one];
            for (const one of apart) outside += this.weight[one];
            // High enough for its title.
            const share = inside.length ? Math.min(0.4, Math.max(64 / h, outside / all)) : 1;
            const part = Math.min(0.4, Math.max(0.2, this.weight[DEAD] / outside));
            let left = x;
            for (const one of apart) {
              const wide = w * (apart.length === 1 ? 1 : one === DEAD ? part : 1 - part);
              this.at(one, left, y + h * (1 - share), wide, h * share);
              left += wide;
              stack.push(one);
            }
            h *= 1 - share;
          }
        }
        hiersae.squarify(inside, this.weight, x, y, w, h, (one, ...box) => {
          this.at(one, ...box);
          if (box[2] >= 1 && box[3] >= 1) stack.push(one);
          else this.dust[node] = 1;
        });
      }
      this.read();
      this.draw();
    }

    at(node, x, y, w, h) {
      this.box.set([x, y, w, h], 4 * node);
      this.laid[node] = 1;
    }

    titled(w, h) {
      return w > 56 && h > 52;
    }

    // --- colours
    read() {
      // Colours are those of the legend, whatever the theme; figures are cut into nine steps by their largest 1 %.
      const swatches = [...document.querySelectorAll("#legend i")].map((one) => getComputedStyle(one));
      this.steps = swatches.map((one) => one.backgroundColor);
      this.inks = swatches.map((one) => one.color);
      const style = getComputedStyle(this.element);
      this.ink = style.color;
      this.ground = style.backgroundColor;
      this.line = style.borderTopColor;
      this.accent = style.outlineColor;
      this.quiet = style.caretColor;
      this.font = style.fontFamily;
      const by = this.colour.value;
      this.values = this.tree[by];
      if (by === "over") this.most = 1;
      else {
        const sorted = Float64Array.from(this.values.filter((one) => one > 0)).sort();
        this.most = sorted.length ? sorted[Math.floor(0.99 * (sorted.length - 1))] : 1;
      }
      const format = by === "rate" || by === "over" ? hiersae.percent : hiersae.figure;
      $("#low").textContent = format(0);
      $("#high").textContent = by === "over" ? format(1) : `${format(this.most)} and more`;
    }

    step(node) {
      const figure = this.values[node];
      if (figure == null) return -1;
      const share = Math.max(0, figure) / this.most;
      // Figures other than shares crowd near zero: their root spreads them.
      return Math.min(8, Math.floor(9 * (this.colour.value === "over" ? share : Math.sqrt(share))));
    }

    name(node) {
      const { n, WHOLE, LONE } = this.grown;
      if (node === WHOLE) return "Tree";
      if (node >= n) return `${node === LONE ? "No parent" : "Dead"} · ${(this.grown.from[node + 1] - this.grown.from[node]).toLocaleString("en")}`;
      return this.labels[node] || this.tree.hint[node] || hiersae.id(node);
    }

    // --- drawing, on a canvas or as SVG
    draw() {
      const pen = this.canvas.getContext("2d");
      pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      pen.clearRect(0, 0, this.width, this.height);
      this.paint({
        rect: (x, y, w, h, fill) => {
          pen.fillStyle = fill;
          pen.fillRect(x, y, w, h);
        },
        text: (x, y, text, size, fill, bold) => {
          pen.font = `${bold ? 600 : 400} ${size}px ${this.font}`;
          pen.fillStyle = fill;
          pen.fillText(text, x, y);
        },
        fit: (text, room, size, bold) => {
          pen.font = `${bold ? 600 : 400} ${size}px ${this.font}`;
          return fit(text, room, (one) => pen.measureText(one).width);
        },
      });
      this.mark();
    }

    paint(to) {
      const { n, DEAD } = this.grown;
      const stack = [this.focus];
      while (stack.length) {
        const node = stack.pop();
        if (!this.laid[node]) continue;
        let [x, y, w, h] = this.box.subarray(4 * node, 4 * node + 4);
        if (w < 1 || h < 1) continue;
        if (node !== this.focus) {
          const gap = w > 6 && h > 6 ? 1 : w > 2.5 && h > 2.5 ? 0.5 : 0;
          x += gap / 2; y += gap / 2; w -= gap; h -= gap;
          if (this.open[node]) {
            to.rect(x, y, w, h, this.ground);
            if (this.dust[node]) {
              const head = this.titled(w, h) ? HEAD : 1;
              const mean = this.mean(node);
              to.rect(x + 1, y + head, w - 2, h - head - 1, mean < 0 ? this.line : this.steps[mean]);
            }
            if (this.titled(w, h)) {
              const text = to.fit(this.name(node), w - 8, 12, true);
              to.text(x + 4, y + 14, text, 12, this.ink, true);
            }
          } else {
            const at = node < n && !this.grown.dead[node] ? (this.has(node) ? this.mean(node) : this.step(node)) : -1;
            to.rect(x, y, w, h, at < 0 ? this.line : this.steps[at]);
            if (w > 34 && h > 15) {
              const text = to.fit(this.name(node), w - 7, 11);
              if (text.length > 1) to.text(x + 4, y + 12, text, 11, at < 0 ? this.ink : this.inks[at]);
            }
          }
        }
        if (this.open[node]) for (const one of this.children(node)) stack.push(one);
      }
    }

    // The colour of a group that is too small to be seen into: its children's mean step.
    mean(node) {
      let sum = 0, count = 0;
      for (const one of this.children(node)) {
        const at = this.step(one);
        if (at >= 0) { sum += at; count++; }
      }
      return count ? Math.round(sum / count) : -1;
    }

    mark() {
      const pen = this.above.getContext("2d");
      pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      pen.clearRect(0, 0, this.width, this.height);
      const outline = (node, colour, wide) => {
        if (node < 0 || !this.laid[node] || node === this.focus) return;
        const [x, y, w, h] = this.box.subarray(4 * node, 4 * node + 4);
        pen.strokeStyle = colour;
        pen.lineWidth = wide;
        pen.strokeRect(x + wide / 2, y + wide / 2, Math.max(1, w - wide), Math.max(1, h - wide));
      };
      outline(this.over, this.ink, 1.5);
      if (this.chosen >= 0) {
        outline(this.chosen, this.ground, 5);
        outline(this.chosen, this.accent, 3);
      }
    }

    // --- pointing
    hit(x, y, deepest = true) {
      let node = this.focus;
      for (;;) {
        if (!this.open[node]) return node;
        let found = -1;
        for (const one of this.children(node)) {
          if (!this.laid[one]) continue;
          const at = 4 * one;
          const [bx, by, bw, bh] = this.box.subarray(at, at + 4);
          if (x >= bx && x < bx + bw && y >= by && y < by + bh) { found = one; break; }
        }
        if (found < 0) return node === this.focus ? -1 : node;
        node = found;
        if (!deepest) return node;
      }
    }

    listen() {
      const point = (event) => {
        const { left, top } = this.element.getBoundingClientRect();
        return [event.clientX - left, event.clientY - top];
      };
      this.element.addEventListener("pointermove", (event) => {
        if (event.pointerType !== "mouse") return;
        const over = this.hit(...point(event));
        if (over === this.over) return;
        this.over = over;
        this.mark();
        this.say();
      });
      this.element.addEventListener("pointerleave", () => {
        this.over = -1;
        this.mark();
        this.say();
      });
      this.element.addEventListener("click", (event) => {
        const node = this.hit(...point(event));
        if (node < 0) return;
        // One level at a time: what is below the view's own children is zoomed to through them.
        const near = this.hit(...point(event), false);
        if (this.has(near)) this.zoom(near, this.has(node) ? -1 : node);
        else if (event.pointerType === "touch" && this.chosen !== node) this.choose(node);
        else this.openPage(node);
      });
      for (const select of [this.size, this.colour]) {
        select.addEventListener("change", () => {
          if (select === this.size) this.layout();
          else { this.read(); this.draw(); }
          this.toAddress(true);
        });
      }
      $("#trail").addEventListener("click", (event) => {
        const button = event.target.closest("[data-node]");
        if (button) this.zoom(+button.dataset.node, this.focus);
      });
      $("#save-png").addEventListener("click", () => this.png());
      $("#save-svg").addEventListener("click", () => hiersae.save("tree.svg", new Blob([this.svg()], { type: "image/svg+xml" })));
    }

    key(key) {
      const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
      if (direction) this.choose(this.chosen < 0 ? this.first() : this.beside(this.chosen, direction));
      else if (key === "Enter") {
        if (this.chosen < 0) this.choose(this.first());
        else if (this.has(this.chosen)) this.zoom(this.chosen, this.children(this.chosen)[0]);
        else this.openPage(this.chosen);
      } else if (key === "o") this.openPage(this.chosen < 0 ? this.focus : this.chosen);
      else if (key === "Escape") {
        if (this.focus !== this.grown.WHOLE) this.zoom(this.grown.up[this.focus], this.focus);
        else if (this.chosen >= 0) this.choose(-1);
        else return false;
      } else return false;
      return true;
    }

    first() {
      return this.children(this.focus)[0] ?? -1;
    }

    // The nearest in a direction among those beside it, by the distance of centres, across counted double.
    beside(node, [dx, dy]) {
      const middle = (one) => [this.box[4 * one] + this.box[4 * one + 2] / 2, this.box[4 * one + 1] + this.box[4 * one + 3] / 2];
      const [x, y] = middle(node);
      let best = node, least = Infinity;
      for (const one of this.children(this.grown.up[node])) {
        if (one === node || !this.laid[one]) continue;
        const [ox, oy] = middle(one);
        const along = (ox - x) * dx + (oy - y) * dy;
        const across = Math.abs((ox - x) * dy) + Math.abs((oy - y) * dx);
        if (along > 0.5 && along + 2 * across < least) { least = along + 2 * across; best = one; }
      }
      return best;
    }

    choose(node) {
      this.chosen = node;
      this.over = -1;
      this.mark();
      this.say();
    }

    openPage(node) {
      if (node >= 0 && node < this.grown.n) hiersae.go(hiersae.link(`/feature/${hiersae.id(node)}`));
    }

    // --- zooming
    zoom(node, choose = -1) {
      const inward = this.inside(node, this.focus);
      const before = this.snapshot();
      const box = [...this.box.subarray(4 * node, 4 * node + 4)];
      const old = this.focus;
      this.focus = node;
      this.over = -1;
      this.place();
      this.chosen = choose;
      this.mark();
      this.say();
      this.toAddress();
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      const whole = [0, 0, this.width, this.height];
      if (inward) this.animate(before, whole, box);
      else this.animate(this.snapshot(), [...this.box.subarray(4 * old, 4 * old + 4)], whole);
    }

    inside(node, of) {
      for (let one = node; one >= 0; one = this.grown.up[one]) if (one === of) return true;
      return false;
    }

    snapshot() {
      const copy = document.createElement("canvas");
      copy.width = this.canvas.width;
      copy.height = this.canvas.height;
      copy.getContext("2d").drawImage(this.canvas, 0, 0);
      return copy;
    }

    // A camera over a picture: which box of it fills the view, at first and at the end.
    animate(picture, from, to) {
      const pen = this.canvas.getContext("2d");
      const begin = performance.now();
      const run = (this.running = (this.running ?? 0) + 1);
      const frame = (now) => {
        if (run !== this.running) return;
        const time = Math.min(1, (now - begin) / 260);
        if (time >= 1) return this.draw();
        const eased = 1 - (1 - time) ** 3;
        const [x, y, w, h] = from.map((one, at) => (one + (to[at] - one) * eased) * this.ratio);
        pen.setTransform(1, 0, 0, 1, 0, 0);
        pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
        pen.drawImage(picture, x, y, Math.max(1, w), Math.max(1, h), 0, 0, this.canvas.width, this.canvas.height);
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    }

    // --- words
    say() {
      const node = this.over >= 0 ? this.over : this.chosen >= 0 ? this.chosen : this.focus;
      const { n, WHOLE, LONE } = this.grown;
      const about = $("#about");
      const parts = [];
      const put = (name, text, more = {}) => parts.push(Object.assign(document.createElement(name), { textContent: text, ...more }), " ");
      const kids = this.grown.from[node + 1] - this.grown.from[node];
      if (node < n) {
        const link = document.createElement("a");
        link.className = "node";
        link.href = hiersae.link(`/feature/${hiersae.id(node)}`);
        const name = this.labels[node] ? ["label", this.labels[node]] : ["hint", this.tree.hint[node]];
        for (const [className, textContent] of [["id", hiersae.id(node)], name]) link.append(Object.assign(document.createElement("span"), { className, textContent }), " ");
        parts.push(link, " ");
        put("span", this.grown.dead[node] ? "never fires" : `fires in ${hiersae.percent(this.tree.rate[node])}`);
        if (kids) put("span", `${kids.toLocaleString("en")} ${kids === 1 ? "child" : "children"}`);
        if (this.tree.bits[node] != null) put("span", `MI ${hiersae.figure(this.tree.bits[node])} bits, ${hiersae.percent(this.tree.over[node])} of its bound`);
        if (this.tree.fvu[node] != null) put("span", `FVU ${this.tree.fvu[node] > 0 ? "+" : ""}${hiersae.figure(this.tree.fvu[node])} without it`);
      } else if (node === WHOLE) put("span", "Colour is of a child’s edge; grey has none to measure. Click to zoom in; ? shows the keys.");
      else if (node === LONE) put("span", `${kids.toLocaleString("en")} features whose best parent tells too little about them.`);
      else put("span", `${kids.toLocaleString("en")} features that fire in no row indexed.`);
      about.replaceChildren(...parts);

      const trail = [];
      for (let one = this.focus; one >= 0; one = this.grown.up[one]) trail.unshift(one);
      const bits = trail.flatMap((one, at) => {
        const last = at === trail.length - 1;
        const element = document.createElement(last ? "strong" : "button");
        element.textContent = one < n ? `${hiersae.id(one)} ${this.name(one)}` : one === WHOLE ? "Whole tree" : this.name(one);
        if (!last) Object.assign(element, { type: "button" }).dataset.node = one;
        return at ? [" / ", element] : [element];
      });
      if (this.focus < n) {
        const link = Object.assign(document.createElement("a"), { href: hiersae.link(`/feature/${hiersae.id(this.focus)}`), textContent: "Open" });
        bits.push(" ", link);
      }
      $("#trail").replaceChildren(...bits);
    }

    // --- the address of a view
    toAddress(replace = false) {
      const asked = new URLSearchParams();
      const { n, LONE, DEAD, WHOLE } = this.grown;
      if (this.focus < n) asked.set("at", hiersae.id(this.focus));
      else if (this.focus !== WHOLE) asked.set("at", this.focus === LONE ? "no-parent" : "dead");
      for (const select of [this.size, this.colour]) if (select.selectedIndex) asked.set(select.id, select.value);
      const address = `/${asked.size ? `?${asked}` : ""}`;
      if (address === hiersae.address()) return;
      history[replace ? "replaceState" : "pushState"](null, "", hiersae.link(address));
    }

    fromAddress() {
      const asked = new URLSearchParams(hiersae.address().split("?")[1] ?? "");
      for (const select of [this.size, this.colour]) {
        const value = asked.get(select.id);
        const option = [...select.options].find((one) => one.value === value && !one.disabled);
        select.value = option ? value : select.options[0].value;
      }
      const at = asked.get("at") ?? "";
      const { n, LONE, DEAD, WHOLE, up } = this.grown;
      let node = { "no-parent": LONE, dead: DEAD }[at] ?? hiersae.place(at);
      if (node < 0) node = WHOLE;
      this.chosen = -1;
      if (node < n && !this.has(node)) {
        this.chosen = node;
        node = up[node];
      }
      this.focus = this.has(node) ? node : WHOLE;
    }

    // --- pictures
    svg() {
      const parts = [];
      const escape = (text) => text.replace(/[&<>"]/g, (one) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[one]);
      const pen = this.canvas.getContext("2d");
      const font = "Helvetica, Arial, sans-serif";
      this.paint({
        rect: (x, y, w, h, fill) => parts.push(`<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${w.toFixed(1)}" height="${h.toFixed(1)}" fill="${fill}"/>`),
        text: (x, y, text, size, fill, bold) => parts.push(`<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" fill="${fill}"${bold ? ' font-weight="bold"' : ""}>${escape(text)}</text>`),
        fit: (text, room, size, bold) => {
          pen.font = `${bold ? 600 : 400} ${size}px ${font}`;
          return fit(text, room, (one) => pen.measureText(one).width);
        },
      });
      const [w, h] = [this.width, this.height].map(Math.round);
      return `<svg xmlns="http://www.w3.org/2000/svg" width="${w}" height="${h}" viewBox="0 0 ${w} ${h}" font-family="${font}"><rect width="${w}" height="${h}" fill="${this.ground}"/>${parts.join("")}</svg>`;
    }

    png() {
      hiersae.savePng("tree.png", this.svg(), this.width, this.height);
    }
  }

  // As much of a text as there is room for.
  function fit(text, room, width) {
    if (width(text) <= room) return text;
    let low = 0, high = text.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (width(`${text.slice(0, middle)}…`) <= room) low = middle;
      else high = middle - 1;
    }
    return low ? `${text.slice(0, low)}…` : "";
  }

  function script(address) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = address;
      element.addEventListener("load", resolve);
      element.addEventListener("error", reject);
      document.head.append(element);
    });
  }

  async function start() {
    const element = $("#map");
    if (!element) {
      map = null;
      return;
    }
    if (map?.element === element) {
      map.fromAddress();
      map.layout();
      map.say();
      return;
    }
    try {
      if (!hiersae.tree) await script(element.dataset.data);
      await script(element.dataset.labels);
    } catch {
      $("#about").textContent = "The tree could not be loaded. Reload the page; the lists below have the same features.";
      return;
    }
    if (!document.contains(element)) return; // gone on meanwhile
    map = new TreeMap(element, hiersae.tree, hiersae.labels);
    sizes.disconnect();
    sizes.observe(element);
    element.dataset.ready = "";
  }
  hiersae.mapKey = (key) => map?.key(key) ?? false;
  addEventListener("hiersae:open", start);
  addEventListener("popstate", () => {
    if (document.documentElement.dataset.links === "path") start();
  });
  addEventListener("hiersae:theme", () => {
    map?.read();
    map?.draw();
  });
  let resized = 0;
  const sizes = new ResizeObserver(() => {
    clearTimeout(resized);
    resized = setTimeout(() => map?.resize(), 60);
  });
  if (document.documentElement.dataset.links === "path") start();
}
