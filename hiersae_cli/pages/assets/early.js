// Loads before anything is drawn: keys pressed before the page listens wait here, so that none is lost.
"use strict";

window.hiersae = {};

{
  const root = document.documentElement;
  const STORED = "hiersae-keys";
  let waiting = [];
  try {
    waiting = JSON.parse(sessionStorage.getItem(STORED)) ?? [];
    sessionStorage.removeItem(STORED);
  } catch { /* without storage, keys do not wait for the next page */ }

  const isReady = () => "ready" in root.dataset;
  const isField = (element) => element.matches("input:not([type=radio]), textarea, select");

  // Keys that the browser handles itself (typing, Tab, Enter on a link) need no listener and do not wait. Typing waits
  // behind a waiting key, so that letters stay in order.
  function mustWait({ key, target }) {
    if (!/^(.|Enter|Escape|Arrow\w+)$/.test(key)) return false;
    if (waiting.length) return true;
    if (isField(target) || key === " ") return false;
    return !(key === "Enter" && target.matches("a, button, summary"));
  }

  addEventListener("keydown", (event) => {
    if (isReady() || event.ctrlKey || event.metaKey || event.altKey || !mustWait(event)) return;
    event.stopImmediatePropagation();
    if (!event.key.startsWith("Arrow")) event.preventDefault(); // arrows may also scroll
    waiting.push(event.key);
  }, true);

  function replay(key) {
    const target = document.activeElement ?? document.body;
    const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
    if (!target.dispatchEvent(event) || !isField(target)) return;
    if (key.length === 1) target.setRangeText?.(key, target.selectionStart, target.selectionEnd, "end");
    else if (key === "Enter") target.form?.requestSubmit();
  }

  // Called when every listener is attached and the page is drawn. Tests wait for this mark.
  hiersae.ready = () => {
    root.dataset.ready = "";
    while (isReady() && waiting.length) replay(waiting.shift());
  };

  // Another page is loading: from now on, keys are for that page.
  hiersae.leave = () => delete root.dataset.ready;
  addEventListener("pagehide", () => {
    try {
      if (waiting.length) sessionStorage.setItem(STORED, JSON.stringify(waiting));
    } catch { /* as above */ }
    waiting = [];
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) hiersae.ready();
  });
}
