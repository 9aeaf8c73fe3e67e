// Loaded before the page is drawn, so that a chosen theme does not flash.
"use strict";
// A folder's first page is the map: another one that is asked for is waited for, unseen.
if (/^#\/[^?]/.test(location.hash)) document.documentElement.dataset.opening = "";
try {
  const theme = localStorage.getItem("hiersae-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* without storage the system's choice stands */ }
