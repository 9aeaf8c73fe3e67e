// The map of the tree in use: pointing, keys, zooming, words, and the address of a view.
"use strict";

{
  const $ = (selector) => document.querySelector(selector);
  let map = null;

  class TreeMap extends hiersae.Drawing {
    constructor(element, tree, labels) {
      super(element, tree, labels);
      if (!tree.fvu.some((one) => one != null)) {
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
        if (this.tree.bits[node] != null) put("span", this.tree.over[node] === 0 ? "fires with its parent no more than by chance" : `MI ${hiersae.figure(this.tree.bits[node])} bits, ${hiersae.percent(this.tree.over[node])} of its bound`);
        if (this.tree.fvu[node] != null) put("span", `FVU ${this.tree.fvu[node] > 0 ? "+" : ""}${hiersae.figure(this.tree.fvu[node])} without it`);
      } else if (node === WHOLE) put("span", "Colour is of a child’s edge; grey has none to measure. Click to zoom in; ? shows the keys.");
      else if (node === LONE) put("span", `${kids.toLocaleString("en")} features whose best parent tells too little about them.`);
      else put("span", `${this.name(node)} indexed: these features fire in none of them.`);
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
      this.resize(); // words that wrap leave the map less room
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
    if (!document.contains(element)) return; // gone on meanwhile
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
