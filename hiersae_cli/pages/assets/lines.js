// The contexts of a folder of pages: makes the lines that a served page has, as formats/marked_text.py does.
"use strict";

{
  const MARK = "\x7f"; // the same as in pages/shared_texts.py
  const BLOCK = 256;

  function token(row) {
    const { blocks } = hiersae.texts;
    const number = Math.floor(row / BLOCK);
    if (typeof blocks[number] === "string") blocks[number] = blocks[number].split(MARK);
    return blocks[number][row % BLOCK];
  }

  // The run of rows that has a row: its first row, document, position, held out, part and place of the document.
  function run(row) {
    const { runs } = hiersae.texts;
    let [low, high] = [0, runs.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (runs[middle][0] <= row) low = middle;
      else high = middle - 1;
    }
    return runs[low];
  }

  function line(packed) {
    if (packed.startsWith("<")) return packed;
    const [head, ...marks] = packed.split(";");
    const [start, focus, length] = head.split(",").map(Number);
    const fires = new Map();
    for (const mark of marks) {
      const [offset, step, value] = mark.split(",");
      fires.set(Number(offset), [step, value]);
    }
    const side = ["", ""];
    for (let at = 0; at < length; at++) {
      const html = token(start + at);
      let [step, value] = fires.get(at) ?? ["0", "0"];
      const marked = at === focus || (html && step !== "0");
      const shown = html && !html.replaceAll(" ", "") ? html.replaceAll(" ", "<i>␣</i>") : html;
      side[Number(at >= focus)] += marked ? `<mark class="h${step}${at === focus ? " focus" : ""}" data-a="${value}">${shown}</mark>` : html;
    }
    const row = start + focus;
    const [, document, position, heldOut, part, place] = run(row);
    const where = `${hiersae.texts.documents[document]}, token ${(position + row).toLocaleString("en")}${heldOut ? ", held out" : ""}`;
    const begins = position + row === focus ? '<i title="Here the window begins: the model saw nothing before it.">⊢</i>' : "";
    return `<li class="line" tabindex="0" data-where="${where}" data-source="${part}/${place + row}"><span class="strength">${fires.get(focus)?.[1] ?? "0"}</span><span class="before"><bdi>${begins}${side[0]}</bdi></span><span class="after"><bdi>${side[1]}</bdi></span></li>`;
  }

  // The HTML of a page, in which the numbers of its lines stand between two marks.
  hiersae.withLines = (html, lines) => html.replace(/\x7f(\d+)\x7f/g, (_, number) => line(lines[number]));
}
