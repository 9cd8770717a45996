// Numbers as people read them.

const grouped = new Intl.NumberFormat('en');

export const count = number => grouped.format(number);

export const share = (part, whole) => whole ? `${(100 * part / whole).toFixed(1)} %` : '–';

export function short(value) {
  if (value === null || value === undefined) return '–';
  if (typeof value !== 'number') return String(value);
  if (Number.isInteger(value)) return Math.abs(value) >= 10_000 ? grouped.format(value) : String(value);
  return String(Number(value.toPrecision(4)));
}

// An edge of a bar: multiples of a width are not exact in binary.
export const edge = value => Number(value.toPrecision(10));
