// A page of pictures with captions and the signals that were chosen; arrows move between them.

import {byId, element} from '/page/elements.js';
import {count, short} from '/page/numbers.js';
import {on, state, tell} from '/page/state.js';
import {openStory} from '/page/story.js';

let keys = [];

export function startGrid() {
  byId('previous').addEventListener('click', () => turn(-1));
  byId('next').addEventListener('click', () => turn(1));
  byId('grid').addEventListener('keydown', move);
  on('shown', () => tell('page'));
}

export function turn(pages) {
  const start = state.start + pages * state.perPage;
  if (start < 0 || start >= state.rows) return;
  state.start = start;
  tell('page');
  byId('results').scrollIntoView({block: 'start'});
}

export function showRows(rows) {
  keys = rows.map(row => row.key);
  byId('grid').removeAttribute('aria-busy');
  const hadFocus = byId('grid').contains(document.activeElement);
  const shown = [...new Set([...state.shown, ...(state.by ? [state.by] : [])])];
  byId('grid').replaceChildren(...rows.map((row, place) => card(row, place, shown)));
  const first = byId('grid').firstElementChild;
  first?.setAttribute('tabindex', 0);
  if (hadFocus) first?.focus();
  if (!rows.length) byId('grid').append(element('p', {class: 'empty'}, emptiness()));
  const last = state.start + rows.length;
  byId('place').textContent = rows.length ? `${count(state.start + 1)}–${count(last)} of ${count(state.rows)}` : '';
  byId('previous').disabled = state.start === 0;
  byId('next').disabled = last >= state.rows;
}

const emptiness = () => state.about.rows
  ? 'No pair passes all of these filters. Take one away above, or clear all.'
  : 'This version has no rows: its source was empty.';

export function card(row, place, shown) {
  const fate = row.fate === 'curated' ? null : element('span', {class: `fate ${row.fate}`}, row.fate_step || row.fate);
  const lines = shown.map(name => element('span', {class: 'signal'}, element('i', {}, name), ` ${short(row[name])}`));
  if (row.likeness !== undefined)
    lines.unshift(element('span', {class: 'signal'}, element('i', {}, 'likeness'), ` ${short(row.likeness)}`));
  return element('button', {type: 'button', class: 'card', 'data-key': row.key, 'data-place': place, tabindex: -1,
    onclick: () => openStory(row.key, keys.includes(row.key) ? keys : [row.key])},
  thumbnail(row), fate, element('span', {class: 'caption', dir: 'auto'}, row.caption || '(no caption)'),
  element('span', {class: 'signals'}, ...lines));
}

export function thumbnail(row) {
  const frame = element('span', {class: 'frame'});
  const image = element('img', {loading: 'lazy', decoding: 'async', alt: '', src: `/thumbnail/${row.key}`});
  image.addEventListener('error', () => frame.replaceChildren(element('span', {class: 'none'}, 'no picture')));
  frame.append(image);
  return frame;
}

function move(event) {
  const cards = [...byId('grid').querySelectorAll('.card')];
  const here = cards.indexOf(document.activeElement);
  if (here < 0) return;
  const across = cards.filter(other => other.offsetTop === cards[0].offsetTop).length;
  const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -here, End: cards.length - 1 - here};
  if (!(event.key in steps)) return;
  event.preventDefault();
  const there = cards[here + steps[event.key]];
  if (there) focus(cards, there);
  else if (event.key === 'ArrowRight' || event.key === 'ArrowDown') turn(1);
  else if (event.key === 'ArrowLeft' || event.key === 'ArrowUp') turn(-1);
}

function focus(cards, there) {
  cards.forEach(other => other.setAttribute('tabindex', -1));
  there.setAttribute('tabindex', 0);
  there.focus();
}
