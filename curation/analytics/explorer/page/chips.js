// The filters that hold, each with a button that takes it away.

import {byId, element} from '/page/elements.js';
import {short} from '/page/numbers.js';
import {ordered, selected, setRange, state} from '/page/state.js';

export function drawChips() {
  const {ranges, values, sql, words} = state.selection;
  const found = [];
  if (words) found.push([`words: ${words}`, () => selected({words: ''})]);
  if (sql) found.push([`SQL: ${sql}`, () => selected({sql: ''})]);
  for (const [name, [low, high]] of Object.entries(ranges))
    found.push([rangeText(name, low, high), () => setRange(name, null, null)]);
  for (const [name, labels] of Object.entries(values)) {
    const {[name]: _, ...others} = values;
    found.push([`${name}: ${labels.map(label => label ?? 'NULL').join(', ')}`, () => selected({values: others})]);
  }
  if (state.like)
    found.push([`looks like: ${state.like.text || state.like.key.slice(0, 8) + '…'}`, () => ordered({})]);
  const chips = found.map(([text, remove]) => chip(text, remove));
  if (found.length > 1) chips.push(element('button', {type: 'button', class: 'plain', onclick: clear}, 'Clear all'));
  byId('chips').replaceChildren(...chips);
}

function rangeText(name, low, high) {
  if (low === null) return `${name} ≤ ${short(high)}`;
  return high === null ? `${name} ≥ ${short(low)}` : `${short(low)} ≤ ${name} ≤ ${short(high)}`;
}

function chip(text, remove) {
  return element('button', {type: 'button', class: 'chip', title: 'Remove this filter', onclick: remove},
    element('span', {}, text), ' ✕');
}

function clear() {
  if (state.like) ordered({});
  selected({ranges: {}, values: {}, sql: '', words: ''});
}
