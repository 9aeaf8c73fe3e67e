// Draws the map of the tree: a treemap in which a child lies within its parent. Boxes below a pixel are not drawn, so
// that 100,000 features stay fast. There are two canvases: the map, and above it the outline of the chosen feature.
"use strict";

{
  const $ = (selector) => document.querySelector(selector);
  const HEAD = 20; // pixels of a family's title
  const LINE = 15; // pixels of a context below it
  const BAND = 48; // pixels of the band of nodes that belong to no family
  const MOST_ALONE = 0.35; // of a parent's box: the part for its firings without any child
  const WIDE_BOXES = 1.9; // width over height that boxes come close to: names and contexts are wide
  const QUIET_HUE = 75; // of the legend, and of nodes that belong to no family

  hiersae.Drawing = class {
    constructor(element, tree, labels) {
      Object.assign(this, { element, tree, labels });
      [this.canvas, this.above] = element.querySelectorAll("canvas");
      this.grown = hiersae.grow(tree);
      const { n, WHOLE } = this.grown;
      this.box = new Float32Array(4 * (n + 4)); // x, y, width, height of each node, in pixels
      this.laid = new Uint8Array(n + 4); // whether it has a box in this view
      this.open = new Uint8Array(n + 4); // whether its children are visible
      this.dust = new Uint8Array(n + 4); // whether some of them are smaller than a pixel
      this.alone = new Map(); // the box of a parent's firings without any child
      this.family = this.families();
      this.focus = WHOLE;
      this.chosen = -1;
      this.over = -1;
      this.size = $("#size");
      this.colour = $("#colour");
    }

    // The number of each node's family, which decides its hue; -1 outside of families.
    families() {
      const { n, WHOLE, up, from } = this.grown;
      const family = new Int32Array(n + 4).fill(-1);
      let count = 0;
      for (let place = 0; place < n; place++) {
        if (up[place] === WHOLE) family[place] = from[place + 1] > from[place] ? count++ : -1;
        else if (up[place] < n) family[place] = family[up[place]];
      }
      return family;
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
      const { n, DEAD } = this.grown;
      // The heaviest first, groups that are no features last, in their order.
      const key = (node) => (node >= n ? n - node - 1 : this.weight[node]);
      for (let node = 0; node < n + 4; node++) if (this.has(node) && node !== DEAD) this.children(node).sort((a, b) => key(b) - key(a) || a - b);
      this.place();
    }

    place() {
      this.laid.fill(0);
      this.open.fill(0);
      this.dust.fill(0);
      this.alone.clear();
      this.at(this.focus, 0, 0, this.width, this.height);
      const { WHOLE, n } = this.grown;
      const stack = [this.focus];
      while (stack.length) {
        const node = stack.pop();
        if (!this.has(node)) continue;
        const at = 4 * node;
        let [x, y, w, h] = this.box.subarray(at, at + 4);
        if (node !== this.focus) {
          if (w < 5 || h < 5) continue;
          const head = this.head(w, h);
          x += 3; w -= 6; y += head || 3; h -= (head || 3) + 3;
        }
        this.open[node] = 1;
        let inside = this.children(node);
        if (node === WHOLE) {
          // Nodes without a family lie in a quiet band at the bottom; it shows them when it is zoomed.
          const apart = inside.filter((child) => child >= n);
          inside = inside.filter((child) => child < n);
          const band = inside.length ? Math.min(BAND, h / 3) : h;
          apart.forEach((group, number) => this.at(group, x + (w * number) / apart.length, y + h - band, w / apart.length, band));
          if (apart.length) h -= band + 4;
        } else if (this.size.value === "rate" && this.tree.alone[node] != null && w > 24 && h > 24) {
          const part = h * Math.min(MOST_ALONE, this.tree.alone[node]);
          this.alone.set(node, [x, y + h - part, w, part]);
          h -= part;
        }
        const weights = this.size.value === "rate" && node < n ? this.shares(inside) : this.weight;
        hiersae.squarify(inside, weights, 0, 0, w / WIDE_BOXES, h, (child, across, down, wide, high) => {
          this.at(child, x + across * WIDE_BOXES, y + down, wide * WIDE_BOXES, high);
          if (wide * WIDE_BOXES >= 1 && high >= 1) stack.push(child);
          else this.dust[node] = 1;
        });
      }
      this.read();
      this.draw();
    }

    // Children of a parent are as large as their shares of its firings; without a share, tiny.
    shares(children) {
      const shares = {};
      for (const child of children) shares[child] = this.tree.share[child] || 1e-4;
      children.sort((a, b) => shares[b] - shares[a] || a - b);
      return shares;
    }

    at(node, x, y, w, h) {
      this.box.set([x, y, w, h], 4 * node);
      this.laid[node] = 1;
    }

    // --- colours
    read() {
      const root = document.documentElement;
      this.dark = (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
      const style = getComputedStyle(this.element);
      this.ink = style.color;
      this.ground = style.backgroundColor;
      this.line = style.borderTopColor;
      this.accent = style.outlineColor;
      this.quiet = style.caretColor;
      this.font = style.fontFamily;
      const by = this.colour.value;
      this.values = this.tree[by];
      const { limits, least, most } = hiersae.quantiles(this.figuresInView());
      Object.assign(this, { limits, most });
      const format = by === "bits" || by === "fvu" ? hiersae.figure : by === "lift" ? (figure) => `${hiersae.figure(figure)} ×` : hiersae.percent;
      $("#figure").textContent = this.colour.selectedOptions[0].text;
      $("#low").textContent = format(least);
      $("#high").textContent = format(most);
      const { steps } = hiersae.ramp(QUIET_HUE, this.dark);
      document.querySelectorAll("#legend i").forEach((swatch, step) => { swatch.style.background = steps[step]; });
    }

    // The figures that the scale fits: of what is in the view, or of the whole tree if that is a single one.
    figuresInView() {
      const { WHOLE } = this.grown;
      if (this.focus === WHOLE) return this.values;
      const figures = [], stack = [...this.children(this.focus)];
      while (stack.length) {
        const node = stack.pop();
        figures.push(this.values[node]);
        stack.push(...this.children(node));
      }
      return new Set(figures.filter((figure) => figure != null)).size > 1 ? figures : this.values;
    }

    step(node) {
      const figure = this.values[node];
      return figure == null ? -1 : hiersae.stepOf(figure, this.limits, this.most);
    }

    // The colours of a node's family: { ground, none, steps }.
    ramp(node) {
      const family = this.family[node];
      return hiersae.ramp(family < 0 ? QUIET_HUE : hiersae.hue(family), this.dark);
    }

    fill(node) {
      const { n } = this.grown;
      if (node >= n || this.grown.dead[node]) return this.line;
      const { ground, none, steps } = this.ramp(node);
      if (this.has(node)) return this.mean(node) < 0 ? ground : steps[this.mean(node)];
      const step = this.step(node);
      return step < 0 ? none : steps[step];
    }

    // --- names
    name(node) {
      const { n, WHOLE, CHILDLESS, LONE } = this.grown;
      const count = (this.grown.from[node + 1] - this.grown.from[node]).toLocaleString("en");
      if (node === WHOLE) return "Tree";
      if (node === CHILDLESS) return `${count} without children`;
      if (node === LONE) return `${count} without a parent`;
      // All dead features: those with a living feature below them have their place elsewhere.
      if (node > n) return `${this.tree.dead.length.toLocaleString("en")} dead in ${this.tree.rows.toLocaleString("en")} rows`;
      return this.labels[node] || this.words(node) || hiersae.id(node);
    }

    // The tokens of a name, without the signs for spaces in front of words.
    words(node) {
      return this.tree.hint[node].split(" ").map((token) => (/\p{L}/u.test(token) ? token.replaceAll("␣", " ").trim() : token)).filter((token, at, all) => all.indexOf(token) === at).join(" · ");
    }

    explain(node) {
      const { WHOLE, CHILDLESS, LONE } = this.grown;
      if (node === WHOLE) return "";
      if (node === CHILDLESS) return "Top features that are the parent of no other. Click to see them.";
      if (node === LONE) return "Even the best parent says too little about them. Click to see them.";
      return "They fire in no indexed row. Click to see them.";
    }

    // --- drawing, on a canvas or as SVG
    draw() {
      const pen = this.canvas.getContext("2d");
      pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      pen.clearRect(0, 0, this.width, this.height);
      const font = (size, bold) => { pen.font = `${bold ? 600 : 400} ${size}px ${this.font}`; };
      this.paint({
        rect: (x, y, w, h, fill) => {
          pen.fillStyle = fill;
          pen.fillRect(x, y, w, h);
        },
        text: (x, y, text, size, fill, bold, align = "left") => {
          font(size, bold);
          pen.textAlign = align;
          pen.fillStyle = fill;
          pen.fillText(text, x, y);
        },
        width: (text, size, bold) => (font(size, bold), pen.measureText(text).width),
      });
      this.mark();
    }

    // When contexts arrive, all that have arrived by the next frame are drawn together.
    redraw() {
      this.waiting ??= requestAnimationFrame(() => {
        this.waiting = null;
        if (document.contains(this.element)) this.draw();
      });
    }

    paint(to) {
      const { n } = this.grown;
      const stack = [this.focus];
      while (stack.length) {
        const node = stack.pop();
        if (!this.laid[node]) continue;
        let [x, y, w, h] = this.box.subarray(4 * node, 4 * node + 4);
        if (w < 1 || h < 1) continue;
        const alone = this.alone.get(node);
        if (node !== this.focus) {
          // Borders are always visible: between families, and between the boxes within one.
          const wide = this.open[node] && w > 12 && h > 12 ? 3 : 1;
          const gap = w > 4 && h > 4 ? wide : 0.5;
          x += gap / 2; y += gap / 2; w -= gap; h -= gap;
          to.rect(x, y, w, h, this.open[node] && node < n ? this.ramp(node).ground : this.fill(node));
          if (this.open[node]) {
            const head = this.head(w + gap, h + gap);
            if (this.dust[node]) to.rect(x + 2, y + (head || 2), w - 4, h - 4 - head - (alone?.[3] ?? 0), this.fill(node));
            if (head) to.text(x + 4, y + 14, fitName(to, this.name(node), w - 8, 12), 12, this.ink, true);
            if (head > HEAD) this.lines(to, node, x, y + 16, w, LINE);
          } else if (w > 34 && h > 15) this.inscribe(to, node, x, y, w, h);
          if (!this.open[node] && node < n && this.tree.overlap[node] > 0 && w > 12 && h > 12) {
            to.rect(x, y + h - 3, w * this.tree.overlap[node], 3, this.ramp(node).bar);
          }
        } else if (node < n) to.rect(x, y, w, h, this.ramp(node).ground);
        if (alone && alone[3] > 14) {
          const share = hiersae.percent(this.tree.alone[node]);
          const text = [`without any child ${share}`, `no child ${share}`].find((words) => to.width(words, 10.5) <= alone[2] - 8);
          if (text) to.text(alone[0] + 4, alone[1] + 11, text, 10.5, this.quiet);
        }
        if (this.open[node]) for (const child of this.children(node)) stack.push(child);
      }
    }

    // A box without visible children: its name, and below it as many contexts as there is room for.
    inscribe(to, node, x, y, w, h) {
      const { n } = this.grown;
      const size = w > 320 && h > 160 ? 14 : w > 260 && h > 90 ? 13 : 11;
      to.text(x + 4, y + size + 1, fitName(to, this.name(node), w - 8, size), size, this.ink, true);
      if (node >= n) {
        if (w > 120 && h > 30) to.text(x + 4, y + 27, fit(to, this.explain(node), w - 8, size), size, this.ink);
      } else if (!this.grown.dead[node]) this.lines(to, node, x, y + size + 5, w, h - size - 9, size);
    }

    // Contexts as a concordance: the token that the feature fires at begins in one column.
    lines(to, node, x, y, w, h, size = 11) {
      const least = size + 4;
      if (w < 96 || h < least) return;
      const contexts = hiersae.contextsOf(node, () => this.redraw());
      if (!contexts?.length) return;
      const line = Math.max(least, Math.min(1.8 * size, h / contexts.length));
      const column = x + w * 0.38;
      contexts.slice(0, Math.floor(h / line)).forEach(([before, focus, after], number) => {
        const base = y + line * number + size;
        to.text(column - 1, base, fitEnd(to, before, column - x - 7, size), size, this.ink, false, "right");
        const room = x + w - 5 - column;
        const shown = fit(to, focus, room, size, true);
        to.text(column, base, shown, size, this.ink, true);
        const used = to.width(shown, size, true);
        to.text(column + used, base, fit(to, after, room - used, size), size, this.ink);
      });
    }

    // Pixels of the head of a family's box: nothing, its title, or also a context.
    head(w, h) {
      return w > 56 && h > 40 ? HEAD + (w > 150 && h > 110 ? LINE : 0) : 0;
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

    // --- pictures, as wide as a page of a paper
    svg() {
      const parts = [];
      const escape = (text) => text.replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]);
      const pen = this.canvas.getContext("2d");
      const font = "Helvetica, Arial, sans-serif";
      this.paint({
        rect: (x, y, w, h, fill) => parts.push(`<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${Math.max(0, w).toFixed(1)}" height="${Math.max(0, h).toFixed(1)}" fill="${fill}"/>`),
        text: (x, y, text, size, fill, bold, align) => {
          if (text) parts.push(`<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" fill="${fill}"${bold ? ' font-weight="bold"' : ""}${align === "right" ? ' text-anchor="end"' : ""} xml:space="preserve">${escape(text)}</text>`);
        },
        width: (text, size, bold) => {
          pen.font = `${bold ? 700 : 400} ${size}px ${font}`;
          return pen.measureText(text).width;
        },
      });
      const [w, h] = [this.width, this.height].map(Math.round);
      return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDE}in" height="${((WIDE * h) / w).toFixed(2)}in" viewBox="0 0 ${w} ${h}" font-family="${font}"><rect width="${w}" height="${h}" fill="${this.ground}"/>${parts.join("")}</svg>`;
    }

    png() {
      hiersae.savePng("tree.png", this.svg(), WIDE, (WIDE * this.height) / this.width);
    }
  };

  const WIDE = 7; // inches

  // The beginning of a text, or its end, as long as there is room.
  const fit = (to, text, room, size, bold) => shortened(to, room, size, bold, text, (length) => `${text.slice(0, length)}…`);
  const fitEnd = (to, text, room, size) => shortened(to, room, size, false, text, (length) => `…${text.slice(text.length - length)}`);

  // As many whole tokens of a name as there is room for, or the beginning of the first.
  function fitName(to, name, room, size) {
    const tokens = name.split(" · ");
    while (tokens.length > 1 && to.width(tokens.join(" · "), size, true) > room) tokens.pop();
    return fit(to, tokens.join(" · "), room, size, true);
  }

  function shortened(to, room, size, bold, text, part) {
    if (to.width(text, size, bold) <= room) return text;
    let low = 0, high = text.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (to.width(part(middle), size, bold) <= room) low = middle;
      else high = middle - 1;
    }
    return low ? part(low) : "";
  }
}
