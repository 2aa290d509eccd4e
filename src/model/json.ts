/**
 * Reads JSON as Go's encoding/json does: member names match in any case, and the last duplicate wins. Only own members
 * are read, so `__proto__` in a document is ignored like any other unknown member.
 */
import { TartanError } from '../lib/errors.js';

export type JsonObject = ReadonlyMap<string, unknown>;

/** @returns the members by lower-case name, undefined when `value` is not a JSON object */
export function jsonMembers(value: unknown): JsonObject | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return new Map(Object.entries(value).map(([name, member]) => [name.toLowerCase(), member]));
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
    throw new TartanError(
      'CONFIG_INVALID',
      `${what} is not JSON: ${text === '' ? 'it is empty' : 'check it with a JSON tool'}`,
      { cause },
    );
  }
  const members = jsonMembers(value);
  if (!members) throw new TartanError('CONFIG_INVALID', `${what} must be a JSON object, found ${kindOf(value)}`);
  return members;
}

/** Returns a short description of a JSON value for an error message. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'string') return `the text '${value.slice(0, 40).replace(/[^\x20-\x7e]/g, '?')}'`;
  return typeof value === 'object' ? 'an object' : `${typeof value} ${String(value)}`;
}
