// Draws the map of the tree: a treemap in which a child lies within its parent. Boxes below a pixel are not drawn, so
// that 100,000 features stay fast. There are two canvases: the map, and above it the outline of the chosen feature.
"use strict";

{
  const $ = (selector) => document.querySelector(selector);
  const HEAD = 20; // pixels of a group's title

  hiersae.Drawing = class {
    constructor(element, tree, labels) {
      Object.assign(this, { element, tree, labels });
      [this.canvas, this.above] = element.querySelectorAll("canvas");
      this.grown = hiersae.grow(tree);
      const { n, WHOLE } = this.grown;
      this.box = new Float32Array(4 * (n + 3)); // x, y, width, height of each node, in pixels
      this.laid = new Uint8Array(n + 3); // whether it has a box in this view
      this.open = new Uint8Array(n + 3); // whether its children are visible
      this.dust = new Uint8Array(n + 3); // whether some of them are smaller than a pixel
      this.focus = WHOLE;
      this.chosen = -1;
      this.over = -1;
      this.size = $("#size");
      this.colour = $("#colour");
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
      // The heaviest first, groups that are no features last.
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
          // Features without a parent and dead ones lie in a separate band at the bottom.
          const apart = inside.filter((child) => child >= n);
          if (apart.length) {
            inside = inside.filter((child) => child < n);
            let all = 0, outside = 0;
            for (const child of this.children(node)) all += this.weight[child];
            for (const group of apart) outside += this.weight[group];
            // Tall enough for its title.
            const share = inside.length ? Math.min(0.4, Math.max(64 / h, outside / all)) : 1;
            const part = Math.min(0.4, Math.max(0.2, this.weight[DEAD] / outside));
            let left = x;
            for (const group of apart) {
              const wide = w * (apart.length === 1 ? 1 : group === DEAD ? part : 1 - part);
              this.at(group, left, y + h * (1 - share), wide, h * share);
              left += wide;
              stack.push(group);
            }
            h *= 1 - share;
          }
        }
        hiersae.squarify(inside, this.weight, x, y, w, h, (child, ...box) => {
          this.at(child, ...box);
          if (box[2] >= 1 && box[3] >= 1) stack.push(child);
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
      // Colours come from the legend, in every theme. The top step holds the largest 1 % of the figures.
      const swatches = [...document.querySelectorAll("#legend i")].map((swatch) => getComputedStyle(swatch));
      this.steps = swatches.map((swatch) => swatch.backgroundColor);
      this.inks = swatches.map((swatch) => swatch.color);
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
        const sorted = Float64Array.from(this.values.filter((figure) => figure > 0)).sort();
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
      // Figures other than shares crowd near zero: the square root spreads them.
      return Math.min(8, Math.floor(9 * (this.colour.value === "over" ? share : Math.sqrt(share))));
    }

    name(node) {
      const { n, WHOLE, LONE } = this.grown;
      if (node === WHOLE) return "Tree";
      if (node === LONE) return `No parent · ${(this.grown.from[node + 1] - this.grown.from[node]).toLocaleString("en")}`;
      // All dead features: those with a living feature below them have their place elsewhere.
      if (node > n) return `${this.tree.dead.length.toLocaleString("en")} dead in ${this.tree.rows.toLocaleString("en")} rows`;
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
          return fit(text, room, (part) => pen.measureText(part).width);
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
              if (text.length > 1 || text === this.name(node)) to.text(x + 4, y + 12, text, 11, at < 0 ? this.ink : this.inks[at]);
            }
          }
        }
        if (this.open[node]) for (const child of this.children(node)) stack.push(child);
      }
    }

    // The colour of a group whose children are too small to draw: their mean step.
    mean(node) {
      let sum = 0, count = 0;
      for (const child of this.children(node)) {
        const at = this.step(child);
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

    // --- pictures
    svg() {
      const parts = [];
      const escape = (text) => text.replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]);
      const pen = this.canvas.getContext("2d");
      const font = "Helvetica, Arial, sans-serif";
      this.paint({
        rect: (x, y, w, h, fill) => parts.push(`<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${w.toFixed(1)}" height="${h.toFixed(1)}" fill="${fill}"/>`),
        text: (x, y, text, size, fill, bold) => parts.push(`<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" fill="${fill}"${bold ? ' font-weight="bold"' : ""}>${escape(text)}</text>`),
        fit: (text, room, size, bold) => {
          pen.font = `${bold ? 600 : 400} ${size}px ${font}`;
          return fit(text, room, (part) => pen.measureText(part).width);
        },
      });
      const [w, h] = [this.width, this.height].map(Math.round);
      return `<svg xmlns="http://www.w3.org/2000/svg" width="${w}" height="${h}" viewBox="0 0 ${w} ${h}" font-family="${font}"><rect width="${w}" height="${h}" fill="${this.ground}"/>${parts.join("")}</svg>`;
    }

    png() {
      hiersae.savePng("tree.png", this.svg(), this.width, this.height);
    }
  };

  // The beginning of a text, as long as there is room.
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
}
