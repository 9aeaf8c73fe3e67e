// Loaded before the page is drawn, so that a chosen theme does not flash.
"use strict";
try {
  const theme = localStorage.getItem("hiersae-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* without storage the system's choice stands */ }
