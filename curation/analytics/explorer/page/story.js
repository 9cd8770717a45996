// Everything known of a pair: its picture large, what each step saw of it, duplicates, downloads, versions.

import {ask} from '/page/asking.js';
import {byId, copied, element} from '/page/elements.js';
import {thumbnail} from '/page/grid.js';
import {short} from '/page/numbers.js';
import {ordered, state} from '/page/state.js';

let around = [];
let here = '';

export async function openStory(key, keys) {
  [around, here] = [keys, key];
  const dialog = byId('story');
  dialog.onkeydown = turn;
  dialog.onclick = event => event.target === dialog && dialog.close();
  dialog.onclose = () => document.querySelector(`#grid [data-key="${here}"]`)?.focus();
  dialog.replaceChildren(head(key), element('p', {class: 'hint'}, 'One moment …'));
  if (!dialog.open) dialog.showModal();
  try {
    const told = await ask(`story/${key}`);
    if (here === key) dialog.replaceChildren(head(key), ...body(key, told));
  } catch (error) {
    dialog.replaceChildren(head(key), element('p', {class: 'error'}, error.message));
  }
  dialog.querySelector('button')?.focus();
}

function turn(event) {
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  const next = step && around[around.indexOf(here) + step];
  if (next) openStory(next, around);
}

function head(key) {
  return element('form', {method: 'dialog', class: 'close'},
    element('button', {'aria-label': 'Close'}, '✕'), element('code', {}, key),
    element('button', {type: 'button', onclick: () => copied(key)}, 'Copy key'));
}

function body(key, {values, duplicates, told, label}) {
  const image = element('img', {class: 'large', src: `/picture/${key}`, alt: 'The stored picture'});
  image.addEventListener('error', () => image.replaceWith(element('p', {class: 'none large'}, 'no picture')));
  const fate = values.fate === 'curated' ? 'curated' : `${values.fate} at ${values.fate_step}`;
  return [element('div', {class: 'story'},
    element('div', {class: 'seen'}, image, alike(key), others(duplicates)),
    element('div', {class: 'told'},
      element('p', {class: 'words', dir: 'auto'}, values.caption || '(no caption)'),
      element('p', {class: `verdict ${values.fate}`}, fate, element('span', {}, values.fate_reason ? `: ${values.fate_reason}` : '')),
      told.version === label.split('@')[1] ? null
        : element('p', {class: 'hint'}, `Steps as ${told.name}@${told.version}, which is newer, tells them:`),
      element('ol', {class: 'steps'}, ...told.steps.map(step)),
      section('All values', values),
      ...told.downloads.map(line => section('Fetched', line)),
      ...told.places.map(place => section(`In ${told.name}@${place.version}`, place))))];
}

function step({step: name, outcome, reason, values}) {
  const said = Object.entries(values).filter(([own, value]) => value !== null && !(own.endsWith('status') && value === 'ok'));
  return element('li', {class: outcome.replace(' ', '-')}, element('b', {}, name),
    element('span', {class: 'outcome'}, outcome), ['dropped', 'failed'].includes(outcome) ? element('p', {}, reason) : null,
    said.length ? list(said) : null);
}

function section(title, values) {
  const said = Object.entries(values).filter(([, value]) => value !== null && value !== '' && String(value) !== '');
  return element('details', {}, element('summary', {}, title), list(said));
}

function list(pairs) {
  return element('dl', {}, ...pairs.flatMap(([name, value]) =>
    [element('dt', {}, name), element('dd', {dir: 'auto'}, typeof value === 'object' ? JSON.stringify(value) : name === 'key' ? value : short(value))]));
}

function alike(key) {
  const columns = state.about.vectors;
  if (!columns.length) return element('p', {class: 'hint'}, 'No vectors here to find similar pictures by.');
  return element('p', {class: 'row'}, ...columns.map(({column}) => element('button', {type: 'button', onclick: () => {
    byId('story').close();
    ordered({like: {column, key}});
  }}, `Alike by ${column}`)));
}

function others(duplicates) {
  if (!duplicates.length) return null;
  return element('section', {}, element('h3', {}, 'Duplicates of it'), element('div', {class: 'strip'},
    ...duplicates.map(key => element('button', {type: 'button', class: 'card', 'aria-label': key,
      onclick: () => openStory(key, [here, ...duplicates.filter(other => other !== here)])}, thumbnail({key})))));
}
