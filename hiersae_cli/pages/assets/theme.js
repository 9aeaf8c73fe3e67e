// Loads before the page is drawn, so that the page does not flash in another theme.
"use strict";
// A folder opens with the map: hide it until the page in the address is loaded.
if (/^#\/[^?]/.test(location.hash)) document.documentElement.dataset.opening = "";
try {
  const theme = localStorage.getItem("hiersae-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* without storage, the system's theme applies */ }
