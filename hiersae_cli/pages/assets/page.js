// For every page: theme, keys, exact activations, pictures. Pages also work without it, with fewer features.
"use strict";

{
  const root = document.documentElement;
  const byHash = root.dataset.links === "hash";
  const $ = (selector, within = document) => within.querySelector(selector);

  // Addresses: "/feature/a1?x=y", after "#" in a folder of pages.
  hiersae.address = () => (byHash ? location.hash.slice(1) || "/" : location.pathname + location.search);
  hiersae.go = (address) => {
    if (!address || (byHash && address === location.hash)) return;
    hiersae.leave();
    location.assign(address);
    if (!byHash) setTimeout(hiersae.ready, 10_000); // still here: the reader has stopped loading
  };
  hiersae.link = (path) => (byHash ? "#" : "") + path;
  // What stands behind "?": read, or written into the address without a step in the history.
  hiersae.query = () => new URLSearchParams(hiersae.address().split("?")[1] ?? "");
  hiersae.setQuery = (query, path = hiersae.address().split("?")[0]) =>
    history.replaceState(history.state, "", hiersae.link(path + (query.size ? `?${query}` : "")));

  // --- theme
  const dark = matchMedia("(prefers-color-scheme: dark)");
  $("#theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("hiersae-theme", root.dataset.theme);
    } catch { /* without storage, only this page changes */ }
    dispatchEvent(new Event("hiersae:theme"));
  });
  dark.addEventListener("change", () => dispatchEvent(new Event("hiersae:theme")));

  // --- help
  const help = $("#help");
  $("#keys").addEventListener("click", () => help.showModal());
  $(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("#content").focus();
  });

  // --- the exact activation of a token
  const tip = $("#tip");
  let shownAt = null;
  function showTip(mark) {
    hideTip();
    const where = mark.closest("[data-where]");
    tip.replaceChildren(Object.assign(document.createElement("strong"), { textContent: mark.dataset.a }));
    if (where) tip.append(" " + where.dataset.where);
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${left}px`;
    tip.style.top = `${box.top > tip.offsetHeight + 12 ? box.top - tip.offsetHeight - 6 : box.bottom + 6}px`;
    mark.classList.add("at");
    shownAt = mark;
  }
  function hideTip() {
    tip.hidden = true;
    shownAt?.classList.remove("at");
    shownAt = null;
  }
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest?.("mark[data-a]");
    if (mark) showTip(mark);
    else if (shownAt && event.pointerType === "mouse") hideTip();
  });
  addEventListener("scroll", hideTip, { passive: true });
  document.addEventListener("focusin", (event) => {
    if (event.target.matches?.(".line")) showTip($("mark.focus", event.target) ?? $("mark", event.target));
    else hideTip();
  });
  document.addEventListener("click", (event) => {
    const line = event.target.closest?.(".line");
    if (line && !event.target.closest("a") && !getSelection().toString()) hiersae.openLine(line);
  });

  function keyInLine(line, key) {
    if (key === "Enter") hiersae.openLine(line);
    else if (key === "ArrowUp" || key === "ArrowDown") {
      const next = key === "ArrowUp" ? line.previousElementSibling : line.nextElementSibling;
      if (!next) return false;
      next.focus();
    } else if (key === "ArrowLeft" || key === "ArrowRight") {
      const marks = [...line.querySelectorAll("mark")];
      const at = marks.indexOf(shownAt) + (key === "ArrowLeft" ? -1 : 1);
      if (marks[at]) showTip(marks[at]);
    } else if (key === "Escape") line.blur();
    else return false;
    return true;
  }

  // --- keys
  function keyOnFeature(feature, key) {
    const to = { ArrowLeft: "previous", ArrowRight: "next", Enter: "below", Escape: "up", c: "compare" }[key];
    if (to && feature.dataset[to]) {
      hiersae.go(feature.dataset[to]);
      return true;
    }
    const edit = $("#edit");
    if (key !== "e" || !edit) return false;
    edit.open = true;
    $("input[name=text]", edit).select();
    return true;
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { target, key } = event;
    if (help.open) {
      if (key === "Escape") help.close(); // the browser does not close it for a key that early.js replays
      return;
    }
    if (target.matches("input:not([type=radio]), textarea, select")) {
      if (key === "Escape") {
        target.blur();
        target.closest("details")?.removeAttribute("open");
      }
      return;
    }
    const done = () => {
      const line = target.closest(".line");
      if (line && keyInLine(line, key)) return true;
      if (target.closest("#map") && hiersae.mapKey?.(key)) return true;
      if (key === "?") help.showModal();
      else if (key === "/") {
        $("#find input").select();
      } else if (key === "t") hiersae.go(hiersae.link("/"));
      else if (target.matches("a, button, summary, input") && key === "Enter") return false;
      else if ($("article.feature") && !target.matches("input")) return keyOnFeature($("article.feature"), key);
      else return false;
      return true;
    };
    if (done()) event.preventDefault();
  });

  // An empty search gets the focus. The attribute autofocus acts a frame later, and warns if it is too late.
  if (!byHash && $("#query")?.value === "" && document.activeElement === document.body) $("#query").focus();

  // --- pictures
  hiersae.save = (name, blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  const DPI = 300; // dots per inch, which journals ask for
  hiersae.savePng = (name, svg, inchesWide, inchesHigh) => {
    const image = new Image();
    image.addEventListener("load", () => {
      const canvas = document.createElement("canvas");
      const scale = Math.min(DPI, 8000 / Math.max(inchesWide, inchesHigh)); // browsers can draw no longer sides
      canvas.width = inchesWide * scale;
      canvas.height = inchesHigh * scale;
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => hiersae.save(name, blob));
    });
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".figure .save button");
    if (!button) return;
    const figure = $("figure", button.closest(".figure"));
    const drawing = $("svg", figure);
    const svg = new XMLSerializer().serializeToString(drawing);
    const name = `feature-${figure.dataset.name}`;
    if (button.classList.contains("save-svg")) hiersae.save(`${name}.svg`, new Blob([svg], { type: "image/svg+xml" }));
    else hiersae.savePng(`${name}.png`, svg, parseFloat(drawing.getAttribute("width")), parseFloat(drawing.getAttribute("height")));
  });
}
