// Search by words in the caption, by an SQL predicate as `keep` takes it, or by what pictures look like.

import {byId} from '/page/elements.js';
import {ordered, selected, state} from '/page/state.js';

const HINTS = {
  words: 'all words, in any case: red car',
  sql: "clip_score > 0.3 AND language = 'en'",
  like: 'what the pictures show: a boat at night',
};

export function startSearch() {
  const [mode, query] = [byId('mode'), byId('query')];
  const hint = () => {
    query.placeholder = HINTS[mode.value];
    query.value = {words: state.selection.words, sql: state.selection.sql, like: state.like?.text ?? ''}[mode.value];
    showSearchError(mode.value === 'like' && !withText() ? NO_VECTORS : '');
  };
  mode.addEventListener('change', hint);
  byId('search').addEventListener('submit', event => {
    event.preventDefault();
    const text = query.value.trim();
    if (mode.value !== 'like') return selected({[mode.value]: text});
    if (!withText()) return showSearchError(NO_VECTORS);
    ordered(text ? {like: {column: withText().column, text}} : {});
  });
  hint();
}

export const NO_VECTORS = 'This version has no vectors of pictures and texts: add a clip_embed step, and run it.';

const withText = () => state.about.vectors.find(vectors => vectors.takes_text);

export function showSearchError(text) {
  byId('search-error').textContent = text;
}
