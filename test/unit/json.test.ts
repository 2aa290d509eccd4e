/** Members are read as Go reads them, and a splice changes one and no other byte. */
import { describe, expect, it } from 'vitest';
import { decodeUtf8, formatAscii, parseJsonObject, spliceMember } from '../../src/model/json.js';
import { seeded } from '../support/lease-world.js';

const read = (text: string): ReadonlyMap<string, unknown> => parseJsonObject(decodeUtf8(text), 'it', 16_384);
const bytes = (text: string): string => Buffer.from(text).toString('latin1');

describe('members', () => {
  it.each([
    ['{"a":1,"A":2}', 2],
    ['{"A":2,"a":1}', 1],
    // The object that JSON.parse makes has `a` first, where the first one stood.
    ['{"a":1,"A":2,"a":3}', 3],
    ['{"a":1,"A":2,"a":3,"\\u0041":4}', 4],
    ['{"b":{"a":7},"a":[{"a":1},"}",{"a":"\\"a\\":9"}],"a":5}', 5],
    ['{"__proto__":{"a":1},"a":2}', 2],
  ])('%s: the last in the text counts', (text, value) => {
    expect(read(text).get('a')).toBe(value);
  });

  it.each(['{"bac\\u212aend\\u017f":1}', bytes('{"bac\u212aend\u017f":1}'), '{"BACKENDS":1}'])(
    '%j is a name of Go for backends',
    text => {
      expect([...read(text)]).toEqual([['backends', 1]]);
      expect(spliceMember(text, 'backends', undefined)).toBe('{}');
    },
  );

  it('of a long and deep text are found without recursion', () => {
    const deep = `{"x":${'['.repeat(8_000)}${']'.repeat(8_000)},"a":1}`;
    expect(read(deep).get('a')).toBe(1);
    const long = `{"x":"${'\\"'.repeat(30_000)}","a":1}`;
    expect(parseJsonObject(long, 'it', 65_536).get('a')).toBe(1);
    expect(spliceMember(long, 'a', 2)).toBe(long.replace('1}', '2}'));
  });
});

describe('a splice', () => {
  it.each([
    ['{}', '{"a":true}'],
    [' { } ', ' {"a":true } '],
    ['{"b":1}', '{"b":1,"a":true}'],
    ['{\n  "b": 1\n}\n', '{\n  "b": 1,"a":true\n}\n'],
    ['{"a":false}', '{"a":true}'],
    ['{"a" : null , "b":1}', '{"a" : true , "b":1}'],
    ['{"a":1,"b":{"a":2},"A":3}', '{"a":1,"b":{"a":2},"A":true}'],
    ['{"\\u0061":[1,2],"b":"{\\"a\\":1}"}', '{"\\u0061":true,"b":"{\\"a\\":1}"}'],
    ['{"n":1e400,"m":123456789012345678901234567890,"s":"\\/\\u00e9"}', undefined],
    ['{"s":"\xff\xfe\xc3","b":1,"b":2}', undefined],
  ])('sets a member in %j', (text, expected) => {
    expect(spliceMember(text, 'a', true)).toBe(expected ?? `${text.slice(0, -1)},"a":true}`);
  });

  it.each([
    ['{}', '{}'],
    ['{"b":{"a":1}}', '{"b":{"a":1}}'],
    ['{"a":1}', '{}'],
    [' { "a" : 1 } ', ' {  } '],
    ['{"a":1,"b":2}', '{"b":2}'],
    ['{"a":1,"A":2,"b":2,"a":3,"c" : 1.0 }', '{"b":2,"c" : 1.0 }'],
    ['{"b":2 , "a":{"a":"}"} , "c":3}', '{"b":2 , "c":3}'],
    ['{"b":2,"a":1}', '{"b":2}'],
    ['{"b":2,"\\u0041":1,"b":"\xff"}', '{"b":2,"b":"\xff"}'],
  ])('removes every duplicate from %j', (text, expected) => {
    expect(spliceMember(text, 'a', undefined)).toBe(expected);
  });

  it('writes ASCII, so that the bytes are what is meant', () => {
    const text = spliceMember('{"x":"\xc3\xa9"}', 'a', { é: '\u{1f600}\ud800' });
    expect(text).toBe('{"x":"\xc3\xa9","a":{"\\u00e9":"\\ud83d\\ude00\\ud800"}}');
    expect(read(text).get('a')).toEqual({ é: '\u{1f600}\ud800' });
    expect(formatAscii({ PublicIP: '192.0.2.1' })).toBe('{"PublicIP":"192.0.2.1"}');
  });
});

/** The parts of a text, of which each is known: what a splice must leave is put together from them. */
interface Part {
  readonly before: string;
  readonly head: string;
  value: string;
  readonly after: string;
  readonly named: boolean;
}

const spaces = ['', '', '', ' ', '\n\t', '\r\n  '];
const names = ['"a"', '"A"', '"\\u0061"', '"b"', '"a "', '"\xc3\xa9"', '"\\"a\\""', '"features"'];
const values = [
  ...'1 -0.0e-7 1e999 98765432109876543210 null true "" "a" "\\"}],{[:" "\xff\x80" "\\ud800" [] {}'.split(' '),
  '[ {"a":[1,{"A":"]"}]} , "a" ]',
  '{"a":1,"a":{ "a" : 2 } }',
];

function textOf(parts: readonly Part[], close: string): string {
  return `{${parts.map(({ before, head, value, after }) => before + head + value + after).join(',')}${close}}`;
}

it('leaves every other byte of 20,000 random texts', () => {
  const random = seeded(7);
  const pick = (from: readonly string[]): string => from[Math.floor(random() * from.length)] ?? '';
  for (let round = 0; round < 20_000; round++) {
    const parts = Array.from({ length: Math.floor(random() * 6) }, (): Part => {
      const name = pick(names);
      const head = `${name}${pick(spaces)}:${pick(spaces)}`;
      return { before: pick(spaces), head, value: pick(values), after: pick(spaces), named: names.indexOf(name) < 3 };
    });
    const close = parts.length === 0 ? pick(spaces) : '';
    const text = textOf(parts, close);
    const without = spliceMember(text, 'a', undefined);
    const kept = parts.filter(({ named }) => !named);
    const first = kept[0] && { ...kept[0], before: parts[0]?.before ?? '' };
    const after = (part: Part | undefined): string => parts[parts.indexOf(part as Part) - 1]?.after ?? '';
    const rest = kept.slice(1).map(part => `${after(part)},${part.before}${part.head}${part.value}`);
    const [begin, end] = [parts[0]?.before ?? '', parts.at(-1)?.after ?? close];
    expect(without, text).toBe(`{${first ? first.before + first.head + first.value : begin}${rest.join('')}${end}}`);
    expect([...read(without)], text).toEqual([...read(text)].filter(([name]) => name !== 'a'));

    const value = JSON.parse(pick(values.slice(4, 8))) as unknown;
    const set = spliceMember(text, 'a', value);
    const last = parts.findLast(({ named }) => named);
    if (last) last.value = JSON.stringify(value);
    const added = `${text.slice(0, text.length - 1 - end.length)}${parts.length > 0 ? ',' : ''}"a":${JSON.stringify(value)}${end}}`;
    expect(set, text).toBe(last ? textOf(parts, close) : added);
    expect(read(set).get('a'), text).toEqual(value);
    expect(spliceMember(set, 'a', value), text).toBe(set);
  }
});
