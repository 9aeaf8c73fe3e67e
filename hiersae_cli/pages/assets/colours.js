// Colours of the map: a hue for every family, and within it a lightness for every step of a figure. The steps are
// quantiles, so that the scale fits any figure.
"use strict";

{
  const STEPS = 9;
  const GOLDEN = 137.508; // degrees: hues of neighbouring families differ

  // OKLCH (Ottosson, 2020) as "#rrggbb", which drawing programs can read; colours out of gamut are clipped.
  function hex(lightness, chroma, hue) {
    const angle = (hue * Math.PI) / 180;
    const a = chroma * Math.cos(angle), b = chroma * Math.sin(angle);
    const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
    const linear = [
      4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
      -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
      -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
    ];
    const byte = (value) => {
      const part = Math.min(1, Math.max(0, value));
      return Math.round(255 * (part <= 0.0031308 ? 12.92 * part : 1.055 * part ** (1 / 2.4) - 0.055));
    };
    return `#${linear.map((value) => byte(value).toString(16).padStart(2, "0")).join("")}`;
  }

  // Light and dark: ground of a family, a box without a figure, the boxes from the lowest to the highest step, and the
  // bar of what a sibling shares. Text on all of them but the bar is the page's ink; a test checks its contrast.
  const RAMPS = {
    light: { ground: [0.955, 0.022], none: [0.915, 0.02], low: [0.925, 0.045], high: [0.7, 0.125], bar: [0.52, 0.13] },
    dark: { ground: [0.245, 0.024], none: [0.29, 0.02], low: [0.285, 0.04], high: [0.5, 0.115], bar: [0.72, 0.12] },
  };

  hiersae.hue = (family) => (25 + GOLDEN * family) % 360;

  // The colours of a hue: { ground, none, bar, steps }.
  const made = new Map();
  hiersae.ramp = (hue, dark) => {
    const key = `${dark}${hue.toFixed(2)}`;
    if (!made.has(key)) {
      const { ground, none, low, high, bar } = RAMPS[dark ? "dark" : "light"];
      const between = (share) => [0, 1].map((at) => low[at] + (high[at] - low[at]) * share);
      made.set(key, {
        ground: hex(...ground, hue),
        none: hex(...none, hue),
        bar: hex(...bar, hue),
        steps: Array.from({ length: STEPS }, (_, step) => hex(...between(step / (STEPS - 1)), hue)),
      });
    }
    return made.get(key);
  };

  // The largest figure of each step but the last: as many features in each step as equal figures allow.
  hiersae.quantiles = (figures) => {
    const sorted = Float64Array.from(figures.filter((figure) => figure != null)).sort();
    const limits = [];
    for (let step = 1; step < STEPS && sorted.length; step++) limits.push(sorted[Math.floor((step * (sorted.length - 1)) / STEPS)]);
    return { limits, least: sorted[0], most: sorted[sorted.length - 1] };
  };
  hiersae.stepOf = (figure, limits, most) => {
    if (figure >= most) return STEPS - 1;
    let step = 0;
    while (step < limits.length && figure > limits[step]) step++;
    return step;
  };
}
