/** Names what nobody sees in a value: the remains of another system's line ends, of quotes that no shell removed. */

const oddities: readonly (readonly [pattern: RegExp, cause: string])[] = [
  [/\r$/, 'it ends with a carriage return: the file it comes from has line ends of Windows'],
  [/\r/, 'it has a carriage return in it: the file it comes from has line ends of Windows'],
  [/\n/, 'it has a line feed in it'],
  [/^\ufeff/, 'it begins with a byte order mark'],
  [/^["'\u2018-\u201f]/u, 'it begins with a quote: what read it does not remove quotes'],
  [/["'\u2018-\u201f]$/u, 'it ends with a quote: what read it does not remove quotes'],
  [/^\s|\s$/, 'it begins or ends with a space'],
  [/[\u00a0\u2000-\u200f\u2028-\u202f\u2060\ufeff]/u, 'it has a character in it that is not seen'],
];

/** @returns undefined for a text without such a thing */
export function describeOddity(text: string): string | undefined {
  return oddities.find(([pattern]) => pattern.test(text))?.[1];
}
