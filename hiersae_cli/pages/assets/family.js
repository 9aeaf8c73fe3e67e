// A parent's page: its children sorted and filtered, and their contexts, which load when they are seen. Documents.
"use strict";

{
  const $ = (selector, within = document) => within.querySelector(selector);
  const byHash = document.documentElement.dataset.links === "hash";

  // In a folder, folder.js looks the part up among its pages.
  hiersae.part ??= async (address) => {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(address);
    return answer.text();
  };

  // --- contexts that load when they are seen
  const loading = new Map();
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) fill(entry.target);
  }, { rootMargin: "400px" });

  async function fill(place) {
    seen.unobserve(place);
    const address = `${place.closest("[data-parts]").dataset.parts}/${place.dataset.part}`;
    if (!loading.has(address)) loading.set(address, hiersae.part(address));
    try {
      const part = document.createElement("template");
      part.innerHTML = await loading.get(address); // pages/render.py has escaped everything
      const lines = $(`[data-of="${place.dataset.of}"]`, part.content);
      if (lines) place.replaceWith(lines);
    } catch {
      loading.delete(address);
      place.textContent = "These contexts could not be loaded. Reload the page.";
    }
  }

  // --- sort and filter
  function sift() {
    const rows = [...$("#division").children];
    const by = $("#sort").value;
    const name = (row) => $(".node", row).textContent.trim();
    const label = (row) => $(".node .label, .node .hint", row).textContent.toLowerCase();
    rows.sort((first, second) =>
      by === "name" ? label(first).localeCompare(label(second)) : second.dataset[by] - first.dataset[by]);
    const words = $("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => name(row).toLowerCase().includes(word));
      shown += !row.hidden;
    }
    $("#division").append(...rows);
    $("#sifted").textContent = words.length ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : "";
  }
  document.addEventListener("input", (event) => {
    if (!event.target.matches("#sort, #filter")) return;
    const query = new URLSearchParams();
    if ($("#sort").value !== "share") query.set("sort", $("#sort").value);
    if ($("#filter").value.trim()) query.set("only", $("#filter").value.trim());
    hiersae.setQuery(query);
    sift();
  });
  function asAddressed() {
    const query = hiersae.query();
    const chosen = [...$("#sort").options].find((option) => option.value === query.get("sort"));
    $("#sort").value = chosen?.value ?? "share";
    $("#filter").value = query.get("only") ?? "";
    sift();
  }

  // --- a line leads to its document
  hiersae.openLine = (line) => {
    if (!line.classList.toggle("whole") || $(".source", line)) return;
    const source = document.createElement("span");
    source.className = "source";
    source.append(line.dataset.where);
    if (line.dataset.source) {
      const [passage, place] = line.dataset.source.split("/");
      const of = line.closest("[data-of]")?.dataset.of;
      const query = new URLSearchParams({ at: place, ...(of && { of }) });
      source.append(" · ", Object.assign(document.createElement("a"), {
        href: hiersae.link(`/document/${passage}?${query}`), textContent: "Whole document",
      }));
    }
    line.append(source);
  };

  // --- a document: the token that the reader came from
  function frame() {
    const query = hiersae.query();
    const at = query.get("at");
    const stretch = [...document.querySelectorAll("#document [data-first]")].findLast((one) => +one.dataset.first <= +at);
    const token = at !== null && stretch?.children[at - stretch.dataset.first];
    if (!token) return;
    token.classList.add("at");
    token.scrollIntoView({ block: "center" });
    const of = query.get("of");
    if (byHash && of) {
      const link = Object.assign(document.createElement("a"), { href: `#/feature/${of}`, textContent: of });
      $(".crumbs").replaceChildren(link);
    }
  }

  function start() {
    seen.disconnect();
    loading.clear();
    for (const place of document.querySelectorAll(".later")) seen.observe(place);
    if ($("#division") && $("#sort")) asAddressed();
    if ($("#document")) frame();
  }
  addEventListener("hiersae:open", start);
  if (!byHash) start();
}
