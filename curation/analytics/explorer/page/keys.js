// Keys that work everywhere on the page.

import {byId} from '/page/elements.js';
import {turn} from '/page/grid.js';

export function startKeys() {
  document.addEventListener('keydown', event => {
    const typing = event.target.matches?.('input, select, textarea');
    if (document.querySelector('dialog[open]')) return;
    if (event.key === '/' && !typing) {
      event.preventDefault();
      byId('query').focus();
      byId('query').select();
    } else if (event.key === 'Escape' && typing) {
      event.target.blur();
      byId('grid').querySelector('.card')?.focus();
    } else if ((event.key === 'PageDown' || event.key === 'PageUp') && !typing) {
      event.preventDefault();
      turn(event.key === 'PageDown' ? 1 : -1);
    }
  });
}
