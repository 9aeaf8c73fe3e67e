// Keys, practice with feedback, and sending once. Without it the forms work as plain forms.
"use strict";

{
  const form = document.querySelector("form.item");
  const radios = form ? [...form.querySelectorAll("input[type=radio]")] : [];
  const button = document.querySelector("[data-go]");
  let checked = false;
  let sent = false;

  // A page that the browser kept would show a question that has been answered.
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });

  // The answer to practice: shown beside the form, and sent nowhere.
  function feedback() {
    const said = form.querySelector(".feedback");
    const { right } = form.dataset;
    const chosen = form.elements.value.value;
    const verdict = right === "" ? "" : chosen === right ? "Right. " : "Not quite. ";
    said.textContent = verdict + said.dataset.why;
    said.hidden = false;
    for (const one of radios) {
      if (one.value === right) one.closest(".option").classList.add("right");
    }
    for (const one of form.elements) if (one.name === "value") one.removeAttribute("name");
    button.textContent = "Go on";
    checked = true;
  }

  for (const one of document.forms) {
    one.addEventListener("submit", (event) => {
      if (one === form && "practice" in form.dataset && !checked) {
        event.preventDefault();
        feedback();
        return;
      }
      if (sent) event.preventDefault();
      sent = true;
      if (button) button.disabled = true;
    });
  }

  document.addEventListener("keydown", (event) => {
    if (!form || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const option = radios[Number(event.key) - 1];
    if (option && !checked) {
      option.checked = true;
      option.focus({ preventScroll: true });
      event.preventDefault();
    } else if (event.key === "Enter" && !event.target.closest("button, a")) {
      event.preventDefault();
      if (checked || form.reportValidity()) form.requestSubmit();
    }
  });

  const words = form?.querySelector(".write input");
  if (words) words.focus({ preventScroll: true });
}
