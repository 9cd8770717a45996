// A column of few values: a bar for each; a click keeps the rows that have it.

import {element} from '/page/elements.js';
import {count} from '/page/numbers.js';
import {state, toggleValue} from '/page/state.js';

const SHOWN = 6;
const NULL_SLOT = 61;

export function categoryOf(facet) {
  const rows = facet.labels.map((label, slot) => barOf(facet, label, slot));
  rows.push(barOf(facet, null, NULL_SLOT));
  const folded = element('details', {}, element('summary', {}, `${rows.length - SHOWN} more`));
  const list = element('div', {class: 'values'}, ...rows.slice(0, SHOWN).map(row => row.element));
  if (rows.length > SHOWN) {
    folded.append(...rows.slice(SHOWN).map(row => row.element));
    list.append(folded);
  }
  if (facet.others) list.append(element('p', {class: 'hint'}, `and ${count(facet.others)} rarer values`));
  const made = element('figure', {class: 'facet', 'data-facet': facet.name},
    element('figcaption', {title: facet.meaning}, facet.name), list);

  function show(counts) {
    const most = Math.max(1, ...counts);
    rows.forEach(row => row.show(counts[row.slot], most));
  }
  return {element: made, show};
}

function barOf(facet, label, slot) {
  const number = element('span', {class: 'number'});
  const fill = element('progress', {max: 1, value: 0, tabindex: -1, 'aria-hidden': 'true'});
  const text = label ?? 'NULL';
  const button = element('button', {
    type: 'button', class: label === null ? 'value faint' : 'value', 'aria-pressed': 'false', title: text,
    'data-value': text, onclick: () => toggleValue(facet.name, label),
  }, fill, element('span', {class: 'text'}, text || '(curated)'), number);

  function show(rows, most) {
    number.textContent = count(rows);
    fill.value = rows / most;
    const chosen = state.selection.values[facet.name]?.includes(label) ?? false;
    button.setAttribute('aria-pressed', String(chosen));
    button.hidden = label === null && rows === 0 && !chosen;
  }
  return {element: button, slot, show};
}
