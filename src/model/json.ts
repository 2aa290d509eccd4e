/**
 * Reads JSON as Go's encoding/json does: member names match in any case, and the last duplicate wins. Only own members
 * are read, so `__proto__` in a document is ignored like any other unknown member. A splice edits one member of a text
 * and keeps all other bytes.
 */
import { TartanError } from '../lib/errors.js';
import { describeJsonFault } from './json-fault.js';

export type JsonObject = ReadonlyMap<string, unknown>;

/** @returns the members by lower-case name, undefined when `value` is not a JSON object */
export function jsonMembers(value: unknown): JsonObject | undefined {
  if (!isObject(value)) return undefined;
  return new Map(Object.entries(value).map(([name, member]) => [foldName(name), member]));
}

/**
 * @param what names the document in the error
 * @param maxBytes limits the depth of nesting too: no function here recurses
 * @throws TartanError CONFIG_INVALID
 */
export function parseJsonObject(text: string, what: string, maxBytes: number): JsonObject {
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes)
    throw new TartanError('CONFIG_INVALID', `${what} has ${bytes} bytes, at most ${maxBytes} are read`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new TartanError('CONFIG_INVALID', `${what} is not JSON: ${describeJsonFault(text)}`, { cause });
  }
  if (!isObject(value))
    throw new TartanError('CONFIG_INVALID', `${what} must be a JSON object, found ${kindOf(value)}`);
  const members = jsonMembers(value);
  if (members?.size === Object.keys(value).length) return members;
  // Of names that differ in case the last in the text counts; the object has them in the order of the first.
  const names = memberRanges(text).map(({ quoted }): string => JSON.parse(quoted));
  return new Map(names.map(name => [foldName(name), value[name]]));
}

/**
 * Sets a member of the outermost object, or removes it where `value` is undefined. All other bytes stay, duplicates
 * too: the last one is set, which is the one that counts, and all are removed.
 * @param text a JSON object in UTF-8, one character for each byte (latin1): bytes that are no UTF-8 survive
 */
export function spliceMember(text: string, name: string, value: unknown): string {
  const members = memberRanges(text);
  const isNamed = ({ quoted }: MemberRange): boolean => foldName(JSON.parse(decodeUtf8(quoted))) === foldName(name);
  if (value === undefined) return removeMembers(text, members, isNamed);
  const last = members.findLast(isNamed);
  if (last) return text.slice(0, last.valueStart) + formatAscii(value) + text.slice(last.end);
  const at = members.at(-1)?.end ?? text.indexOf('{') + 1;
  const member = `${members.length > 0 ? ',' : ''}${formatAscii(name)}:${formatAscii(value)}`;
  return text.slice(0, at) + member + text.slice(at);
}

/** Returns the members of the outermost object in their order, duplicates too, each value as it is written. */
export function outerMembers(text: string): readonly { readonly name: string; readonly raw: string }[] {
  return memberRanges(text).map(({ quoted, valueStart, end }) => ({
    name: String(JSON.parse(quoted)),
    raw: text.slice(valueStart, end),
  }));
}

/** Returns JSON whose characters and UTF-8 bytes are the same. */
export function formatAscii(value: unknown): string {
  const escape = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(value).replace(/[\u0080-\uffff]/g, escape);
}

/** Reads UTF-8 of which each character is one byte, as `latin1` of Buffer makes it. */
export function decodeUtf8(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** A member of the outermost object, by offsets into the text. */
interface MemberRange {
  /** The name as written, with its quotes and escapes. */
  readonly quoted: string;
  readonly start: number;
  readonly valueStart: number;
  readonly end: number;
}

/** @param text sound JSON, so that a token is told by its first character */
function memberRanges(text: string): readonly MemberRange[] {
  const members: MemberRange[] = [];
  let [depth, start, valueStart, end] = [0, 0, 0, 0];
  let quoted: string | undefined;
  for (const { 0: token, index } of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:,]|[^\s"{}[\]:,]+/g)) {
    if (depth === 1 && (token === ',' || token === '}')) {
      if (quoted !== undefined) members.push({ quoted, start, valueStart, end });
      quoted = undefined;
    } else if (depth === 1 && quoted === undefined) {
      [quoted, start, valueStart] = [token, index, 0];
    } else if (token !== ':' && valueStart === 0) {
      valueStart = index;
    }
    if (token === '{' || token === '[') depth++;
    if (token === '}' || token === ']') depth--;
    end = index + token.length;
  }
  return members;
}

/** Removes members, each with the comma before it; those before the first that stays, with the comma after them. */
function removeMembers(
  text: string,
  members: readonly MemberRange[],
  isRemoved: (member: MemberRange) => boolean,
): string {
  const kept = members.filter(member => !isRemoved(member));
  if (kept.length === members.length) return text;
  const parts = members.map((member, index) => {
    const from = member === kept[0] ? member.start : members[index - 1]?.end;
    return isRemoved(member) ? '' : text.slice(from, member.end);
  });
  return text.slice(0, members[0]?.start) + parts.join('') + text.slice(members.at(-1)?.end);
}

/** Go folds the letters K and S from two characters beyond ASCII too (encoding/json, fold.go). */
function foldName(name: string): string {
  return name.toLowerCase().replaceAll('\u017f', 's');
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Returns a short description of a JSON value for an error message. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'string') return `the text '${value.slice(0, 40).replace(/[^\x20-\x7e]/g, '?')}'`;
  return typeof value === 'object' ? 'an object' : `${typeof value} ${String(value)}`;
}
