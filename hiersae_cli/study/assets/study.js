// Keys, practice with feedback, and sending only once. Without this script the forms work as plain forms.
// It loads before the page is drawn, so that an item's keys work as soon as it is visible. Keys pressed and choices made
// before the whole item is drawn are ignored: they were meant for the item before, or restored by the browser.
"use strict";

{
  const item = () => document.querySelector("form.item");
  const radios = () => [...item().querySelectorAll("input[type=radio]")];
  const button = () => document.querySelector("[data-go]");
  let drawn = false;
  let touched = false; // by the rater, since it was drawn
  let checked = false;
  let sent = false;

  // Nothing is chosen when an item appears, whatever the browser remembers of the page.
  const clear = () => {
    if (!touched && !checked) item()?.reset();
  };

  addEventListener("DOMContentLoaded", () => {
    clear();
    item()?.querySelector(".write input")?.focus({ preventScroll: true });
    requestAnimationFrame(() => {
      clear();
      drawn = true;
      document.documentElement.dataset.ready = ""; // tests wait for it
    });
  });

  // A page from the browser's cache would show a question that has been answered.
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
    else clear();
  });

  for (const kind of ["click", "input"]) {
    document.addEventListener(
      kind,
      (event) => {
        if (!item()?.contains(event.target)) return;
        if (drawn) touched = true;
        else event.preventDefault();
      },
      true,
    );
  }

  // The answer to a practice item: shown next to the form, and sent nowhere.
  function feedback(form) {
    const message = form.querySelector(".feedback");
    const { right } = form.dataset;
    const chosen = form.elements.value.value;
    const verdict = right === "" ? "" : chosen === right ? "Right. " : "Not quite. ";
    message.textContent = verdict + message.dataset.why;
    message.hidden = false;
    for (const radio of radios()) {
      if (radio.value === right) radio.closest(".option").classList.add("right");
    }
    for (const element of form.elements) if (element.name === "value") element.removeAttribute("name");
    button().textContent = "Continue";
    checked = true;
  }

  document.addEventListener("submit", (event) => {
    if (event.target === item() && "practice" in item().dataset && !checked) {
      event.preventDefault();
      feedback(item());
      return;
    }
    if (sent) event.preventDefault();
    sent = true;
    if (button()) button().disabled = true;
  });

  document.addEventListener("keydown", (event) => {
    const form = item();
    if (!drawn || !form || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const option = radios()[Number(event.key) - 1];
    if (option && !checked) {
      touched = true;
      option.checked = true;
      option.focus({ preventScroll: true });
      event.preventDefault();
    } else if (event.key === "Enter" && !event.target.closest("button, a")) {
      event.preventDefault();
      if (checked || form.reportValidity()) form.requestSubmit();
    }
  });
}
