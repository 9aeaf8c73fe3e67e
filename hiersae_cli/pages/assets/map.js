// Interaction with the map of the tree: pointing, keys, zooming, text, and the address of a view.
"use strict";

{
  const $ = (selector) => document.querySelector(selector);
  let map = null;

  class TreeMap extends hiersae.Drawing {
    constructor(element, tree, labels) {
      super(element, tree, labels);
      if (!tree.fvu.some((figure) => figure != null)) {
        for (const select of [this.size, this.colour]) select.querySelector("[value=fvu]").disabled = true;
      }
      this.listen();
      this.fromAddress();
      this.measure();
      this.layout();
      this.say();
    }

    // --- pointing
    hit(x, y, deepest = true) {
      let node = this.focus;
      for (;;) {
        if (!this.open[node]) return node;
        let hit = -1;
        for (const child of this.children(node)) {
          if (!this.laid[child]) continue;
          const at = 4 * child;
          const [bx, by, bw, bh] = this.box.subarray(at, at + 4);
          if (x >= bx && x < bx + bw && y >= by && y < by + bh) { hit = child; break; }
        }
        if (hit < 0) return node === this.focus ? -1 : node;
        node = hit;
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
        // Zoom one level at a time: to reach a node deeper than the view's children, zoom through them.
        const near = this.hit(...point(event), false);
        if (this.has(near)) this.zoom(near, this.has(node) ? -1 : node);
        else if (event.pointerType === "touch" && this.chosen !== node) this.choose(node);
        else this.openPage(node);
      });
      for (const select of [this.size, this.colour]) {
        select.addEventListener("change", () => {
          if (select === this.size) this.layout();
          else { this.read(); this.draw(); }
          this.resize(); // the legend may wrap
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
      if (direction) this.choose(this.chosen < 0 ? this.first() : this.neighbour(this.chosen, direction));
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

    // The nearest sibling in a direction, by the distance of centres; the distance across counts double.
    neighbour(node, [dx, dy]) {
      const middle = (box) => [this.box[4 * box] + this.box[4 * box + 2] / 2, this.box[4 * box + 1] + this.box[4 * box + 3] / 2];
      const [x, y] = middle(node);
      let best = node, least = Infinity;
      for (const sibling of this.children(this.grown.up[node])) {
        if (sibling === node || !this.laid[sibling]) continue;
        const [ox, oy] = middle(sibling);
        const along = (ox - x) * dx + (oy - y) * dy;
        const across = Math.abs((ox - x) * dy) + Math.abs((oy - y) * dx);
        if (along > 0.5 && along + 2 * across < least) { least = along + 2 * across; best = sibling; }
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
      for (let above = node; above >= 0; above = this.grown.up[above]) if (above === of) return true;
      return false;
    }

    snapshot() {
      const copy = document.createElement("canvas");
      copy.width = this.canvas.width;
      copy.height = this.canvas.height;
      copy.getContext("2d").drawImage(this.canvas, 0, 0);
      return copy;
    }

    // A camera over a picture: ``from`` and ``to`` are the boxes that fill the view at the start and at the end.
    animate(picture, from, to) {
      const pen = this.canvas.getContext("2d");
      const begin = performance.now();
      const run = (this.running = (this.running ?? 0) + 1);
      const frame = (now) => {
        if (run !== this.running) return;
        const time = Math.min(1, (now - begin) / 260);
        if (time >= 1) return this.draw();
        const eased = 1 - (1 - time) ** 3;
        const [x, y, w, h] = from.map((start, at) => (start + (to[at] - start) * eased) * this.ratio);
        pen.setTransform(1, 0, 0, 1, 0, 0);
        pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
        pen.drawImage(picture, x, y, Math.max(1, w), Math.max(1, h), 0, 0, this.canvas.width, this.canvas.height);
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    }

    // --- text
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
        if (this.tree.bits[node] != null) put("span", this.tree.over[node] === 0 ? "fires with its parent no more often than by chance" : `MI ${hiersae.figure(this.tree.bits[node])} bits, ${hiersae.percent(this.tree.over[node])} of its bound`);
        if (this.tree.fvu[node] != null) put("span", `FVU ${this.tree.fvu[node] > 0 ? "+" : ""}${hiersae.figure(this.tree.fvu[node])} without it`);
      } else if (node === WHOLE) put("span", "Colour shows a child’s edge; grey has no edge to measure. Click to zoom in; ? shows the keys.");
      else if (node === LONE) put("span", `${kids.toLocaleString("en")} features: even the best parent says too little about them.`);
      else put("span", `${this.name(node)}: these features fire in no indexed row.`);
      about.replaceChildren(...parts);

      const trail = [];
      for (let node = this.focus; node >= 0; node = this.grown.up[node]) trail.unshift(node);
      const bits = trail.flatMap((node, at) => {
        const last = at === trail.length - 1;
        const element = document.createElement(last ? "strong" : "button");
        element.textContent = node < n ? `${hiersae.id(node)} ${this.name(node)}` : node === WHOLE ? "Whole tree" : this.name(node);
        if (!last) Object.assign(element, { type: "button" }).dataset.node = node;
        return at ? [" / ", element] : [element];
      });
      if (this.focus < n) {
        const link = Object.assign(document.createElement("a"), { href: hiersae.link(`/feature/${hiersae.id(this.focus)}`), textContent: "Open" });
        bits.push(" ", link);
      }
      $("#trail").replaceChildren(...bits);
      this.resize(); // text that wraps leaves less room for the map
    }

    // --- the address of a view
    toAddress(replace = false) {
      const query = new URLSearchParams();
      const { n, LONE, DEAD, WHOLE } = this.grown;
      if (this.focus < n) query.set("at", hiersae.id(this.focus));
      else if (this.focus !== WHOLE) query.set("at", this.focus === LONE ? "no-parent" : "dead");
      for (const select of [this.size, this.colour]) if (select.selectedIndex) query.set(select.id, select.value);
      const address = `/${query.size ? `?${query}` : ""}`;
      if (address === hiersae.address()) return;
      history[replace ? "replaceState" : "pushState"](null, "", hiersae.link(address));
    }

    fromAddress() {
      const query = new URLSearchParams(hiersae.address().split("?")[1] ?? "");
      for (const select of [this.size, this.colour]) {
        const value = query.get(select.id);
        const option = [...select.options].find((candidate) => candidate.value === value && !candidate.disabled);
        select.value = option ? value : select.options[0].value;
      }
      const at = query.get("at") ?? "";
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
      return hiersae.ready();
    }
    if (map?.element === element) {
      map.fromAddress();
      map.layout();
      map.say();
      return hiersae.ready();
    }
    try {
      if (!hiersae.tree) await script(element.dataset.data);
      await script(element.dataset.labels);
    } catch {
      $("#about").textContent = "The tree could not be loaded. Reload the page; the lists below have the same features.";
      return hiersae.ready();
    }
    if (!document.contains(element)) return; // the reader has moved on
    map = new TreeMap(element, hiersae.tree, hiersae.labels);
    sizes.disconnect();
    sizes.observe(element);
    hiersae.ready();
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
