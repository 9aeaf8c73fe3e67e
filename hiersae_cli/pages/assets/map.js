// Interaction with the map of the tree: pointing, keys, zooming, text, and the address of a view.
"use strict";

{
  const $ = (selector) => document.querySelector(selector);
  const GROUPS = ["no-children", "no-parent", "dead"]; // in the address, in the order of hiersae.grow
  let map = null;

  class TreeMap extends hiersae.Drawing {
    constructor(element, tree, labels) {
      super(element, tree, labels);
      this.card = $("#about");
      const measured = (figure) => figure === "equal" || tree[figure].some((value) => value != null);
      for (const option of [...this.size.options, ...this.colour.options]) option.disabled = !measured(option.value);
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
        this.pointer = [event.clientX, event.clientY];
        if (over === this.over) return this.showCard();
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
      this.element.addEventListener("blur", () => this.say());
      this.element.addEventListener("focus", () => this.say());
      addEventListener("scroll", () => this.showCard(), { passive: true });
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

    // The nearest sibling in a direction: one that lies straight ahead, or else with the smallest step aside.
    neighbour(node, [dx, dy]) {
      const axis = dx ? 0 : 1, sign = dx || dy;
      const span = (box, axis) => [this.box[4 * box + axis], this.box[4 * box + axis] + this.box[4 * box + 2 + axis]];
      const middle = (box, axis) => (span(box, axis)[0] + span(box, axis)[1]) / 2;
      const apart = ([from, to], [otherFrom, otherTo]) => Math.max(0, from - otherTo, otherFrom - to);
      let best = node, least = Infinity;
      for (const sibling of this.children(this.grown.up[node])) {
        if (sibling === node || !this.laid[sibling] || sign * (middle(sibling, axis) - middle(node, axis)) <= 0.5) continue;
        const aside = apart(span(node, 1 - axis), span(sibling, 1 - axis));
        const distance = apart(span(node, axis), span(sibling, axis)) + 4 * aside + 0.2 * Math.abs(middle(sibling, 1 - axis) - middle(node, 1 - axis));
        if (distance < least) { least = distance; best = sibling; }
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
      const { n, WHOLE } = this.grown;
      const chosen = document.activeElement === this.element || !this.pointer ? this.chosen : -1;
      const node = this.over >= 0 ? this.over : chosen;
      const fill = () => {
        this.card.replaceChildren(...hiersae.card(this, node, () => {
          if (this.shown === node && document.contains(this.card)) fill();
        }));
        this.showCard();
      };
      this.shown = node;
      this.card.hidden = node < 0 || node === WHOLE;
      if (!this.card.hidden) fill();

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
        const link = Object.assign(document.createElement("a"), { href: hiersae.link(`/feature/${hiersae.id(this.focus)}`), textContent: "Open its page" });
        bits.push(" ", link);
      }
      $("#trail").replaceChildren(...bits);
      this.resize(); // text that wraps leaves less room for the map
    }

    // The card is at the pointer, or at the box that the keys have chosen.
    showCard() {
      if (this.card.hidden) return;
      const { left, top } = this.element.getBoundingClientRect();
      if (this.over >= 0) {
        const [x, y] = this.pointer;
        return hiersae.placeCard(this.card, { left: x, right: x, top: y, bottom: y });
      }
      const [x, y, w, h] = this.box.subarray(4 * this.chosen, 4 * this.chosen + 4);
      hiersae.placeCard(this.card, { left: left + x, right: left + x + w, top: top + y, bottom: top + y + h });
    }

    // --- the address of a view
    toAddress(replace = false) {
      const query = new URLSearchParams();
      const { n, WHOLE } = this.grown;
      if (this.focus < n) query.set("at", hiersae.id(this.focus));
      else if (this.focus !== WHOLE) query.set("at", GROUPS[this.focus - WHOLE - 1]);
      for (const select of [this.size, this.colour]) if (select.value !== select.querySelector(":enabled").value) query.set(select.id, select.value);
      const address = `/${query.size ? `?${query}` : ""}`;
      if (address === hiersae.address()) return;
      history[replace ? "replaceState" : "pushState"](null, "", hiersae.link(address));
    }

    fromAddress() {
      const query = new URLSearchParams(hiersae.address().split("?")[1] ?? "");
      for (const select of [this.size, this.colour]) {
        const value = query.get(select.id);
        const option = [...select.options].find((candidate) => candidate.value === value && !candidate.disabled);
        select.value = option ? value : select.querySelector(":enabled").value;
      }
      const at = query.get("at") ?? "";
      const { n, WHOLE, up } = this.grown;
      let node = GROUPS.includes(at) ? WHOLE + 1 + GROUPS.indexOf(at) : hiersae.place(at);
      if (node < 0) node = WHOLE;
      this.chosen = -1;
      if (node < n && !this.has(node)) {
        this.chosen = node;
        node = up[node];
      }
      this.focus = this.has(node) ? node : WHOLE;
    }
  }

  async function start() {
    const element = $("#map");
    if (!element) {
      map = null;
      await hiersae.listed; // another list than the page came with
      return hiersae.ready();
    }
    if (map?.element === element) {
      map.fromAddress();
      map.layout();
      map.say();
      return hiersae.ready();
    }
    try {
      if (!hiersae.tree) await hiersae.load(element.dataset.data);
      await hiersae.load(element.dataset.labels);
    } catch {
      $("#trail").textContent = "The tree could not be loaded. Reload the page; the lists below have the same features.";
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
