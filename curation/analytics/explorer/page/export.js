// The selection to take away: its keys as a file, and as a step of a specification.

import {ask} from '/page/asking.js';
import {byId, copied, element} from '/page/elements.js';
import {count} from '/page/numbers.js';
import {state} from '/page/state.js';

export function startExport() {
  byId('export').addEventListener('click', open);
}

async function open() {
  const dialog = byId('take');
  const wish = encodeURIComponent(JSON.stringify(state.selection));
  const file = (suffix, text) => element('a', {class: 'button', href: `/keys${suffix}?selection=${wish}`, download: `keys${suffix}`}, text);
  const steps = element('div', {});
  dialog.replaceChildren(
    element('form', {method: 'dialog', class: 'close'}, element('button', {'aria-label': 'Close'}, '✕')),
    element('h2', {}, `${count(state.rows)} pairs`),
    element('h3', {}, 'Their keys'),
    element('p', {class: 'row'}, file('.parquet', 'keys.parquet'), file('.txt', 'keys.txt')),
    steps);
  dialog.showModal();
  try {
    const found = await ask('steps', state.selection);
    steps.append(
      element('h3', {}, 'As a step'),
      found.keep ? yamlOf(found.keep) : element('p', {class: 'hint'}, found.why),
      element('h3', {}, 'Or by the list of keys'),
      element('p', {class: 'hint'}, 'Put keys.parquet beside the specification.'),
      yamlOf(found.join));
  } catch (error) {
    steps.append(element('p', {class: 'error'}, error.message));
  }
}

export function yamlOf(text) {
  return element('div', {class: 'yaml'}, element('pre', {tabindex: 0}, text.trimEnd()),
    element('button', {type: 'button', onclick: () => copied(text)}, 'Copy'));
}
